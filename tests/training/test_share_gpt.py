"""Twenty megabytes as they are found: ShareGPT's form with the defects of collected conversations, a target in bfloat16
and three shards. Minutes long."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from prism_ae.drafters.checkpoint import load_drafter
from prism_ae.models.checkpoints import load_target, read_manifest, save_target
from prism_ae.models.config import LlamaConfig
from prism_ae.prompts.conversation import open_conversation
from prism_ae.suites.load import load_suite
from prism_ae.training.examples import encode
from prism_ae.training.jsonl import read_conversations
from prism_ae.training.single import DrafterOrder, TrainingReports, train_drafter
from prism_ae.training.target import new_target
from prism_ae.training.tokenizer import save_tokenizer, train_tokenizer

TEMPLATE, SYSTEM, MAX_SEQ_LEN, BYTES = load_suite("mini").templates["llama-3"], "Be kind.", 512, 20_000_000
RANDOM = Random("share gpt")
WORDS = ["".join(RANDOM.choices("abcdefghijklmnopqrstuvwxyz", k=RANDOM.randint(2, 9))) for _ in range(3000)]

Messages = list[dict[str, Any]]


def words(random: Random, most: int) -> str:
    return " ".join(random.choices(WORDS, k=random.randint(3, most))).capitalize() + "."


def conversation(random: Random) -> Messages:
    turns = random.choice([1, 1, 2, 2, 3, 5, 8])
    return [
        {"from": side, "value": words(random, most)}
        for _ in range(turns)
        for side, most in (("human", 60), ("gpt", 250))
    ]


def spoil(messages: Messages, random: Random, value: object) -> Messages:
    messages[random.randrange(len(messages))]["value"] = value
    return messages


DEFECTS: dict[str, Callable[[Messages, Random], Any]] = {
    "an empty message": lambda messages, random: spoil(messages, random, ""),
    "begins with an answer": lambda messages, random: [{"from": "gpt", "value": "Hello!"}, *messages],
    "a message from 'tool'": lambda messages, random: [*messages[:1], {"from": "tool", "value": "{}"}, *messages[1:]],
    "a message that is no text": lambda messages, random: spoil(messages, random, ["a", "b"]),
    "half a surrogate pair": lambda messages, random: spoil(messages, random, "a \ud83d b"),
    "two messages of one side": lambda messages, random: [*messages[:1], *messages],
    "no question that is answered": lambda messages, random: messages[:1],
    "not a list of messages": lambda messages, random: "gone",
}
"""Beginning of the reason that is counted -> what is done to a conversation."""


@pytest.mark.heavy
def test_twenty_megabytes_as_they_are_found(tmp_path: Path) -> None:
    random, made, written = Random(1), Counter[str](), 0
    with (tmp_path / "data.jsonl").open("w") as file:
        while written < BYTES:
            messages: Any = conversation(random)
            if random.random() < 0.2:
                reason = random.choice(list(DEFECTS))
                made[reason] += 1
                messages = DEFECTS[reason](messages, random)
            line = json.dumps({"id": str(written), "conversations": messages}) + "\n"
            written += file.write(line)
    target = tmp_path / "target"
    target.mkdir()
    told = [((words(random, 20), words(random, 60)),) for _ in range(2000)]
    tokenizer = train_tokenizer(told, TEMPLATE, SYSTEM, 2000, single_digits=False)
    save_target(target, new_target(LlamaConfig(2000, 64, 128, 2, 4, 2, 1e-5, 10000.0, MAX_SEQ_LEN), 0.5, 1))
    save_tokenizer(target, tokenizer, TEMPLATE, MAX_SEQ_LEN)
    in_three_shards(target)

    said: list[str] = []
    out = train_drafter(
        DrafterOrder("eagle2", target, tmp_path / "data.jsonl", tmp_path / "out", TEMPLATE, SYSTEM),
        TrainingReports(data=said.extend),
    )
    model = load_target(target, torch.float32, torch.device("cpu"))
    drafter = load_drafter(out, model, torch.float32, torch.device("cpu"))
    assert all(bool(torch.isfinite(parameter).all()) for parameter in drafter.parameters())
    manifest = read_manifest(out)
    assert manifest is not None
    assert set(manifest.recipe["target"]) >= {f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)}

    found = read_conversations(tmp_path / "data.jsonl")
    counted = Counter({defect.reason: defect.count for defect in found.defects})
    for reason, count in made.items():
        assert [n for name, n in counted.items() if name.startswith(reason)] == [count], reason
    assert all(any(defect.first in line for line in said) for defect in found.defects)

    talk = open_conversation(target, TEMPLATE, SYSTEM)
    some = found.conversations[:300]
    for told_, examples in zip(some, encode(some, talk, MAX_SEQ_LEN).turns, strict=True):
        users, answers = [user for user, _ in told_], []
        for example in examples:
            assert list(example.ids[: example.start]) == talk.prompt(users, answers)
            answers.append(list(example.ids[example.start :]))


def in_three_shards(target: Path) -> None:
    """The weights in bfloat16, as large models are published."""
    state = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(target / "model.safetensors").items()}
    (target / "model.safetensors").unlink()
    where = {}
    for number in range(3):
        part, name = sorted(state)[number::3], f"model-0000{number + 1}-of-00003.safetensors"
        save_file({key: state[key] for key in part}, target / name, metadata={"format": "pt"})
        where |= dict.fromkeys(part, name)
    (target / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    config = json.loads((target / "config.json").read_text()) | {"torch_dtype": "bfloat16"}
    (target / "config.json").write_text(json.dumps(config))
