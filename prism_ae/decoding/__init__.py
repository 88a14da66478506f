"""Speculative decoding, exactly: the KV cache, the draft tree, verification, and the loop over questions."""
