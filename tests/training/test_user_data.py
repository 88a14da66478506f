"""Training for a target of one's own: every form of its folder, data as they are found, and no work that is lost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from raising import raises
from safetensors.torch import load_file, save_file

from prism_ae.errors import CheckpointError, ConfigError, MissingError, StoreError, UsageError
from prism_ae.mini import corpus
from prism_ae.models.checkpoints import Manifest, read_manifest, save_target
from prism_ae.models.config import LlamaConfig
from prism_ae.prompts.conversation import open_conversation
from prism_ae.suites.load import load_suite
from prism_ae.training.drafter import frequent_tokens
from prism_ae.training.examples import Example, collate, encode, joined
from prism_ae.training.jsonl import write_jsonl
from prism_ae.training.single import DrafterOrder, TrainingReports, train_drafter
from prism_ae.training.target import new_target
from prism_ae.training.tokenizer import save_tokenizer, train_tokenizer

TEMPLATE, SYSTEM = load_suite("mini").templates["llama-3"], "Be kind."


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random target of two layers, and a file of conversations."""
    place = tmp_path_factory.mktemp("made")
    data = corpus.conversations(16, 8)
    write_jsonl(place / "data.jsonl", data)
    tokenizer = train_tokenizer(data, TEMPLATE, SYSTEM, 320, single_digits=False)
    (place / "target").mkdir()
    config = LlamaConfig(tokenizer.get_vocab_size(), 16, 24, 2, 2, 1, 1e-5, 1000.0, 256)
    save_target(place / "target", new_target(config, 0.5, 1))
    save_tokenizer(place / "target", tokenizer, TEMPLATE, 256)
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "place")
    return tmp_path / "place"


def order(place: Path, name: str = "eagle2", out: str = "out", system: str = SYSTEM) -> DrafterOrder:
    return DrafterOrder(name, place / "target", place / "data.jsonl", place / out, TEMPLATE, system)


def train(place: Path, name: str = "eagle2", **more: Any) -> Manifest:
    train_drafter(order(place, name), TrainingReports(**more))
    manifest = read_manifest(place / "out")
    assert manifest is not None
    return manifest


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def in_parts(target: Path, form: str, dtype: torch.dtype = torch.float32) -> None:
    """The same weights: "bin", or shards of either format."""
    state = {name: tensor.to(dtype) for name, tensor in load_file(target / "model.safetensors").items()}
    (target / "model.safetensors").unlink()
    if form == "bin":
        torch.save(state, target / "pytorch_model.bin")
        return
    stem, _, suffix = ("pytorch_model.bin" if form == "bin shards" else "model.safetensors").rpartition(".")
    where = {}
    for number in range(3):
        part = {name: state[name] for name in sorted(state)[number::3]}
        file = f"{stem}-0000{number + 1}-of-00003.{suffix}"
        if suffix == "bin":
            torch.save(part, target / file)
        else:
            save_file(part, target / file, metadata={"format": "pt"})
        where |= dict.fromkeys(part, file)
    (target / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


@pytest.mark.parametrize("form", ["shards", "bin", "bin shards"])
def test_a_target_in_parts_gives_the_same_drafter(place: Path, form: str) -> None:
    whole = train(place)
    shutil.rmtree(place / "out")
    in_parts(place / "target", form)
    parts = train(place)
    assert parts.files["model.safetensors"] == whole.files["model.safetensors"]
    weights = {path.name for path in (place / "target").iterdir()} - {"checkpoint.json"}
    assert set(parts.recipe["target"]) == weights
    assert all(parts.recipe["target"][name] == sha256(place / "target" / name) for name in weights)


@pytest.mark.parametrize(
    "file", ["data.jsonl", "target/config.json", "target/model.safetensors", "target/tokenizer.json"]
)
@pytest.mark.parametrize("how", ["deleted", "edited"])
def test_files_that_change_meanwhile_do_not_count(place: Path, file: str, how: str) -> None:
    """The drafter is kept, and its recipe names what was read."""
    sums = {name: sha256(place / name) for name in ("data.jsonl", "target/config.json", "target/model.safetensors")}
    done: list[float] = []

    def report(part: float, loss: float | None) -> None:
        if not done and how == "deleted":
            (place / file).unlink()
        elif not done:
            (place / file).write_bytes((place / file).read_bytes() + b"\n")
        done.append(part)

    manifest = train(place, step=report)
    assert done
    assert manifest.recipe["data"] == sums["data.jsonl"]
    for name in ("config.json", "model.safetensors"):
        assert manifest.recipe["target"][name] == sums[f"target/{name}"]


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (lambda place: (place / "target/tokenizer.json").write_text("{"), CheckpointError, "tokenizer.json"),
        (lambda place: (place / "target/tokenizer.json").unlink(), MissingError, "tokenizer.json"),
        (lambda place: (place / "target/generation_config.json").write_text("["), CheckpointError, "generation_config"),
        (lambda place: (place / "target/config.json").write_text("{}"), CheckpointError, "config.json"),
        (lambda place: (place / "target/model.safetensors").unlink(), MissingError, "model.safetensors"),
        (lambda place: (place / "data.jsonl").write_bytes(b"\xff\xfe"), ConfigError, "data.jsonl"),
        (lambda place: (place / "data.jsonl").unlink(), MissingError, "data.jsonl"),
        (lambda place: (place / "out").write_text(""), Exception, "out"),
        (lambda place: (place / "out").parent.joinpath("x").write_text(""), None, ""),
    ],
)
def test_what_is_wrong_is_said_before_the_first_step(
    place: Path, spoil: Callable[[Path], Any], error: type[Exception] | None, says: str
) -> None:
    spoil(place)
    steps: list[float] = []
    if error is None:
        train(place, step=lambda part, loss: steps.append(part))
        assert steps
        return
    with pytest.raises(error, match=says):
        train(place, step=lambda part, loss: steps.append(part))
    assert not steps


