"""The training loop: its bytes where a recipe asks for nothing new, and what it may not change where one does."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_training import train_plainly
from raising import raises
from small_world import (
    CAPTURE,
    RECIPES,
    bytes_of,
    small_data,
    small_drafter,
    small_examples,
    small_target,
    small_training,
    trained_small,
)

from prism_ae.errors import CheckpointError, StoreError
from prism_ae.training import losses as losses_module
from prism_ae.training.drafter import Course, Data, _Trainer, new_drafter, training_steps, training_tokens
from prism_ae.training.examples import batches_by_tokens, order_by_tokens
from prism_ae.training.features import FeaturePlace, Features
from prism_ae.training.mapped import MappedFiles
from prism_ae.training.state import TrainingState

WORLD = Path(__file__).parent / "small_world.py"


@pytest.mark.parametrize("name", RECIPES.drafters)
def test_the_suites_recipes_give_the_bytes_of_plain_training(name: str) -> None:
    """Every recipe: weights and losses, bit by bit."""
    data = small_data()
    drafter, losses = trained_small(name, {}, data)
    recipe = RECIPES.drafters[name]
    recipe = dataclasses.replace(recipe, draft_vocabulary=100) if recipe.draft_vocabulary else recipe
    plain = small_drafter(recipe, data)
    assert train_plainly(recipe, small_training(), data, plain) == losses
    assert bytes_of(plain) == bytes_of(drafter)


@pytest.mark.parametrize("wrong", ["order", "count"])
def test_bytes_notice_a_sum_in_another_order_and_a_position_more(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = small_data()
    right, _ = trained_small("eagle3", {}, data)
    if wrong == "order":
        monkeypatch.setattr(losses_module, "reversed", iter, raising=False)
    else:
        monkeypatch.setattr(losses_module, "_from_step", lambda truth, step: truth)
        monkeypatch.setattr(losses_module.Labels, "counts", lambda self, steps: [len(self.index)] * steps)
    other, _ = trained_small("eagle3", {}, data)
    assert bytes_of(other) != bytes_of(right)


def _gradients(name: str, changed: dict[str, Any], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Of one step over a whole pass."""
    data = small_data(dtype=dtype)
    part = name.endswith(" of 100 tokens")
    recipe = dataclasses.replace(
        RECIPES.drafters[name.removesuffix(" of 100 tokens")], draft_vocabulary=100 if part or name == "eagle3" else 0
    )
    drafter = small_drafter(recipe, data)
    trainer = _Trainer(recipe, small_training(clip=1e9, **changed), data, drafter)
    found: list[torch.Tensor] = []
    trainer.optimizer.step = lambda: found.extend(p.grad.flatten().clone() for p in trainer.parameters)  # type: ignore
    trainer.step(list(range(24)), 0.0)
    return torch.cat(found)


@pytest.mark.parametrize(
    "name", ["eagle2", "hass", "hass of 100 tokens", "prism", "prism_star", "eagle3", "hass2_authors"]
)
def test_parts_and_spans_give_the_gradient_of_the_whole_batch(name: str) -> None:
    whole = _gradients(name, {})
    for changed in ({"accumulate": 5}, {"positions": 50}, {"positions": 30, "accumulate": 24}, {"accumulate": 100}):
        found = _gradients(name, changed)
        assert (found - whole).norm() <= 1e-6 * whole.norm(), changed
    assert (_gradients(name, {"seed": 4}) - whole).norm() == 0  # it is of the weights and the data alone


