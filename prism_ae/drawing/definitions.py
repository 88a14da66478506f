"""What the numbers are that a drawing of speeds shows, in words for its caption. The formulas are `timing`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prism_ae.drawing.caption import joined
from prism_ae.experiments.records import Experiment
from prism_ae.suites.records import Suite

if TYPE_CHECKING:
    import pandas as pd

MACRO = "AL: acceptance length (macro), mean over questions of accepted drafts per round + 1"
MICRO = "AL: acceptance length (micro), generated tokens / rounds"
TPS = "TPS: generated tokens / wall seconds of the whole run, prefill included"
RATIO = "TPS / TPS of vanilla decoding"
COSTS = (
    "Round cost: seconds of a round / seconds of a step of vanilla decoding. Decode: the speed-up without prefills, "
    "tokens per round / round cost"
)
MEANS = (
    "Means over benchmarks: of AL and TPS the arithmetic mean, of the speed-up the mean TPS / vanilla's mean TPS; what "
    "comes from rounds is of all benchmarks' rounds together"
)
DIFFERENCE = "Difference: exact less SGLang's own, bold where its interval leaves out 0"
INTERVALS = "95 % bootstrap over questions, paired; it says how questions vary, not how a repeated run would"


def definitions(experiment: Experiment, suite: Suite, frame: pd.DataFrame, micro: bool) -> str:
    """One paragraph: quantities, benchmarks, questions, intervals.

    Args:
        micro: acceptance lengths are micro.
    """
    length = MICRO if micro else MACRO
    benchmarks = [suite.benchmarks[name].label for name in frame["benchmark"].unique()]
    several = len(benchmarks) > 1
    over = f"means over {len(benchmarks)} benchmarks ({joined(benchmarks)})" if several else f"{benchmarks[0]} only"
    where = "Intervals"
    if experiment.kind == "batches":
        said = [f"Acceleration ratio: {RATIO} at the same batch size", TPS, f"{over[0].upper()}{over[1:]}"]
        said[-1] += ", and the ratio of the means" if several else ""
    elif experiment.kind == "trees":
        said = [length, f"{TPS}; {over}"]
    elif experiment.look.layout == "drafting":
        said = [f"{length}; ms: milliseconds of a round, of all benchmarks' rounds together in the mean", DIFFERENCE]
    else:
        said = [length, TPS, f"Speed-up: {RATIO}", COSTS, "Bold: the best of a target's methods"]
        said += [MEANS] if several else []
        where = "Intervals (in the .csv)"
    asked = list(frame["questions"].unique())
    said.append(f"{joined(asked)} question{'' if asked == [1] else 's'} per benchmark")
    done = frame[frame["measured"] & frame["tree"].notna()]
    if without := int(sum(done["without_rounds"])):
        every = int(sum(done["questions"]))
        said[-1] += f" ({without} of {every} answers ended before a first round: no AL (macro) counts them)"
    said.append(f"{where}: {INTERVALS}" if max(asked) > 1 else "Too few questions for intervals")
    return f"{'. '.join(said)}."
