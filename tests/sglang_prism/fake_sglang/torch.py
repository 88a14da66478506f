"""Stands in for torch where a host only asks for its version."""

__version__ = "fake"
