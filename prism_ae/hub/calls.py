"""Calls to the hubs' own client libraries: kept quiet, imported late, repeated, never waited for without an end.

Addresses, tokens and proxies are theirs: HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE; MODELSCOPE_ENDPOINT,
MODELSCOPE_API_TOKEN. `environment` reads the same variables to explain what fails.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
import warnings
from collections.abc import Callable
from typing import TypeVar

from prism_ae.errors import UsageError
from prism_ae.hub.environment import CLIENTS, Client, as_set, problems
from prism_ae.hub.failures import UNUSABLE, UnreachableError, UnresolvedError
from prism_ae.hub.selection import HubName

T = TypeVar("T")

PAUSES = (1.0, 3.0, 10.0, 30.0)
"""Seconds before each further attempt, on top of what the libraries try by themselves."""

_PAUSES_FOR_A_NAME = 2
"""Further attempts where a name has no address."""

ANSWER_PATIENCE = 120.0
"""Seconds within which a listing or a question file must be here."""


def prepare(hub: HubName) -> None:
    """Before a hub's client is imported. It shows no bars and no lines about retries: that is said in one place.

    Raises:
        UsageError: a variable keeps the hub's client from working, or leads it to elsewhere than is meant.
    """
    require_usable(CLIENTS[hub], hub)
    # Of variables that are old or meant for uploads; doctor names those that change a download.
    warnings.filterwarnings("ignore", r"Environment variable|The `HF_HUB_ENABLE_HF_TRANSFER`")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if hub == "modelscope":
        import modelscope_hub.utils.logger  # noqa: F401  it sets its level and handler when it is imported
    for package in ("huggingface_hub", "modelscope_hub", "httpx"):
        logging.getLogger(package).setLevel(logging.ERROR)


def require_usable(client: Client, hub: HubName | None) -> None:
    """Raises UsageError where the environment keeps a client from working, before anything is sent.

    Args:
        hub: None for files that are on no hub.
    """
    if found := problems(as_set(), client, hub):
        raise UsageError("; ".join(found), UNUSABLE)


def persistently(attempt: Callable[[], T]) -> T:
    """The result of the first attempt that does not end in an UnreachableError, with pauses in between."""
    for number, pause in enumerate((*PAUSES, None)):
        try:
            return attempt()
        except UnreachableError as error:
            if pause is None or (isinstance(error, UnresolvedError) and number >= _PAUSES_FOR_A_NAME):
                raise
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def in_time(subject: str, call: Callable[[], T]) -> T:
    """The result of a call to a library whose own time limits hold for single reads, or for nothing.

    The call is left alone in its thread when its time is over; the thread ends with the process.

    Raises:
        UnreachableError: it did not end within ANSWER_PATIENCE; else whatever it raises.
    """
    done: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((call(), None))
        except BaseException as error:
            done.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        result, error = done.get(timeout=ANSWER_PATIENCE)
    except queue.Empty:
        raise UnreachableError(
            f"{subject} has not answered within {ANSWER_PATIENCE:.0f} seconds",
            "check the network (a proxy may hold the connection) and run the same command again: it continues",
        ) from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]
