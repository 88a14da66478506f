"""What a test orders, and what it is told: two files of a folder that a variable names. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
from collections import Counter
from pathlib import Path

VARIABLE = "FAKE_GRAPH_FOLDER"


@dataclasses.dataclass(frozen=True)
class Orders:
    """In force from the next time that the prefix cache is emptied; graphs are captured anew then.

    Attributes:
        batches: for which graphs are captured; () runs eagerly.
        dropped: name of operations that are recorded and not replayed.
        fault: name of one of `faults`.
    """

    batches: tuple[int, ...] = ()
    dropped: str = ""
    fault: str = ""

    def write(self, folder: Path) -> None:
        """Order this, also where the same was ordered before; what has been reported is forgotten."""
        (folder / "orders").write_text(json.dumps(dataclasses.asdict(self) | {"number": secrets.token_hex(8)}))
        (folder / "report").unlink(missing_ok=True)

    @classmethod
    def read(cls, folder: Path) -> tuple[str, Orders]:
        """What was ordered last, and the number of the order."""
        file = folder / "orders"
        found = json.loads(file.read_text()) if file.exists() else {}
        number = found.pop("number", "")
        return number, cls(**(found | {"batches": tuple(found.get("batches", ()))}))


@dataclasses.dataclass
class Report:
    """What happened since the orders were written.

    Attributes:
        captured: operations of each graph; keys are its kind, "draft" or "extend", and its batch.
        waits: where a capture waited for the device.
        replays: how often a batch was served by a graph; keys are the graph's kind, the batch, the graph's batch.
        dropped: operations that were not replayed.
        trees: what was drafted, by graphs or eagerly: how often each tree of a request was, as a digest.
    """

    captured: dict[tuple[str, int], int] = dataclasses.field(default_factory=dict)
    waits: list[str] = dataclasses.field(default_factory=list)
    replays: Counter[tuple[str, int, int]] = dataclasses.field(default_factory=Counter)
    dropped: int = 0
    trees: Counter[str] = dataclasses.field(default_factory=Counter)

    def write(self, folder: Path) -> None:
        data = {
            "captured": [[*key, count] for key, count in self.captured.items()],
            "waits": self.waits,
            "replays": [[*key, count] for key, count in self.replays.items()],
            "dropped": self.dropped,
            "trees": self.trees,
        }
        (folder / "report").write_text(json.dumps(data))

    @classmethod
    def read(cls, folder: Path) -> Report:
        data = json.loads((folder / "report").read_text())
        return cls(
            captured={(kind, batch): count for kind, batch, count in data["captured"]},
            waits=data["waits"],
            replays=Counter({(kind, batch, graph): count for kind, batch, graph, count in data["replays"]}),
            dropped=data["dropped"],
            trees=Counter(data["trees"]),
        )


def folder() -> Path:
    return Path(os.environ[VARIABLE])
