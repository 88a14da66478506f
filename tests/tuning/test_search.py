"""The parts of a tuning: candidates, the law of cost, what is looked at, where a curve meets 1."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random

import pytest
from tuning.surfaces import bent_cost, linear_cost, tokens

from prism_ae.cells import TreeShape
from prism_ae.tuning.cost import CostModel
from prism_ae.tuning.search import crossing, expected_tokens, finalists, promising
from prism_ae.tuning.space import BRANCHES, STEPS, VERIFIED, all_trees, neighbours, spread


def test_the_candidates_are_the_valid_trees_of_the_grid() -> None:
    trees = all_trees()
    assert len(set(trees)) == len(trees)
    assert not [tree for tree in trees if tree.problem()]
    asked = itertools.starmap(TreeShape, itertools.product(STEPS, BRANCHES[1:], VERIFIED))
    assert set(trees) == {*(TreeShape(d, 1, d + 1) for d in STEPS), *(tree for tree in asked if not tree.problem())}


def test_calibration_trees_are_distinct_span_the_grid_and_determine_the_law() -> None:
    chosen = spread(all_trees(), 8)
    assert len(set(chosen)) == 8
    assert chosen[0] == TreeShape(8, 10, 64)
    for name in ("steps", "branch", "verified"):
        sides = [getattr(tree, name) for tree in all_trees()]
        assert {min(sides), max(sides)} <= {getattr(tree, name) for tree in chosen}
    model = CostModel.fit({tree: linear_cost(tree) for tree in chosen})
    assert model.error < 1e-9
    assert all(math.isclose(model.of(tree), linear_cost(tree)) for tree in all_trees())
    assert spread(all_trees()[:3], 8) == spread(all_trees()[:3], 3)


def test_the_law_has_no_negative_price_and_says_how_wrong_it_is() -> None:
    costs = {tree: bent_cost(tree) for tree in spread(all_trees(), 10)}
    model = CostModel.fit(costs)
    assert (model.prices >= 0).all()
    host, step, drafted, verified = model.prices
    law = {t: host + step * t.steps + drafted * t.branch * (t.steps - 1) + verified * t.verified for t in costs}
    assert model.error == pytest.approx(max(abs(cost / law[tree] - 1) for tree, cost in costs.items()))
    assert model.error > 0.01
    assert all(model.of(tree) == pytest.approx(cost) for tree, cost in costs.items()), "what was timed is known"
    near, tree = TreeShape(8, 10, 64), TreeShape(8, 10, 48)
    assert near in costs
    assert (model.of(tree) > law_of(model, tree)) == (costs[near] > law[near]), "a neighbour says more than the others"
    with pytest.raises(ValueError, match="positive"):
        CostModel.fit({TreeShape(1, 1, 2): 0.0})


def law_of(model: CostModel, tree: TreeShape) -> float:
    amounts = (1, tree.steps, tree.branch * (tree.steps - 1), tree.verified)
    return float(sum(price * amount for price, amount in zip(model.prices, amounts, strict=True)))


def test_the_search_looks_at_few_trees_and_at_the_best() -> None:
    """Against every tree."""
    trees = all_trees()
    model = CostModel.fit({tree: linear_cost(tree) for tree in spread(trees, 8)})
    lengths = {tree: tokens(tree) for tree in spread(trees, 8)}
    for tree in trees:
        most = min(tree.steps + 1.0, *(tokens(one) for one in (*lengths, TreeShape(8, 10, 64)) if one.contains(tree)))
        least = max([1.0, *(tokens(one) for one in lengths if tree.contains(one))])
        assert least <= tokens(tree) <= most
        assert expected_tokens(tree, lengths) == pytest.approx(math.sqrt(least * most))
    while wave := promising(trees, lengths, model, 5):
        assert 1 <= len(wave) <= 5
        assert not set(wave) & set(lengths)
        lengths |= {tree: tokens(tree) for tree in wave}
    assert len(lengths) < len(trees) / 2
    best = max(trees, key=lambda tree: tokens(tree) / linear_cost(tree))
    assert finalists(lengths, model, 3)[0] == best
    assert len(finalists(lengths, model, 3)) == 3


def test_neighbours_differ_in_one_side_and_nothing_lies_between() -> None:
    trees = all_trees()
    expected = {(5, 4, 16), (7, 4, 16), (6, 2, 16), (6, 6, 16), (6, 4, 12), (6, 4, 24)}
    assert {dataclasses.astuple(tree) for tree in neighbours(TreeShape(6, 4, 16), trees)} == expected
    assert set(neighbours(TreeShape(8, 10, 64), trees)) == {
        TreeShape(7, 10, 64), TreeShape(8, 8, 64), TreeShape(8, 10, 48)
    }  # fmt: skip
    for tree in trees:
        assert tree not in neighbours(tree, trees)


def test_a_tree_contains_another_by_its_sides() -> None:
    assert TreeShape(6, 4, 16).contains(TreeShape(6, 4, 16))
    assert TreeShape(6, 4, 16).contains(TreeShape(2, 2, 4))
    assert not TreeShape(6, 4, 16).contains(TreeShape(2, 6, 8))


@pytest.mark.parametrize(
    ("curve", "where"),
    [
        ({1: 2.0, 2: 1.5, 4: 1.01}, None),
        ({1: 0.9, 2: 1.1}, 1.0),
        ({1: 1.5, 4: 0.5}, 2.0),  # half of the way from 1 to 4 is 2, of the logarithm
        ({8: 1.1, 2: 1.6, 16: 0.9}, 8 * math.sqrt(2)),
        ({1: 1.2, 2: 0.8, 4: 1.2}, math.sqrt(2)),
        ({4: 1.0}, None),
    ],
)
def test_where_a_curve_meets_one(curve: dict[int, float], where: float | None) -> None:
    assert crossing(curve) == (None if where is None else pytest.approx(where))


def test_the_crossing_lies_on_the_line_between_its_neighbours() -> None:
    choice = random.Random(5)
    for _ in range(100):
        curve = {2**power: choice.uniform(0.5, 1.5) for power in range(6)}
        where = crossing(curve)
        below = [batch for batch in curve if curve[batch] < 1]
        if not below:
            assert where is None
            continue
        assert where is not None
        assert below[0] / 2 <= where <= below[0] or where == 1.0
        if where > 1:
            low, high = below[0] // 2, below[0]
            part = math.log2(where / low)
            assert (1 - part) * curve[low] + part * curve[high] == pytest.approx(1)
