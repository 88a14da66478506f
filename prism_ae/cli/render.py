"""``prism-ae render``: draw from the store alone."""

from __future__ import annotations

from prism_ae.cli import options as o


def render(
    experiments: o.Experiments,
    options: o.RequestOptions,
    *,
    with_paper: o.WithPaper = False,
    folders: o.FolderOptions,
    out: o.Out = None,
) -> None:
    """Draw experiments from the measured cells; missing cells stay visible. Needs no models.

    \b
    Examples:
      prism-ae render all --suite mini
      prism-ae render figure4 --suite mini --with-paper --out drawn
      prism-ae render table4 --suite mini
    """
    from prism_ae.cli.draw import draw
    from prism_ae.cli.measure import open_store
    from prism_ae.cli.output import note
    from prism_ae.experiments.request import left_out_in_words
    from prism_ae.planning.lookup import LocalLookup
    from prism_ae.planning.plan import make_plan, resolve

    request = options.request(experiments)
    note(left_out_in_words(request))
    store = open_store(folders.runs_dir, request.suite)
    lookup = LocalLookup(request.suite, folders.models_dir)
    plan = make_plan(resolve(request.all_points, lookup, request.suite.drafters), store.records())
    draw(request, plan, store, out, with_paper=with_paper)
