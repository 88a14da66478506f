"""The process that hosts an SGLang engine for the sglang engine of this project.

SGLang ends the process it lives in when
one of its own processes fails; so it lives here, and a worker outlives it. It never outlives the worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import time
from collections.abc import Iterable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from prism_ae.cells import EngineSettings
from prism_ae.errors import CheckpointError, PrismError
from prism_ae.prompts.conversation import Conversation, open_conversation
from prism_ae.sglang_prism import control
from prism_ae.sglang_prism.accepted import accepted_drafts
from prism_ae.sglang_prism.messages import Answered, BatchDone, Configure, EngineState, Interrupt, Refused, Serve, Start
from prism_ae.sglang_prism.stages import stage_seconds

FIRST_TOKEN_ONLY = 1 << 20
"""Stream interval: SGLang reports a request's first token at once, and the rest at its end."""

_FLUSH_PATIENCE = 30.0
_NOT_FLUSHED = f"the prefix cache could not be emptied within {_FLUSH_PATIENCE:.0f} s"
_TICK = 0.2
"""Seconds between checks for an interrupt."""


class EngineHost:
    """One engine, from its start to the end of the process."""

    def __init__(self, connection: Connection[Any, Any], start: Start) -> None:
        import sglang

        self._connection = connection
        self._version = sglang.__version__
        self._engine: Any = sglang.Engine(**start.options)
        self._conversations: dict[Any, Conversation] = {}
        self._connection.send(self._state())

    def serve(self) -> None:
        """Answer messages until the worker is gone."""
        while True:
            message = self._connection.recv()
            if isinstance(message, Configure):
                self._connection.send(self._configure(message))
            elif isinstance(message, Serve):
                self._connection.send(self._serve(message))
            # An `Interrupt` that came too late has no batch run to stop.

    def _state(self) -> EngineState:
        """Read back from the scheduler's process."""
        import torch

        info = self._engine.get_server_info()
        (found,) = (state[control.KEY] for state in info["internal_states"])
        settings = dataclasses.replace(EngineSettings.from_json(found), sglang=self._version, torch=torch.__version__)
        return EngineState(settings.to_json())

    def _configure(self, asked: Configure) -> EngineState | Refused:
        changes = {
            key: value
            for key, value in (("drafter", asked.drafter), ("tree", asked.tree), ("drafting", asked.drafting))
            if value is not None
        }
        if changes:
            # What another drafter wrote must not stay in the cache; and only an idle engine can be flushed or changed.
            if not self._flushed():
                return Refused(_NOT_FLUSHED)
            try:
                self._engine.collective_rpc(control.CONFIGURE, **changes)
            except AssertionError as error:  # how SGLang hands on what its scheduler raised
                return Refused(str(error))
        return self._state()

    def _serve(self, asked: Serve) -> BatchDone | Refused:
        if asked.flush and not self._flushed():
            return Refused(_NOT_FLUSHED)
        try:
            return self._engine.loop.run_until_complete(self._answer_all(asked))
        except (PrismError, RuntimeError, ValueError) as error:  # ValueError: how SGLang refuses a request
            return Refused(str(error))

    def _flushed(self) -> bool:
        """Empty the prefix cache; the scheduler refuses until it has noticed that the last request is over."""
        deadline = time.monotonic() + _FLUSH_PATIENCE
        while not self._engine.flush_cache().success:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    async def _answer_all(self, asked: Serve) -> BatchDone | Refused:
        conversation = self._conversation(asked)
        in_flight = asyncio.Semaphore(asked.concurrency)
        begin = time.perf_counter()

        async def one(index: int, users: Sequence[str]) -> None:
            async with in_flight:
                self._connection.send(await self._answer(index, users, conversation, asked))

        tasks = [asyncio.ensure_future(one(index, users)) for index, users in enumerate(asked.questions)]
        try:
            await self._unless_interrupted(tasks)
        finally:
            await self._cancel(tasks)
        return BatchDone(time.perf_counter() - begin)

    async def _unless_interrupted(self, tasks: Sequence[asyncio.Future[None]]) -> None:
        """Wait for all, or for the worker's `Interrupt`; raises what a task raises."""
        everything = asyncio.gather(*tasks)
        while not everything.done():
            await asyncio.wait([everything], timeout=_TICK)
            if self._connection.poll():
                message = self._connection.recv()
                assert isinstance(message, Interrupt)
                return
        everything.result()

    async def _cancel(self, tasks: Sequence[asyncio.Future[None]]) -> None:
        if all(task.done() for task in tasks):
            return
        self._engine.tokenizer_manager.abort_request(abort_all=True)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, index: int, users: Sequence[str], conversation: Conversation, asked: Serve) -> Answered:
        """All turns of a question, one request each."""
        answers: list[tuple[int, ...]] = []
        stops: list[str] = []
        histogram: list[int] = []
        accepted: list[tuple[int, ...]] = []
        stages: list[tuple[float, ...]] = []
        prompt_tokens, prefill, decode = 0, 0.0, 0.0
        for _ in users:
            prompt = conversation.prompt(users, answers)
            prompt_tokens += len(prompt)
            most = asked.max_seq_len - len(prompt)
            if most < 1:
                stops.append("window")
                break
            parameters: dict[str, Any] = {
                "temperature": asked.temperature,
                "max_new_tokens": min(asked.max_new_tokens, most),
                "stop_token_ids": sorted(conversation.end_ids),
                "stream_interval": FIRST_TOKEN_ONLY,
            }
            begin, first = time.perf_counter(), 0.0
            last: dict[str, Any] = {}
            stream = await self._engine.async_generate(input_ids=prompt, sampling_params=parameters, stream=True)
            async for chunk in stream:
                first = first or time.perf_counter()
                last = chunk
            end = time.perf_counter()
            if last["meta_info"]["finish_reason"]["type"] == "abort":
                raise RuntimeError(f"SGLang gave up on a request: {last['meta_info']['finish_reason'].get('message')}")
            answer = _cut(last["output_ids"], conversation.end_ids, parameters["max_new_tokens"])
            ended = answer[-1] in conversation.end_ids
            answers.append(answer)
            stops.append("end" if ended else "window" if most < asked.max_new_tokens else "length")
            histogram = _added(histogram, last["meta_info"].get("spec_correct_drafts_histogram") or [])
            accepted.append(accepted_drafts(last["meta_info"]))
            stages.append(stage_seconds(last["meta_info"]))
            prefill, decode = prefill + first - begin, decode + end - first
        return Answered(
            index=index,
            answers=tuple(answers),
            prompt_tokens=prompt_tokens,
            histogram=tuple(histogram),
            accepted=tuple(accepted),
            stops=tuple(stops),
            prefill_seconds=prefill,
            decode_seconds=decode,
            stage_seconds=tuple(map(sum, zip(*stages, strict=True))),
        )

    def _ends(self) -> Iterable[int]:
        """The tokens at which the engine ends an answer by itself, as it read them from the target's files."""
        return self._engine.tokenizer_manager.model_config.hf_eos_token_id or ()

    def _conversation(self, asked: Serve) -> Conversation:
        key = asked.target, asked.template, asked.system_prompt
        if key not in self._conversations:
            conversation = open_conversation(asked.target, asked.template, asked.system_prompt)
            more = set(self._ends()) - conversation.end_ids
            if more:
                raise CheckpointError(
                    f"SGLang ends answers at tokens {sorted(more)} too, which {asked.target} does not name",
                    "write all end tokens as eos_token_id into its config.json",
                )
            self._conversations[key] = conversation
        return self._conversations[key]


def _cut(tokens: Sequence[int], end_ids: frozenset[int], most: int) -> tuple[int, ...]:
    """The tokens up to an end token or the limit: SGLang returns one too many where a round reaches both."""
    tokens = tokens[:most]
    ends = [place for place, token in enumerate(tokens) if token in end_ids]
    return tuple(tokens[: ends[0] + 1] if ends else tokens)


def _added(one: Sequence[int], other: Sequence[int]) -> list[int]:
    """Two histograms as one, as long as the longer."""
    width = max(len(one), len(other))
    padded = [[*counts, *[0] * (width - len(counts))] for counts in (one, other)]
    return [a + b for a, b in zip(*padded, strict=True)]


def main(connection: Connection[Any, Any]) -> None:
    start: Start = connection.recv()
    os.environ[control.NONCE] = start.nonce
    host = EngineHost(connection, start)
    control.keep_what_is_loaded()
    host.serve()
