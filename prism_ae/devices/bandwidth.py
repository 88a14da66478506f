"""How fast this device reads its memory: what no decoding of one sequence can go beyond.

A step of decoding at batch 1 reads every weight once, so the bytes that it reads over its seconds are a bandwidth, and
their share of what the device can do (MBU) says how much of a speed is the engine's and how much the machine's. What
the device can do is measured, not taken from a data sheet: a buffer far larger than any cache is read from end to end,
with as many threads as the engine has.

``python -m prism_ae.devices.bandwidth DEVICE THREADS`` prints bytes per second. It is a process of its own so that its
buffer, and on a GPU a context of CUDA, are gone before anything else is measured, whichever engine that is.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from prism_ae.processes.child import Said, ask, module_command, python_path

if TYPE_CHECKING:
    from torch import Tensor

BUFFER_BYTES = 1 << 30
"""Several times the caches of today's largest CPUs (300 MB) and GPUs."""

_COLUMNS = 4096
_SECONDS, _FEWEST, _MOST = 0.4, 5, 200
"""Passes over the buffer are timed for so long, but no fewer and no more than these."""

Asking = Callable[[Sequence[str], dict[str, str]], Said]


def measure_bandwidth(device: str, threads: int, asking: Asking = ask) -> float | None:
    """Bytes per second that the device reads; None, and a line of output, where it could not be measured.

    Args:
        device: as an engine is told it, "cpu" or "cuda:0".
        threads: of the CPU, as many as the engine has.
    """
    command = module_command("prism_ae.devices.bandwidth", device, str(threads))
    said = asking(command, {"PYTHONPATH": python_path()})
    try:
        return float(said.out)
    except ValueError:
        lines = said.err.strip().splitlines()
        print(f"the bandwidth of {device} was not measured: {said.how} {lines[-1] if lines else ''}")
        return None


def read_bandwidth(device: str, buffer_bytes: int = BUFFER_BYTES) -> float:
    """Bytes per second, the median over several passes; with torch's present number of threads."""
    import torch

    buffer = torch.ones(buffer_bytes // (4 * _COLUMNS), _COLUMNS, device=device)
    timed = _on_gpu if buffer.is_cuda else _on_cpu
    timed(buffer)  # what the first pass does besides: pages, kernels, clocks
    passes: list[float] = []
    while len(passes) < _FEWEST or (sum(passes) < _SECONDS and len(passes) < _MOST):
        passes.append(timed(buffer))
    return 4 * buffer.numel() / statistics.median(passes)


def _on_cpu(buffer: Tensor) -> float:
    """Seconds of a matrix-vector product: what decoding does, and there no other operation of torch reads as fast."""
    row = buffer[0]
    start = time.perf_counter()
    buffer.mv(row)
    return time.perf_counter() - start


def _on_gpu(buffer: Tensor) -> float:
    """Seconds of a sum, by the GPU's own clock."""
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    buffer.sum()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def main() -> None:
    import torch

    device, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    print(read_bandwidth(device))


if __name__ == "__main__":
    main()
