"""``prism-ae run``: measure the cells without a result, then draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prism_ae.cli import options as o

if TYPE_CHECKING:
    from prism_ae.execution.run import Outcome
    from prism_ae.planning.plan import Plan


def run(
    experiments: o.Experiments,
    options: o.RequestOptions,
    *,
    with_paper: o.WithPaper = False,
    devices: o.DeviceOptions,
    folders: o.FolderOptions,
    out: o.Out = None,
) -> None:
    """Measure the cells that have no result yet, then draw the experiments.

    Ctrl-C once writes the finished cells and stops; the same command continues. No cell is measured twice; finished
    experiments are drawn again. The run ends with a list of the drawings, and of missing cells with their reasons.

    \b
    Examples:
      prism-ae run all --suite mini
      prism-ae run figure4 --suite mini --benches humaneval,qa --scales 1x,8x
      prism-ae run figure1 --gpus 0,1 --questions 20
      prism-ae run figure10 --suite mini --tree 6,1,7 --out chain
      prism-ae run figure7 --suite mini --batch-size 10 --batch-size 12
      prism-ae run figure8 --suite mini --tree 3,2,6 --tree 5,8,32 --tree 8,10,64
      prism-ae run table4 --gpus 0 --drafting both --paper-compat

    On a CPU, throughput cells run one at a time and alone; on GPUs, one on each. A draft tree has d steps, w branches
    and v verified tokens, v at most 1 + w + w*w*(d-1); a chain (w = 1) verifies d + 1. Exit code 8: some cells that
    could have a result have none.
    """
    from prism_ae.cli.draw import check_writable, draw
    from prism_ae.cli.measure import measure, open_store, to_measure_again
    from prism_ae.cli.output import flush, note
    from prism_ae.cli.summary import check_complete, run_summary
    from prism_ae.experiments.request import left_out_in_words
    from prism_ae.planning.lookup import LocalLookup
    from prism_ae.planning.plan import make_plan, resolve

    request = options.request(experiments)
    note(left_out_in_words(request))
    slots = devices.slots()
    check_writable(out, request)
    store = open_store(folders.runs_dir, request.suite)
    resolved = resolve(request.all_points, LocalLookup(request.suite, folders.models_dir), request.suite.drafters)
    plan, outcome = make_plan(resolved, store.records()), None
    if plan.assignments or to_measure_again(request, resolved, store, request.suite.targets):
        plan, outcome = measure(request, resolved, store, folders.models_dir, slots)
    note([_result(plan, outcome)])
    if outcome is not None and outcome.interrupted:
        raise KeyboardInterrupt
    plan = make_plan(resolved, store.records())
    drawn = draw(request, plan, store, out, with_paper=with_paper)
    flush()  # the files are named before the list of them, wherever the two streams lead
    note(run_summary(plan, drawn))
    check_complete(plan)


def _result(plan: Plan, outcome: Outcome | None) -> str:
    """What the run measured; None for a run that had nothing to measure."""
    from prism_ae.io.words import duration, pluralise

    if outcome is None:
        text = f"nothing to measure: {len(plan.done):,} of {pluralise(plan.total, 'cell')} are in the store"
    else:
        text = f"measured {pluralise(outcome.measured, 'cell')} in {duration(outcome.seconds)}"
        text += f", {len(outcome.failed):,} failed" if outcome.failed else ""
        text += f", {outcome.left:,} left" if outcome.left else ""
    if plan.from_store_only:
        text += f"; {pluralise(len(plan.from_store_only), 'cell')} with the result of a model that is not here now"
    return text
