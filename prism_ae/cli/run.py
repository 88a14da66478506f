"""``prism-ae run``: measure what is missing, then draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prism_ae.cli import options as o

if TYPE_CHECKING:
    from prism_ae.execution.run import Outcome
    from prism_ae.planning.plan import Plan


def run(
    experiments: o.Experiments,
    suite: o.SuiteName = "paper",
    benches: o.Benches = None,
    scales: o.Scales = None,
    targets: o.Targets = None,
    drafters: o.Drafters = None,
    temperatures: o.Temperatures = None,
    questions: o.Questions = None,
    tree: o.Trees = None,
    batch_size: o.BatchSizes = None,
    drafting: o.Drafting = None,
    dtype: o.Dtype = None,
    engine: o.Engine = None,
    controls: o.Controls = False,
    paper_compat: o.PaperCompat = False,
    with_paper: o.WithPaper = False,
    gpus: o.Gpus = None,
    workers: o.Workers = None,
    models_dir: o.ModelsDir = o.MODELS,
    runs_dir: o.RunsDir = o.RUNS,
    out: o.Out = None,
) -> None:
    """Measure what is not measured yet, then draw the experiments.

    Ctrl-C once finishes writing what is measured and stops; the same command continues. A finished experiment is
    drawn again, nothing is measured twice. It ends with a list of what was drawn, and what is missing and why.

    \b
    Examples:
      prism-ae run all --suite mini
      prism-ae run figure4 --suite mini --benches humaneval,qa --scales 1x,8x
      prism-ae run figure1 --gpus 0,1 --questions 20
      prism-ae run figure10 --suite mini --tree 6,1,7 --out chain
      prism-ae run figure7 --suite mini --batch-size 10 --batch-size 12
      prism-ae run figure8 --suite mini --tree 3,2,6 --tree 5,8,32 --tree 8,10,64
      prism-ae run table4 --gpus 0 --drafting both --paper-compat

    What is timed runs alone on a CPU; GPUs each time their own. A draft tree has d steps, w branches and v verified
    tokens, v at most 1 + w + w*w*(d-1); a chain (w = 1) verifies d + 1. Exit code 8: some cells that could have a
    result have none.
    """
    import sys

    from prism_ae.cli.closing import closing, complain
    from prism_ae.cli.draw import check_writable, draw
    from prism_ae.cli.measure import measure, open_store, slots
    from prism_ae.cli.output import flush
    from prism_ae.experiments.request import left_out_in_words, make_request
    from prism_ae.planning.lookup import LocalLookup
    from prism_ae.planning.plan import make_plan, resolve

    request = make_request(
        experiments,
        suite,
        benches,
        scales,
        targets,
        drafters,
        temperatures,
        questions,
        tree,
        engine,
        controls,
        batch_size,
        drafting,
        dtype,
        paper_compat,
    )
    for line in left_out_in_words(request):
        print(line, file=sys.stderr)
    where = slots(gpus, workers)
    check_writable(out, request)
    store = open_store(runs_dir, request.suite)
    resolved = resolve(request.all_points, LocalLookup(request.suite, models_dir), request.suite.drafters)
    plan, outcome = make_plan(resolved, store.records()), None
    if plan.assignments:
        plan, outcome = measure(request, resolved, store, models_dir, where)
    _report(plan, outcome)
    if outcome is not None and outcome.interrupted:
        raise KeyboardInterrupt
    plan = make_plan(resolved, store.records())
    drawn = draw(request, plan, store, out, with_paper)
    flush()  # the files are named before the list of them, wherever the two streams lead
    print("\n".join(closing(plan, drawn)), file=sys.stderr)
    complain(plan)


def _report(plan: Plan, outcome: Outcome | None) -> None:
    """What the run did, on standard error."""
    import sys

    from prism_ae.execution.progress import duration
    from prism_ae.io.words import pluralise

    if outcome is None:
        text = f"nothing to measure: {len(plan.done):,} of {pluralise(plan.total, 'cell')} are in the store"
    else:
        text = f"measured {pluralise(outcome.measured, 'cell')} in {duration(outcome.seconds)}"
        text += f", {len(outcome.failed):,} failed" if outcome.failed else ""
        text += f", {outcome.left:,} left" if outcome.left else ""
    if plan.recalled:
        text += f"; {pluralise(len(plan.recalled), 'cell')} with the result of a model that is not here now"
    print(text, file=sys.stderr)
