"""What a page says about the RoPE bases that its drafters were run with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from prism_ae.drawing.style import SeriesStyle
from prism_ae.drawing.text import Text
from prism_ae.suites.records import Suite

if TYPE_CHECKING:
    import pandas as pd


def rope_bases(suite: Suite, frame: pd.DataFrame, styles: Mapping[str, SeriesStyle]) -> list[Text]:
    """One sentence per target where drafters' bases differ, or one is not what its config.json says."""
    texts = []
    done = frame[frame["measured"]]
    for target, rows in done.groupby("target", sort=False):
        said: dict[str, None] = {}
        bases, otherwise = set(), False
        for drafter, settings in zip(rows["drafter"], rows["settings"], strict=True):
            if "drafter_rope_theta" not in settings:
                continue
            used, config = settings["drafter_rope_theta"], settings.get("drafter_config_rope_theta")
            words = f"{styles[drafter].label} {used:.16g}"
            if config not in (None, used):
                words, otherwise = f"{words} (its config.json says {config:.16g})", True
            said[words] = None
            bases.add(used)
        if len(bases) > 1 or otherwise:
            texts.append(Text(f"RoPE bases of the drafters for {suite.targets[str(target)].label}: {', '.join(said)}."))
    return texts
