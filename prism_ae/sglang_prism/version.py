"""The pinned SGLang."""

SGLANG_VERSION = "0.5.17"
"""The version of SGLang that the plugin is made for and that measures."""
