"""Run in a process of its own: SGLang's arguments as users give them, resolved as a server resolves them.

Reads a list of cases as JSON, {"arguments": {...}, "environment": {...}, "again": bool} each, and prints for each what
came of it, {"error": "..."} or what the target and the drafter would run with.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
from typing import Any
from unittest import mock

from sglang.srt.configs.model_config import ModelConfig
from sglang.srt.plugins import load_plugins
from sglang.srt.server_args import ServerArgs


def resolve(arguments: dict[str, Any], again: bool) -> ServerArgs:
    """``again``: made from themselves, as SGLang's offline benchmarks do."""
    found = ServerArgs(**arguments)
    return ServerArgs(**dataclasses.asdict(found)) if again else found


def outcome(case: dict[str, Any]) -> dict[str, Any]:
    with mock.patch.dict(os.environ, case.get("environment", {})):
        return resolved(case)


def resolved(case: dict[str, Any]) -> dict[str, Any]:
    try:
        found = resolve(case["arguments"], case.get("again", False))
        found.check_server_args()
        target = ModelConfig.from_server_args(found)
        drafter = ModelConfig.from_server_args(
            found,
            model_path=found.speculative_draft_model_path,
            model_revision=found.speculative_draft_model_revision,
            is_draft_model=True,
            context_length=target.context_len,  # as the draft worker asks
        )
    except (ValueError, AssertionError, RuntimeError, NotImplementedError, OSError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {
        "algorithm": found.speculative_algorithm,
        "dtypes": [str(target.dtype), str(drafter.dtype)],
        "contexts": [target.context_len, drafter.context_len],
        "quantization": [found.quantization, drafter.quantization],
        "drafter": drafter.hf_config.prism_ae["drafter"],
        "model": drafter.hf_config.architectures[0],
        "backends": [found.attention_backend, found.sampling_backend, found.page_size],
    }


def main() -> None:
    logging.disable()
    load_plugins()
    print(json.dumps([outcome(case) for case in json.load(sys.stdin)]))


if __name__ == "__main__":
    main()
