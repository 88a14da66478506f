"""The title and the small print of a drawing: what was measured, how, when, and what the claims came to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from prism_ae.analysis.claims import CONTRADICTED, Judged
from prism_ae.analysis.estimates import STABLE, stable, unique
from prism_ae.analysis.intervals import FEWEST_QUESTIONS
from prism_ae.analysis.quantities import OCCUPANCY
from prism_ae.analysis.results import Results
from prism_ae.analysis.text_agreement import Texts
from prism_ae.cells import EXACT, STOCK
from prism_ae.drawing.style import ADDED, SeriesStyle
from prism_ae.drawing.text import Text
from prism_ae.experiments.kinds.base import Kind, roles_taken
from prism_ae.experiments.limit import limit_words
from prism_ae.experiments.options import Options
from prism_ae.experiments.records import SuiteChoice
from prism_ae.io.words import pluralise
from prism_ae.suites import compat
from prism_ae.suites.records import Suite

_DRAFTING = {
    EXACT: "Drafted exactly: every drafted token attends to its own ancestors",
    STOCK: "SGLang's own drafting, in which a drafted token may attend to another branch's tokens",
}
_COMPAT = {
    compat.EAGLE3_CONFIG_ROPE: "EAGLE-3 drafts with the RoPE base that its config.json names, not with the one it was "
    "trained with",
    compat.GRAPHS_BATCH_1: "CUDA graphs are captured for batch 1 only",
    compat.GREEDY_SECOND_TEMPERATURE: "questions with several turns are decoded greedily at T > 0, too",
    compat.WARM_CACHE: "T > 0 is measured after T = 0 on a prefix cache that holds its prompts",
}
_VERSIONS = {"sglang": "SGLang", "torch": "PyTorch"}
_SERVED = {
    "attention": "attention by",
    "cuda_graphs": "CUDA graphs",
    "radix_cache": "prefix cache",
    "overlap": "overlapped scheduling",
    "concurrency": "requests in flight",
}


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a caption is about.

    Attributes:
        texts: whether the drafters wrote the same texts.
        unpublished: why drafters have no place for a target.
        paper: whether the paper's values are drawn; None if they were not asked for.
        notes: further paragraphs, such as the recipes of trained models.
    """

    experiment: Kind
    suite: Suite
    options: Options
    results: Results
    styles: Mapping[str, SeriesStyle]
    verdicts: Sequence[Judged]
    texts: Texts
    unpublished: Sequence[str]
    paper: bool | None
    notes: Sequence[str]


def title(experiment: Kind, suite: Suite, results: Results) -> Text:
    """One line; a table's names the device that was measured. A warning that counts the cells where one is missing."""
    name = experiment.title
    for word in ("figure", "table"):
        number = experiment.name.removeprefix(word)
        name = f"{word.capitalize()} {number}: {experiment.title}" if number.isdigit() else name
    if experiment.folder == "tables" and results.done:
        name = f"{name} on {_joined(cell.measured.device for cell in results.done)}"
    text, asked, measured = f"{name} ({suite.name} suite)", results.asked, results.measured
    return Text(text) if measured == asked else Text(f"{text}: {measured} of {asked} cells", warning=True)


def small_print(subject: Subject) -> tuple[Text, ...]:
    """The paragraphs below."""
    return tuple(_paragraphs(subject))


