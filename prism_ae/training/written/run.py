"""Writing a folder of conversations: the shards that are missing, in several processes, surviving anything.

Workers write one shard at a time, on a CPU with one thread each, so that what they write does not depend on their
number. A shard appears complete or not at all, so whatever is killed, the
next call writes the rest.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from prism_ae.devices.slots import Slot
from prism_ae.engines.sglang.memory import available
from prism_ae.errors import ConfigError, PrismError, StoreError
from prism_ae.io.locks import locked
from prism_ae.io.paths import size_of
from prism_ae.io.words import duration, format_bytes, pluralise
from prism_ae.processes import DEATHS
from prism_ae.processes.child import Child
from prism_ae.processes.interrupts import Signals
from prism_ae.processes.pool import Affinity, Pool, Process
from prism_ae.processes.progress import Display
from prism_ae.recipes.data import check_data_recipe
from prism_ae.training.jobs import JobFailed
from prism_ae.training.written.order import DataOrder, DataSummary, ShardJob, ShardProgress
from prism_ae.training.written.shards import Taken, claim, part_file

_LOCK = ".writing.lock"
_FRUITLESS = 3
"""Shards in a row without a conversation after which nobody waits for one."""
_DISK_BYTES = 8
"""On the disk per answer token, rather more than less: text of about five, what stands around it, the user's turn."""
_EXAMPLES = 10

Launch = Callable[[DataOrder, Slot], Process]


def launch_writer(order: DataOrder, slot: Slot) -> Process:
    """A worker process; raises DeviceError, StoreError."""
    variables = {"TOKENIZERS_PARALLELISM": "false", **slot.environment}
    return Child("prism_ae.training.written.worker", f"a worker for {slot.label}", (order, slot), variables)


def write_data(order: DataOrder, display: Display, launch: Launch = launch_writer) -> DataSummary:
    """Have the conversations written that are missing.

    Raises:
        ConfigError: the recipe cannot be followed with this target, or the folder holds something else.
        MissingError, CheckpointError: the target cannot be loaded.
        StoreError: the folder cannot be written, or another run is writing into it.
        DeviceError: no worker can be started.
        KeyboardInterrupt: after the workers were stopped; complete shards are kept.
    """
    check_data_recipe(order.recipe, "data")
    each = order.worker_bytes()
    with _held(order):
        taken = Taken(order.folder)
        taken.read_on()
        writing = _Writing(order, taken, display)
        if writing.queue.unfinished:
            missing = order.answer_tokens - taken.answer_tokens
            display.note(
                f"{missing:,} answer tokens to write into {order.folder}, about {format_bytes(missing * _DISK_BYTES)}"
            )
            used = _with_room(order.slots, each, available())
            if len(used) < len(order.slots):
                display.note(
                    f"{pluralise(len(used), 'worker')}, not {len(order.slots)}: each takes up to {format_bytes(each)}"
                )
            slots = {slot.label: _starting(launch, order, slot) for slot in used}
            # Nobody counts signals: Ctrl-C ends the workers at once.
            pool = Pool(writing.queue, slots, writing.heard, writing.died, interrupts=Signals(), note=display.note)
            pool.run()
        return writing.summary()


_MEMORY_SHARE = 0.8
"""Of the memory that is free, what workers may take."""


