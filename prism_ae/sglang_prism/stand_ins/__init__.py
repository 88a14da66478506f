"""Stand-ins in plain torch for packages that SGLang imports on a CPU and PyPI does not offer.

SGLang 0.5.17 takes its CPU kernels from a build of ``sgl_kernel`` that has to be compiled, and imports ``torchvision``
for images and ``soundfile`` for audio. The folders below `site` hold packages of these names; `paths.stand_in_paths`
lists those that belong on the ``PYTHONPATH`` of an engine's processes. They cover a Llama target with an EAGLE drafter
and refuse any other option by name.

Rotary positions, norms, activations and linear layers need no stand-in: without AMX SGLang uses its own torch code.
"""
