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
    from prism_ae.cli.measure import recall
    from prism_ae.cli.output import note
    from prism_ae.experiments.request import left_out_in_words

    request = options.request(experiments)
    note(left_out_in_words(request))
    plan, store = recall(request, folders.runs_dir, folders.models_dir)
    draw(request, plan, store, out, with_paper=with_paper)