def test_a_place_that_cannot_be_written_is_said_before_the_first_step(place: Path) -> None:
    (place / "file").write_text("")
    steps: list[float] = []
    with pytest.raises(StoreError, match="file"):
        train_drafter(order(place, out="file/out"), TrainingReports(step=lambda part, loss: steps.append(part)))
    assert not steps


def test_a_target_too_shallow_is_said_before_the_data_are_read(place: Path) -> None:
    (place / "data.jsonl").unlink()
    with raises(ConfigError, "target"):
        train(place, "prism_star")


def test_defects_are_counted_said_and_kept(place: Path) -> None:
    good = (place / "data.jsonl").read_text().splitlines()
    bad = ['{"conversations": [', '{"conversations": []}', '{"conversations": [{"from": "tool", "value": "x"}]}']
    (place / "data.jsonl").write_text("\n".join([bad[0], *good, *bad[1:], ""]))
    said: list[str] = []
    manifest = train(place, data=said.extend)
    assert said == list(manifest.provenance["data"])
    assert f"{len(good)} of {len(good) + 3} conversations" in said[0]
    assert [any(word in line for line in said) for word in ("JSON", "no question", "'tool'")] == [True] * 3
    again = (place / "out/model.safetensors").read_bytes()
    shutil.rmtree(place / "out")
    (place / "data.jsonl").write_text("\n".join(good))
    train(place)
    assert (place / "out/model.safetensors").read_bytes() == again


def test_every_conversation_with_tokens_that_the_target_lacks_is_named(place: Path) -> None:
    data = json.loads((place / "target/tokenizer.json").read_text())
    size = json.loads((place / "target/config.json").read_text())["vocab_size"]
    data["added_tokens"].append(dict(data["added_tokens"][0]) | {"id": size, "content": "<extra>"})
    (place / "target/tokenizer.json").write_text(json.dumps(data))
    train(place)
    shutil.rmtree(place / "out")
    lines = (place / "data.jsonl").read_text().splitlines()
    lines.insert(2, json.dumps({"conversations": [{"user": "an <extra>", "assistant": "x"}]}))
    lines.append(
        json.dumps({"conversations": [{"user": "a", "assistant": "b"}, {"user": "<extra>", "assistant": "c"}]})
    )
    (place / "data.jsonl").write_text("\n".join(lines))
    with pytest.raises(ConfigError) as caught:
        train(place)
    first, second = caught.value.what.splitlines()
    assert "line 3:" in first
    assert f"line {len(lines)}:" in second
    assert "<extra>" in first


