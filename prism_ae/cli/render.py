"""``prism-ae render``: draw from the store alone."""

from __future__ import annotations

from prism_ae.cli import options as o


def render(
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
    models_dir: o.ModelsDir = o.MODELS,
    runs_dir: o.RunsDir = o.RUNS,
    out: o.Out = None,
) -> None:
    """Draw experiments from what is measured; holes stay visible. Works without the models.

    \b
    Examples:
      prism-ae render all --suite mini
      prism-ae render figure4 --suite mini --with-paper --out drawn
      prism-ae render table4 --suite mini
    """
    import sys

    from prism_ae.cli.draw import draw
    from prism_ae.cli.measure import open_store
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
    store = open_store(runs_dir, request.suite)
    plan = make_plan(
        resolve(request.all_points, LocalLookup(request.suite, models_dir), request.suite.drafters), store.records()
    )
    draw(request, plan, store, out, with_paper)
