"""A device's bandwidth: measured in a process of its own, the median of several passes, missing where it fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from prism_ae.devices import bandwidth
from prism_ae.devices.bandwidth import measure_bandwidth, read_bandwidth
from prism_ae.processes.child import Said


def test_it_is_measured_by_another_process_with_as_many_threads() -> None:
    asked: list[Sequence[str]] = []

    def ask(command: Sequence[str], variables: dict[str, str]) -> Said:
        asked.append(command)
        return Said("12500000000.0\n")

    assert measure_bandwidth("cuda:0", 3, ask) == 12.5e9
    assert asked[0][-3:] == ["prism_ae.devices.bandwidth", "cuda:0", "3"]


@pytest.mark.parametrize(
    "said", [Said("", "RuntimeError: CUDA out of memory", "exit code 1"), Said("", how="not found")]
)
def test_what_cannot_be_measured_is_missing_and_said(said: Said, capsys: pytest.CaptureFixture[str]) -> None:
    assert measure_bandwidth("cuda:0", 1, lambda *_: said) is None
    printed = capsys.readouterr().out
    assert "cuda:0" in printed
    assert said.how in printed
    assert said.err in printed


def test_it_is_the_median_of_passes_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pass, which is slow, does not count, nor does one that was disturbed."""
    seconds: Iterator[float] = iter([9.0, 0.1, 0.1, 0.4, 0.1, 0.2])
    monkeypatch.setattr(bandwidth, "_on_cpu", lambda buffer: next(seconds))
    assert read_bandwidth("cpu", 1 << 16) == (1 << 16) / 0.1


def test_this_machine_reads_memory() -> None:
    """No slower than a disk, no faster than the caches of any one core."""
    found = measure_bandwidth("cpu", 1)
    assert found is not None
    assert 2e8 < found < 5e11
