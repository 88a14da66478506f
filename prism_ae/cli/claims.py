"""``prism-ae claims``: what can be concluded from what was measured."""

from __future__ import annotations

from prism_ae.cli import options as o


def claims(*, options: o.RequestOptions, folders: o.FolderOptions, out: o.Out = None, json: o.Json = False) -> None:
    """Judge every claim of the paper, and this project's own, by what was measured; write claims/out/SUITE/claims.*.

    Verdicts: reproduced, contradicted, cannot tell, incomplete (cells are missing), not measurable. Needs no models.

    \b
    Examples:
      prism-ae claims --suite mini
      prism-ae claims --suite mini --json
    """
    from pathlib import Path

    from prism_ae.analysis.results import mixtures
    from prism_ae.cli.measure import measured, recall
    from prism_ae.cli.output import note, say, say_json
    from prism_ae.experiments.ledger import ASKED, experiments_of_claims, make_ledger, terminal_lines, write_ledger

    request = options.request(["all"], allow_empty=True).of(experiments_of_claims())
    plan, store = recall(request, folders.runs_dir, folders.models_dir)
    found = measured(plan, store)
    if mixed := mixtures(found):
        note([f"warning: not all of one kind: {'; '.join(mixed)}; what is made of both is no evidence"])
    rows = make_ledger(request, found)
    asked = request.options.described()
    files = write_ledger(rows, request.suite.name, out or Path("claims") / "out", asked)
    if json:
        say_json({"suite": request.suite.name, "claims": [row.as_dict() for row in rows]})
        return
    say(terminal_lines(rows))
    if asked:
        note([ASKED.format(asked)])
    say(str(file) for file in files)
