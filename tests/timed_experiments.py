"""Small experiments that measure time, one of each kind, as their files would say them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prism_ae.experiments.load import parse_experiment
from prism_ae.experiments.records import Experiment

DRAFTERS = ("vanilla", "standard", "eagle2", "hass", "prism")


def tables(kind: str = "batches", **cells: Any) -> dict[str, Any]:
    """The tables of a file of this kind; ``cells`` replaces keys of its [cells]."""
    own: dict[str, dict[str, Any]] = {
        "batches": {"batches": [2, 4, 8, 16], "tree": "sglang"},
        "trees": {"batches": [1], "tree": "", "trees": ["3,2,6", "5,8,32", "8,10,64"]},
        "table": {"batches": [1], "tree": "sglang"},
    }
    return {
        "name": f"my-{kind}",
        "title": "A title",
        "kind": kind,
        "drafters": {"batches": ["vanilla", "eagle2", "prism"], "trees": ["prism"], "table": list(DRAFTERS)}[kind],
        "controls": [],
        "cells": {
            "roles": ["llama-2"],
            "scales": "largest",
            "benchmarks": ["mt_bench", "humaneval", "gsm8k", "alpaca", "sum", "qa"],
            "temperatures": [0],
            "engine": "sglang",
            **own[kind],
            **cells,
        },
        "look": {"panel": [7, 5], "panels": "target", "x_label": "Batch Size", "y_label": "Speed-up"}
        | {
            "batches": {},
            "trees": {"right_label": "TPS", "right_color": "#fa7f6f"},
            "table": {"layout": "methods-on-rows"},
        }[kind],
        "series": [
            {"drafter": drafter, "color": f"#00000{number}", "marker": "osDP*"[number]}
            for number, drafter in enumerate(DRAFTERS)
        ],
        "claims": [],
        "paper": {"source": "nowhere", "note": "", "x": [], "values": []},
    }


def experiment(kind: str = "batches", **cells: Any) -> Experiment:
    return parse_experiment(tables(kind, **cells), "my.toml")


def write_experiment(path: Path, kind: str, **cells: Any) -> Path:
    """The same as a file."""

    def lines(table: dict[str, Any], name: str) -> list[str]:
        here = [f"{key} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, dict)]
        inner = [line for key, value in table.items() if isinstance(value, dict) for line in lines(value, key)]
        return [*([f"[{name}]"] if name else []), *here, *inner]

    data = tables(kind, **cells)
    series = data.pop("series")
    text = lines(data, "") + [line for one in series for line in ("[[series]]", *lines(one, ""))]
    path.write_text("\n".join(text) + "\n")
    return path
