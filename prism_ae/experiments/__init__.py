"""What the paper's figures ask for: read from TOML, expanded to points."""
