"""Errors by what can be relied upon: their class, and what they name. The sentence is `messages.txt`'s."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def raises(kind: type[Exception], *subjects: object) -> Iterator[pytest.ExceptionInfo[Exception]]:
    """An error of this kind whose text, hint included, names each subject: a file, a key, an option, a number."""
    with pytest.raises(kind) as caught:
        yield caught
    for subject in subjects:
        assert str(subject) in str(caught.value)
