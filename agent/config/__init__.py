"""The configuration: TOML text to frozen profiles, all problems at once. Pure. `load` is the walk."""
