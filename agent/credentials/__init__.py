"""What a profile proves its identity with: files to a checked credential that signs; making a new certificate."""
