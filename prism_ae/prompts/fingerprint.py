"""What a target reads for a benchmark, as one digest: a changed word must never share a cell with the old one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from prism_ae.fingerprint import digest
from prism_ae.prompts.questions import load_questions
from prism_ae.prompts.tokenizer import Rules, read_rules
from prism_ae.suites.records import Suite


def prompts_fingerprint(suite: Suite, target: str, benchmark: str, questions: int, models_dir: Path) -> str:
    """Digest (hex) of the target's template, the system prompt and the first ``questions`` questions of a benchmark.

    Names of template and benchmark do not count, their content does. A tokenizer is part of the fingerprint of its
    target, but of a downloaded one only tokenizer.json is: what its rules say is counted here. Raises what
    `load_questions` and `read_rules` raise.
    """
    record = suite.targets[target]
    template = dataclasses.asdict(suite.templates[record.template])
    del template["name"]
    loaded = load_questions(suite, benchmark, questions, models_dir)
    rules = read_rules(models_dir / record.folder) if record.folder else Rules()
    said = {} if rules == Rules() else {"tokenizer": dataclasses.asdict(rules)}
    return digest({"template": template, "system": suite.system_prompt, "questions": loaded, **said})