@pytest.mark.parametrize("name", ["eagle2", "hass", "prism", "eagle3"])
def test_half_precision_computes_nearly_the_same_into_weights_of_float32(name: str) -> None:
    whole = _gradients(name, {})
    for dtype in (torch.float32, torch.bfloat16):  # of the target
        found = _gradients(name, {"dtype": "bfloat16", "positions": 64}, dtype)
        assert 1e-4 < (found - whole).norm() / whole.norm() < 0.1
    changed = {"dtype": "bfloat16", "positions": 64, "tokens": 120}
    drafter, losses = trained_small(name, changed, small_data(dtype=torch.bfloat16))
    _, exact = trained_small(name, changed | {"dtype": "float32"}, small_data())
    assert losses == pytest.approx(exact, rel=0.03)
    assert {parameter.dtype for parameter in drafter.parameters()} == {torch.float32}
    assert drafter.rotary.dtype == torch.float32
    rounded = [bool((p.bfloat16().float() == p).all()) for p in drafter.parameters() if p.dim() == 2]
    assert not any(rounded)


def test_all_tokens_count_where_a_recipe_says_so() -> None:
    data = small_data()
    counts = []
    for counted in ("answers", "all"):
        recipe = dataclasses.replace(RECIPES.drafters["eagle2"], counted=counted)
        trainer = _Trainer(recipe, small_training(), data, small_drafter(recipe, data))
        counts.append(sum(sum(trainer._part([row]).truth.counts(1)) for row in range(24)))
    examples = small_examples()
    assert counts == [
        sum(len(example.ids) - max(2, example.start) for example in examples),
        sum(len(example.ids) - 2 for example in examples),
    ]


@pytest.mark.parametrize("name", ["eagle2", "hass2"])
def test_layers_begin_as_the_targets_last(name: str) -> None:
    recipe = dataclasses.replace(RECIPES.drafters[name], layers_from_target=True)
    drafter = new_drafter(recipe, small_target(), CAPTURE[recipe.reads], small_examples(), 3)
    (module,) = drafter.modules_
    for layer, theirs in zip(module.layers, small_target().layers[-recipe.layers :], strict=True):
        assert torch.equal(layer.attention.qkv.weight, theirs.attention.qkv.weight)
        assert torch.equal(layer.mlp.down.weight, theirs.mlp.down.weight)
    hidden = torch.randn(1, 3, 32)
    torch.testing.assert_close(module.fuse(torch.zeros(1, 3, 32), hidden), hidden)


def test_a_step_of_so_many_tokens() -> None:
    chance = random.Random(1)
    lengths = [chance.choice([5, 20, 90, 300]) for _ in range(400)]
    batches = order_by_tokens(lengths, 500, "a")
    assert sorted(row for batch in batches for row in batch) == list(range(400))
    assert len(batches) == pytest.approx(batches_by_tokens(lengths, 500), abs=1)
    tokens = [sum(lengths[row] for row in batch) for batch in batches]
    assert 500 - 300 <= min(tokens) <= max(tokens) <= 500 + 300
    assert sum(tokens) / len(tokens) == pytest.approx(500, rel=0.05)
    padded = [max(lengths[row] for row in batch) * len(batch) for batch in batches]
    assert sum(padded) < 1.5 * sum(tokens)
    even = [chance.randrange(100, 500) for _ in range(400)]
    padded = [max(even[row] for row in batch) * len(batch) for batch in order_by_tokens(even, 2048, "a")]
    assert sum(padded) < 1.12 * sum(even)
    assert order_by_tokens(lengths, 500, "a") == batches != order_by_tokens(lengths, 500, "b")
    assert order_by_tokens([40, 50], 10, "a") in ([[0], [1]], [[1], [0]])
    assert order_by_tokens([40, 50], 1000, "a") == [[0, 1]]


def test_steps_and_tokens_of_a_training_by_tokens() -> None:
    data, training = small_data(), small_training(tokens=100)
    recipe, total = RECIPES.drafters["eagle2"], sum(len(example.ids) for example in small_examples())
    _, losses = trained_small("eagle2", {"tokens": 100}, data)
    assert len(losses) == training_steps(recipe, training, data) == round(2.6 * round(total / 100))
    assert training_tokens(recipe, training, data) == round(2.6 * total)


class _KilledError(Exception):
    pass


