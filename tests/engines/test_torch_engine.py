"""The torch engine as a worker uses it: assignments in, cells out, errors as messages."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from raising import raises
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from prism_ae.cells import Cell, Fingerprints, Point, Result, Sample, TreeShape
from prism_ae.decoding.generate import GenerationResult
from prism_ae.decoding.verifier import VERIFIER
from prism_ae.drafters.checkpoint import save_drafter
from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.layouts.configs import NOTE
from prism_ae.drafters.layouts.read import read_drafter
from prism_ae.drafters.layouts.table import EAGLE3
from prism_ae.drafters.layouts.write import in_layout, write_files
from prism_ae.drafters.model import Drafter
from prism_ae.engines import registry, torch_engine
from prism_ae.engines.protocol import Assignment
from prism_ae.engines.torch_engine import TorchEngine
from prism_ae.errors import CheckpointError, DeviceError, MissingError, PrismError, UsageError
from prism_ae.models.checkpoints import load_target, save_target
from prism_ae.models.config import LlamaConfig
from prism_ae.models.llama import Llama, causal
from prism_ae.prompts import conversation
from prism_ae.prompts.templates import render_turn
from prism_ae.suites.compat import EAGLE3_CONFIG_ROPE
from prism_ae.suites.load import load_suite
from prism_ae.suites.records import Benchmark, Suite

CPU = torch.device("cpu")
TREE = TreeShape(3, 3, 8)
QUESTIONS = {"talk": [["ab", "cd"], ["e f", "g"], ["h", "ij k"]], "one": [["lm"], ["n"], ["o p q"], ["r"]]}


@dataclasses.dataclass(frozen=True)
class Place:
    """A folder with a suite of random models."""

    suite: Suite
    folder: Path

    def engine(self) -> TorchEngine:
        return TorchEngine(self.suite, self.folder, "cpu", 1)

    def cell(self, benchmark: str, temperature: float, drafter: str = "prism", **changes: Any) -> Cell:
        point = Point(
            suite="mini",
            target="mini-llama-2",
            drafter=drafter,
            scale=None if drafter == "vanilla" else "1x",
            benchmark=benchmark,
            temperature=temperature,
            tree=None if drafter == "vanilla" else TREE,
            engine="torch",
            batch=None,
            questions=len(QUESTIONS[benchmark]),
            max_new_tokens=12,
            max_length=200,
            seed=1,
            dtype="float32",
        )
        return Cell(dataclasses.replace(point, **changes), Fingerprints("t", "d", "p", "torch-1", "v"))

    def assignment(self, cells: Sequence[Cell]) -> Assignment:
        point = cells[0].point
        drafter = None if point.drafter in ("vanilla", "lookup") else self.folder / point.drafter
        return Assignment(tuple(cells), self.folder / "target", drafter)

    def measure(self, *cells: Cell, engine: TorchEngine | None = None) -> dict[Cell, Result]:
        return dict((engine or self.engine()).measure(self.assignment(cells), lambda: False))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("models")
    mini = load_suite("mini")
    benchmarks = {name: Benchmark(name, name, len(asked[0]), f"{name}.jsonl") for name, asked in QUESTIONS.items()}
    (folder / "benchmarks").mkdir()
    for name, asked in QUESTIONS.items():
        lines = [json.dumps({"question_id": n, "turns": turns}) for n, turns in enumerate(asked)]
        (folder / "benchmarks" / f"{name}.jsonl").write_text("\n".join(lines))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: n for n, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    torch.manual_seed(0)
    config = LlamaConfig(tokenizer.get_vocab_size(), 32, 48, 2, 4, 2, 1e-5, 10000.0, 256)
    target = Llama(config)
    (folder / "target").mkdir()
    # A second end token, which only the target's own config knows.
    save_target(folder / "target", target, {"eos_token_id": [3, 4]})
    tokenizer.save(str(folder / "target" / "tokenizer.json"))
    layer = dataclasses.replace(config, num_hidden_layers=1)
    for name, drafter_config in {
        "prism": DrafterConfig("eagle", layer, 2, (0, 1)),
        "eagle2": DrafterConfig("eagle", layer),
    }.items():
        (folder / name).mkdir()
        save_drafter(folder / name, Drafter(drafter_config, target))
    return Place(dataclasses.replace(mini, benchmarks=benchmarks), folder)


def without_seconds(result: Result) -> list[Sample]:
    return [
        dataclasses.replace(sample, prefill_seconds=0.0, decode_seconds=0.0, stage_seconds=())
        for sample in result.samples
    ]


def test_the_registry_names_and_makes_it(place: Place) -> None:
    engine = registry.make("torch", place.suite, place.folder, "cpu", 1)
    assert isinstance(engine, TorchEngine)
    engine.close()
    assert registry.engine_names() == ("torch", "sglang")
    with pytest.raises(UsageError, match="'nothing'"):
        registry.make("nothing", place.suite, place.folder, "cpu", 1)


def test_cells_of_one_pool_equal_cells_measured_alone(place: Place) -> None:
    cells = [place.cell(benchmark, temperature) for benchmark in QUESTIONS for temperature in (0.0, 1.0)]
    together = place.measure(*cells)
    assert set(together) == set(cells)
    for cell in cells:
        (alone,) = place.measure(cell).values()
        assert without_seconds(together[cell]) == without_seconds(alone)
        assert [sample.question_id for sample in alone.samples] == [
            f"{cell.point.benchmark}/{n}" for n in range(cell.point.questions)
        ]
        assert all(sum(sample.histogram) == sample.rounds > 0 for sample in alone.samples)
        assert together[cell].wall_seconds > 0


def test_every_drafter_writes_the_same_text(place: Place) -> None:
    engine = place.engine()
    digests = []
    for drafter in ("vanilla", "prism", "eagle2", "prism"):
        cells = [place.cell(benchmark, t, drafter) for benchmark in QUESTIONS for t in (0.0, 1.0)]
        results = place.measure(*cells, engine=engine)
        digests.append([[sample.output_sha256 for sample in results[cell].samples] for cell in cells])
    assert all(other == digests[0] for other in digests[1:])


CHAIN = {"drafter": "lookup", "scale": None, "tree": TreeShape(3, 1, 4)}


def test_prompt_lookup_needs_no_folder_and_writes_the_same_text(place: Place) -> None:
    """Alone, after a drafter from which the text is known, and timed."""
    engine, asked = place.engine(), [(benchmark, t) for benchmark in QUESTIONS for t in (0.0, 1.0)]
    plain = [place.measure(place.cell(*each, "vanilla")).popitem()[1] for each in asked]
    texts = [[sample.output_sha256 for sample in result.samples] for result in plain]
    cells = [place.cell(*each, **CHAIN) for each in asked]
    fresh = place.measure(*cells, engine=engine)
    again = place.measure(*cells, engine=engine)
    timed = [place.measure(place.cell(*each, **CHAIN, batch=2)) for each in asked]
    for number, cell in enumerate(cells):
        (beside,) = timed[number].values()
        for result in (fresh[cell], again[cell], beside):
            assert [sample.output_sha256 for sample in result.samples] == texts[number]
            assert [sample.accepted for sample in result.samples] == [one.accepted for one in fresh[cell].samples]
            assert result.settings.others["tree"] == "3,1,4"
            assert result.settings.drafter_rope_theta is None
    assert sum(sum(sample.histogram[1:]) for result in fresh.values() for sample in result.samples) > 0


def test_later_drafters_profit_from_the_first_and_measure_the_same(place: Place) -> None:
    cells = [place.cell(benchmark, t) for benchmark in QUESTIONS for t in (0.0, 1.0)]
    fresh, engine = place.measure(*cells), place.engine()
    place.measure(*[place.cell(b, t, "eagle2") for b in QUESTIONS for t in (0.0, 1.0)], engine=engine)
    assert engine._written
    again = place.measure(*cells, engine=engine)
    assert all(without_seconds(again[cell]) == without_seconds(fresh[cell]) for cell in cells)


def test_the_target_stays_loaded_and_the_drafter_is_swapped(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    for name in ("load_target", "load_drafter"):
        real = getattr(torch_engine, name)

        def counted(path: Path, *rest: Any, real: Any = real, **named: Any) -> Any:
            loads.append(path.name)
            return real(path, *rest, **named)

        monkeypatch.setattr(torch_engine, name, counted)
    engine = place.engine()
    for drafter in ("prism", "vanilla", "eagle2"):
        place.measure(place.cell("one", 0.0, drafter), engine=engine)
    assert loads == ["target", "prism", "eagle2"]


def test_the_second_turn_is_asked_with_the_stripped_first_answer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[str], list[str], str]] = []

    def spy(template: Any, system: str, users: Sequence[str], answers: Sequence[str]) -> str:
        text = render_turn(template, system, users, answers)
        asked.append((list(users), list(answers), text))
        return text

    monkeypatch.setattr(conversation, "render_turn", spy)
    (result,) = place.measure(place.cell("talk", 0.0)).values()
    tokenizer = Tokenizer.from_file(str(place.folder / "target" / "tokenizer.json"))
    for sample, turns in zip(result.samples, QUESTIONS["talk"], strict=True):
        first = next(text for users, answers, text in asked if users == turns[:1])
        second, answer = next((text, answers[0]) for users, answers, text in asked if users == turns)
        assert "</s>" not in answer
        assert answer.strip() in second
        lengths = [len(tokenizer.encode(text, add_special_tokens=False).ids) for text in (first, second)]
        assert sample.prompt_tokens == sum(lengths)
        assert second.startswith("<s>[INST]")
        assert sample.turns == len(sample.stops) == 2


def test_answers_end_at_the_templates_and_at_the_targets_own_end_tokens(place: Place) -> None:
    engine = place.engine()
    place.measure(place.cell("one", 0.0), engine=engine)
    assert engine._target is not None
    end = Tokenizer.from_file(str(place.folder / "target" / "tokenizer.json")).token_to_id("</s>")
    assert engine._target.end_ids == {end, 3, 4}


def test_settings_are_read_back(place: Place) -> None:
    (result,) = place.measure(place.cell("one", 0.0)).values()
    assert result.settings.to_json() == {
        "verifier": VERIFIER,
        "torch": torch.__version__,
        "device": "cpu",
        "device_name": "CPU",
        "dtype": "float32",
        "float32_matmul_precision": "highest",
        "threads": 1,
        "rows": 4,
        "tree": "3,3,8",
        "window": 200,
        "target_rope_theta": 10000.0,
        "drafter_rope_theta": 10000.0,
        "drafter_config_rope_theta": 10000.0,
        "expected_texts": True,
    }


def test_a_timed_cell_runs_alone_with_its_batch(place: Place) -> None:
    cells = [place.cell("one", t, batch=2) for t in (0.0, 1.0)]
    results = place.measure(*cells)
    for cell in cells:
        assert results[cell].settings.to_json()["rows"] == 2
        assert not results[cell].settings.to_json()["expected_texts"]
        assert without_seconds(results[cell]) == without_seconds(
            place.measure(place.cell("one", cell.point.temperature))[place.cell("one", cell.point.temperature)]
        )
        for sample in results[cell].samples:
            assert sum(sample.stage_seconds) == pytest.approx(sample.decode_seconds)
            assert all(seconds > 0 for seconds in sample.stage_seconds)
        # One question after the other, two at a time: the whole takes longer than any of them.
        longest = max(sample.prefill_seconds + sample.decode_seconds for sample in results[cell].samples)
        assert results[cell].wall_seconds > longest


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_chooses_tokens_that_are_nearly_the_best(
    place: Place, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Greedy text may differ from fp32's, but only where fp32 sees nearly equal logits."""
    engine, real, answered = place.engine(), torch_engine.generate, []

    def remembered(*given: Any) -> Iterator[GenerationResult]:
        for result in real(*given):
            answered.append(result)
            yield result

    monkeypatch.setattr(torch_engine, "generate", remembered)
    cells = [place.cell("one", 0.0, dtype=dtype), place.cell("one", 0.0, "vanilla", dtype=dtype)]
    for cell in cells:
        (result,) = place.measure(cell, engine=engine).values()
        assert result.settings.to_json()["dtype"] == dtype
        assert all(sample.generated_tokens > 0 for sample in result.samples)
    exact = Llama(engine._target.model.config)  # type: ignore[union-attr]
    exact.load_state_dict(engine._target.model.state_dict())  # type: ignore[union-attr]
    assert len(answered) == 2 * len(QUESTIONS["one"])
    for one in answered:
        (written,) = one.answers
        question = QUESTIONS["one"][int(one.sample.question_id.removeprefix("one/"))]
        template = place.suite.templates["llama-2-chat"]
        text = render_turn(template, place.suite.system_prompt, question, [])
        prompt = engine._target.conversation.tokenizer.encode(text, add_special_tokens=False).ids  # type: ignore[union-attr]
        ids = torch.tensor([[*prompt, *written]])
        hidden, _ = exact(ids, torch.arange(ids.shape[1])[None])
        logits = exact.head(hidden)[0, len(prompt) - 1 : -1]
        chosen = logits.gather(1, torch.tensor(written)[:, None]).squeeze(1)
        assert (logits.max(-1).values - chosen).max() < 0.02 * logits.std()


