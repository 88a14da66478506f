"""The corpus of the mini suite. Without torch."""
