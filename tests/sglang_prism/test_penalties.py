"""Penalties along a draft tree: a node is given what the text that leads to it would be given without drafts."""

from __future__ import annotations

import itertools
import random
import sys
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from prism_ae.sglang_prism import penalties
from prism_ae.sglang_prism.penalties import before_sample, paths_of, penalties_of, scale

VOCABULARY = 13


def request(written: Sequence[int], tokenizer: Any = None, **wants: Any) -> Any:
    """A request of SGLang's, as far as it is read."""
    neutral = {
        "frequency_penalty": 0.0,
        "presence_penalty": 0.0,
        "repetition_penalty": 1.0,
        "min_new_tokens": 0,
        "stop_token_ids": None,
    }
    return SimpleNamespace(
        sampling_params=SimpleNamespace(**neutral | wants), output_ids=list(written), tokenizer=tokenizer
    )


def penalised(logits: Tensor, text: Sequence[int], asked: Any) -> Tensor:
    """One row of logits [V] after a text, straight from the definitions, one token at a time."""
    wants = asked.sampling_params
    row, counts = logits.clone(), Counter(text)
    for token, count in counts.items():
        row[token] -= wants.frequency_penalty * count + wants.presence_penalty
    if len(text) < wants.min_new_tokens:
        for token in penalties.end_tokens(asked):
            row[token] = float("-inf")
    for token in counts:
        value = row[token]
        row[token] = value * wants.repetition_penalty if value < 0 else value / wants.repetition_penalty
    return row


def random_tree(nodes: int, generator: random.Random) -> list[int]:
    """The parent of each node; node 0 is the root, and a parent has a smaller number."""
    return [-1, *(generator.randrange(number) for number in range(1, nodes))]


def links(parents: Sequence[int]) -> tuple[list[int], list[int]]:
    """First child and next sibling of each node, -1 where there is none."""
    child, sibling = [-1] * len(parents), [-1] * len(parents)
    for parent in range(len(parents)):
        children = [number for number, above in enumerate(parents) if above == parent]
        if children:
            child[parent] = children[0]
            for one, following in itertools.pairwise(children):
                sibling[one] = following
    return child, sibling


def path(parents: Sequence[int], node: int) -> list[int]:
    """From the root's child down to the node; [] for the root."""
    found: list[int] = []
    while node > 0:
        found.append(node)
        node = parents[node]
    return found[::-1]


@pytest.fixture
def trees() -> list[list[list[int]]]:
    """Batches of three trees each: random ones, a chain, a star, the root alone."""
    generator = random.Random(0)
    sizes = [1, 2, 5, 16, 33, 60]
    batches = [[random_tree(nodes, generator) for _ in range(3)] for nodes in sizes]
    chain, star = [-1, *range(6)], [-1, *[0] * 6]
    return [*batches, [chain, star, random_tree(7, generator)]]


def test_paths_are_those_of_the_tree(trees: list[list[list[int]]]) -> None:
    for batch in trees:
        child, sibling = (torch.tensor(column) for column in zip(*map(links, batch), strict=True))
        found = paths_of(child, sibling)
        for row, parents in enumerate(batch):
            for node in range(len(parents)):
                assert found[row, node].nonzero().flatten().tolist() == sorted(path(parents, node))


ASKED: list[list[dict[str, Any]]] = [
    [{"frequency_penalty": 1.3}, {"presence_penalty": -0.7}, {"repetition_penalty": 1.8}],
    [{}, {"frequency_penalty": -0.5, "presence_penalty": 0.9, "repetition_penalty": 0.6}, {}],
    [{"min_new_tokens": 6, "stop_token_ids": [3, 5]}, {"repetition_penalty": 1.2}, {}],
    [{"min_new_tokens": 1, "stop_token_ids": {4}, "frequency_penalty": 2.0}] * 3,
]


