"""What a target reads for a benchmark, as one digest: a changed word must never share a cell with the old one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from prism_ae.fingerprint import digest
from prism_ae.prompts.questions import load_questions
from prism_ae.suites.records import Suite


def prompts_fingerprint(suite: Suite, target: str, benchmark: str, questions: int, models_dir: Path) -> str:
    """Digest (hex) of the target's template, the system prompt and the first ``questions`` questions of a benchmark.

    Names of template and benchmark do not count, their content does. The tokenizer is part of the target's own
    fingerprint. Raises what `load_questions` raises.
    """
    template = dataclasses.asdict(suite.templates[suite.targets[target].template])
    del template["name"]
    loaded = load_questions(suite, benchmark, questions, models_dir)
    return digest({"template": template, "system": suite.system_prompt, "questions": loaded})
