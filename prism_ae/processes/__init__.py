"""Child processes, and how they end."""
