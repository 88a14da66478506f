"""The draft tree's pure parts against brute force, ties included."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_ae.decoding.tree import Candidates, best_first, root_only, visible

GAINS = st.sampled_from([0.0, 0.0, -0.5, -1.0, -1.5])
"""Few values, so that equal scores are common, and 0: a drafter that is certain."""


@st.composite
def levels(draw: st.DrawFn) -> list[list[tuple[int, int, float]]]:
    """Levels of (token, parent number, score), children of random nodes of the level before."""
    result: list[list[tuple[int, int, float]]] = []
    before = [(-1, 0.0)]
    number = 0
    for _ in range(draw(st.integers(1, 4))):
        level = []
        parents = draw(st.lists(st.sampled_from(before), min_size=1, max_size=3, unique=True))
        for parent, score in parents:
            for token in range(draw(st.integers(1, 3))):
                level.append((token, parent, score + draw(GAINS)))
        result.append(level)
        before = [(number + place, score) for place, (_, _, score) in enumerate(level)]
        number += len(level)
    return result


def _tree(all_rows: list[list[list[tuple[int, int, float]]]], count: int) -> tuple[Candidates, torch.Tensor]:
    candidates = Candidates()
    for level in range(len(all_rows[0])):
        columns = [list(zip(*row[level], strict=True)) for row in all_rows]
        tokens, parents = (torch.tensor([c[place] for c in columns]) for place in (0, 1))
        candidates.add(tokens, torch.tensor([c[2] for c in columns]), parents)
    return candidates, torch.full((len(all_rows),), 99)


@settings(max_examples=150, deadline=None)
@given(levels(), st.data())
def test_best_takes_the_highest_scores_and_a_tree(row: list[list[tuple[int, int, float]]], data: st.DataObject) -> None:
    flat = [node for level in row for node in level]
    depth_of = [depth for depth, level in enumerate(row, start=1) for _ in level]
    count = data.draw(st.integers(1, len(flat)))
    # A second row with other scores shows that rows do not mix.
    other = [[(token, parent, score * 2) for token, parent, score in level] for level in row]
    candidates, root = _tree([row, other], count)
    tree = candidates.best(root, count)
    ranked = sorted(range(len(flat)), key=lambda number: (-flat[number][2], number))
    taken = sorted(ranked[:count])
    place = {-1: 0} | {number: at for at, number in enumerate(taken, start=1)}
    for line in range(2):
        assert tree.tokens[line].tolist() == [99] + [flat[number][0] for number in taken]
        assert tree.parents[line].tolist() == [-1] + [place[flat[number][1]] for number in taken]
        assert tree.depths[line].tolist() == [0] + [depth_of[number] for number in taken]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 12), st.data())
def test_a_node_sees_itself_and_its_ancestors(drafts: int, data: st.DataObject) -> None:
    parents = [[-1] + [data.draw(st.integers(0, node - 1)) for node in range(1, drafts + 1)] for _ in range(2)]
    expected = torch.zeros(2, drafts + 1, drafts + 1, dtype=torch.bool)
    depth = 0
    for row in range(2):
        for node in range(drafts + 1):
            at, steps = node, 0
            while at >= 0:
                expected[row, node, at] = True
                at, steps = parents[row][at], steps + 1
            depth = max(depth, steps - 1)
    assert torch.equal(visible(torch.tensor(parents), depth), expected)
    assert torch.equal(visible(torch.tensor(parents), depth + 2), expected)


def test_equal_scores_keep_their_order() -> None:
    scores = torch.tensor([[0.0, -1.0, 0.0, -1.0, 0.0, -1.0] * 20])
    assert best_first(scores, 63)[0].tolist() == [*range(0, 120, 2), 1, 3, 5]


def test_a_tree_without_drafts_is_its_root() -> None:
    tree = root_only(torch.tensor([5, 7]))
    assert (tree.tokens.tolist(), tree.parents.tolist(), tree.depths.tolist()) == ([[5], [7]], [[-1], [-1]], [[0], [0]])
