"""The torch engine: acceptance measured by our own exact speculative decoding, on a CPU or a GPU.

The target stays loaded from one assignment to the next; drafter and tree are swapped. In float32 acceptance cells share
one pool of rows, because a question's result does not depend on what is decoded beside it, and the text that the target
wrote for one drafter is known for the next (`prism_ae.decoding.known_text`: less work, the same outcome). In half
precision both would change near ties: each cell runs alone, so that its counts are its own, and each of its tokens is
examined (`prism_ae.decoding.examine`). A throughput cell runs alone, with its own batch size, after a short warm-up,
without known texts, and unexamined; the stages of its rounds are timed (`prism_ae.decoding.timers`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from prism_ae.cells import Cell, EngineSettings, Result
from prism_ae.decoding.batch import Batch, row_bytes
from prism_ae.decoding.generate import GenerationJob, GenerationResult, generate
from prism_ae.decoding.lookup import PromptLookup
from prism_ae.decoding.verifier import VERIFIER
from prism_ae.drafters.checkpoint import load_drafter
from prism_ae.drafters.layouts.configs import is_authors_eagle3
from prism_ae.drafters.layouts.table import EAGLE3
from prism_ae.drafters.model import Drafter
from prism_ae.engines.pairs import check_branch, make_pair, with_ropes
from prism_ae.engines.protocol import WARM_UP_TOKENS, Assignment
from prism_ae.errors import CheckpointError, DeviceError
from prism_ae.models.checkpoints import load_target, read_json
from prism_ae.models.config import named_rope_theta
from prism_ae.models.llama import Llama
from prism_ae.prompts.conversation import Conversation, max_seq_len_of, open_conversation
from prism_ae.prompts.questions import Question, load_questions
from prism_ae.suites.compat import EAGLE3_CONFIG_ROPE
from prism_ae.suites.records import Suite, Template

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

ROWS = 48
"""Sequences decoded together where time is not measured, at most."""

CPU_CACHE_BYTES = 1 << 30
GPU_CACHE_SHARE = 0.6
"""Memory for keys and values: on a CPU, where workers share it, and as a share of what is free on a GPU."""

LOOKAHEAD_TOKENS = 6
"""Tokens behind the end of an answer that are learnt for later drafters: a round that reaches the end may go on."""


@dataclasses.dataclass(frozen=True)
class _Loaded:
    """A target in memory, and how it is talked to."""

    path: Path
    dtype: torch.dtype
    model: Llama
    conversation: Conversation

    @property
    def exact(self) -> bool:
        """Whether texts and counts depend on nothing but the question, up to ties that do not happen: in float32."""
        return self.dtype == torch.float32

    @property
    def end_ids(self) -> frozenset[int]:
        return self.conversation.end_ids


class TorchEngine:
    """See `prism_ae.engines.protocol.Engine`.

    Args:
        suite: whose records the cells name.
        models_dir: where question files lie.
        device: "cpu" or "cuda:0".
        threads: of the CPU.

    Raises:
        DeviceError: there is no such device.
    """

    def __init__(self, suite: Suite, models_dir: Path, device: str, threads: int) -> None:
        self.suite, self.models_dir, self.device = suite, models_dir, torch.device(device)
        if self.device.type == "cuda" and (self.device.index or 0) >= torch.cuda.device_count():
            raise DeviceError(
                f"device {device} does not exist: this process sees {torch.cuda.device_count()} GPUs",
                "check --gpus and CUDA_VISIBLE_DEVICES, and that this torch is built for CUDA",
            )
        torch.set_num_threads(threads)
        self._target: _Loaded | None = None
        self._questions = cache(self._load_questions)
        self._written: dict[tuple[Hashable, ...], tuple[tuple[int, ...], ...]] = {}
        """What the loaded target writes, by question and setting."""

    def measure(self, assignment: Assignment, should_stop: Callable[[], bool]) -> Iterator[tuple[Cell, Result]]:
        """See the protocol. Cells that share a pool are begun in an order that lets them end one after another."""
        with self._memory_errors():
            point = assignment.cells[0].point
            dtype = DTYPES[point.dtype]
            target = self._load_target(assignment.target_path, dtype, point.target)
            drafter = self._load_drafter(assignment, target)
            timed = [cell for cell in assignment.cells if cell.point.batch is not None]
            for cell in timed:
                yield from self._run(assignment, target, drafter, [cell], should_stop)
            pooled = [cell for cell in assignment.cells if cell.point.batch is None]
            # In half precision a row's numbers depend on the rows beside it: a cell is measured without any other.
            for pool in [pooled] if target.exact else [[cell] for cell in sorted(pooled, key=self._order)]:
                if pool and not should_stop():
                    yield from self._run(assignment, target, drafter, pool, should_stop)

    def close(self) -> None:
        self._target = None
        self._written.clear()
        self._questions.cache_clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _run(
        self,
        assignment: Assignment,
        target: _Loaded,
        drafter: Drafter | PromptLookup | None,
        cells: Sequence[Cell],
        should_stop: Callable[[], bool],
    ) -> Iterator[tuple[Cell, Result]]:
        """Answer the questions of ``cells`` in one pool; a cell that is timed comes alone."""
        tree, batch_size = assignment.tree, cells[0].point.batch
        cells = sorted(cells, key=self._order)
        jobs = [[self._job(cell, question, target) for question in self._asked(cell)] for cell in cells]
        flat = [job for group in jobs for job in group]
        owner = [(number, place) for number, group in enumerate(jobs) for place in range(len(group))]
        max_seq_len = max(job.max_seq_len for job in flat)
        rows = batch_size or self._rows(len(flat), row_bytes(target.model, drafter, tree, max_seq_len, target.dtype))
        lookahead = LOOKAHEAD_TOKENS if tree and batch_size is None and target.exact else 0
        longest = max(min(job.max_new_tokens, job.max_seq_len) for job in flat) + lookahead
        batch = Batch(
            target.model,
            drafter,
            tree,
            rows=rows,
            max_seq_len=max_seq_len,
            uniforms_per_row=longest + (tree.steps if tree else 0) + 1,
        )
        if batch_size is None and not target.exact:
            batch.examine_tokens()
        if batch_size is not None:
            warm_up = dataclasses.replace(flat[0], max_new_tokens=min(WARM_UP_TOKENS, flat[0].max_new_tokens))
            list(generate(batch, [warm_up], target.end_ids, lambda: False))
            batch.time_stages()
        start = time.perf_counter()
        answered: list[dict[int, GenerationResult]] = [{} for _ in cells]
        for done in generate(batch, flat, target.end_ids, should_stop, lookahead):
            number, place = owner[done.index]
            if lookahead:
                self._written.setdefault(_key(cells[number], flat[done.index]), done.written)
            answered[number][place] = done
            if len(answered[number]) == len(jobs[number]):
                samples = tuple(answered[number][place].sample for place in range(len(jobs[number])))
                seconds = time.perf_counter() - start
                settings = self._settings(batch, jobs[number][0].max_seq_len, expected_texts=lookahead > 0)
                used = drafter.config.layer.rope_theta if isinstance(drafter, Drafter) else None
                settings = with_ropes(settings, target.model.config.rope_theta, assignment.drafter_path, used)
                yield cells[number], Result(samples, seconds, settings)

    def _order(self, cell: Cell) -> tuple[int, str, float]:
        """Conversations of several turns first, since they take longest; then like beside like."""
        return -self.suite.benchmarks[cell.point.benchmark].turns, cell.point.benchmark, cell.point.temperature

    def _rows(self, jobs: int, bytes_per_row: int) -> int:
        budget = CPU_CACHE_BYTES
        if self.device.type == "cuda":
            # What the pools before this one used is kept by torch's allocator, and would not count as free.
            torch.cuda.empty_cache()
            budget = int(torch.cuda.mem_get_info(self.device)[0] * GPU_CACHE_SHARE)
            if budget < bytes_per_row:
                raise DeviceError(
                    f"{self.device} is out of memory: one sequence needs {bytes_per_row >> 20} MiB, of what is free "
                    f"{budget >> 20} MiB may be used",
                    "free the GPU, use a larger one, or a smaller --tree",
                )
        return max(1, min(jobs, ROWS, budget // bytes_per_row))

    def _asked(self, cell: Cell) -> tuple[Question, ...]:
        return self._questions(cell.point.benchmark, cell.point.questions)

    def _load_questions(self, benchmark: str, count: int) -> tuple[Question, ...]:
        return load_questions(self.suite, benchmark, count, self.models_dir)

    def _job(self, cell: Cell, question: Question, target: _Loaded) -> GenerationJob:
        point = cell.point

        def prompt(answers: Sequence[Sequence[int]]) -> Sequence[int]:
            return target.conversation.prompt(question.turns, answers)

        job = GenerationJob(
            # Files number their questions from 0 each: with the benchmark's name no two share their random numbers.
            question_id=f"{point.benchmark}/{question.question_id}",
            turns=len(question.turns),
            prompt=prompt,
            temperature=point.temperature,
            seed=point.seed,
            max_new_tokens=point.max_new_tokens,
            max_seq_len=max_seq_len_of(point.max_length, target.path),
        )
        if point.batch is not None:
            return job
        return dataclasses.replace(job, known_texts=self._written.get(_key(cell, job), ()))

    def _load_target(self, path: Path, dtype: torch.dtype, name: str) -> _Loaded:
        if self._target is None or (self._target.path, self._target.dtype) != (path, dtype):
            self._written.clear()
            self._target = None  # first, so that two targets are never in memory together
            self._target = self._read_target(path, dtype, self.suite.templates[self.suite.targets[name].template])
        return self._target

    def _read_target(self, path: Path, dtype: torch.dtype, template: Template) -> _Loaded:
        model = load_target(path, dtype, self.device)
        return _Loaded(path, dtype, model, open_conversation(path, template, self.suite.system_prompt))

    def _load_drafter(self, assignment: Assignment, target: _Loaded) -> Drafter | PromptLookup | None:
        point, folder = assignment.cells[0].point, assignment.drafter_path
        record = self.suite.drafters[point.drafter]
        if record.kind == "lookup":
            return PromptLookup(record.min_ngram, record.max_ngram)
        if folder is None:
            return None
        pair = make_pair(self.suite.targets[point.target], target.path, folder, "draft-head", "torch")
        check_branch(pair.config, pair.drafter, assignment.tree)
        theta = _config_rope(folder, pair.drafter_layout) if EAGLE3_CONFIG_ROPE in point.compat else None
        return load_drafter(folder, target.model, target.dtype, self.device, pair.capture, rope_theta=theta)

    def _settings(self, batch: Batch, window: int, *, expected_texts: bool) -> EngineSettings:
        """What is in effect, read back from where it takes effect."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        return EngineSettings(
            torch=torch.__version__,
            dtype=str(batch.dtype).removeprefix("torch."),
            others={
                "verifier": VERIFIER,
                "device": str(batch.device),
                "device_name": name,
                "float32_matmul_precision": torch.get_float32_matmul_precision(),
                "threads": torch.get_num_threads(),
                "rows": batch.rows,
                "tree": str(batch.drafting.shape) if batch.drafting else None,
                "window": window,
                "expected_texts": expected_texts,
            },
        )

    @contextmanager
    def _memory_errors(self) -> Iterator[None]:
        """Out of memory, on either kind of device, as a message for the user."""
        try:
            yield
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            text = str(error)
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in text:
                raise
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            raise DeviceError(
                f"{self.device} is out of memory: {text.splitlines()[0]}",
                "free the device, use a smaller --tree, or a larger device",
            ) from error


def _config_rope(folder: Path, layout: str) -> float:
    """The RoPE base that EAGLE-3's config.json names, which is not the one it was trained with."""
    where = folder / "config.json"
    data = read_json(where)
    theta = named_rope_theta(data, str(where)) if layout == EAGLE3.name and is_authors_eagle3(folder, data) else None
    if theta is None:
        raise CheckpointError(
            f"{where}: names no RoPE base other than the one its drafter was trained with, so there is none to imitate "
            f"({EAGLE3_CONFIG_ROPE})",
            "leave --paper-compat out",
        )
    return theta


def _key(cell: Cell, job: GenerationJob) -> tuple[Hashable, ...]:
    """What a target's text depends on, besides the target."""
    return job.question_id, job.temperature, job.seed, job.max_new_tokens, cell.point.max_length
