"""Training of targets and drafters: the mini suite's, and any Llama-style target's from any conversations."""