def test_markers_inside_an_answer_are_text(place: Path) -> None:
    """A literal end token ends nothing; in a question it is the token, as in evaluation and in transformers."""
    conversation = open_conversation(place / "target", TEMPLATE, SYSTEM)
    end = conversation.stop_id
    told = "It ends <|eot_id|> here, <|begin_of_text|> too."
    data = [(("and <|eot_id|> so", told), ("next", "fine"))]
    first, second = encode(data, conversation, 1000).turns[0]
    answer = first.ids[first.start :]
    assert [token == end for token in answer] == [False] * (len(answer) - 1) + [True]
    assert conversation.tokenizer.decode(list(answer[:-1]), skip_special_tokens=False) == told
    assert first.ids[: first.start].count(end) == 3
    assert list(first.ids[: first.start]) == conversation.prompt(["and <|eot_id|> so"], [])
    assert list(second.ids[: second.start]) == conversation.prompt(["and <|eot_id|> so", "next"], [answer])


def test_turns_are_joined_where_one_begins_with_the_other() -> None:
    one, two = Example((1, 2, 3, 4), 2), Example((1, 2, 3, 4, 5, 6, 7, 8), 6)
    three = Example((1, 2, 3, 4, 5, 6, 7, 8, 9, 10), 9)
    (together,) = joined([one, two, three])
    assert together == Example(three.ids, 2, ((4, 6), (8, 9)))
    assert together.is_answer() == [False, False, True, True, False, False, True, True, False, True]
    assert collate([one, together]).answer.tolist()[1] == together.is_answer()
    assert (
        frequent_tokens([together], 5, 12).tolist()
        == frequent_tokens([one, Example((7, 8), 0), Example((10,), 0)], 5, 12).tolist()
    )
    # A feed-back in other words, an answer that the prompt does not hold whole, and other beginnings stay apart.
    for other in (Example((1, 2, 3, 9, 5, 6), 5), Example((1, 2, 3, 4, 5), 3), Example((2, 3), 1)):
        assert joined([one, other]) == [one, other]
    assert joined([]) == []


def test_joined_turns_teach_the_same(place: Path) -> None:
    """The target's loss over a conversation in one example is that over its turns, each for itself."""
    from prism_ae.models.checkpoints import load_target
    from prism_ae.training.target import answer_quality

    conversation = open_conversation(place / "target", TEMPLATE, SYSTEM)
    target = load_target(place / "target", torch.float32, torch.device("cpu"))
    start, end = conversation.prompt(["hello"], []), conversation.stop_id
    first = Example((*start, 40, 41, 42, end), len(start))
    second = Example((*first.ids, 50, 51, 60, 61, end), len(first.ids) + 2)
    (together,) = joined([first, second])
    apart = answer_quality(target, [first, second])
    assert answer_quality(target, [together]) == pytest.approx(apart, rel=1e-5)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_said_before_the_first_step(place: Path) -> None:
    (place / "closed").mkdir(mode=0o500)
    with pytest.raises(StoreError, match="closed"):
        train_drafter(order(place, out="closed/out"))


@pytest.mark.parametrize("name", ["lm_head.weight", "model.layers.0.mlp.down_proj.weight", "model.norm.weight"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_damaged_target_teaches_nothing(place: Path, name: str, value: float) -> None:
    state = load_file(place / "target/model.safetensors")
    state[name].view(-1)[0] = value
    save_file(state, place / "target/model.safetensors", metadata={"format": "pt"})
    with raises(CheckpointError, "target"):
        train(place)
    assert not (place / "out").exists()


def test_a_disk_that_is_too_small_is_said_before_the_first_step(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(place)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    steps: list[float] = []
    with raises(StoreError, "MB"):
        train(place, step=lambda part, loss: steps.append(part))
    assert not steps


def test_a_link_to_nowhere_is_a_place_that_is_taken(place: Path) -> None:
    (place / "out").symlink_to(place / "nowhere")
    with raises(UsageError, place / "out"):
        train(place)


@pytest.mark.parametrize("what", ["file", "folder", "another training"])
def test_a_place_that_is_taken_meanwhile_costs_no_training(place: Path, what: str) -> None:
    def take(part: float, loss: float | None) -> None:
        if (place / "out").exists():
            return
        if what == "file":
            (place / "out").write_text("")
        elif what == "folder":
            (place / "out").mkdir()
            (place / "out/other").write_text("")
        else:
            train_drafter(order(place, system="Be brief."))

    made = train_drafter(order(place), TrainingReports(step=take))
    assert made == place / "out-2"
    manifest = read_manifest(made)
    assert manifest is not None
    assert manifest.recipe["system"] == SYSTEM
