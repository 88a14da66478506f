"""SGLang itself, with tiny random models: every text and every round equal the torch engine's.

Each start of an engine takes long, so tests are ordered by what the engine has to be started for.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from raising import raises
from sglang_prism.sglang_models import QUESTIONS, Place, altered, make_drafter, make_place, save
from torch import Tensor

from prism_ae.cells import Result
from prism_ae.drafters.config import DrafterConfig
from prism_ae.engines.sglang import engine as sglang_engine
from prism_ae.engines.sglang.engine import SGLangEngine
from prism_ae.engines.sglang.options import engine_options
from prism_ae.engines.torch_engine import TorchEngine
from prism_ae.errors import CheckpointError, DeviceError
from prism_ae.models.checkpoints import load_target
from prism_ae.models.llama import Llama
from prism_ae.prompts.conversation import open_conversation
from prism_ae.sglang_prism.messages import Answered, Serve

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("sglang") is None
    or not metadata.entry_points(group="sglang.srt.plugins", name="prism-ae"),
    reason="SGLang, or the plugin's entry point, is not installed",
)

TREES = ("5,4,16", "3,1,4")
LARGE = "6,5,24"
ALL_TREES = ("3,3,8", *TREES, LARGE)
BUFFERS = 2 * 4 + 2 * 1
"""Keys and values of four layers of the target, and of one of the drafter."""


class Engines:
    """Both engines on the same folder, and what was measured."""

    def __init__(self, place: Place, poison: Path) -> None:
        self.place, self.poison = place, poison
        self.sglang = SGLangEngine(place.suite, place.folder, "cpu", 1)
        self._torch = TorchEngine(place.suite, place.folder, "cpu", 1)

    def measure(self, drafter: str, tree: str | None, folder: str | None = None, **changes: Any) -> list[Result]:
        """Both benchmarks, by SGLang."""
        return self._measure(self.sglang, drafter, tree, folder, changes)

    def expected(self, drafter: str, tree: str | None, folder: str | None = None, **changes: Any) -> list[Result]:
        """Both benchmarks, by the torch engine."""
        return self._measure(self._torch, drafter, tree, folder, changes)

    def _measure(self, engine: Any, drafter: str, tree: str | None, folder: str | None, changes: Any) -> list[Result]:
        cells = [self.place.cell(drafter, tree, benchmark=benchmark, **changes) for benchmark in QUESTIONS]
        return self.place.measure(engine, cells, folder)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """Its SGLang has a plugin that poisons, see `sglang_poison`."""
    folder = tmp_path_factory.mktemp("poison")
    information = folder / "sglang_poison-0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: sglang-poison\nVersion: 0\n")
    (information / "entry_points.txt").write_text("[sglang.srt.plugins]\npoison = sglang_poison:register\n")
    plugin = Path(__file__).parents[1] / "sglang_prism" / "poison"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(plugin)]))
        patch.setenv("SGLANG_POISON", str(folder / "order"))
        found = Engines(make_place(tmp_path_factory.mktemp("models")), folder / "order")
        yield found
        found.sglang.close()


@pytest.fixture(scope="module")
def texts(engines: Engines) -> list[list[str]]:
    """What the target writes, in the torch engine's words."""
    return written(engines.expected("vanilla", None))


def written(results: list[Result]) -> list[list[str]]:
    return [[sample.output_sha256 for sample in result.samples] for result in results]


def rounds(results: list[Result]) -> list[list[tuple[int, ...]]]:
    return [[sample.histogram for sample in result.samples] for result in results]


def listed(results: list[Result]) -> list[list[tuple[tuple[int, ...], ...]]]:
    assert not any(sample.problem() for result in results for sample in result.samples)
    return [[sample.accepted for sample in result.samples] for result in results]


