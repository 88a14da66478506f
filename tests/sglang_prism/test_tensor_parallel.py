"""Two ranks that share the weights of target and drafter, each a process of its own on the CPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from importlib import metadata

import psutil
import pytest
from fake_graph.harness import Engines, check_graphs, engines_with_fake_graphs, make_near, rounds, written

from prism_ae.engines.sglang import engine as sglang_engine
from prism_ae.engines.sglang.options import engine_options

CORES = sorted(psutil.Process().cpu_affinity())[:2] if hasattr(psutil.Process, "cpu_affinity") else []

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(0),
    pytest.mark.skipif(len(CORES) < 2, reason="two ranks need two cores"),
    pytest.mark.skipif(
        importlib.util.find_spec("sglang") is None
        or not metadata.entry_points(group="sglang.srt.plugins", name="prism-ae"),
        reason="SGLang, or the plugin's entry point, is not installed",
    ),
]


BATCHES = (2, 5, 8)

DRAFTERS = {"prism": "near", "prism_star": "prism_star", "eagle3": "eagle3"}
"""And the folders of their checkpoints."""


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SGLANG_CPU_OMP_THREADS_BIND", "|".join(map(str, CORES)))
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        patch.setattr(sglang_engine, "engine_options", lambda setup: engine_options(setup) | {"tp_size": 2})
        with engines_with_fake_graphs(tmp_path_factory) as found:
            make_near(found.place)
            yield found


@pytest.mark.parametrize("batches", [(), BATCHES], ids=["eager", "graphs"])
@pytest.mark.parametrize("drafter", DRAFTERS)
def test_two_ranks_draft_what_one_drafts(drafter: str, batches: tuple[int, ...], engines: Engines) -> None:
    """The texts and rounds of one rank are the torch engine's, see `engines/test_sglang_real.py`."""
    engines.order(batches)
    found = engines.measure(drafter, DRAFTERS[drafter])
    assert written(found) == written(engines.expected("vanilla"))
    assert rounds(found) == rounds(engines.expected(drafter, DRAFTERS[drafter]))
    if batches:
        check_graphs(engines.report(), found, batches)
    ranks = schedulers(engines)
    assert len(ranks) == 2
    assert {address for rank in ranks for address in listening(rank)} <= {"127.0.0.1", "::1"}


def schedulers(engines: Engines) -> list[psutil.Process]:
    host = engines.sglang._host
    assert host
    children = psutil.Process(host.pid).children(recursive=True)
    return [child for child in children if "scheduler" in child.name()]


def listening(process: psutil.Process) -> set[str]:
    """The addresses where anybody could connect to it."""
    return {item.laddr.ip for item in process.net_connections() if item.status == psutil.CONN_LISTEN}
