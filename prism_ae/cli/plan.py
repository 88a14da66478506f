"""``prism-ae plan``: what a run would do. Takes no device and writes nothing."""

from __future__ import annotations

from prism_ae.cli import options as o


def plan(
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
    gpus: o.Gpus = None,
    workers: o.Workers = None,
    models_dir: o.ModelsDir = o.MODELS,
    runs_dir: o.RunsDir = o.RUNS,
    json: o.Json = False,
) -> None:
    """Show what would be measured: cells, loads, time, disk, and what is missing. Takes no device.

    GPUs of another machine may be planned for. What has no finished cell to judge by is said to be unknown.

    \b
    Examples:
      prism-ae plan figure4 --suite mini
      prism-ae plan all --gpus 0,1,2,3,4,5,6,7
      prism-ae plan figure7 --suite mini --batch-size 4 --drafting both
      prism-ae plan all --suite mini --json
    """
    import sys

    from prism_ae.cli.draw import check_labels
    from prism_ae.cli.measure import open_store, slots
    from prism_ae.cli.output import say, say_json
    from prism_ae.cli.plan_text import in_words
    from prism_ae.experiments.request import left_out_in_words, make_request
    from prism_ae.io.words import wrapped
    from prism_ae.planning.forecast import as_json, look
    from prism_ae.planning.lookup import LocalLookup

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
    check_labels(request)
    where = slots(gpus, workers, elsewhere=True)
    store = open_store(runs_dir, request.suite)
    lookup = LocalLookup(request.suite, models_dir)
    outlook = look(request, lookup, store.records(), where, models_dir, store.root)
    if json:
        say_json(as_json(outlook))
        return
    names = ", ".join(experiment.name for experiment in request.experiments)
    say([*wrapped(f"suite {request.suite.name}: {names}", ""), *in_words(outlook, str(models_dir))])