def test_stopping_leaves_the_rest_unmeasured(place: Place) -> None:
    cells = [place.cell(benchmark, t, max_new_tokens=60) for benchmark in QUESTIONS for t in (0.0, 1.0)]
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    assert list(place.engine().measure(place.assignment(cells), should_stop)) == []


def failing(place: Place, cell: Cell, target: str = "target") -> PrismError:
    assignment = dataclasses.replace(place.assignment([cell]), target_path=place.folder / target)
    with pytest.raises(PrismError) as caught:
        list(place.engine().measure(assignment, lambda: False))
    return caught.value


def test_a_tree_that_is_wider_than_the_vocabulary_is_refused(place: Place) -> None:
    error = failing(place, place.cell("one", 0.0, tree=TreeShape(1, 999, 5)))
    assert isinstance(error, UsageError)
    assert "1,999,5" in error.what
    assert error.hint


@pytest.mark.parametrize(
    ("engine", "changes", "kind", "says"),
    [
        ("torch", {}, "draft-head", ""),
        ("torch", {"drafter": "standard"}, "model", "torch"),
        ("torch", {"compat": ("eagle3-config-rope", "warm-cache")}, "draft-head", "warm-cache"),
        ("torch", {"drafting": "stock"}, "draft-head", "stock"),
        ("sglang", {"drafting": "stock", "compat": ("warm-cache",)}, "draft-head", ""),
        ("sglang", {"compat": ("eagle3-config-rope",)}, "draft-head", "sglang"),
        ("artifact", {}, "draft-head", "artifact"),
        ("fake", {}, "model", ""),
    ],
)
def test_what_an_engine_cannot_do_is_known_before_it_is_started(
    place: Place, engine: str, changes: dict[str, Any], kind: str, says: str
) -> None:
    found = registry.problem(engine, place.cell("one", 0.0, **changes).point, kind)
    assert says in found
    assert bool(found) == bool(says)


