"""Prompts: question sets, chat templates, and the digest of both."""
