"""The title and the small print of a figure: what was measured, how, when, and what the claims came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prism_ae.analysis.claims import NOT_SHOWN, Verdict
from prism_ae.analysis.curves import Curve
from prism_ae.analysis.text_agreement import Texts
from prism_ae.drawing.rope import rope_bases
from prism_ae.drawing.style import SeriesStyle
from prism_ae.drawing.text import Text
from prism_ae.experiments.options import Options
from prism_ae.experiments.records import Experiment
from prism_ae.suites.compat import EAGLE3_CONFIG_ROPE
from prism_ae.suites.records import Suite

if TYPE_CHECKING:
    import pandas as pd

_VALUE = {
    "positions": "Acceptance rate: chance that a draft is accepted given that those before it were, pooled over a "
    "benchmark's questions",
    "scaling-grid": "Acceptance length (macro): mean over questions of accepted drafts per round + 1",
    "scaling-mean": "Acceptance length (macro): mean over questions of accepted drafts per round + 1",
}

_COMPAT = {
    EAGLE3_CONFIG_ROPE: "EAGLE-3 drafts with the RoPE base that its config.json names, not with the one it was "
    "trained with",
}


def title(experiment: Experiment, suite: Suite, frame: pd.DataFrame) -> Text:
    """One line; a warning that counts the cells when any is missing."""
    asked, measured = len(frame), int(frame["measured"].sum())
    number = experiment.name.removeprefix("figure")
    name = f"Figure {number}" if number.isdigit() else experiment.name
    text = f"{name}: {experiment.title} ({suite.name} suite)"
    return Text(text) if measured == asked else Text(f"{text}: {measured} of {asked} cells", warning=True)


def small_print(
    experiment: Experiment,
    suite: Suite,
    options: Options,
    frame: pd.DataFrame,
    styles: Mapping[str, SeriesStyle],
    verdicts: Sequence[Verdict],
    paper: bool | None,
    notes: Sequence[str],
    written: Texts,
) -> tuple[Text, ...]:
    """The paragraphs below a figure.

    Args:
        paper: whether the paper's values are drawn; None if they were not asked for.
        notes: further paragraphs, such as the recipes of trained models.
        written: whether the drafters wrote the same texts.
    """
    texts = [Text(f"{opening(suite)}{_measurement(frame, suite)}")]
    texts.append(Text(_numbers(experiment, suite, frame)))
    if said := options.described():
        texts.append(Text(f"Asked differently from the paper's figure: {said}."))
    if options.controls and not experiment.controls_for(suite.name):
        texts.append(Text("This figure has no equal-budget control in this suite."))
    texts += _compat(frame)
    texts += rope_bases(suite, frame, styles)
    texts += lossless(written, "drafters and scales", frame)
    texts += holes(suite, frame, styles)
    texts += [Text(note) for note in notes]
    if paper:
        note = f" {experiment.paper.note}" if experiment.paper.note else ""
        other = "" if suite.name == "paper" else ", of other models"
        source = experiment.paper.source
        texts.append(Text(f"Pale lines: the paper's values, not measured here{other} ({source}).{note}"))
    elif paper is not None:
        texts.append(Text("The paper's values are not drawn: none is known for what was asked here."))
    texts += [Text(f"Claim: {verdict.sentence()}", warning=verdict.word == NOT_SHOWN) for verdict in verdicts]
    return tuple(texts)


def _compat(frame: pd.DataFrame) -> list[Text]:
    """Every choice of the authors' evaluation that is imitated, in words."""
    names = sorted({name for flags in frame["compat"] for name in flags})
    said = "; ".join(_COMPAT.get(name, name) for name in names)
    return [Text(f"As in the authors' own evaluation (--paper-compat): {said}.")] if said else []