def _paragraphs(subject: Subject) -> Iterator[Text]:
    experiment, suite, options, results = subject.experiment, subject.suite, subject.options, subject.results
    opening = f"{suite.title[0].upper()}{suite.title[1:]}. " if suite.title else ""
    yield Text(f"{opening}{_measurement(suite, results)}")
    yield Text(_numbers(experiment, suite, results, options))
    if experiment.timed:
        yield from (Text(f"{_DRAFTING[way]}.") for way in unique(p.drafting for p in results.points if p.tree))
    remarks = (experiment.remark, experiment.suites.get(suite.name, SuiteChoice()).remark)
    yield from (Text(f"{remark}.") for remark in remarks if remark)
    for target in (suite.targets[name] for name in unique(point.target for point in results.points)):
        if len(taken := roles_taken(experiment, target)) > 1:
            yield Text(f"{target.label} stands for {len(taken)} targets ({_joined(taken)}): it is drawn once.")
    if any(name in experiment.added for name in subject.styles):
        yield Text(f"{ADDED} Not in the paper's {experiment.folder.removesuffix('s')}: added here.")
    yield from _lookups(suite, results, subject.styles)
    if said := options.described():
        yield Text(f"Asked differently from the experiment's file: {said}.")
    if options.controls and not experiment.controls_for(suite.name):
        yield Text("There is no equal-budget control here.")
    imitated = [_COMPAT.get(flag, flag) for flag in sorted({flag for point in results.points for flag in point.compat})]
    if imitated:
        yield Text(f"As in the authors' own runs (--paper-compat): {'; '.join(imitated)}.")
    if options.count == "authors" and not experiment.timed:
        yield Text(
            "Rounds are counted in imitation of the authors' evaluation (--count authors): where the end token was the "
            "last to be committed, its loop goes on for one round more, taken to accept nothing."
        )
    yield from rope_bases(suite, results, subject.styles)
    devices = unique(cell.measured.device for cell in results.done)
    if experiment.timed and len(devices) > 1:
        said = "times of different devices must not be compared, and no speed-up is drawn across them"
        yield Text(f"Measured on {len(devices)} devices ({_joined(devices)}): {said}.", warning=True)
    yield from _occupancy(results)
    yield from _unstable(results, subject.styles)
    if mixed := results.mixtures():
        said = "compare nothing across them, and no value is made of both"
        yield Text(f"Not all of one kind: {'; '.join(mixed)}: {said}.", warning=True)
    if experiment.timed:
        yield from limit_words(suite, results)
    yield from _lossless(subject.texts, experiment.same_texts_among)
    yield from (Text(line) for line in subject.unpublished)
    yield from _missing(suite, results, subject.styles)
    yield from (Text(note) for note in subject.notes)
    yield from _paper(subject)
    for verdict in subject.verdicts:
        yield Text(f"Claim {verdict.sentence()}", warning=verdict.verdict == CONTRADICTED)


def _measurement(suite: Suite, results: Results) -> str:
    """Who measured what, served how, when."""
    points, done = results.points, results.done
    targets = unique(suite.targets[point.target].label for point in points)
    said = f"Target{'s' if len(targets) > 1 else ''} {_joined(targets)}"
    lookups = [name for name, drafter in suite.drafters.items() if drafter.kind == "lookup"]  # of other trees
    for values, word in (
        (
            unique(point.tree for point in points if point.tree and point.drafter not in lookups),
            "draft tree {} (steps, branch, verified)",
        ),
        (unique(point.scale for point in points if point.scale), "training scale {}"),
        (unique(point.batch for point in points if point.batch), "batch {}"),
    ):
        said += f"; {word.format(values[0])}" if len(values) == 1 else ""
    said += f"; engine {_joined(point.engine for point in points)}"
    if not done:
        return f"{said}; nothing is measured yet."
    versions = [f"{word} {_joined(read)}" for key, word in _VERSIONS.items() if (read := _read(results, key))]
    said += f" ({', '.join(versions)})" if versions else ""
    said += f", {_joined(cell.point.dtype for cell in done)}, on {_joined(cell.measured.device for cell in done)}"
    served = [f"{word} {_joined(map(_shown, read))}" for key, word in _SERVED.items() if (read := _read(results, key))]
    said += f"; {', '.join(served)}" if served else ""
    return f"{said}; newest measurement {max(cell.measured.finished for cell in done)[:10]}."


def _lookups(suite: Suite, results: Results, styles: Mapping[str, SeriesStyle]) -> Iterator[Text]:
    """What prompt lookup is, and where its time is not measured."""
    for name in unique(point.drafter for point in results.points if suite.drafters[point.drafter].kind == "lookup"):
        record, points = suite.drafters[name], [point for point in results.points if point.drafter == name]
        ngrams = " to ".join(map(str, unique([record.max_ngram, record.min_ngram])))
        said = (
            f"{styles[name].label} drafts, without a model, what followed the last {ngrams} tokens where they occurred"
        )
        said += f" last: a chain of up to {_joined(point.tree.steps for point in points if point.tree)} tokens"
        if any(other.batch for other in results.points) and not any(point.batch for point in points):
            said += (
                ". Its acceptance is measured by the engine torch, and no speed: SGLang's own lookup (NGRAM) is another"
            )
            said += ", and is not driven here"
        yield Text(f"{said}.")