def test_imported_results_have_a_record_and_no_engine(place: Place) -> None:
    assert registry.find("artifact").version == "artifact-1"
    with pytest.raises(UsageError, match="artifact"):
        registry.make("artifact", place.suite, place.folder, "cpu", 1)


def test_an_engine_of_another_package_is_found_by_its_entry_point(place: Place) -> None:
    """Here the one of these tests; no list offers it."""
    assert type(registry.make("fake", place.suite, place.folder, "cpu", 1)).__name__ == "FakeEngine"
    assert "fake" not in registry.engine_names()


AUTHORS_EAGLE3 = "Llama-3-8B-drafter/Eagle3-800k"
"""The place in the authors' hub by which it is known."""


@pytest.fixture
def eagle3(place: Place) -> Place:
    """Folders of one EAGLE-3: as the authors have it, with 500000 in its config; in the same layout, written by us; and
    in our own layout with either base."""
    layer = dataclasses.replace(load_target(place.folder / "target", torch.float32, CPU).config, num_hidden_layers=1)
    for name, theta in (("own-10000", 1e4), ("own-500000", 5e5)):
        folder = place.folder / name
        folder.mkdir(exist_ok=True)
        config = DrafterConfig(
            "eagle3", dataclasses.replace(layer, rope_theta=theta), aux_hidden_layers=(0, 1, 2), draft_vocab_size=64
        )
        torch.manual_seed(3)
        save_drafter(folder, Drafter(config, load_target(place.folder / "target", torch.float32, CPU)))
    stored = read_drafter(place.folder / "own-10000", None)
    published = place.folder / AUTHORS_EAGLE3
    published.mkdir(exist_ok=True, parents=True)
    data, tensors = in_layout(stored.config, stored.state, EAGLE3, "")
    # The note says that the folder is ours, and its base the one of the training.
    write_files(published, {key: value for key, value in data.items() if key != NOTE} | {"rope_theta": 5e5}, tensors)
    noted = place.folder / "noted"
    noted.mkdir(exist_ok=True)
    write_files(noted, data, tensors)
    target = dataclasses.replace(place.suite.targets["mini-llama-2"], eagle3_capture=(0, 1, 2))
    return Place(dataclasses.replace(place.suite, targets={target.name: target}), place.folder)


