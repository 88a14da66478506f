"""Conversations that a target writes itself, for the training of its drafters."""
