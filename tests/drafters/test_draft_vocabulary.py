"""A drafter that drafts among some of the target's tokens: the same as masking the others."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from prism_ae.drafters.checkpoint import load_drafter, save_drafter
from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.layouts.configs import NOTE
from prism_ae.drafters.layouts.read import read_drafter
from prism_ae.drafters.layouts.records import stored_shapes
from prism_ae.drafters.layouts.table import OWN, SGLANG_EAGLE
from prism_ae.drafters.layouts.write import FORMS, in_layout, layout_for, write_files
from prism_ae.drafters.model import Drafter
from prism_ae.drafters.sizes import forward_pass
from prism_ae.errors import CheckpointError, MissingError, UsageError
from prism_ae.models.config import LlamaConfig
from prism_ae.models.llama import Llama
from prism_ae.models.weights import TOKEN_MAP

SIZES = LlamaConfig(40, 16, 24, 4, 4, 2, 1e-5, 10000.0, 64)
LAYER = dataclasses.replace(SIZES, num_hidden_layers=1)
WHOLE = {
    "eagle2": DrafterConfig("eagle", LAYER),
    "prism": DrafterConfig("eagle", LAYER, 2, (0, 1)),
    "prism_star": DrafterConfig("eagle", LAYER, 2, (0, 1), (1, 2, 3)),
}
CPU = torch.device("cpu")


def part(size: int = 11) -> Tensor:
    return torch.randperm(SIZES.vocab_size)[:size].sort().values


@pytest.fixture
def target() -> Llama:
    torch.manual_seed(0)
    return Llama(SIZES).requires_grad_(requires_grad=False)


def pair(name: str, target: Llama, ids: Tensor) -> tuple[Drafter, Drafter]:
    """The same drafter without and with a draft vocabulary."""
    whole = Drafter(WHOLE[name], target)
    some = Drafter(dataclasses.replace(WHOLE[name], draft_vocab_size=len(ids)), target)
    some.draft_ids = ids
    for ours, theirs in zip(some.parameters(), whole.parameters(), strict=True):
        ours.data.copy_(theirs.data)
    return whole, some


@pytest.mark.parametrize("name", WHOLE)
def test_all_tokens_are_no_draft_vocabulary(target: Llama, name: str) -> None:
    whole, some = pair(name, target, torch.arange(SIZES.vocab_size))
    hidden = torch.randn(3, 5, SIZES.hidden_size)
    assert torch.equal(some.logits(hidden), whole.logits(hidden))
    tokens = torch.randint(SIZES.vocab_size, (3, 5))
    assert torch.equal(some.token_ids(tokens), tokens)


def test_the_others_are_as_if_masked(target: Llama) -> None:
    ids = part()
    whole, some = pair("eagle2", target, ids)
    hidden = torch.randn(3, 5, SIZES.hidden_size)
    masked = torch.full((3, 5, SIZES.vocab_size), -torch.inf)
    masked[..., ids] = whole.logits(hidden)[..., ids]
    best, expected = some.logits(hidden).log_softmax(-1).topk(4), masked.log_softmax(-1).topk(4)
    torch.testing.assert_close(best.values, expected.values)
    assert torch.equal(some.token_ids(best.indices), expected.indices)
    assert not torch.equal(best.indices, expected.indices)  # unmapped they would be other tokens


def test_the_rows_follow_ids_and_head(target: Llama) -> None:
    _, some = pair("eagle2", target, part())
    hidden = torch.randn(2, SIZES.hidden_size)

    def check() -> None:
        expected = target.head(hidden)[:, some.draft_ids]
        torch.testing.assert_close(some.logits(hidden), expected)
        assert some.logits(hidden).dtype == target.head.weight.dtype

    check()
    rows = some.head_rows()
    assert some.head_rows() is rows  # gathered once
    some.draft_ids = part()
    check()
    some.draft_ids.copy_(part())
    check()
    target.head.weight.mul_(2)
    check()
    target.double(), some.double()
    hidden = hidden.double()
    check()


def test_training_may_follow_an_evaluation(target: Llama) -> None:
    _, some = pair("eagle2", target, part())
    with torch.inference_mode():
        some.logits(torch.randn(2, SIZES.hidden_size))
    hidden = torch.randn(2, SIZES.hidden_size, requires_grad=True)
    some.logits(hidden).sum().backward()
    assert hidden.grad is not None
    assert target.head.weight.grad is None


@pytest.mark.parametrize("name", WHOLE)
def test_it_is_read_as_written(tmp_path: Path, target: Llama, name: str) -> None:
    _, some = pair(name, target, part())
    save_drafter(tmp_path, some)
    found = load_drafter(tmp_path, target, torch.float32, CPU)
    assert torch.equal(found.draft_ids, some.draft_ids)
    assert found.config == some.config
    hidden = torch.randn(2, SIZES.hidden_size)
    assert torch.equal(found.logits(hidden), some.logits(hidden))


def test_a_step_reads_its_rows_of_the_head() -> None:
    whole, some = (forward_pass(dataclasses.replace(WHOLE["prism"], draft_vocab_size=size)) for size in (None, 11))
    assert (whole.shared, some.shared) == (40 * 16, 11 * 16)
    assert dataclasses.replace(some, shared=whole.shared) == whole
    assert stored_shapes(dataclasses.replace(WHOLE["prism"], draft_vocab_size=11))["draft_ids"] == (11,)


@pytest.mark.parametrize(("name", "form"), [(name, form) for name in WHOLE for form in FORMS])
def test_a_layout_holds_it_or_refuses_it(tmp_path: Path, target: Llama, name: str, form: str) -> None:
    _, some = pair(name, target, part())
    own, out = tmp_path / "own", tmp_path / "out"
    own.mkdir()
    out.mkdir()
    save_drafter(own, some)
    stored = read_drafter(own, None)
    layout = layout_for(form, stored.config)
    embedding = target.embedding.weight if layout.embedding else None
    if layout not in (OWN, SGLANG_EAGLE):
        with pytest.raises(UsageError, match="drafts among 11 tokens"):
            in_layout(stored.config, stored.state, layout, "it", embedding)
        return
    write_files(out, *in_layout(stored.config, stored.state, layout, "it", embedding))
    again = read_drafter(out, None)
    assert (again.config, again.layout) == (stored.config, layout.name)
    assert all(torch.equal(again.state[key], tensor) for key, tensor in stored.state.items())


@pytest.fixture
def served(tmp_path: Path, target: Llama) -> Path:
    """A drafter in SGLang's layout."""
    own, out = tmp_path / "own", tmp_path / "served"
    own.mkdir()
    out.mkdir()
    save_drafter(own, pair("eagle2", target, part())[1])
    stored = read_drafter(own, None)
    write_files(out, *in_layout(stored.config, stored.state, SGLANG_EAGLE, "it"))
    return out