def _read(results: Results, key: str) -> list[Any]:
    """What the engine read back, each value once."""
    settings = [cell.measured.settings for cell in results.done]
    return list({repr(each[key]): each[key] for each in settings if key in each}.values())


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return f"for batches {' '.join(str(each) for each in value)}" if value else "none"
    return "none (eager)" if value == "eager" else str(value)


def _numbers(experiment: Kind, suite: Suite, results: Results, options: Options) -> str:
    """What a drawn number is: quantities, benchmarks, questions, intervals."""
    said = experiment.means(micro=experiment.acceptance_length(options) == "al_micro")
    benchmarks = [suite.benchmarks[name].label for name in unique(point.benchmark for point in results.points)]
    if experiment.benchmarks_drawn == "mean":
        several = f"Mean over {len(benchmarks)} benchmarks ({_joined(benchmarks)})"
        said.append(several if len(benchmarks) > 1 else f"{benchmarks[0]} only")
    asked = unique(point.questions for point in results.points)
    said.append(f"{_joined(asked)} question{'' if asked == [1] else 's'} per benchmark")
    drafted = [cell for cell in results.done if cell.point.tree]
    if without := sum(cell.columns.without_rounds for cell in drafted):
        every = sum(cell.point.questions for cell in drafted)
        said[-1] += f" ({without} of {every} answers ended before a first round and are left out of acceptance lengths)"
    said.append(_intervals(experiment, results))
    return f"{'. '.join(said)}."


def _intervals(experiment: Kind, results: Results) -> str:
    """What the intervals are over."""
    asked = max(point.questions for point in results.points)
    if asked < FEWEST_QUESTIONS:
        return f"No intervals: they need {FEWEST_QUESTIONS} questions of each benchmark"
    seeds = len({point.training_seed for point in results.points})
    over = f"questions and {seeds} training seeds" if seeds > 1 else "questions"
    said = f"Intervals: 95 %, Student's t over {over}, paired"
    if experiment.timed:
        repeats = 1 + max(len(results.repeats.get(point, ())) for point in results.points)
        once = "; each time was measured once, and how a repeated run would vary is not in them"
        said += (
            once if repeats == 1 else f"; of times over {repeats} repeats, too, paired where they ran one after another"
        )
    return said if seeds > 1 else f"{said}; one training, so they are of these checkpoints"


def rope_bases(suite: Suite, results: Results, styles: Mapping[str, SeriesStyle]) -> Iterator[Text]:
    """One sentence per target where drafters' RoPE bases differ, or one is not what its config.json says."""
    for target in unique(point.target for point in results.points):
        said, bases, otherwise = [], set(), False
        for cell in results.done:
            settings = cell.measured.settings
            if cell.point.target != target or "drafter_rope_theta" not in settings:
                continue
            used, config = settings["drafter_rope_theta"], settings.get("drafter_config_rope_theta")
            words = f"{styles[cell.point.drafter].label} {used:.16g}"
            if config not in (None, used):
                words, otherwise = f"{words} (its config.json says {config:.16g})", True
            said.append(words)
            bases.add(used)
        if len(bases) > 1 or otherwise:
            yield Text(f"RoPE bases of the drafters for {suite.targets[target].label}: {_joined(said)}.")


def _occupancy(results: Results) -> Iterator[Text]:
    """How full the batches really were: a run's last answers leave places empty."""
    assert OCCUPANCY.formula is not None
    found: dict[int, list[float]] = {}
    for cell in results.done:
        if cell.point.batch is not None and cell.point.batch > 1:
            found.setdefault(cell.point.batch, []).append(float(OCCUPANCY.formula(cell.total)))
    if found:
        said = ", ".join(f"{float(np.mean(taken)):.0%} of {batch}" for batch, taken in sorted(found.items()))
        yield Text(f"Batches are nominal; places that were taken, in the mean over the cells: {said}.")


