"""One run per suite at a time.

The lock belongs to an open file that the workers inherit: after a ``kill -9`` of the parent it is held until the last
of its workers is gone, so that a new run never meets an old one's workers.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from prism_ae.errors import StoreError
from prism_ae.io.locks import locked


def run_lock(root: Path, patience: float = 3.0) -> AbstractContextManager[int]:
    """Hold the right to run a suite; in the block, the descriptor to pass on to workers.

    Args:
        root: the suite's runs folder; it exists.
        patience: seconds to wait for another run that is just ending.

    Raises:
        StoreError: another run holds it, the folder cannot be written, or its file system has no locks.
    """

    def busy(holder: str) -> StoreError:
        return StoreError(
            f"{root} is in use by another run ({holder})",
            "wait for it to end, or stop it with Ctrl-C; 'prism-ae status' shows how far it is",
        )

    return locked(root / "run.lock", patience, busy, "--runs-dir")
