"""What puts the rest in motion: `supervisor` makes running jobs equal to desired ones, `renewal` keeps one fresh."""
