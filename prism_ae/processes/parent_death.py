"""A worker process ends when its parent does, however that happens."""

from __future__ import annotations

import ctypes
import os
import signal
import sys


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent, of that process id, dies; at once if it is gone already.

    Only Linux can; elsewhere a worker ends when it finds the connection to its parent closed.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # 1 is PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