@pytest.mark.parametrize(
    ("name", "changed"),
    [("eagle2", {}), ("prism", {"tokens": 100}), ("eagle3", {"dtype": "bfloat16", "positions": 20, "tokens": 60})],
)
def test_a_training_goes_on_as_if_nothing_had_been(name: str, changed: dict[str, Any], tmp_path: Path) -> None:
    """Ended at random steps, between its state and the next as well: the bytes of an undisturbed one."""
    data, state, chance = small_data(), tmp_path / "state", random.Random(5)
    whole, expected = trained_small(name, changed, data)
    seen: list[float] = []
    ends = sorted(chance.sample(range(1, len(expected)), 3))
    for end, every in zip(ends, (0.0, 1e9, 0.0), strict=True):
        begun = len(seen)

        def tick(steps: int, loss: float, end: int = end) -> None:
            seen.append(loss)
            if len(seen) >= end:
                raise _KilledError

        with pytest.raises(_KilledError):
            trained_small(name, changed, data, Course(state=state, every=every), tick)
        del seen[begun + 1 :]
    steps: list[int] = []
    drafter, losses = trained_small(
        name, changed, data, Course(state=state, every=0.0), lambda count, loss: steps.append(count)
    )
    assert 1 < steps[0] == len(expected) - len(steps) + 1
    assert losses[1:] == expected[-len(losses) + 1 :]
    assert bytes_of(drafter) == bytes_of(whole)


def test_a_killed_process_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    """SIGKILL at any moment, a write of the state included."""
    state = tmp_path / "models" / "state.safetensors"
    whole, expected = trained_small("hass", {"tokens": 100}, small_data())
    command = [sys.executable, str(WORLD), "hass", '{"tokens": 100}', str(state)]
    process = subprocess.Popen([*command, "0.3"])
    deadline = time.monotonic() + 120
    while not state.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(random.Random(3).uniform(0.2, 1.2))
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = json.loads(subprocess.run([*command, "0"], capture_output=True, check=True).stdout)
    assert len(done["losses"]) < len(expected)
    assert done["bytes"] == bytes_of(whole)


def test_a_state_of_another_training_is_refused(tmp_path: Path) -> None:
    data, state = small_data(), tmp_path / "state"
    course = Course(state=state, every=0.0)
    trained_small("eagle2", {}, data, course)
    mine = state.read_bytes()
    for changed in ({"seed": 9}, {"rows": 5}, {"soft_weight": 0.2}):
        with raises(CheckpointError, state):
            trained_small("eagle2", changed, data, course)
    with raises(CheckpointError, state):
        trained_small("eagle2", {}, Data(data.features, 20, "2x"), course)
    for damaged in (mine[:100], mine[:-1], b"", b"{}" * 50, mine.replace(b"steps", b"stops", 1)):
        state.write_bytes(damaged)
        with raises(CheckpointError, state):
            trained_small("eagle2", {}, data, course)
    (tmp_path / "file").touch()
    with raises(StoreError, tmp_path / "file"):
        trained_small("eagle2", {}, data, Course(state=tmp_path / "file" / "state", every=0.0))