def test_the_file_is_what_sglang_reads(served: Path) -> None:
    """As its `load_token_map` does: without SGLang here."""
    found = torch.load(served / TOKEN_MAP, weights_only=True)
    assert type(found) is list
    assert torch.equal(torch.tensor(found, dtype=torch.int64), read_drafter(served, None).state["draft_ids"])


class Harmful:
    """A pickle that would write a file if it were loaded."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize(
    "ids", [[1, 2], [*range(10), 40], [0, *range(10)], [-1, *range(10)], {"a": 1}, [1.5] * 11, [True] * 11, "text"]
)
def test_another_list_is_refused(served: Path, ids: object) -> None:
    torch.save(ids, served / TOKEN_MAP)
    with pytest.raises(CheckpointError, match=TOKEN_MAP):
        read_drafter(served, None)


def test_a_damaged_file_is_refused_and_nothing_is_run(served: Path) -> None:
    harm = served / "harm"
    (served / TOKEN_MAP).write_bytes(pickle.dumps(Harmful(harm)))
    with pytest.raises(CheckpointError, match=TOKEN_MAP):
        read_drafter(served, None)
    assert not harm.exists()
    for content in (b"", b"<html>", b"version https://git-lfs.github.com/spec/v1\n"):
        (served / TOKEN_MAP).write_bytes(content)
        with pytest.raises(CheckpointError, match=TOKEN_MAP):
            read_drafter(served, None)
    (served / TOKEN_MAP).unlink()
    with pytest.raises(MissingError, match=TOKEN_MAP):
        read_drafter(served, None)


@pytest.mark.parametrize("note", [{"draft_vocab_size": "11"}, {"draft_vocab_size": 0}, {"capture": [1]}, 7])
def test_a_note_that_says_something_else_is_refused(served: Path, note: object) -> None:
    data = json.loads((served / "config.json").read_text())
    (served / "config.json").write_text(json.dumps(data | {NOTE: note}))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_drafter(served, None)
