"""The draft trees that are looked at, and a few of them that lie far apart. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from prism_ae.cells import TreeShape

STEPS = (1, 2, 3, 4, 5, 6, 7, 8)
BRANCHES = (1, 2, 4, 6, 8, 10)
VERIFIED = (2, 4, 8, 12, 16, 24, 32, 48, 64)


def all_trees() -> tuple[TreeShape, ...]:
    """Every tree of the grid that an engine can build; a chain verifies what its steps draft, whatever the grid."""
    chains = (TreeShape(steps, 1, steps + 1) for steps in STEPS)
    grid = itertools.starmap(TreeShape, itertools.product(STEPS, BRANCHES, VERIFIED))
    wide = (tree for tree in grid if tree.branch > 1 and not tree.problem())
    return (*chains, *wide)


def contains(large: TreeShape, small: TreeShape) -> bool:
    """Whether no side of a tree is longer than the other tree's."""
    return small.steps <= large.steps and small.branch <= large.branch and small.verified <= large.verified


def spread(trees: Sequence[TreeShape], count: int) -> tuple[TreeShape, ...]:
    """Some of the trees, far apart: the largest first, then always the one that is farthest from those before.

    Distances are of the sides' logarithms: from 2 to 4 verified tokens is as far as from 32 to 64.
    """
    places = {tree: [math.log(side) for side in (tree.steps, tree.branch, tree.verified)] for tree in trees}
    chosen: list[TreeShape] = []
    while places and len(chosen) < min(count, len(trees)):
        left = [tree for tree in places if tree not in chosen]
        if chosen:
            far = {tree: min(math.dist(places[tree], places[one]) for one in chosen) for tree in left}
        else:
            far = {tree: sum(places[tree]) for tree in left}
        chosen.append(max(left, key=far.__getitem__))
    return tuple(chosen)