def _with_room(slots: Sequence[Slot], each: int, free: int) -> Sequence[Slot]:
    """As many of them as there is memory for, but one; a GPU has memory of its own."""
    if slots[0].device != "cpu":
        return slots
    return slots[: max(1, int(free * _MEMORY_SHARE) // each)]


def _starting(launch: Launch, order: DataOrder, slot: Slot) -> Callable[[], Process]:
    return lambda: launch(order, slot)


@contextlib.contextmanager
def _held(order: DataOrder) -> Iterator[None]:
    """Hold the folder for this run."""
    claim(order.folder, order.content)

    def busy(holder: str) -> StoreError:
        return StoreError(f"another run is writing into {order.folder} ({holder})", "wait for it, or stop it")

    with locked(order.folder / _LOCK, 0, busy, "--models-dir"):
        yield


class _ShardQueue:
    """The shards of one run (`pool.WorkQueue`): in order, as many as the answer tokens will take.

    Args:
        taken: read on whenever a shard is complete.
    """

    def __init__(self, order: DataOrder, taken: Taken) -> None:
        self._folder, self._enough, self._attempts = order.folder, order.answer_tokens, order.recipe.attempts
        self._taken = taken
        self._given, self._again = set[int](), list[int]()
        self.under_way: dict[int, ShardProgress | None] = {}

    @property
    def unfinished(self) -> int:
        return len(self.under_way) + self._wanted()

    def _wanted(self) -> bool:
        """Whether one more shard should be begun: what is complete, and what is under way, will not be enough."""
        if self._taken.answer_tokens >= self._enough:
            return False
        each = self._taken.answer_tokens / max(1, self._taken.shards)
        ahead = sum(1 for number in self._given if number >= self._taken.shards and number not in self._again)
        # What a shard gives is not known before the first is complete.
        return bool(self._again) or not each or self._taken.answer_tokens + ahead * each < self._enough

    def wants_worker(self, workers: int) -> bool:
        return self._wanted()

    def take(self, held: Affinity, elsewhere: Sequence[Affinity], *, quiet: bool) -> ShardJob | None:
        if not self._wanted():
            return None
        number = min(self._again) if self._again else self._next()
        if number in self._again:
            self._again.remove(number)
        self._given.add(number)
        self.under_way[number] = None
        return ShardJob(number)

    def _next(self) -> int:
        number = self._taken.shards
        while number in self._given or part_file(self._folder, number).exists():
            number += 1
        return number

    def over(self, job: ShardJob) -> None:
        del self.under_way[job.number]
        self._taken.read_on()
        last = self._taken.gains[-_FRUITLESS:]
        if len(last) == _FRUITLESS and not any(last):
            raise ConfigError(
                f"of the last {_FRUITLESS * self._attempts:,} user turns nothing was kept: "
                + "; ".join(f"{count:,} {reason}" for reason, count in self._taken.dropped.items() if count),
                "is the template the target's own? else allow more in the recipe's data",
            )

    def put_back(self, job: ShardJob) -> None:
        del self.under_way[job.number]
        self._again.append(job.number)


class _Writing:
    """What becomes of the shards, shown and noted."""

    def __init__(self, order: DataOrder, taken: Taken, display: Display) -> None:
        self.queue = _ShardQueue(order, taken)
        self._order, self._taken, self._display = order, taken, display
        self._deaths: Counter[int] = Counter()
        self._progress: dict[int, ShardProgress] = {}
        """Of every shard of this run, by number."""
        self._peaks: dict[int, int] = {}
        self._began = time.monotonic()

    def heard(self, job: ShardJob, message: ShardProgress | JobFailed) -> None:
        if isinstance(message, JobFailed):
            if message.trace:
                self._display.note(message.trace)
            raise message.error
        self._progress[job.number] = self.queue.under_way[job.number] = message
        self._peaks[message.process] = message.peak_bytes
        self.show()

    def died(self, job: ShardJob, label: str, how: str, words: bytes) -> None:
        """Another worker takes its shard, unless that happened before."""
        self._deaths[job.number] += 1
        if self._deaths[job.number] >= DEATHS:
            said = f"{how}):\n{words.decode(errors='replace').strip()[-2000:]}" if words.strip() else f"{how})"
            raise PrismError(
                f"writing {job.label} of the data exited without a result {DEATHS} times ({said}",
                "is there enough memory? run again with --workers 1, or fewer rows in the recipe",
            )
        self._display.note(f"the worker of {label} died ({how}); {job.label} of the data is written again")
        self._progress.pop(job.number, None)
        self.queue.put_back(job)

    def show(self) -> None:
        taken, wanted = self._taken, self._order.answer_tokens
        ahead = [one for number, one in self._progress.items() if number >= taken.shards]
        have = min(wanted, taken.answer_tokens + sum(one.answer_tokens for one in ahead))
        rate = self._written() / (time.monotonic() - self._began)
        left = ""
        if taken.answer_tokens and rate:
            # As many tokens again for each answer token as so far: of user turns, and of what is dropped.
            each = taken.spent / taken.answer_tokens
            rest = (wanted - taken.answer_tokens) * each - sum(one.user_tokens + one.answer_tokens for one in ahead)
            left = f", {duration(max(0.0, rest) / rate)} left"
        dropped = sum(taken.dropped.values())
        self._display.show(
            f"{have:,} of {wanted:,} answer tokens{left}; {rate:,.0f} tokens/s; "
            f"{dropped:,} of {taken.begun:,} user turns dropped",
            have,
        )

    def _written(self) -> int:
        return sum(one.user_tokens + one.answer_tokens for one in self._progress.values())

    def summary(self) -> DataSummary:
        taken, told = self._taken, [one for _, _, one in self._taken.conversations]
        return DataSummary(
            conversations=len(told),
            answer_tokens=taken.answer_tokens,
            shards=taken.shards,
            cut=sum(one.cut for one in told),
            begun=taken.begun,
            dropped=dict(taken.dropped),
            spent=taken.spent,
            written=self._written(),
            seconds=time.monotonic() - self._began,
            peak_bytes=sum(self._peaks.values()),
            disk_bytes=size_of([self._order.folder]),
            examples=tuple(told[:_EXAMPLES]),
        )
