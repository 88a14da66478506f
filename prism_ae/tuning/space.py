"""The draft trees that are looked at, and a few of them that lie far apart. Pure."""

from __future__ import annotations

import dataclasses
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


def distance(one: TreeShape, other: TreeShape) -> float:
    """How far trees lie apart, by their sides' logarithms: from 2 to 4 verified tokens is as far as from 32 to 64."""
    sides = ((tree.steps, tree.branch, tree.verified) for tree in (one, other))
    return math.dist(*([math.log(side) for side in tree] for tree in sides))


def neighbours(tree: TreeShape, trees: Sequence[TreeShape]) -> tuple[TreeShape, ...]:
    """Of the trees that differ from one in a single side, the next larger and the next smaller: six at most."""
    found: list[TreeShape] = []
    for side in ("steps", "branch", "verified"):
        own = getattr(tree, side)
        line = [one for one in trees if dataclasses.replace(one, **{side: own}) == tree]
        above = [one for one in line if getattr(one, side) > own]
        below = [one for one in line if getattr(one, side) < own]
        found += sorted(below, reverse=True)[:1] + sorted(above)[:1]
    return tuple(found)


def spread(trees: Sequence[TreeShape], count: int) -> tuple[TreeShape, ...]:
    """Some of the trees, far apart: the largest first, then always the one that is farthest from those before."""
    smallest = TreeShape(1, 1, 1)
    chosen = [max(trees, key=lambda tree: distance(tree, smallest))]
    while len(chosen) < min(count, len(trees)):
        left = [tree for tree in trees if tree not in chosen]
        chosen.append(max(left, key=lambda tree: min(distance(tree, one) for one in chosen)))
    return tuple(chosen)
