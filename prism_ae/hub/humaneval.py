"""HumanEval's tasks as the paper's questions. Pure: the data set's bytes in, the question file's bytes out.

The authors' file holds 80 of the 164 tasks in an order that no rule gives, each prompt behind one sentence. Both are
data of the suite; that the outcome is their file, byte for byte, is what its sum says.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib

from prism_ae.errors import CheckpointError
from prism_ae.suites.records import PackagedQuestions

_LARGEST = 4 << 20
"""Bytes of the data set; it has 0.2 MB."""


def question_file(compressed: bytes, questions: PackagedQuestions) -> bytes:
    """The question file; raises CheckpointError for data that are not HumanEval's.

    Args:
        compressed: HumanEval.jsonl.gz, an object per line with ``task_id``, ``prompt`` and ``canonical_solution``.
    """
    where = f"{questions.source.file} in {questions.source.requirement}"
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(compressed)) as file:
            data = file.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise ValueError(f"it unpacks to more than {_LARGEST >> 20} MB")
        tasks = {}
        for line in data.decode().splitlines():
            task = json.loads(line)
            tasks[task["task_id"]] = str(task["prompt"]), str(task["canonical_solution"])
        lines = []
        for number, task_number in enumerate(questions.order):
            prompt, solution = tasks[f"HumanEval/{task_number}"]
            question = {
                "question_id": number,
                "category": "code",
                "turns": [questions.before + prompt],
                "reference": [solution],
            }
            lines.append(json.dumps(question) + "\n")
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{where} is not HumanEval's data set: {error!r}", "tell the suite's authors") from error
    return "".join(lines).encode()
