"""Choices of the authors' runs that ``--paper-compat`` imitates, by the names they have in `Point.compat`.

They are off by default, because each of them changes what a number means. What they are was read in the authors'
artifact (Akemiiii/prism-mlsys-ae, commit 3b00014).
"""

from __future__ import annotations

from prism_ae.suites.records import DrafterRecord

GRAPHS_BATCH_1 = "graphs-batch-1"
"""CUDA graphs are captured for batch 1 only, so larger batches run without: the server's ``cuda-graph-max-bs`` is 1
also where figure 7 measures batches of 2 to 32."""

WARM_CACHE = "warm-cache"
"""T = 1 is measured after T = 0 by the same server, whose prefix cache then holds every prompt; it is not emptied."""

GREEDY_SECOND_TEMPERATURE = "greedy-second-temperature"
"""What is asked at T > 0 is decoded greedily: the authors' client fixes T = 0 for questions with several turns."""

EAGLE3_CONFIG_ROPE = "eagle3-config-rope"
"""EAGLE-3 drafts with the RoPE base that its config.json names. The authors' evaluation of acceptance copies a config
with 500000 over the checkpoint and obeys it; their training code takes 10000 whatever a config says."""


def serving_flags(temperature: float, turns: int) -> tuple[str, ...]:
    """The flags, sorted, of a cell whose time is measured, at a temperature, of a benchmark whose questions have so
    many turns."""
    greedy = (GREEDY_SECOND_TEMPERATURE,) if turns > 1 and temperature > 0 else ()
    return tuple(sorted((GRAPHS_BATCH_1, WARM_CACHE, *greedy)))


def acceptance_flags(drafter: DrafterRecord) -> tuple[str, ...]:
    """The flags of a cell whose time is not measured: most drafters have none, and cells like any others."""
    return (EAGLE3_CONFIG_ROPE,) if drafter.config_rope else ()


def server_flags(compat: tuple[str, ...]) -> tuple[str, ...]:
    """Those of a cell's flags that concern what an engine starts or loads, and so cells that are measured together; the
    others concern the cell alone."""
    return tuple(flag for flag in compat if flag != GREEDY_SECOND_TEMPERATURE)


def serving_only(compat: tuple[str, ...]) -> tuple[str, ...]:
    """Those of a cell's flags that imitate how the authors served, not how they evaluated acceptance."""
    return tuple(flag for flag in compat if flag != EAGLE3_CONFIG_ROPE)


def text_flags(compat: tuple[str, ...]) -> tuple[str, ...]:
    """Those of a cell's flags that change what the target writes."""
    return tuple(flag for flag in compat if flag == GREEDY_SECOND_TEMPERATURE)
