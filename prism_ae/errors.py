"""Every error a user can meet, in one tree, each with its exit code.

A message says what is wrong, where (file, key, option) and what to do. Anything that is not one of these is a
bug and may show a traceback.

    PrismError                   1
    ├── UsageError               2    an option or a name that does not exist
    ├── ConfigError              3    a TOML file with an invalid or contradictory entry
    ├── MissingError             4    a model, question file or package that is not here yet
    ├── CheckpointError          5    a checkpoint that is damaged, unsupported or of another model
    ├── DeviceError              6    a GPU that does not exist, is in use, or ran out of memory
    ├── StoreError               7    the run folder cannot be read or written (read-only, disk full, in use)
    └── IncompleteError          8    the run ended, and some cells have no result
    (interrupted by the user)  130
"""

from __future__ import annotations


class PrismError(Exception):
    """Base of all errors shown to a user as one message.

    Args:
        what: what is wrong and where, one sentence.
        hint: what to do about it, or "".
    """

    exit_code = 1

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}\n  {self.hint}" if self.hint else self.what

    def __reduce__(self) -> tuple[type[PrismError], tuple[str, str]]:
        return type(self), (self.what, self.hint)


class UsageError(PrismError):
    exit_code = 2


class ConfigError(PrismError):
    exit_code = 3


class MissingError(PrismError):
    exit_code = 4


class CheckpointError(PrismError):
    exit_code = 5


class DeviceError(PrismError):
    exit_code = 6


class StoreError(PrismError):
    exit_code = 7


class IncompleteError(PrismError):
    exit_code = 8


INTERRUPTED = 130