def drafted(place: Place, folder: str, compat: tuple[str, ...]) -> tuple[Result, torch.Tensor]:
    """A cell measured with an EAGLE-3, and what its first step says after some features, far from the beginning."""
    used: list[Drafter] = []
    real = torch_engine.load_drafter

    def spy(*arguments: Any, **named: Any) -> Drafter:
        used.append(real(*arguments, **named))
        return used[-1]

    cell = place.cell("one", 0.0, "eagle3", compat=compat)
    assignment = Assignment((cell,), place.folder / "target", place.folder / folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_engine, "load_drafter", spy)
        ((_, result),) = place.engine().measure(assignment, lambda: False)
    (drafter,) = used
    torch.manual_seed(5)
    ids, features = torch.randint(256, (1, 9)), torch.randn(1, 9, 96)
    rotation = drafter.rotary(torch.arange(90, 99)[None] * torch.arange(1, 10)[None] // 9)
    with torch.no_grad():
        return result, drafter.logits(
            drafter.step(0, drafter.embed(ids), drafter.project_hidden(features), rotation, causal)
        )


def test_the_authors_rope_base_is_another_drafter_and_another_cell(eagle3: Place) -> None:
    flags = (EAGLE3_CONFIG_ROPE,)
    trained, logits = drafted(eagle3, AUTHORS_EAGLE3, ())
    imitated, others = drafted(eagle3, AUTHORS_EAGLE3, flags)
    assert torch.equal(logits, drafted(eagle3, "own-10000", ())[1])
    assert torch.equal(others, drafted(eagle3, "own-500000", ())[1])
    assert (logits - others).abs().max() > 0.01 * logits.std()
    assert imitated.settings == dataclasses.replace(trained.settings, drafter_rope_theta=5e5)
    assert (trained.settings.drafter_rope_theta, trained.settings.drafter_config_rope_theta) == (1e4, 5e5)
    assert len({eagle3.cell("one", 0.0, "eagle3", compat=compat).id for compat in ((), flags)}) == 2
    assert [sample.output_sha256 for sample in imitated.samples] == [s.output_sha256 for s in trained.samples]


def test_who_can_imitate_the_rope_base(eagle3: Place) -> None:
    point = eagle3.cell("one", 0.0, "eagle3", compat=(EAGLE3_CONFIG_ROPE,)).point
    assert registry.problem("torch", point, "draft-head") == ""
    assert "sglang" in registry.problem("sglang", point, "draft-head")
    both = dataclasses.replace(point, compat=(EAGLE3_CONFIG_ROPE, "warm-cache"))
    assert "(warm-cache)" in registry.problem("torch", both, "draft-head")


def test_where_no_other_rope_base_is_named(eagle3: Place) -> None:
    config = eagle3.folder / AUTHORS_EAGLE3 / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"rope_theta": None}))
    for folder in (AUTHORS_EAGLE3, "noted", "own-500000"):
        with raises(CheckpointError, eagle3.folder / folder / "config.json", "--paper-compat"):
            drafted(eagle3, folder, (EAGLE3_CONFIG_ROPE,))


