"""Targets: Llama, checkpoint folders and their files."""