def lossless(written: Texts, among: str, frame: pd.DataFrame) -> list[Text]:
    """What the texts show, where any was written more than once; ``among`` is what may not change them.

    In half precision a batch or tree of another shape adds up in another order and often turns a near tie: differing
    texts are then expected, and no warning.
    """
    if written.differing and set(frame["dtype"]) != {"float32"}:
        said = f"{written.differing} of {written.compared} texts are not the same under all of these {among}"
        return [
            Text(
                f"Lossless up to rounding: {said}; half precision turns near ties, and a text goes on from there "
                "(--dtype float32 tells a tie from a fault)."
            )
        ]
    if written.differing:
        said = f"{written.differing} of {written.compared} texts are not the same under all of these {among}"
        return [Text(f"Lossless decoding is not seen: {said} (a tie within rounding, or a fault).", warning=True)]
    if written.compared:
        return [Text(f"Lossless: each of {written.compared} texts is the same under all of these {among}.")]
    return []


def missing(curves: Sequence[Curve]) -> frozenset[str]:
    """Drafters of which not one cell was measured."""
    drafters = {curve.drafter for curve in curves}
    done = {curve.drafter for curve in curves for point in curve.points if point.cell_ids}
    return frozenset(drafters - done)


def opening(suite: Suite) -> str:
    """The suite's title as the caption's first sentence."""
    return f"{suite.title[0].upper()}{suite.title[1:]}. " if suite.title else ""


def _measurement(frame: pd.DataFrame, suite: Suite) -> str:
    """Who measured what, with which engine, when."""
    targets = joined(suite.targets[name].label for name in frame["target"].unique())
    trees = joined(frame["tree"].unique())
    said = (
        f"Target{'s' if frame['target'].nunique() > 1 else ''} {targets}; draft tree {trees} (steps, branch, verified)"
    )
    said += f"; engine {joined(frame['engine'].unique())}"
    done = frame[frame["measured"]]
    if done.empty:
        return f"{said}; nothing is measured yet."
    versions = joined(settings["torch"] for settings in done["settings"] if "torch" in settings)
    said += f" (PyTorch {versions})" if versions else ""
    said += f", {joined(done['dtype'].unique())}, on {joined(done['device'].unique())}"
    return f"{said}; newest measurement {max(done['finished'])[:10]}."


def _numbers(experiment: Experiment, suite: Suite, frame: pd.DataFrame) -> str:
    """What a drawn number is."""
    benchmarks = list(frame["benchmark"].unique())
    said = _VALUE[experiment.kind]
    if experiment.kind != "scaling-grid":
        labels = joined(suite.benchmarks[name].label for name in benchmarks)
        said += f"; mean over {len(benchmarks)} benchmarks ({labels})" if len(benchmarks) > 1 else f"; {labels} only"
    if experiment.kind == "positions":
        said += f"; training scale {joined(str(scale) for scale in frame['scale'].unique() if scale)}"
    asked = list(frame["questions"].unique())
    said += f". {joined(asked)} question{'' if asked == [1] else 's'} per benchmark"
    done = frame[frame["measured"]]
    if without := int(sum(done["without_rounds"])):
        said += f" ({without} of {int(sum(done['questions']))} answers ended before a first round and are left out)"
    return f"{said}; bars: 95 % bootstrap over questions." if max(asked) > 1 else f"{said}, too few for error bars."


def holes(suite: Suite, frame: pd.DataFrame, styles: Mapping[str, SeriesStyle]) -> list[Text]:
    """Why drafters are missing, where the suite knows."""
    missing = frame[~frame["measured"]]
    texts = []
    for name, mine in missing.groupby("drafter", sort=False):
        drafter = suite.drafters[str(name)]
        served = {(each.role, each.scale) for each in drafter.served}
        wanted = {
            (suite.targets[target].role, scale) for target, scale in zip(mine["target"], mine["scale"], strict=True)
        }
        why = f": {drafter.absent}" if drafter.absent and wanted - served else ""
        cells = "1 cell is" if len(mine) == 1 else f"{len(mine)} cells are"
        texts.append(Text(f"{styles[str(name)].label}: {cells} not measured{why}.", warning=True))
    return texts


def joined(values: Any) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values))
