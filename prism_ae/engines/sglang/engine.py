"""The sglang engine: speed and acceptance measured by an embedded SGLang with PRISM as a plugin.

One host is started per target and drafter architecture, for the largest batch and tree that the plan asks of it;
drafters of one architecture, batches and, on a CPU, trees are changed while it runs, and on a CPU a target's hosts are
all kept (`hosts`). Before a cell is measured, its host proved that it is the one that was started, said what is in
effect, answered a warm-up, and emptied its prefix cache.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from prism_ae.cells import Cell, EngineSettings, Point, Result, Sample, TreeShape
from prism_ae.drafters.layouts.read import read_drafter
from prism_ae.engines.pairs import Pair, check_branch, make_pair, with_ropes
from prism_ae.engines.protocol import WARM_UP_TOKENS, Assignment
from prism_ae.engines.sglang.hosts import Hosts
from prism_ae.engines.sglang.memory import room_by_memory, room_for_one
from prism_ae.engines.sglang.options import (
    ACCEPTANCE_BATCH,
    EngineSetup,
    architecture_text,
    engine_environment,
    engine_options,
)
from prism_ae.engines.sglang.process import Host, HostDied, Interrupted
from prism_ae.errors import DeviceError
from prism_ae.io.digests import digest
from prism_ae.models.checkpoints import read_json
from prism_ae.models.config import named_rope_theta
from prism_ae.processes import DEATHS
from prism_ae.prompts.conversation import max_seq_len_of
from prism_ae.prompts.questions import Question, load_questions
from prism_ae.sglang_prism.messages import Answered, BatchDone, Configure, Serve
from prism_ae.sglang_prism.stand_ins.paths import stand_in_paths
from prism_ae.suites.compat import GRAPHS_BATCH_1, GREEDY_SECOND_TEMPERATURE, WARM_CACHE, server_flags
from prism_ae.suites.records import Suite


class SGLangEngine:
    """See `prism_ae.engines.protocol.Engine`; arguments as for `torch_engine.TorchEngine`."""

    def __init__(self, suite: Suite, models_dir: Path, device: str, threads: int) -> None:
        self.suite, self.device, self.threads = suite, device, threads
        self._questions: Callable[[str, int], tuple[Question, ...]] = cache(
            lambda benchmark, count: load_questions(suite, benchmark, count, models_dir)
        )
        # A sweep of trees or batches asks for the same pair again and again.
        self._make_pair = cache(make_pair)
        self._hosts = Hosts(room_by_memory if device == "cpu" else room_for_one)
        self._host: Host | None = None
        """The one in use."""

    def measure(self, assignment: Assignment, should_stop: Callable[[], bool]) -> Iterator[tuple[Cell, Result]]:
        """See the protocol."""
        wanted = self._wanted(assignment)
        deaths, left = 0, sorted(assignment.cells, key=_order)
        while left:
            try:
                self._prepare(wanted, assignment, should_stop)
                while left:
                    result = self._cell(left[0], assignment)
                    self._relay()
                    yield left.pop(0), result
                    deaths = 0
            except Interrupted:
                return
            except HostDied as died:
                if self._host is None:  # it died while it started
                    print(died.words, end="")
                self._relay()
                self.close()  # all of them: what it died of may be the memory that they take
                deaths += 1
                print(f"the engine's process died ({died.how})")
                if deaths >= DEATHS:
                    error = _explained(died)
                    raise error from error.__cause__

    def close(self) -> None:
        self._hosts.close()
        self._host = None

    def _wanted(self, assignment: Assignment) -> EngineSetup:
        """The start that the assignment needs, its checkpoints checked; raises PrismError."""
        point, capacity, tree = assignment.cells[0].point, assignment.capacity, assignment.tree
        pair = self._pair(assignment)
        check_branch(pair.config, pair.drafter, tree)
        if tree is not None and self.device == "cpu":  # where trees are changed while it runs
            tree = TreeShape(capacity.max_steps, capacity.max_branch, capacity.max_verified)
        architecture = ""
        if pair.drafter is not None:
            architecture = _architecture(pair) if pair.config else "standard"
        return EngineSetup(
            target=assignment.target_path,
            drafter=assignment.drafter_path,
            architecture=architecture,
            tree=tree,
            batch=max(capacity.max_batch, ACCEPTANCE_BATCH),
            max_seq_len=max_seq_len_of(max(capacity.max_seq_len, point.max_length), assignment.target_path),
            dtype=point.dtype,
            seed=point.seed,
            drafting=point.drafting,
            device=self.device,
            server_flags=server_flags(point.compat),
        )

    def _pair(self, assignment: Assignment) -> Pair:
        point = assignment.cells[0].point
        record, kind = self.suite.targets[point.target], self.suite.drafters[point.drafter].kind
        return self._make_pair(record, assignment.target_path, assignment.drafter_path, kind, "sglang")

    def _prepare(self, wanted: EngineSetup, assignment: Assignment, should_stop: Callable[[], bool]) -> None:
        """Take a host into use, and have it run as the assignment asks."""
        self._host = None
        environment = engine_environment(wanted, stand_in_paths(), self.threads)
        self._host = self._hosts.take(wanted, lambda: Host(engine_options(wanted), environment, should_stop))
        self._host.stop_when(should_stop)
        state = EngineSettings.from_json(self._host.state)
        configure = _changes(state, assignment, wanted)
        if configure != Configure():
            state = EngineSettings.from_json(self._host.configure(configure))
        _check_state(state, assignment, wanted)

    def _cell(self, cell: Cell, assignment: Assignment) -> Result:
        """Warm up, empty the cache, measure; raises HostDied, Interrupted, PrismError."""
        assert self._host is not None
        point = cell.point
        target = self.suite.targets[point.target]
        greedy = GREEDY_SECOND_TEMPERATURE in point.compat
        concurrency = point.batch or ACCEPTANCE_BATCH
        questions = self._questions(point.benchmark, point.questions)
        serve = Serve(
            target=assignment.target_path,
            template=self.suite.templates[target.template],
            system_prompt=self.suite.system_prompt,
            questions=tuple(question.turns for question in questions),
            temperature=0.0 if greedy else point.temperature,
            max_new_tokens=point.max_new_tokens,
            max_seq_len=max_seq_len_of(point.max_length, assignment.target_path),
            concurrency=concurrency,
            flush=True,
        )
        if point.batch is not None:
            list(self._host.serve(_warm_up(serve)))
        if WARM_CACHE in point.compat and point.temperature > 0:
            # The prompts' prefixes are in the cache from T = 0, which the authors measure first on the same server.
            list(self._host.serve(_warm_up(serve, all_questions=True)))
            serve = dataclasses.replace(serve, flush=False)
        answered: dict[int, Answered] = {}
        wall = 0.0
        for message in self._host.serve(serve):
            if isinstance(message, BatchDone):
                wall = message.wall_seconds
            else:
                answered[message.index] = message
        samples = tuple(
            _sample(f"{point.benchmark}/{question.question_id}", answered[number], point)
            for number, question in enumerate(questions)
        )
        settings = EngineSettings.from_json(self._host.configure(Configure()))  # with the memory that it took
        others = {key: value for key, value in settings.others.items() if key not in ("pid", "drafter")}
        effective = dataclasses.replace(
            settings,
            nonce=None,
            drafter=None,
            concurrency=concurrency,
            others=others | {"batch": point.batch, "threads": self.threads},
        )
        pair, where = self._pair(assignment), assignment.target_path / "config.json"
        theta = named_rope_theta(read_json(where), str(where))
        used = pair.config.layer.rope_theta if pair.config else None
        return Result(samples, wall, with_ropes(effective, theta, pair.drafter, used))

    def _relay(self) -> None:
        """What SGLang printed, into this worker's own output and so into the cell's engine.log."""
        if self._host is not None:
            print(self._host.new_output(), end="", flush=True)


def _order(cell: Cell) -> tuple[str, float]:
    """T = 0 before T = 1 of each benchmark, as the authors measure."""
    return cell.point.benchmark, cell.point.temperature


def _warm_up(serve: Serve, *, all_questions: bool = False) -> Serve:
    """A short run of the same kind: as many questions as run together, few tokens."""
    count = len(serve.questions) if all_questions else serve.concurrency
    tokens = 1 if all_questions else min(WARM_UP_TOKENS, serve.max_new_tokens)
    return dataclasses.replace(serve, questions=serve.questions[:count], max_new_tokens=tokens, flush=True)


def _sample(question_id: str, answered: Answered, point: Point) -> Sample:
    histogram, tree = answered.histogram, point.tree
    if tree is not None:
        histogram += (0,) * (tree.steps + 1 - len(histogram))
    return Sample(
        question_id=question_id,
        turns=len(answered.answers),
        prompt_tokens=answered.prompt_tokens,
        generated_tokens=sum(len(answer) for answer in answered.answers),
        histogram=histogram,
        stops=answered.stops,
        prefill_seconds=answered.prefill_seconds,
        decode_seconds=answered.decode_seconds,
        output_sha256=digest([list(answer) for answer in answered.answers]),
        accepted=answered.accepted if tree is not None else (),
        turn_tokens=tuple(map(len, answered.answers)),
        stage_seconds=answered.stage_seconds if point.batch is not None else (),
    )


def _changes(state: EngineSettings, assignment: Assignment, wanted: EngineSetup) -> Configure:
    """What a running engine has to change for the assignment."""
    if assignment.tree is None:
        return Configure()
    tree = str(assignment.tree)
    drafter = str(assignment.drafter_path)
    return Configure(
        drafter=drafter if state.drafter not in (None, drafter) else None,
        tree=tree if _tree(state) != tree else None,
        drafting=wanted.drafting if state.drafting != wanted.drafting else None,
    )


def _tree(state: EngineSettings) -> str | None:
    return ",".join(map(str, state.tree)) if state.tree else None


def _check_state(state: EngineSettings, assignment: Assignment, wanted: EngineSetup) -> None:
    """Raises DeviceError where the engine does not run as it was asked to."""
    tree = None if assignment.tree is None else str(assignment.tree)
    asked = {"tree": tree, "drafting": wanted.drafting if tree else None, "dtype": wanted.dtype}
    found = {"tree": _tree(state), "drafting": state.drafting, "dtype": state.dtype}
    if wanted.architecture not in ("", "standard"):
        asked["drafter"], found["drafter"] = str(assignment.drafter_path), state.drafter
    different = [f"{key} {found[key]} instead of {asked[key]}" for key in asked if asked[key] != found[key]]
    if (largest := state.largest_batch or 0) < wanted.batch:
        different.append(f"at most {largest} sequences together instead of {wanted.batch}")
    if wanted.device != "cpu" and GRAPHS_BATCH_1 not in wanted.server_flags:
        different += _without_graphs(state, assignment.tree, wanted)
    if different:
        raise DeviceError(f"SGLang does not run as asked: {'; '.join(different)}", "its log is in engine.log")


def _without_graphs(state: EngineSettings, tree: TreeShape | None, wanted: EngineSetup) -> list[str]:
    """The CUDA graphs that do not cover the batch: the target's, the draft loop's and the drafter's first step's."""
    needed = {"CUDA graphs": state.cuda_graphs}
    if tree is not None:
        needed["CUDA graphs of the draft's first step"] = state.extend_cuda_graphs
        if tree.steps > 1:  # a single step is drafted by the first step alone
            needed["CUDA graphs of the draft loop"] = state.draft_cuda_graphs
    largest = {
        words: 0 if not graphs or graphs == "eager" else max(map(int, graphs)) for words, graphs in needed.items()
    }
    return [
        f"{words} up to batch {most} instead of {wanted.batch}"
        for words, most in largest.items()
        if most < wanted.batch
    ]


@cache
def _architecture(pair: Pair) -> str:
    """A draft head's architecture; raises PrismError for one that SGLang's scheduler would stumble over.

    Once per checkpoint: a sweep of trees or batches asks for the same one again and again, and all of it is read.
    """
    assert pair.drafter is not None
    return architecture_text(read_drafter(pair.drafter, pair.sizes, pair.capture).config)


def _explained(died: HostDied) -> DeviceError:
    """A death as a message, from what was printed last."""
    lines = [line.strip() for line in died.words.splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if "Error" in line or "error" in line), lines[-1] if lines else "")
    if "out of memory" in died.words.lower() or "OutOfMemoryError" in died.words:
        error = DeviceError(
            f"SGLang ran out of memory ({last})", "use a smaller --batch-size or --tree, or a device with more memory"
        )
        error.__cause__ = MemoryError()
        return error
    return DeviceError(f"SGLang's process ended {DEATHS} times ({died.how}): {last}", "its log is in engine.log")
