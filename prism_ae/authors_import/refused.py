"""Why something of the artifact's is not taken."""

from __future__ import annotations


class RefusedError(Exception):
    """A file, or a line of it, that is not taken.

    Args:
        file: its path, as it is shown.
        line: counted from 1; None where it is about the whole file.
        why: what is wrong and, where something can be done, what to do.
    """

    def __init__(self, file: str, line: int | None, why: str) -> None:
        super().__init__(file, line, why)
        self.file = file
        self.line = line
        self.why = why

    def __str__(self) -> str:
        return f"{self.file}{'' if self.line is None else f', line {self.line}'}: {self.why}"
