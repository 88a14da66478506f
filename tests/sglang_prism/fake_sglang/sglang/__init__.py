"""What a host uses of SGLang, without models: answers are a function of the prompt, misbehaviour is ordered.

The folder ``FAKE_SGLANG`` holds ``orders``, lines "<event>:<deed>"; where the first line names the event that happens,
it is taken away and done. ``events`` records what happened.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

__version__ = "0.5.17"

FOLDER = Path(os.environ["FAKE_SGLANG"])
END = 2
PATIENT = 0.01
"""Seconds that an answer takes."""


def _order(event: str) -> str:
    """Record an event; what was ordered for it, or ""."""
    with (FOLDER / "events").open("a") as file:
        file.write(f"{event}\n")
    file = FOLDER / "orders"
    lines = file.read_text().split() if file.exists() else []
    if not lines or not event.startswith(lines[0].split(":")[0]):
        return ""
    file.write_text("\n".join(lines[1:]))
    deed = lines[0].split(":")[1]
    if deed == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "memory":
        print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "die":
        print("ValueError: cannot be started", file=sys.stderr, flush=True)
        os._exit(3)
    return deed


class Engine:
    """`sglang.Engine` as `prism_ae.sglang_prism.host` uses it."""

    def __init__(self, **options: Any) -> None:
        deed = _order("start")
        self.loop = asyncio.new_event_loop()
        self.tokenizer_manager = SimpleNamespace(
            abort_request=lambda abort_all: _order("abort"), model_config=SimpleNamespace(hf_eos_token_id=set())
        )
        drafting = os.environ["PRISM_AE_DRAFTING"]
        tree = [options.get(f"speculative_{name}") for name in ("num_steps", "eagle_topk", "num_draft_tokens")]
        self._state = {
            "nonce": "other" if deed == "nonce" else os.environ["PRISM_AE_NONCE"],
            "pid": os.getpid(),
            "dtype": options["dtype"],
            "tree": tree if tree[0] else None,
            "drafting": drafting if tree[0] else None,
            "drafter": options.get("speculative_draft_model_path"),
            "largest_batch": options["max_running_requests"],
            "cuda_graphs": "eager",
        }
        self._running = 0

    def get_server_info(self) -> dict[str, Any]:
        return {"internal_states": [{"prism_ae": dict(self._state)}]}

    def collective_rpc(self, name: str, **changes: Any) -> None:
        deed = _order("configure " + " ".join(sorted(changes)))
        assert name == "prism_ae_configure"
        assert deed != "refuse", "the engine is busy"
        if deed == "ignore":
            return
        if "tree" in changes:
            changes["tree"] = [int(part) for part in changes["tree"].split(",")]
        self._state |= changes

    def flush_cache(self) -> Any:
        _order("flush")
        return SimpleNamespace(success=True)

    async def async_generate(self, input_ids: list[int], sampling_params: dict[str, Any], stream: bool) -> Any:
        assert stream
        tokens, temperature = sampling_params["max_new_tokens"], sampling_params["temperature"]
        self._running += 1
        deed = _order(f"answer {tokens} {temperature}")
        if deed == "refuse":
            raise ValueError("The input is too long")
        return self._chunks(input_ids, tokens, deed)

    async def _chunks(self, prompt: list[int], tokens: int, deed: str) -> AsyncIterator[dict[str, Any]]:
        _order(f"running {self._running}")
        await asyncio.sleep(3600 if deed == "hang" else PATIENT)
        first = 3 + sum(prompt) % 20
        yield {"output_ids": [first], "meta_info": {"finish_reason": None}}
        await asyncio.sleep(PATIENT)
        self._running -= 1
        kind = {"type": "abort", "message": "it was too much"} if deed == "abort" else {"type": "length"}
        answer = ([first] * tokens)[:tokens]
        histogram = [1, 1] if self._state["tree"] else []
        yield {"output_ids": answer, "meta_info": {"finish_reason": kind, "spec_correct_drafts_histogram": histogram}}