def test_a_target_without_its_tokenizer(place: Place, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "model.safetensors"):
        (broken / name).symlink_to(place.folder / "target" / name)
    error = failing(place, place.cell("one", 0.0), str(broken))
    assert isinstance(error, MissingError)
    assert "tokenizer.json" in error.what
    (broken / "tokenizer.json").write_text("{}")
    error = failing(place, place.cell("one", 0.0), str(broken))
    assert isinstance(error, CheckpointError)
    assert "tokenizer.json" in error.what
    tokenizer = Tokenizer.from_file(str(place.folder / "target" / "tokenizer.json"))
    tokenizer.add_tokens(["[INST]"])
    tokenizer.save(str(broken / "tokenizer.json"))
    error = failing(place, place.cell("one", 0.0), str(broken))
    assert isinstance(error, CheckpointError)
    assert "vocabulary" in error.what


def test_out_of_memory_is_a_device_error(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(torch_engine.Batch, "round", full)
    error = failing(place, place.cell("one", 0.0))
    assert isinstance(error, DeviceError)
    assert "out of memory" in error.what
    assert "--tree" in error.hint


def test_other_runtime_errors_are_bugs_and_shown_as_such(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(torch_engine.Batch, "round", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        place.measure(place.cell("one", 0.0))


def test_what_an_earlier_pool_left_with_the_allocator_counts_as_free(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a GPU's pools shrink from assignment to assignment, down to "out of memory"."""
    engine, row, free = place.engine(), 1 << 20, 1 << 20

    def released() -> None:
        nonlocal free
        free = 100 << 20

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 200 << 20))
    monkeypatch.setattr(torch.cuda, "empty_cache", released)
    engine.device = torch.device("cuda:0")
    assert engine._rows(1000, row) == torch_engine.ROWS
    assert engine._rows(1000, 30 * row) == 2
    with raises(DeviceError, "out of memory", "70 MiB"):
        engine._rows(1000, 70 * row)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(place: Place) -> None:
    with raises(DeviceError, "cuda:0"):
        TorchEngine(place.suite, place.folder, "cuda:0", 1)
