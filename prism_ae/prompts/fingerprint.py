"""What a target reads for a benchmark, as one digest: a changed word must never share a cell with the old one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from prism_ae.io.digests import digest
from prism_ae.prompts.conversation import Conversation
from prism_ae.prompts.questions import Question


def prompts_fingerprint(conversation: Conversation, questions: Sequence[Question]) -> str:
    """Digest (hex) of how a target is talked to, where it ends, and the questions.

    Names of template and benchmark do not count, their content does. A tokenizer's own file is part of the target's
    fingerprint; what else decides ids and ends (tokenizer_config.json, generation_config.json) is counted here.
    """
    template = dataclasses.asdict(conversation.template)
    del template["name"]
    return digest(
        {
            "template": template,
            "system": conversation.system_prompt,
            "questions": questions,
            "tokenizer": conversation.rules,
            "ends": sorted(conversation.end_ids),
        }
    )
