"""Worker processes: what the system refuses is a clear error."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from typing import Any

import pytest

from prism_ae.devices.slots import Slot
from prism_ae.errors import DeviceError, StoreError
from prism_ae.processes.local import LocalProcess

SLOT = Slot("cpu slot 0", "cpu", "a cpu", 1, {})


def refusing(number: int) -> Any:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def test_no_room_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", refusing(errno.ENOSPC))
    with pytest.raises(StoreError, match="No space left on device") as caught:
        LocalProcess(SLOT, 0)
    assert "TMPDIR" in caught.value.hint


def test_no_further_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", refusing(errno.EAGAIN))
    with pytest.raises(DeviceError, match="cannot start a worker for cpu slot 0"):
        LocalProcess(SLOT, 0)
