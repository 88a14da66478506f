"""PRISM as a plugin of stock SGLang: nothing of SGLang is forked, and nothing of it is copied.

SGLang finds `plugin.register` through the entry point group ``sglang.srt.plugins`` in every one of its processes.
Modules here import SGLang only inside functions or where SGLang itself imports them, so that the package works
without it.
"""
