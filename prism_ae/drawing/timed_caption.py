"""The title and the small print of an experiment that measures time: how it was served, what each number is, and what
the claims came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prism_ae.analysis.claims import NOT_SHOWN, Verdict
from prism_ae.analysis.text_agreement import Texts
from prism_ae.drawing.caption import holes, joined, lossless, opening
from prism_ae.drawing.definitions import definitions
from prism_ae.drawing.rope import rope_bases
from prism_ae.drawing.style import SeriesStyle
from prism_ae.drawing.text import Text
from prism_ae.experiments.options import Options
from prism_ae.experiments.records import Experiment
from prism_ae.suites.compat import GRAPHS_BATCH_1, GREEDY_SECOND_TEMPERATURE, WARM_CACHE
from prism_ae.suites.records import Suite

if TYPE_CHECKING:
    import pandas as pd

DRAFTING = {
    "exact": "Drafted exactly: every drafted token attends to its own ancestors",
    "stock": "SGLang's own drafting, in which a drafted token may attend to another branch's tokens",
}
COMPAT = {
    GRAPHS_BATCH_1: "CUDA graphs are captured for batch 1 only",
    GREEDY_SECOND_TEMPERATURE: "questions with several turns are decoded greedily at T > 0, too",
    WARM_CACHE: "T > 0 is measured after T = 0 on a prefix cache that holds its prompts",
}


def title(experiment: Experiment, suite: Suite, frame: pd.DataFrame) -> Text:
    """One line; a table's names the device that was measured. A warning where a cell is missing."""
    asked, measured = len(frame), int(frame["measured"].sum())
    name = experiment.title
    for kind in ("figure", "table"):
        number = experiment.name.removeprefix(kind)
        name = f"{kind.capitalize()} {number}: {experiment.title}" if number.isdigit() else name
    if experiment.kind == "table" and measured:
        name = f"{name} on {joined(frame[frame['measured']]['device'].unique())}"
    text = f"{name} ({suite.name} suite)"
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
    without: Sequence[str],
) -> tuple[Text, ...]:
    """The paragraphs below.

    Args:
        paper: whether the paper's values are drawn; None if they were not asked for.
        notes: further paragraphs, such as the recipes of trained models.
        written: whether the drafters wrote the same texts.
        without: why a drafter has no place for a target.
    """
    texts = [Text(f"{opening(suite)}{_measurement(frame, suite)}")]
    texts.append(Text(definitions(experiment, suite, frame, options.paper_compat)))
    texts += [Text(f"{DRAFTING[way]}.") for way in _drafting(frame)]
    if said := options.described():
        texts.append(Text(f"Asked differently from the experiment's file: {said}."))
    if options.controls and not experiment.controls_for(suite.name):
        texts.append(Text("There is no equal-budget control here."))
    texts += _compat(frame, options.paper_compat)
    texts += rope_bases(suite, frame, styles)
    texts += _devices(frame)
    texts += lossless(written, "drafters, draft trees and batch sizes", frame)
    texts += [Text(line) for line in without]
    texts += holes(suite, frame, styles)
    texts += [Text(note) for note in notes]
    note = f" {experiment.paper.note}" if experiment.paper.note else ""
    if paper:
        other = "" if suite.name == "paper" else ", of other models"
        texts.append(Text(f"Grey: the paper's values, not measured here{other} ({experiment.paper.source}).{note}"))
    elif paper is not None:
        known = "none is known for what was asked here" if experiment.paper.values else "none is known"
        texts.append(Text(f"The paper's values are not drawn: {known}."))
    texts += [Text(f"Claim: {verdict.sentence()}", warning=verdict.word == NOT_SHOWN) for verdict in verdicts]
    return tuple(texts)


def _measurement(frame: pd.DataFrame, suite: Suite) -> str:
    """Who measured what, served how, when."""
    targets = joined(suite.targets[name].label for name in frame["target"].unique())
    said = f"Target{'s' if frame['target'].nunique() > 1 else ''} {targets}"
    trees = [tree for tree in frame["tree"].unique() if tree]
    if len(trees) == 1:
        said += f"; draft tree {trees[0]} (steps, branch, verified)"
    scales = [scale for scale in frame["scale"].unique() if scale]
    said += f"; training scale {joined(scales)}" if scales else ""
    batches = list(frame["batch"].unique())
    said += f"; batch {batches[0]}" if len(batches) == 1 else ""
    said += f"; engine {joined(frame['engine'].unique())}"
    done = frame[frame["measured"]]
    if done.empty:
        return f"{said}; nothing is measured yet."
    versions = [f"{word} {joined(_read(done, key))}" for key, word in _VERSIONS if _read(done, key)]
    said += f" ({', '.join(versions)})" if versions else ""
    said += f", {joined(done['dtype'].unique())}, on {joined(done['device'].unique())}"
    served = [
        f"{word} {joined(_shown(value) for value in _read(done, key))}" for key, word in _SERVED if _read(done, key)
    ]
    said += f"; {', '.join(served)}" if served else ""
    return f"{said}; newest measurement {max(done['finished'])[:10]}."


_VERSIONS = (("sglang", "SGLang"), ("torch", "PyTorch"))
_SERVED = (
    ("attention", "attention by"),
    ("cuda_graphs", "CUDA graphs"),
    ("radix_cache", "prefix cache"),
    ("overlap", "overlapped scheduling"),
    ("concurrency", "requests in flight"),
)


def _read(done: pd.DataFrame, key: str) -> list[Any]:
    """What the engine read back, each value once."""
    return list({repr(settings[key]): settings[key] for settings in done["settings"] if key in settings}.values())


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return f"for batches {' '.join(str(each) for each in value)}" if value else "none"
    return "none (eager)" if value == "eager" else str(value)


def _drafting(frame: pd.DataFrame) -> list[str]:
    """The ways of drafting that are drawn; vanilla decoding has none."""
    return list(dict.fromkeys(frame[frame["tree"].notna()]["drafting"]))


def _compat(frame: pd.DataFrame, micro: bool) -> list[Text]:
    """Every choice of the authors' runs that is imitated, in words."""
    names = sorted({name for flags in frame["compat"] for name in flags})
    said = [COMPAT.get(name, name) for name in names]
    said += ["acceptance lengths are micro"] if micro else []
    return [Text(f"As in the authors' own runs (--paper-compat): {'; '.join(said)}.")] if said else []


def _devices(frame: pd.DataFrame) -> list[Text]:
    devices = frame[frame["measured"]]["device"].unique()
    if len(devices) < 2:
        return []
    said = "times of different devices must not be compared, and no speed-up is drawn across them"
    return [Text(f"Measured on {len(devices)} devices ({joined(devices)}): {said}.", warning=True)]
