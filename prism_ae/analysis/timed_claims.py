"""Claims about speeds, judged by the rules of `claims` on the entries that are drawn.

Figures are judged on the mean over benchmarks that they draw, tables benchmark by benchmark. A claim about draft trees
compares the trees of one drafter.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

from prism_ae.analysis.claims import Comparison, Groups, Number, Verdict, compare, judge_orders, number_of, verdict_of
from prism_ae.analysis.entries import Entry
from prism_ae.analysis.paper_values import QUANTITY, Reference
from prism_ae.cells import TreeShape
from prism_ae.experiments.records import Claim, Experiment, TreeClaim

Trees = dict[tuple[str, str, float], dict[str, Number | None]]
"""(target, drafter, temperature) -> tree -> number, None for a hole."""


def judge_times(
    experiment: Experiment, entries: Sequence[Entry], known: Sequence[Reference], micro: bool
) -> tuple[Verdict, ...]:
    """A verdict for each claim whose drafters, or trees, were asked for together.

    Args:
        known: the paper's values that are of what was asked.
        micro: acceptance lengths are micro.
    """
    verdicts: list[Verdict | None] = []
    table = experiment.kind == "table"
    drawn = [entry for entry in entries if bool(entry.benchmark) == table]
    for claim in experiment.claims:
        groups = _groups(claim, experiment, drawn, micro)
        paper, rerun = (_known(claim, experiment, known, again) for again in (False, True))
        verdicts.append(judge_orders(claim, groups, paper, rerun))
    verdicts += [_trees(claim, drawn, known, micro) for claim in experiment.tree_claims]
    return tuple(verdict for verdict in verdicts if verdict is not None)


def _groups(claim: Claim, experiment: Experiment, entries: Sequence[Entry], micro: bool) -> Groups:
    name = _name(claim.quantity or QUANTITY[experiment.kind], micro)
    groups: Groups = {}
    for entry in entries:
        line = groups.setdefault((entry.target, entry.benchmark, entry.temperature), {}).setdefault(entry.drafter, {})
        line[float(entry.batch)] = number_of(entry.values.get(name))
    return groups


def _known(claim: Claim, experiment: Experiment, known: Sequence[Reference], rerun: bool) -> Groups:
    quantity = claim.quantity or QUANTITY[experiment.kind]
    groups: Groups = {}
    for each in known:
        if each.quantity == quantity and each.rerun == rerun:
            group = groups.setdefault((each.target, each.benchmark, each.temperature), {})
            group.setdefault(each.drafter, {})[float(each.batch or 1)] = Number(each.value)
            if quantity == "speed_up":  # vanilla decoding is 1 by definition
                group.setdefault("vanilla", {})[float(each.batch or 1)] = Number(1.0)
    return groups


def _trees(claim: TreeClaim, entries: Sequence[Entry], known: Sequence[Reference], micro: bool) -> Verdict | None:
    groups: Trees = {}
    for entry in entries:
        if entry.tree is not None:
            number = number_of(entry.values.get(_name(claim.quantity, micro)))
            groups.setdefault((entry.target, entry.drafter, entry.temperature), {})[entry.tree] = number
    paper: dict[bool, Trees] = {False: {}, True: {}}
    for each in known:
        if each.quantity == claim.quantity and each.tree is not None:
            line = paper[each.rerun].setdefault((each.target, each.drafter, each.temperature), {})
            line[each.tree] = Number(each.value)
    judged, printed, again = (
        [result for line in found.values() for result in _compared(claim, line)]
        for found in (groups, paper[False], paper[True])
    )
    return verdict_of(claim.text, claim.trees, judged, printed, again) if judged else None


def _compared(claim: TreeClaim, line: Mapping[str, Number | None]) -> Iterator[Comparison | None]:
    """One comparison for the claim's trees, or one per pair of a larger and a smaller tree."""
    if claim.trees:
        trees = [str(TreeShape.parse(tree)) for tree in claim.trees]
        if all(tree in line for tree in trees):
            yield compare([line[tree] for tree in trees])
        return
    for larger, smaller in itertools.permutations(line, 2):
        if _larger(TreeShape.parse(larger), TreeShape.parse(smaller)):
            yield compare([line[larger], line[smaller]])


def _larger(tree: TreeShape, other: TreeShape) -> bool:
    return tree != other and (
        tree.steps >= other.steps and tree.branch >= other.branch and tree.verified >= other.verified
    )


def _name(quantity: str, micro: bool) -> str:
    """The entry's value that a claim's quantity is."""
    return {"al": "al_micro" if micro else "al_macro"}.get(quantity, quantity)
