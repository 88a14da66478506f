"""The draft tree's pure parts against brute force, ties included."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prism_ae.cells import TreeShape
from prism_ae.decoding.tree import TreeChoice, best_first, root_only, visible

GAINS = st.sampled_from([0.0, 0.0, -0.5, -1.0, -1.5])
"""Few values, so that equal scores are common, and 0: a drafter that is certain."""

Node = tuple[int, int, float]
"""Token, number of the parent, score."""


@st.composite
def shapes(draw: st.DrawFn) -> TreeShape:
    steps, branch = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    most = 1 + branch + branch * branch * (steps - 1)
    return TreeShape(steps, branch, most if branch == 1 else draw(st.integers(2, most)))


@st.composite
def drafts(draw: st.DrawFn, shape: TreeShape) -> tuple[list[list[Node]], list[list[int]]]:
    """The root and the levels of a round, and the beams: any w nodes of each level, in any order."""
    levels: list[list[Node]] = [[(99, -1, 0.0)]]
    beams = [[0]]
    number = 0
    for _ in range(shape.steps):
        nodes = [node for level in levels for node in level]
        level = [
            (draw(st.integers(0, 5)), parent, nodes[parent][2] + draw(GAINS))
            for parent in beams[-1]
            for _ in range(shape.branch)
        ]
        number += len(levels[-1])
        levels.append(level)
        places = draw(st.permutations(range(len(level))))[: shape.branch]
        beams.append([number + place for place in places])
    return levels, beams[:-1]


@settings(max_examples=150, deadline=None)
@given(st.data(), shapes())
def test_best_takes_the_highest_scores_and_a_tree(data: st.DataObject, shape: TreeShape) -> None:
    # Two rows show that rows do not mix.
    rows = [data.draw(drafts(shape)) for _ in range(2)]
    tokens, scores = (
        [torch.tensor([[node[part] for node in row[0][level]] for row in rows]) for level in range(shape.steps + 1)]
        for part in (0, 2)
    )
    beams = [torch.tensor([row[1][step] for row in rows]) for step in range(shape.steps)]
    tree, every = TreeChoice(shape, torch.device("cpu")).best(tokens, scores, beams)
    for line, (levels, _) in enumerate(rows):
        flat = [node for level in levels for node in level]
        depth_of = [depth for depth, level in enumerate(levels) for _ in level]
        drafted = sorted(range(1, len(flat)), key=lambda number: (-flat[number][2], number))
        taken = [0, *sorted(drafted[: shape.verified - 1])]
        place = {-1: -1} | {number: at for at, number in enumerate(taken)}
        assert tree.tokens[line].tolist() == [flat[number][0] for number in taken]
        assert tree.parents[line].tolist() == [place[flat[number][1]] for number in taken]
        assert tree.depths[line].tolist() == [depth_of[number] for number in taken]
        assert every[line].tolist() == [node[2] for node in flat]


def test_scores_that_are_no_numbers_still_give_a_shape() -> None:
    """What is wrong with them is said later, when the host knows it."""
    choice, nan = TreeChoice(TreeShape(2, 2, 3), torch.device("cpu")), float("nan")
    scores = [torch.zeros(1, 1), torch.tensor([[-1.0, -2.0]]), torch.full((1, 4), nan)]
    tokens = [torch.zeros(1, width, dtype=torch.long) for width in (1, 2, 4)]
    tree, every = choice.best(tokens, scores, [torch.tensor([[0]]), torch.tensor([[2, 1]])])
    assert not bool(every.isfinite().all())
    assert 0 <= int(tree.parents[:, 1:].min()) <= int(tree.parents.max()) < 3


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
    best, places = best_first(scores, 63)
    assert places[0].tolist() == [*range(0, 120, 2), 1, 3, 5]
    assert best[0].tolist() == [0.0] * 60 + [-1.0] * 3


def test_a_tree_without_drafts_is_its_root() -> None:
    tree = root_only(torch.tensor([5, 7]))
    assert (tree.tokens.tolist(), tree.parents.tolist(), tree.depths.tolist()) == ([[5], [7]], [[-1], [-1]], [[0], [0]])
