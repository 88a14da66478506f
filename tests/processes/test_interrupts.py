"""Ctrl-C is counted; what the process was told to ignore stays ignored."""

from __future__ import annotations

import os
import signal

from prism_ae.processes.interrupts import Signals


def test_signals_are_counted_while_the_block_lasts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.count == 2
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_under_nohup_outlives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.count == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