def check(engines: Engines, drafter: str, trees: tuple[str, ...], texts: list[list[str]]) -> None:
    """Every tree, exact and stock; the first tree also at batch 1 and 8.

    The torch engine has no separate models: such a drafter's rounds must be the same whatever is served beside them.
    """
    separate = engines.place.suite.drafters[drafter].kind == "model"
    for tree in trees:
        exact = engines.measure(drafter, tree)
        assert written(exact) == texts
        assert written(engines.measure(drafter, tree, drafting="stock")) == texts
        expected = exact if separate else engines.expected(drafter, tree)
        assert rounds(exact) == rounds(expected)
        assert listed(exact) == listed(expected)
        accepted = [sum(counts) for counts in zip(*(rounds(exact)[0]), strict=True)]
        assert sum(accepted[2:]) > 0  # several steps of drafting had something to do with it
        for batch in (1, 8) if tree == trees[0] else ():
            timed = engines.measure(drafter, tree, batch=batch)
            assert written(timed) == texts
            assert rounds(timed) == rounds(expected)
            assert listed(timed) == listed(expected)
            assert timed[0].settings.to_json()["batch"] == batch
            check_stages(timed, drafted=True, alone=batch == 1)
        assert not any(sample.stage_seconds for result in exact for sample in result.samples)


def check_stages(timed: list[Result], *, drafted: bool, alone: bool) -> None:
    """Every stage took time, and of a request that was served alone they are its seconds, but for messages' ways."""
    for result in timed:
        for stages in (sample.stage_seconds for sample in result.samples if sample.generated_tokens > 8):
            assert len(stages) == 4
            assert [seconds > 0 for seconds in stages] == [drafted, True, True, True]
        total = sum(sum(sample.stage_seconds) for sample in result.samples)
        decode = sum(sample.decode_seconds for sample in result.samples)
        assert (0.7 if alone else 0.2) * decode < total < 1.1 * decode


# --- vanilla


def test_vanilla_writes_what_the_torch_engine_writes(engines: Engines, texts: list[list[str]]) -> None:
    for batch in (None, 1, 8):
        results = engines.measure("vanilla", None, batch=batch)
        assert written(results) == texts
        assert {stop for result in results for sample in result.samples for stop in sample.stops} == {"end", "length"}
        assert results[0].settings.to_json()["tree"] is None
        assert results[0].settings.to_json()["memory_bytes"] > 100 << 20
        if batch is not None:
            check_stages(results, drafted=False, alone=batch == 1)
    assert len({text for benchmark in texts for text in benchmark}) == 12


def sampled(engines: Engines, requests: int) -> Counter[tuple[int, ...]]:
    """The first tokens of one prompt at T = 1, many times over, by the engine that runs."""
    place = engines.place
    template = place.suite.templates[place.suite.targets["mini-llama-2"].template]
    host = engines.sglang._host
    assert host
    serve = Serve(place.target, template, place.suite.system_prompt, (("ab",),) * requests, 1.0, TOKENS, 200, 64, True)
    answers = [message.answers[0] for message in host.serve(serve) if isinstance(message, Answered)]
    assert len(answers) == requests
    return Counter(answers)


TOKENS, REQUESTS = 3, 3000


@pytest.fixture(scope="module")
def exact(engines: Engines) -> dict[tuple[int, ...], float]:
    return distribution(engines.place, lambda probabilities: probabilities)


def distribution(place: Place, filtered: Callable[[Tensor], Tensor]) -> dict[tuple[int, ...], float]:
    """The probability of every beginning of three tokens, or of fewer that end, by our own model.

    Args:
        filtered: [n, V] -> [n, V], what is left of a row; normalised here.
    """
    target = load_target(place.target, torch.float32, torch.device("cpu"))
    template = place.suite.templates[place.suite.targets["mini-llama-2"].template]
    conversation = open_conversation(place.target, template, place.suite.system_prompt)
    prompt = conversation.prompt(("ab",), [])
    found: dict[tuple[int, ...], float] = {}
    going: dict[tuple[int, ...], float] = {(): 1.0}
    for length in range(1, TOKENS + 1):
        left = filtered(following(target, prompt, list(going)))
        left /= left.sum(dim=-1, keepdim=True)
        grown = {
            (*begin, token): chance * float(row[token])
            for (begin, chance), row in zip(going.items(), left, strict=True)
            for token in range(len(row))
        }
        found |= {tokens: p for tokens, p in grown.items() if length == TOKENS or tokens[-1] in conversation.end_ids}
        going = {tokens: p for tokens, p in grown.items() if tokens not in found}
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)
    return found