def _unstable(results: Results, styles: Mapping[str, SeriesStyle]) -> Iterator[Text]:
    """Which cells' times hang too much on one of their measurements to be believed."""
    repeated = [cell for cell in results.done if cell.repeats]
    shaky = [cell for cell in repeated if not stable(cell)]
    if shaky:
        whose = _joined(f"{styles[cell.point.drafter].label} {cell.point.trained}".strip() for cell in shaky)
        said = f"{len(shaky)} of {len(repeated)} times are unstable ({whose})"
        worst = max(cell.spread or 0.0 for cell in shaky)
        every = [one.measured.settings.get("other_cores", 0.0) for cell in repeated for one in (cell, *cell.repeats)]
        yield Text(
            f"{said}: without one of their measurements they would be more than {STABLE:.0%} longer, up to {worst:.0%}"
            f". Other programs kept up to {max(every):.1f} cores busy beside a cell.",
            warning=10 * len(shaky) > len(repeated),
        )


def _lossless(texts: Texts, among: str) -> Iterator[Text]:
    """What the texts show, where any was written more than once; ``among`` is what may not change them.

    In half precision a batch or tree of another shape adds up in another order and often turns a near tie: a text that
    parts there is expected, and no warning.
    """
    said = f"{texts.differing} of {texts.compared} texts are not the same under all of these {among}"
    half = "half precision turns near ties, and a text goes on from there"
    kinds = [f"{pluralise(texts.ties, 'tie')} within rounding, {pluralise(texts.faults, 'fault')}"]
    kinds += [f"{texts.unexamined} not examined"] if texts.unexamined else []
    kinds += [f"{texts.differing_exactly} in float32"] if texts.differing_exactly else []
    if texts.differing and texts.differing == texts.differing_exactly:
        yield Text(f"Lossless decoding is not seen: {said} (a tie within rounding, or a fault).", warning=True)
    elif texts.faults or texts.differing_exactly:
        yield Text(f"Lossless decoding is not seen: {said}: {', '.join(kinds)}.", warning=True)
    elif texts.differing and texts.differing == texts.unexamined:
        tells = "--dtype float32 tells a tie from a fault"
        yield Text(f"Not examined whether lossless up to rounding: {said}; {half} ({tells}).")
    elif texts.differing:
        yield Text(f"Lossless up to rounding: {said}: {', '.join(kinds)}; {half}.")
    elif texts.compared:
        yield Text(f"Lossless: each of {texts.compared} texts is the same under all of these {among}.")
    if texts.wrong_tokens:
        wrong = pluralise(texts.wrong_tokens, "token")
        yield Text(f"Not the target's own choice, whatever rounding did: {wrong} of these answers.", warning=True)


def _missing(suite: Suite, results: Results, styles: Mapping[str, SeriesStyle]) -> Iterator[Text]:
    """Why drafters' cells are missing, where the suite knows."""
    missing = results.missing
    for name in unique(point.drafter for point in missing):
        mine = [point for point in missing if point.drafter == name]
        absent = next((said for p in mine if (said := suite.why_unpublished(p.target, name, p.scale))), "")
        why = f": {absent}" if absent else ""
        cells = f"{pluralise(len(mine), 'cell')} {'is' if len(mine) == 1 else 'are'}"
        yield Text(f"{styles[name].label}: {cells} not measured{why}.", warning=True)


def _paper(subject: Subject) -> Iterator[Text]:
    paper = subject.experiment.paper
    if subject.paper:
        other = "" if subject.suite.name == "paper" else ", of other models"
        layer, note = subject.experiment.paper_layer, f" {paper.note}" if paper.note else ""
        yield Text(f"{layer}: the paper's values, not measured here{other} ({paper.source}).{note}")
    elif subject.paper is not None:
        known = "none is known for what was asked here" if paper.values else "none is known"
        yield Text(f"The paper's values are not drawn: {known}.")


def _joined(values: Iterable[Any]) -> str:
    return ", ".join(unique(str(value) for value in values))
