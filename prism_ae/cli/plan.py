"""``prism-ae plan``: the forecast of a run. Uses no device and writes nothing."""

from __future__ import annotations

from prism_ae.cli import options as o


def plan(
    experiments: o.Experiments,
    options: o.RequestOptions,
    devices: o.DeviceOptions,
    folders: o.FolderOptions,
    *,
    json: o.Json = False,
) -> None:
    """Show the plan of a run: cells, model loads, time, disk, and missing models. Uses no device.

    GPUs of another machine may be planned for. Time and disk are unknown where no similar cell is finished.

    \b
    Examples:
      prism-ae plan figure4 --suite mini
      prism-ae plan all --gpus 0,1,2,3,4,5,6,7
      prism-ae plan figure7 --suite mini --batch-size 4 --drafting both
      prism-ae plan all --suite mini --json
    """
    from prism_ae.cli._plan_text import in_words
    from prism_ae.cli.draw import check_labels
    from prism_ae.cli.measure import open_store
    from prism_ae.cli.output import note, say, say_json
    from prism_ae.experiments.request import left_out_in_words
    from prism_ae.io.words import wrapped
    from prism_ae.planning.forecast import as_json, make_forecast
    from prism_ae.planning.lookup import LocalLookup

    request = options.request(experiments)
    note(left_out_in_words(request))
    check_labels(request)
    slots = devices.slots(elsewhere=True)
    store = open_store(folders.runs_dir, request.suite)
    lookup = LocalLookup(request.suite, folders.models_dir)
    forecast = make_forecast(request, lookup, store.records(), slots, models_dir=folders.models_dir, root=store.root)
    if json:
        say_json(as_json(forecast))
        return
    names = ", ".join(experiment.name for experiment in request.experiments)
    say([*wrapped(f"suite {request.suite.name}: {names}", ""), *in_words(forecast, str(folders.models_dir))])
