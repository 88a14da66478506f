"""Limits of the shell, signals and encodings."""

from __future__ import annotations

import pytest
from environments import environment, levels, wrong

from prism_ae.doctor.process import check


def test_a_shell_without_limits_is_fine() -> None:
    findings = list(check(environment()))
    assert levels(findings) == {"ok"}
    assert {finding.name for finding in findings} == {"ulimit", "signals", "encoding"}


@pytest.mark.parametrize(
    ("option", "value", "level"),
    [
        ("-n", 20, "warning"),
        ("-n", 256, "warning"),
        ("-u", 64, "warning"),
        ("-v", 1_200_000 * 1024, "warning"),
        ("-v", 2**40, "warning"),
        ("-f", 4096, "problem"),
        ("-f", 0, "problem"),
        ("-f", 2**30, "warning"),
        ("-t", 3600, "warning"),
    ],
)
def test_a_limit_that_is_in_the_way_is_named(option: str, value: int, level: str) -> None:
    found = wrong(check(environment(limits={option: value})))
    assert {name: finding.level for name, finding in found.items()} == {f"ulimit {option}": level}


@pytest.mark.parametrize(("option", "value"), [("-n", 1024), ("-u", 4096), ("-f", 2**40)])
def test_a_wide_limit_is_fine(option: str, value: int) -> None:
    assert not wrong(check(environment(limits={option: value})))


@pytest.mark.parametrize("how", ["ignored", "blocked"])
@pytest.mark.parametrize(
    ("signals", "remedy"),
    [({"SIGINT"}, "TERM"), ({"SIGINT", "SIGHUP"}, "TERM"), ({"SIGINT", "SIGTERM"}, "KILL"), ({"SIGTERM"}, "INT")],
)
def test_how_to_stop_a_run_that_a_signal_does_not_reach(how: str, signals: set[str], remedy: str) -> None:
    found = wrong(check(environment(**{how: frozenset(signals)})))
    assert f"-{remedy}" in found["signals"].remedy


def test_a_run_behind_nohup_can_still_be_stopped() -> None:
    assert not wrong(check(environment(ignored=frozenset({"SIGHUP"}))))


def test_children_whose_end_is_not_told() -> None:
    assert "SIGCHLD" in wrong(check(environment(ignored=frozenset({"SIGCHLD"}))))["signals"].what


@pytest.mark.parametrize("name", ["ascii", "ANSI_X3.4-1968", "iso8859-1"])
def test_an_encoding_that_loses_letters_is_named(name: str) -> None:
    found = wrong(check(environment(encodings={"standard output": name, "file names": "utf-8"})))
    assert name in found["encoding"].what


@pytest.mark.parametrize("name", ["UTF-8", "utf8", "utf_8"])
def test_utf_8_has_several_names(name: str) -> None:
    assert not wrong(check(environment(encodings={"standard output": name})))
