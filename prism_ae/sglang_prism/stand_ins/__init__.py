"""What SGLang's CPU branches import and PyPI does not carry, in plain torch.

SGLang 0.5.17 takes its CPU kernels from a build of ``sgl_kernel`` that has to be compiled, and imports ``torchvision``
for images and ``soundfile`` for audio. The folders below `site` hold packages of these names; `paths.stand_in_paths`
says which of them belong on the ``PYTHONPATH`` of an engine's processes. Only what a Llama target with an EAGLE drafter
needs is here; any other option is refused by name.

Rotary positions, norms, activations and linear layers need no stand-in: without AMX SGLang takes its own torch code.
"""
