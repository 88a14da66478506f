"""SGLang's Triton attention, as on a GPU, with its real kernels in Triton's interpreter.

What an engine on a CPU otherwise never runs: which keys and values, lengths and masks the kernels are given in each
draft step and in verification, and, under fake graphs, the static memory that they are given them in.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

import pytest
from fake_graph.harness import Engines, check_graphs, engines_with_fake_graphs, make_near, padded, rounds, written
from fake_graph.plugin import FULL_MASK

from prism_ae.engines.sglang import engine as sglang_engine
from prism_ae.engines.sglang.options import engine_options

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(0),
    pytest.mark.skipif(
        importlib.util.find_spec("sglang") is None
        or importlib.util.find_spec("triton") is None
        or not metadata.entry_points(group="sglang.srt.plugins", name="prism-ae"),
        reason="SGLang, Triton, or the plugin's entry point, is not installed",
    ),
]

BATCHES = (4,)
"""All batches are padded."""

DRAFTERS = {"prism": "near", "prism_star": "prism_star"}
"""And the folders of their checkpoints."""


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Counter[str]]:
    """What is drafted with the attention that engines on a CPU otherwise have, by drafter."""
    with few_answers(tmp_path_factory) as engines:
        engines.order(())
        found: dict[str, Counter[str]] = {}
        for drafter, folder in DRAFTERS.items():
            before = engines.report().trees if found else Counter()
            engines.measure(drafter, folder)
            found[drafter] = engines.report().trees - before
        return found


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory, trees: dict[str, Counter[str]]) -> Iterator[Engines]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        patch.setenv(FULL_MASK, "1")
        patch.setattr(
            sglang_engine, "engine_options", lambda setup: engine_options(setup) | {"attention_backend": "triton"}
        )
        with few_answers(tmp_path_factory) as found:
            yield found


@contextmanager
def few_answers(parents: pytest.TempPathFactory) -> Iterator[Engines]:
    """Three short prompts with short answers, since interpreted kernels take long; models are the same each time."""
    with engines_with_fake_graphs(parents, ("one",), questions=3, max_new_tokens=8) as found:
        make_near(found.place)
        yield found


@pytest.mark.parametrize(("drafter", "batches"), [("prism", ()), ("prism", BATCHES), ("prism_star", BATCHES)])
def test_tritons_attention_drafts_as_the_other_does(
    drafter: str, batches: tuple[int, ...], engines: Engines, trees: dict[str, Counter[str]]
) -> None:
    """Texts are the target's, rounds the torch engine's, trees the same token for token."""
    engines.order(batches)
    (found,) = engines.measure(drafter, DRAFTERS[drafter])
    report = engines.report()
    assert found.settings.to_json()["attention"] == "TritonAttnBackend"
    assert written([found]) == written(engines.expected("vanilla"))
    assert rounds([found]) == rounds(engines.expected(drafter, DRAFTERS[drafter]))
    assert report.trees == trees[drafter]
    if batches:
        check_graphs(report, [found], batches)
        assert padded(report) == set(report.captured)
    else:
        assert not report.replays


def test_later_drafts_were_accepted(engines: Engines) -> None:
    """So that what they attended to had something to do with the rounds above."""
    (expected,) = engines.expected("prism", DRAFTERS["prism"])
    assert sum(sum(sample.histogram[3:]) for sample in expected.samples) > 0
