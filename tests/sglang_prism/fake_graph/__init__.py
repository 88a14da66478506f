"""A plugin for SGLang, for tests alone: CUDA graphs of the draft loop and the draft extend, faked on a CPU.

A captured CUDA graph is a list of kernels with the addresses that they read and write. Python runs while it is
captured and never again: what Python chooses then is chosen for good, what it does beside the kernels does not happen
at replay. Both are where a drafter with a module per step could go wrong on a GPU and nowhere else, so both are
imitated: `recording` records the operations of a capture with their tensors, and replays them into the same memory;
`backend` is what SGLang's own graph runners capture with and replay by. Padding, copying and choosing a captured batch
is left to those runners.

`orders` is how a test says what to do and reads what was done, `faults` are mistakes that the tests have to notice,
`harness` starts SGLang with the plugin, which is found by an entry point on the ``PYTHONPATH``.
"""
