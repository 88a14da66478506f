"""The drafters: one draft cell, and the short compositions of it that the papers define."""