def test_a_state_holds_no_code(tmp_path: Path) -> None:
    state = TrainingState("x", 3, 1.5, {"weight.a": torch.arange(6.0)})
    state.save(tmp_path / "state")
    loaded = TrainingState.load(tmp_path / "state", "x")
    assert loaded is not None
    assert (loaded.steps, loaded.loss) == (3, 1.5)
    assert torch.equal(loaded.tensors["weight.a"], torch.arange(6.0))
    assert TrainingState.load(tmp_path / "none", "x") is None
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def _together(name: str, changed: dict[str, Any], world: int) -> list[dict[str, Any]]:
    """What each of so many processes says of a training."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORLD), name, json.dumps(changed), "", "0"],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
        )
        for rank in range(world)
    ]
    said = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * world
    return [json.loads(text) for text in said]


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("hass", {"draft_vocabulary": 100, "positions": 32}),
        ("eagle3", {"tokens": 100, "positions": 16, "accumulate": 2}),
        ("eagle2", {"rows": 1}),
    ],
)
def test_two_processes_train_as_one(name: str, changed: dict[str, Any]) -> None:
    """Rows of very different lengths, a batch of one row between two processes: the same losses."""
    _, expected = trained_small(name, changed, small_data())
    first, second = _together(name, changed, 2)
    assert first == second
    assert first["losses"] == pytest.approx(expected, rel=1e-5)


def test_features_in_files_are_those_in_memory(tmp_path: Path) -> None:
    place = FeaturePlace(0, tmp_path / "features")
    for dtype in (torch.float32, torch.bfloat16):
        memory, files = small_data(dtype=dtype).features, small_data(place, dtype).features
        assert (memory.kept, files.kept) == ("in memory", "in files")
        for layers in ((), (2,), (4, 1)):
            mine, theirs = files.read([3, 0, 11], layers), memory.read([3, 0, 11], layers)
            assert torch.equal(mine.hidden, theirs.hidden)
            assert torch.equal(mine.aux_hidden, theirs.aux_hidden)
            assert mine.hidden.dtype == dtype
    drafter, _ = trained_small("prism_star", {}, small_data(place))
    other, _ = trained_small("prism_star", {}, small_data())
    assert bytes_of(drafter) == bytes_of(other)
    assert small_data(FeaturePlace(0)).features.kept == "nowhere"


def test_features_in_files_are_computed_once_and_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prism_ae.training.features._ROWS", 4)
    monkeypatch.setattr("prism_ae.training.mapped._NOTE_SECONDS", 0.0)
    computed: list[int] = []
    compute = Features._compute

    def counting(self: Features, batch: Any) -> Any:
        if len(computed) == 3:
            raise _KilledError
        computed.append(len(batch.lengths))
        return compute(self, batch)

    monkeypatch.setattr(Features, "_compute", counting)
    place = FeaturePlace(0, tmp_path)
    with pytest.raises(_KilledError):
        small_data(place)
    computed[:] = [0, 0]
    with pytest.raises(_KilledError):
        small_data(place)
    monkeypatch.setattr(Features, "_compute", compute)
    features, expected = small_data(place).features, small_data().features
    for row in range(24):
        assert torch.equal(features.read([row], (1,)).hidden, expected.read([row], (1,)).hidden)
    monkeypatch.setattr(Features, "_compute", lambda self, batch: 1 / 0)
    assert torch.equal(small_data(place).features.read([5], ()).hidden, expected.read([5], ()).hidden)
    with pytest.raises(ZeroDivisionError):  # another target, other files
        small_data(place, torch.bfloat16)


def test_a_token_is_scored_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target's most likely tokens, where they are asked for; in files they stay."""
    for place in (FeaturePlace(), FeaturePlace(0, tmp_path), FeaturePlace(0)):
        features = small_data(place).features
        read = features.read([2, 9], ())
        asked = torch.rand(read.batch.ids.shape) < 0.5
        asked &= torch.arange(asked.shape[1]) < read.batch.lengths[:, None]
        expected = torch.where(asked, features.target.head(read.hidden).argmax(-1), 0)
        assert torch.equal(features.best([2, 9], read, asked), expected)
        with monkeypatch.context() as patch:
            patch.setattr(features.target.head, "forward", lambda hidden: 1 / 0)
            assert torch.equal(features.best([2, 9], read, asked), expected)
            if place.folder:
                assert torch.equal(small_data(place).features.best([2, 9], read, asked), expected)


def test_a_folder_for_features_without_room_is_one_message(tmp_path: Path) -> None:
    with raises(StoreError, tmp_path):
        MappedFiles(tmp_path, "features", 1).tensor("hidden", (1 << 50, 1 << 10), torch.float32)
    (tmp_path / "file").touch()
    with raises(StoreError, tmp_path / "file"):
        small_data(FeaturePlace(0, tmp_path / "file"))
