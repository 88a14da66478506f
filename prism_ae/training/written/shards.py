"""Written conversations on the disk: a file of JSON lines per shard, and beside it what was dropped on the way.

    data.json          what decides the content: a folder of something else is refused
    part-00000.jsonl   {"conversations": [{"user": …, "assistant": …}], "answer_tokens": …, "cut": …}: a file like any
                       that is trained on
    part-00000.json    how many turns were begun, what was dropped and why
    …

A shard knows nothing of the others, so that it can be made at any time, by anybody, after any interruption. What stands
in several of them counts where it stands first: whoever reads them goes by their numbers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prism_ae.errors import ConfigError, MissingError, StoreError
from prism_ae.io.atomic import atomic_write, atomic_write_all
from prism_ae.io.digests import canonical_json, digest
from prism_ae.io.paths import why_not
from prism_ae.prompts.json_lines import Problem, listed, read_records
from prism_ae.training.jsonl import Told
from prism_ae.training.written.filters import REASONS, SAME_ANSWER, SAME_TURN, Duplicates

_CONTENT = "data.json"
_AGAIN = "delete it, and run again: it is written anew"


@dataclasses.dataclass(frozen=True)
class Written:
    """A conversation of one turn.

    Attributes:
        answer_tokens: of the answer, its end token included.
        cut: whether the answer ends at the limit, without an end token.
    """

    user: str
    answer: str
    answer_tokens: int
    cut: bool


@dataclasses.dataclass(frozen=True)
class Shard:
    """What came of one shard's user turns.

    Attributes:
        begun: user turns.
        dropped: how many of them for each of `filters.REASONS`.
        spent: tokens that were written for it, those of what was dropped included.
    """

    conversations: tuple[Written, ...]
    begun: int
    dropped: Mapping[str, int]
    spent: int


def part_file(folder: Path, number: int) -> Path:
    """Where a shard is once it is complete."""
    return folder / f"part-{number:05d}.jsonl"


def save_shard(folder: Path, number: int, shard: Shard) -> None:
    """Make the shard appear, complete; raises StoreError."""
    lines = [
        {
            "conversations": [{"user": one.user, "assistant": one.answer}],
            "answer_tokens": one.answer_tokens,
            "cut": one.cut,
        }
        for one in shard.conversations
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    counts = json.dumps({"begun": shard.begun, "dropped": dict(shard.dropped), "spent": shard.spent}, indent=1) + "\n"
    path = part_file(folder, number)
    with _store_errors(folder):
        # In this order: a shard that is there has its counts.
        atomic_write_all({path.with_suffix(".json"): counts.encode(), path: text.encode()})


def load_shard(folder: Path, number: int) -> Shard:
    """Raises MissingError: it is not there; ConfigError: damaged, names file and line."""
    path = part_file(folder, number)
    records = read_records(path, "write the data again: what is there is kept")
    found, problems = [], list(records.problems)
    for place, data in records.found:
        try:
            (turn,) = data["conversations"]
            told = Written(turn["user"], turn["assistant"], data["answer_tokens"], data["cut"])
        except (TypeError, KeyError, ValueError):
            problems.append(Problem(place, "no written conversation"))
            continue
        if [type(value) for value in dataclasses.astuple(told)] == [str, str, int, bool]:
            found.append(told)
        else:
            problems.append(Problem(place, "no written conversation"))
    if problems:
        raise ConfigError(listed(path, problems), _AGAIN)
    counts = _read_json(path.with_suffix(".json"))
    try:
        dropped = {reason: int(counts["dropped"][reason]) for reason in REASONS}
        return Shard(tuple(found), int(counts["begun"]), dropped, int(counts["spent"]))
    except (TypeError, KeyError, ValueError):
        raise ConfigError(f"{path.with_suffix('.json')} holds no counts of a shard", _AGAIN) from None


class Taken:
    """Shards read in the order of their numbers, as far as they are there.

    Attributes:
        shards: how many.
        conversations: those that no earlier shard has, with the number of their shard and their line there.
        answer_tokens: of them; gains: of each shard.
        begun, spent, dropped: of all shards; duplicates between shards included.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._there = folder, Duplicates()
        self.shards = self.answer_tokens = self.begun = self.spent = 0
        self.gains: list[int] = []
        self.conversations: list[tuple[int, int, Written]] = []
        self.dropped: Counter[str] = Counter(dict.fromkeys(REASONS, 0))

    def read_on(self, enough: float = float("inf")) -> None:
        """Read what follows and is there, until there are ``enough`` answer tokens; raises ConfigError."""
        while self.answer_tokens < enough and part_file(self._folder, self.shards).exists():
            shard, before = load_shard(self._folder, self.shards), self.answer_tokens
            self.begun += shard.begun
            self.spent += shard.spent
            self.dropped.update(shard.dropped)
            for line, told in enumerate(shard.conversations, start=1):
                if self._there.has_user(told.user):
                    self.dropped[SAME_TURN] += 1
                elif self._there.has_answer(told.answer):
                    self.dropped[SAME_ANSWER] += 1
                else:
                    self.conversations.append((self.shards, line, told))
                    self.answer_tokens += told.answer_tokens
            self.gains.append(self.answer_tokens - before)
            self.shards += 1


def read_data(folder: Path, answer_tokens: int) -> Told:
    """The first conversations that have so many answer tokens together: of more tokens, these are the beginning.

    Raises:
        MissingError: there are not so many.
        ConfigError: a damaged shard; names the file and the line.
    """
    taken = Taken(folder)
    taken.read_on(answer_tokens)
    if taken.answer_tokens < answer_tokens:
        raise MissingError(
            f"{folder} has {taken.answer_tokens:,} answer tokens in {taken.shards} shards, not {answer_tokens:,}",
            "write the data first: what is there is kept",
        )
    told: list[tuple[int, int, Written]] = []
    tokens = 0
    for one in taken.conversations:
        if tokens >= answer_tokens:
            break
        told.append(one)
        tokens += one[2].answer_tokens
    return Told(
        conversations=tuple(((one.user, one.answer),) for _, _, one in told),
        places=tuple(f"{part_file(folder, number).name}, line {line}" for number, line, _ in told),
        records=len(told),
        defects=(),
        sha256=digest([dataclasses.astuple(one) for _, _, one in told]),
        cut=frozenset(row for row, (_, _, one) in enumerate(told) if one.cut),
    )


def claim(folder: Path, content: Mapping[str, Any]) -> None:
    """Make the folder the one of this content.

    Raises:
        ConfigError: it holds data of another recipe, target or template.
        StoreError: it cannot be written.
    """
    path = folder / _CONTENT
    with _store_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            before = _read_json(path)
            if digest(before) != digest(content):
                other = sorted(
                    key
                    for key in {*before, *content}
                    if canonical_json(before.get(key)) != canonical_json(content.get(key))
                )
                raise ConfigError(
                    f"{folder} holds data of another {', '.join(other)}", "choose another folder, or delete this one"
                )
            return
        if any(folder.glob("part-*")):
            raise ConfigError(f"{folder} holds shards, and no {_CONTENT} that says of what", "choose another folder")
        atomic_write(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}", _AGAIN) from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} is not a JSON object", _AGAIN)
    return data


@contextlib.contextmanager
def _store_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot write to {folder}: {why_not(error, folder)}", "make room, or choose another --models-dir"
        ) from error
