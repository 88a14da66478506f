"""SGLang as an engine and as a server; its processes hold `prism_ae.sglang_prism`."""