@pytest.mark.parametrize("asked", ASKED)
def test_every_node_is_penalised_as_the_text_before_it(
    asked: list[dict[str, Any]], trees: list[list[list[int]]]
) -> None:
    generator = torch.Generator().manual_seed(0)
    for batch in trees:
        nodes = len(batch[0])
        written = [torch.randint(VOCABULARY, (length,), generator=generator).tolist() for length in (0, 4, 9)]
        requests = [request(text, **wants) for text, wants in zip(written, asked, strict=True)]
        tokens = torch.randint(VOCABULARY, (3, nodes), generator=generator)
        logits = torch.randn(3 * nodes, VOCABULARY, generator=generator)
        child, sibling = (torch.tensor(column) for column in zip(*map(links, batch), strict=True))
        output = SimpleNamespace(next_token_logits=logits.clone())
        info = SimpleNamespace(acc_additive_penalties=torch.full((3, VOCABULARY), 99.0), acc_scaling_penalties=None)
        before_sample(
            SimpleNamespace(
                draft_token_num=nodes,
                draft_token=tokens.flatten(),
                retrieve_next_token=child,
                retrieve_next_sibling=sibling,
            ),
            SimpleNamespace(
                reqs=requests,
                sampling_info=info,
                spec_algorithm=SimpleNamespace(name="PRISM"),
                forward_mode=SimpleNamespace(is_idle=lambda: False),
            ),
            output,
        )
        expected = [
            penalised(
                logits[row * nodes + node],
                [*written[row], *(int(tokens[row, on]) for on in path(batch[row], node))],
                requests[row],
            )
            for row in range(3)
            for node in range(nodes)
        ]
        torch.testing.assert_close(output.next_token_logits, torch.stack(expected))
        # SGLang's own, of the text before the round alone, are not applied on top.
        assert info.acc_additive_penalties is None
        assert info.acc_scaling_penalties is None


def test_counting_the_texts_alone_is_noticed(trees: list[list[list[int]]]) -> None:
    """The comparison has power: SGLang's rule, the same for all nodes, is another one."""
    wants = request([1, 1, 2], frequency_penalty=1.0)
    of = penalties_of([wants], VOCABULARY, "cpu")
    along, _ = of.at(torch.tensor([[[False, False], [False, True]]]), torch.tensor([[2, 1]]))
    alone, _ = of.at_the_end()
    assert torch.equal(along[0, 0], alone[0])
    assert not torch.equal(along[0, 1], alone[0])


@pytest.mark.parametrize(
    ("name", "idle", "penalty"),
    [("EAGLE", False, torch.ones(1, 1)), ("PRISM", True, torch.ones(1, 1)), ("PRISM", False, None)],
)
def test_other_batches_are_left_alone(name: str, idle: bool, penalty: Tensor | None) -> None:
    info = SimpleNamespace(acc_additive_penalties=penalty, acc_scaling_penalties=None)
    batch = SimpleNamespace(
        sampling_info=info,
        spec_algorithm=SimpleNamespace(name=name),
        forward_mode=SimpleNamespace(is_idle=lambda: idle),
    )
    before_sample(None, batch, None)
    assert info.acc_additive_penalties is penalty


def test_the_end_tokens_are_those_of_request_and_tokenizer() -> None:
    tokenizer = SimpleNamespace(additional_stop_token_ids={7}, eos_token_id=8)
    assert penalties.end_tokens(request([], tokenizer, min_new_tokens=2, stop_token_ids=[3])) == {3, 7, 8}
    assert penalties.end_tokens(request([], SimpleNamespace(eos_token_id=None), min_new_tokens=2)) == set()
    assert penalties.end_tokens(request([], tokenizer, stop_token_ids=[3])) == set()


def test_the_repetition_penalty_divides_what_is_positive() -> None:
    factor = torch.tensor([2.0, 2.0, 1.0])
    assert scale(torch.tensor([3.0, -3.0, -5.0]), factor).tolist() == [1.5, -6.0, -5.0]
    assert scale(torch.tensor([float("-inf")]), torch.tensor([2.0])).tolist() == [float("-inf")]


def test_rounds_with_penalties_wait_for_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """In SGLang's overlapped scheduler, where a round otherwise begins before the last one's tokens are known."""
    arguments = SimpleNamespace(speculative_algorithm="")
    context: Any = SimpleNamespace(get_server_args=lambda: arguments)
    monkeypatch.setitem(sys.modules, "sglang.srt.runtime_context", context)
    plain, wanting = request([1]), request([1], presence_penalty=0.1)
    waiting, nothing = SimpleNamespace(result_queue=[1]), SimpleNamespace(result_queue=[])
    for algorithm, scheduler, requests, already, waits in (
        ("PRISM", waiting, [plain, wanting], False, True),
        ("PRISM_CAPTURED", waiting, [wanting], False, True),
        ("PRISM", waiting, [plain], False, False),
        ("PRISM", waiting, [plain], True, True),
        ("PRISM", nothing, [wanting], False, False),
        ("EAGLE", waiting, [wanting], False, False),
    ):
        arguments.speculative_algorithm = algorithm
        batch = SimpleNamespace(reqs=requests)
        assert penalties.after_overlap_decision(already, scheduler, batch, last_batch=None) == waits
    assert not penalties.after_overlap_decision(False, waiting, None, last_batch=None)