def following(target: Llama, prompt: list[int], begins: list[tuple[int, ...]]) -> Tensor:
    """The distribution of the token after each beginning [len(begins), V]."""
    ids = torch.tensor([[*prompt, *begin] for begin in begins])
    hidden, _ = target(ids, torch.arange(ids.shape[1])[None])
    return target.head(hidden[:, -1]).double().softmax(-1)


def p_values(seen: Mapping[tuple[int, ...], int], exact: Mapping[tuple[int, ...], float]) -> list[float]:
    """Chi-square of the first, second and third token and of the whole; what is rare is one class."""
    found = []
    for of in (lambda t: t[:1], lambda t: t[1:2], lambda t: t[2:3], lambda t: t[:2], lambda t: t):
        expected: Counter[Any] = Counter()
        for tokens, p in exact.items():
            expected[of(tokens)] += p
        counts: Counter[Any] = Counter()
        for tokens, count in seen.items():
            counts[of(tokens)] += count
        found.append(p_value(counts, expected))
    return found


def p_value(counts: Mapping[Any, int], expected: Mapping[Any, float]) -> float:
    total = sum(counts.values())
    common = [key for key, p in expected.items() if p * total >= 5]
    pairs = [(counts.get(key, 0), expected[key] * total) for key in common]
    rest = total - sum(count for count, _ in pairs), total - sum(count for _, count in pairs)
    if rest[1] < 1e-3:
        return 0.0 if rest[0] else chi_square(pairs)
    return chi_square([*pairs, rest])


def chi_square(pairs: list[tuple[float, float]]) -> float:
    """Of what was seen and what was expected."""
    if len(pairs) < 2:
        return 1.0
    statistic = torch.tensor(sum((count - mean) ** 2 / mean for count, mean in pairs) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(torch.tensor((len(pairs) - 1) / 2, dtype=torch.float64), statistic))


ENOUGH = 1e-4
"""A p-value below says that the distribution is another one."""


def test_the_statistic_has_power(exact: dict[tuple[int, ...], float]) -> None:
    """It accepts the distribution itself, and notices three percent that went from one first token to another."""
    generator = torch.Generator().manual_seed(0)
    first: Counter[int] = Counter()
    for tokens, p in exact.items():
        first[tokens[0]] += p  # type: ignore[assignment]
    (likeliest, most), *_, (rare, least) = [(token, p) for token, p in first.most_common() if p > 0.003]
    moved = {
        tokens: p * {likeliest: 1 - 0.03 / most, rare: 1 + 0.03 / least}.get(tokens[0], 1.0)
        for tokens, p in exact.items()
    }
    keys = list(exact)
    for distribution, accepted in ((exact, True), (moved, False)):
        weights = torch.tensor([distribution[key] for key in keys])
        for _ in range(20):
            draws = weights.multinomial(REQUESTS, replacement=True, generator=generator).tolist()
            seen = Counter(keys[draw] for draw in draws)
            assert (min(p_values(seen, exact)) > ENOUGH) == accepted


def samples_it(engines: Engines, exact: dict[tuple[int, ...], float]) -> bool:
    """Another distribution fails every time; the right one, by chance, once in two thousand times, so it has two."""
    return any(min(p_values(sampled(engines, REQUESTS), exact)) > ENOUGH for _ in range(2))


def test_vanilla_samples_the_targets_distribution(engines: Engines, exact: dict[tuple[int, ...], float]) -> None:
    engines.measure("vanilla", None)
    assert samples_it(engines, exact)


# --- prism


def test_prism_drafts_what_the_torch_engine_drafts(engines: Engines, texts: list[list[str]]) -> None:
    check(engines, "prism", TREES, texts)


