"""prism-ae: reproduce PRISM (MLSys 2026), speculative decoding with step-wise draft parameters."""

__version__ = "0.1.0"
