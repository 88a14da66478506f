"""The name of the verification rule in cells, without torch."""

VERIFIER = "target-walk-1"
"""Verification by walking the draft tree with the target's own samples; see `prism_ae.decoding.verify`."""
