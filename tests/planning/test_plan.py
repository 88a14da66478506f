"""The plan: every point is done, to be measured or missing with a reason, and work is grouped and ordered."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from prism_ae.cells import Point
from prism_ae.engines.registry import problem
from prism_ae.errors import CheckpointError, ConfigError, PrismError, UsageError
from prism_ae.experiments.expand import expand
from prism_ae.experiments.load import load_experiment
from prism_ae.experiments.options import Options
from prism_ae.models.locate import Absent, DrafterKey, Located
from prism_ae.planning.plan import Plan, Resolved, make_plan, resolve
from prism_ae.store import Record
from prism_ae.store.records import FAILED, OK
from prism_ae.suites.load import load_suite

MINI = load_suite("mini")


class Here:
    """A lookup where everything is there except what is named."""

    def __init__(self, *absent: str, without_questions: str = "", version: str = "1", unfit: str = "") -> None:
        self.absent, self.without_questions, self.version, self.unfit = absent, without_questions, version, unfit

    def target(self, target: str) -> Located | Absent:
        return self._find(target)

    def drafter(self, key: DrafterKey) -> Located | Absent | None:
        seed = f"/{key.training_seed}" if key.training_seed else ""
        return None if key.drafter == "vanilla" else self._find(f"{key.target}/{key.drafter}/{key.scale}{seed}")

    def _find(self, name: str) -> Located | Absent:
        if any(part in name for part in self.absent):
            return Absent(f"{name} is not here", "train it")
        return Located(Path(name), f"print of {name}")

    def prompts(self, target: str, benchmark: str, questions: int) -> str:
        if benchmark == self.without_questions:
            raise ConfigError(f"{benchmark} has no questions", "fetch them")
        return f"{target} {benchmark} {questions}"

    def engine(self, engine: str) -> tuple[str, str]:
        return f"{engine}-{self.version}", "verifier"

    def pair_problem(self, point: Point) -> PrismError | None:
        wrong = point.drafter == self.unfit
        return CheckpointError(f"{point.drafter} is another target's", "choose another") if wrong else None

    def engine_problem(self, point: Point) -> str:
        return problem(point.engine, point, MINI.drafters[point.drafter].kind)


def points(figure: str = "figure4", **options: object) -> tuple[Point, ...]:
    return expand(load_experiment(figure), load_suite("mini"), Options(**{"controls": False} | options))  # type: ignore[arg-type]


def record(
    point: Point, resolved: Resolved, status: str = OK, seconds: float = 2.0, finished: str = "2026-01-01"
) -> Record:
    cell = resolved.cells[point]
    message = "" if status == OK else "it broke"
    return Record(cell, status, message, cell.id, finished, finished, seconds, 3.0, {}, "s", "cpu")


def causes(plan: Plan) -> tuple[tuple[str, str, int], ...]:
    """The missing cells: reason, hint, number; most frequent first."""
    counts = Counter((one.reason, one.hint) for one in plan.missing)
    return tuple((reason, hint, count) for (reason, hint), count in counts.most_common())


def planned(*records: Record, resolved: Resolved) -> Plan:
    return make_plan(resolved, {one.cell.id: one for one in records})


def test_a_pair_that_cannot_be_measured_is_missing_and_the_others_are_planned() -> None:
    plan = planned(resolved=resolve(points(), Here(unfit="hass")))
    assert {one.point.drafter for one in plan.missing} == {"hass"}
    assert {(one.reason, one.hint) for one in plan.missing} == {("hass is another target's", "choose another")}
    assert plan.to_measure == len(points()) - len(plan.missing) > 0


def test_every_point_is_planned_once_although_figures_share_them() -> None:
    asked = points() + points("figure5") + points()
    plan = planned(resolved=resolve(asked, Here()))
    assert plan.total == len(set(asked)) == plan.to_measure
    assert {cell.point for one in plan.assignments for cell in one.cells} == set(asked)


def test_cells_of_an_assignment_share_what_a_worker_holds() -> None:
    plan = planned(resolved=resolve(points() + points("figure10"), Here()))
    shared = [
        {(c.point.target, c.point.drafter, c.point.scale, c.point.tree, c.point.engine) for c in one.cells}
        for one in plan.assignments
    ]
    assert all(len(group) == 1 for group in shared)
    assert len({next(iter(group)) for group in shared}) == len(plan.assignments)
    for one in plan.assignments:
        point = one.cells[0].point
        assert one.target_path == Path(point.target)
        assert one.drafter_path == Path(f"{point.target}/{point.drafter}/{point.scale}")
        assert one.tree == point.tree
        assert len(one.cells) == 12


def test_batches_dtypes_and_compatibility_are_measured_apart() -> None:
    point = points(scales=("8x",), drafters=("prism",), targets=("llama-2",), benches=("qa",), temperatures=(0.0,))[0]
    variants = [
        point,
        dataclasses.replace(point, batch=1),
        dataclasses.replace(point, batch=2),
        dataclasses.replace(point, dtype="float16"),
    ]
    assert len(planned(resolved=resolve(variants, Here())).assignments) == 4
    served = dataclasses.replace(point, engine="sglang", batch=1)
    variants = [
        served,
        dataclasses.replace(served, drafting="stock"),
        dataclasses.replace(served, compat=("graphs-batch-1", "warm-cache")),
    ]
    assert len(planned(resolved=resolve(variants, Here())).assignments) == 3


def test_every_training_seed_is_measured_with_a_checkpoint_of_its_own() -> None:
    asked = points(seeds=3, scales=("8x",), drafters=("prism",), targets=("llama-2",))
    assignments = planned(resolved=resolve(asked, Here())).assignments
    assert [len(one.cells) for one in assignments] == [12] * 3
    for one in assignments:
        (seed,) = {cell.point.training_seed for cell in one.cells}
        assert str(one.drafter_path) == "mini-llama-2/prism/8x" + (f"/{seed}" if seed else "")
        assert {cell.fingerprints.drafter for cell in one.cells} == {f"print of {one.drafter_path}"}


def test_longest_first() -> None:
    few = points(benches=("qa",), drafters=("hass",), targets=("llama-2",), scales=("1x",))
    many = points(drafters=("prism",), targets=("llama-2",), scales=("1x",))
    plan = planned(resolved=resolve(few + many, Here()))
    assert [len(one.cells) for one in plan.assignments] == [12, 2]


def test_vanilla_has_no_drafter_and_no_tree() -> None:
    vanilla = dataclasses.replace(points()[0], drafter="vanilla", scale=None, tree=None)
    plan = planned(resolved=resolve([vanilla], Here()))
    (one,) = plan.assignments
    assert (one.drafter_path, one.tree) == (None, None)
    assert one.cells[0].fingerprints.drafter is None


def test_what_is_measured_is_not_planned_again() -> None:
    resolved = resolve(points(), Here())
    some = list(resolved.cells)[:30]
    plan = planned(*(record(point, resolved) for point in some), resolved=resolved)
    assert set(plan.done) == set(some)
    assert plan.to_measure == len(resolved.cells) - 30
    assert not set(plan.done) & {cell.point for one in plan.assignments for cell in one.cells}


def test_a_failed_cell_is_tried_again_and_said() -> None:
    resolved = resolve(points(), Here())
    point = next(iter(resolved.cells))
    plan = planned(record(point, resolved, FAILED), resolved=resolved)
    assert plan.failed == {resolved.cells[point].id: "it broke"}
    assert plan.to_measure == plan.total


def test_another_checkpoint_engine_or_prompt_is_another_cell() -> None:
    old = resolve(points(), Here())
    measured = [record(point, old) for point in old.cells]
    assert planned(*measured, resolved=resolve(points(), Here())).to_measure == 0
    assert planned(*measured, resolved=resolve(points(), Here(version="2"))).to_measure == len(old.cells)


def test_missing_cells_say_why_and_what_to_do() -> None:
    plan = planned(resolved=resolve(points(), Here("prism/8x", "mini-llama-3", without_questions="qa")))
    reasons = {reason: count for reason, _, count in causes(plan)}
    assert reasons["mini-llama-3 is not here"] == 180
    assert reasons["mini-llama-2/prism/8x is not here"] == 12
    assert reasons["qa has no questions"] == 28
    assert causes(plan)[0] == ("mini-llama-3 is not here", "train it", 180)
    assert plan.total == 360
    assert plan.to_measure == 360 - 180 - 12 - 28
    assert plan.targets == ("mini-llama-2",)


def test_what_cannot_be_had_is_the_cause_also_where_the_target_is_missing() -> None:
    class Unpublished(Here):
        def drafter(self, key: DrafterKey) -> Located | Absent | None:
            if key.drafter == "hass":
                return Absent("never published", "")
            return super().drafter(key)

    for here in (Unpublished(), Unpublished("mini"), Unpublished("prism")):
        found = {reason: (hint, count) for reason, hint, count in causes(planned(resolved=resolve(points(), here)))}
        assert found["never published"] == ("", 120)
    # Where both could be had, the target comes first.
    both = planned(resolved=resolve(points(targets=("llama-2",)), Here("mini-llama-2", "prism")))
    assert {reason for reason, _, _ in causes(both)} == {"mini-llama-2 is not here"}


def test_a_batch_that_never_fills_is_missing() -> None:
    small, full = (dataclasses.replace(points()[0], engine="sglang", batch=32, questions=count) for count in (31, 32))
    plan = planned(resolved=resolve([small, full], Here()))
    assert causes(plan) == (("batch 32 never fills with 31 questions", "ask for more with --questions 32", 1),)
    assert plan.to_measure == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"drafter": "standard", "scale": None}, "drafts with draft heads only"),
        ({"drafting": "stock"}, "one way of drafting, exact, not stock"),
        ({"compat": ("warm-cache",)}, "imitates none of the authors' serving choices (warm-cache)"),
    ],
)
def test_what_an_engine_cannot_measure_is_missing(change: dict[str, object], said: str) -> None:
    point = dataclasses.replace(points()[0], **change)  # type: ignore[arg-type]
    plan = planned(resolved=resolve([point, points()[0]], Here()))
    [(reason, hint, count)] = causes(plan)
    assert said in reason
    assert (hint, count, plan.to_measure) == ("choose another engine with --engine", 1, 1)
    other = dataclasses.replace(point, engine="sglang")
    assert not planned(resolved=resolve([other], Here())).missing


def test_an_unknown_engine_is_missing() -> None:
    class NoEngine(Here):
        def engine(self, engine: str) -> tuple[str, str]:
            raise UsageError(f"there is no engine '{engine}'")

    assert causes(planned(resolved=resolve(points(), NoEngine()))) == (("there is no engine 'torch'", "", 360),)


def test_without_models_the_newest_record_of_the_point_speaks() -> None:
    here = resolve(points(), Here())
    point, other = list(here.cells)[:2]
    older = dataclasses.replace(
        record(point, here, finished="2026-01-01"), cell=resolve([point], Here(version="0")).cells[point]
    )
    newer = record(point, here, finished="2026-02-01")
    failed = record(other, here, FAILED, finished="2026-03-01")
    gone = resolve(points(), Here("mini"))
    for order in ((older, newer, failed), (newer, failed, older)):
        plan = planned(*order, resolved=gone)
        assert plan.done == {point: newer}
        assert plan.from_store_only == {point}
        assert plan.to_measure == 0
        assert len(plan.missing) == 359


def test_with_models_a_record_of_another_checkpoint_does_not_speak() -> None:
    old = resolve(points(), Here(version="0"))
    plan = planned(*(record(point, old) for point in old.cells), resolved=resolve(points(), Here()))
    assert not plan.done


def test_time_is_estimated_from_finished_cells_of_the_same_kind_or_unknown() -> None:
    resolved = resolve(points(targets=("llama-2",)), Here())
    assert planned(resolved=resolved).estimate.known == 0
    prism = [point for point in resolved.cells if point.drafter == "prism"]
    done = [record(prism[0], resolved, seconds=2.0), record(prism[1], resolved, seconds=4.0)]
    estimate = planned(*done, resolved=resolved).estimate
    assert estimate.known == len(prism) - 2
    assert estimate.unknown == len(resolved.cells) - len(prism)
    assert estimate.seconds == pytest.approx(3.0 * (len(prism) - 2))
    assert planned(record(prism[0], resolved, FAILED), resolved=resolved).estimate.known == 0


def test_time_of_timed_cells_is_estimated_apart_and_by_what_they_are() -> None:
    point = dataclasses.replace(points()[0], engine="sglang", batch=4)
    others = [
        dataclasses.replace(point, drafting="stock"),
        dataclasses.replace(point, compat=("warm-cache",)),
        dataclasses.replace(point, batch=8),
        dataclasses.replace(point, batch=None),
    ]
    again = dataclasses.replace(point, benchmark="qa")
    resolved = resolve([point, again, *others], Here())
    estimate = planned(record(point, resolved, seconds=5.0), resolved=resolved).estimate
    assert (estimate.seconds, estimate.timed, estimate.known, estimate.unknown) == (5.0, 5.0, 1, 4)
    assert estimate.devices == ("cpu",)
    assert planned(resolved=resolved).estimate.devices == ()
    untimed = record(others[-1], resolved, seconds=3.0)
    more = resolve([*resolved.cells, dataclasses.replace(others[-1], benchmark="qa")], Here())
    estimate = planned(record(point, resolved, seconds=5.0), untimed, resolved=more).estimate
    assert (estimate.seconds, estimate.timed) == (8.0, 5.0)