def test_stock_drafting_is_another(engines: Engines) -> None:
    """So the comparison of histograms has power."""
    different = 0
    for tree in (LARGE, "5,5,20"):
        expected = engines.expected("prism", tree, max_new_tokens=64)
        assert rounds(engines.measure("prism", tree, max_new_tokens=64)) == rounds(expected)
        stock = engines.measure("prism", tree, max_new_tokens=64, drafting="stock")
        assert written(stock) == written(expected)
        different += sum(one != other for one, other in zip(rounds(stock), rounds(expected), strict=True))
    assert different > 0


def _swap(state: dict[str, Tensor]) -> None:
    for name in [name for name in state if name.startswith("modules.0.")]:
        other = name.replace("modules.0.", "modules.1.")
        state[name], state[other] = state[other], state[name]


def _only_the_first(state: dict[str, Tensor]) -> None:
    for name in [name for name in state if name.startswith("modules.0.")]:
        state[name.replace("modules.0.", "modules.1.")] = state[name].clone()


def test_each_step_runs_its_own_module(engines: Engines) -> None:
    """Modules in the other order, and the first one at every step, draft otherwise, and as the torch engine's do."""
    place = engines.place
    altered(place.folder / "prism", place.folder / "swapped", _swap)
    altered(place.folder / "prism", place.folder / "same", _only_the_first)
    found = []
    for folder in ("prism", "swapped", "same"):
        found.append(rounds(engines.measure("prism", "5,4,16", folder)))
        assert found[-1] == rounds(engines.expected("prism", "5,4,16", folder))
    assert found[0] != found[1] != found[2] != found[0]


def test_prism_samples_the_targets_distribution(engines: Engines, exact: dict[tuple[int, ...], float]) -> None:
    engines.measure("prism", "5,4,16")
    assert samples_it(engines, exact)


def test_nothing_that_was_never_written_is_read(engines: Engines, texts: list[list[str]]) -> None:
    """All keys and values are NaN when a run begins; the same is noticed where they are read."""
    expected = {tree: rounds(engines.expected("prism", tree)) for tree in TREES}
    try:
        for tree, rounds_ in expected.items():
            engines.poison.write_text("emptied")
            results = engines.measure("prism", tree)
            assert engines.poison.read_text() == f"emptied {BUFFERS}"
            assert written(results) == texts
            assert rounds(results) == rounds_
        engines.poison.unlink()
        engines.measure("prism", "3,3,8")
        engines.poison.write_text("kept")
        assert written(engines.measure("prism", "3,3,8")) != texts
    finally:
        engines.poison.unlink(missing_ok=True)


