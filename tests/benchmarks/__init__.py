"""Benchmarks: ratios within one run, printed for people; nothing here passes or fails."""