def test_what_cannot_be_measured_is_said_and_the_engine_goes_on(engines: Engines, texts: list[list[str]]) -> None:
    place = engines.place
    assert written(engines.measure("prism", "3,3,8")) == texts
    assert engines.sglang._host
    pid = engines.sglang._host.pid
    truncated = altered(place.folder / "prism", place.folder / "truncated", lambda state: None)
    weights = (truncated / "model.safetensors").read_bytes()
    (truncated / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(CheckpointError, match="truncated"):
        engines.measure("prism", "3,3,8", "truncated")
    other = Llama(
        dataclasses.replace(load_target(place.target, torch.float32, torch.device("cpu")).config, vocab_size=31)
    )
    layer = dataclasses.replace(other.config, num_hidden_layers=1)
    save(
        place.folder / "other",
        make_drafter(DrafterConfig("eagle", layer, 2, (0, 1)), other, torch.ones(1, 4).long(), 0),
    )
    with raises(CheckpointError, "other", 31):
        engines.measure("prism", "3,3,8", "other")
    with raises(DeviceError, "8,5,24"):
        engines.measure("prism", "8,5,24")
    assert engines.sglang._host.pid == pid
    assert written(engines.measure("prism", "3,3,8")) == texts
    assert engines.sglang._host.pid == pid


@pytest.mark.heavy
@pytest.mark.parametrize(
    "filters",
    [{"top_k": 2}, {"top_p": 0.7}, {"top_k": 8, "top_p": 0.8}, {"top_k": 8, "top_p": 0.8, "min_p": 0.1}],
)
def test_filtered_samples_have_the_samplers_distribution(engines: Engines, filters: dict[str, float]) -> None:
    """Each filter acts on the target's own probabilities, with a drafter as without."""
    top_k, top_p, min_p = int(filters.get("top_k", 99)), filters.get("top_p", 1.0), filters.get("min_p", 0.0)

    def filtered(probabilities: Tensor) -> Tensor:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered
        stays = (torch.arange(ordered.shape[-1]) < top_k) & (before <= top_p) & (ordered >= ordered[:, :1] * min_p)
        return torch.zeros_like(ordered).scatter_(1, order, ordered.where(stays, 0))

    expected = distribution(engines.place, filtered)
    engines.measure("prism", "5,4,16")
    file = engines.poison.with_name("filters")
    file.write_text(json.dumps(filters))
    try:
        seen = sampled(engines, REQUESTS)
    finally:
        file.unlink()
    assert min(p_values(seen, expected)) > ENOUGH
    assert min(p_values(seen, distribution(engines.place, lambda probabilities: probabilities))) < ENOUGH


@pytest.mark.heavy
def test_the_death_of_sglangs_scheduler_is_survived(engines: Engines, texts: list[list[str]]) -> None:
    cells = [engines.place.cell("prism", "3,3,8", benchmark=benchmark) for benchmark in QUESTIONS]
    run = engines.sglang.measure(engines.place.assignment(cells), lambda: False)
    found = dict([next(run)])
    assert engines.sglang._host
    host = psutil.Process(engines.sglang._host.pid)
    (scheduler,) = [child for child in host.children(recursive=True) if "scheduler" in child.name()]
    scheduler.kill()
    found |= dict(run)
    assert engines.sglang._host.pid != host.pid
    assert written([found[cell] for cell in cells]) == texts


# --- other drafters


@pytest.mark.parametrize("drafter", ["eagle3", "standard"])
def test_other_drafters_draft_what_the_torch_engine_drafts(
    drafter: str, engines: Engines, texts: list[list[str]]
) -> None:
    check(engines, drafter, TREES, texts)


@pytest.mark.heavy
@pytest.mark.parametrize("drafter", ["eagle2", "hass2", "prism", "prism_star", "eagle3", "standard"])
def test_every_drafter_and_tree(drafter: str, engines: Engines, texts: list[list[str]]) -> None:
    check(engines, drafter, ALL_TREES, texts)


# --- other ways to start


@pytest.fixture
def started(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Have the engine started with other options."""

    def start(**options: Any) -> None:
        engines.sglang.close()
        monkeypatch.setattr(sglang_engine, "engine_options", lambda setup: engine_options(setup) | options)

    yield start
    engines.sglang.close()


@pytest.mark.heavy
@pytest.mark.parametrize("drafter", ["prism", "standard"])
def test_the_prefix_cache_changes_nothing(
    drafter: str, engines: Engines, texts: list[list[str]], started: Callable[..., None]
) -> None:
    cached = {batch: engines.measure(drafter, "5,4,16", batch=batch) for batch in (None, 1)}
    assert cached[None][0].settings.to_json()["radix_cache"]
    started(disable_radix_cache=True)
    for batch, results in cached.items():
        without = engines.measure(drafter, "5,4,16", batch=batch)
        assert not without[0].settings.to_json()["radix_cache"]
        assert written(without) == written(results) == texts
        assert rounds(without) == rounds(results)


@pytest.mark.heavy
def test_overlapped_scheduling_changes_nothing(
    engines: Engines, texts: list[list[str]], started: Callable[..., None]
) -> None:
    """Vanilla; SGLang does not overlap on a CPU when it drafts."""
    started(disable_overlap_schedule=False)
    results = engines.measure("vanilla", None)
    if not results[0].settings.to_json()["overlap"]:
        pytest.skip("SGLang does not overlap here")
    assert written(results) == texts
