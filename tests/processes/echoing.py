"""What a child of `test_child` does: says what it was given, starts a program of its own, and then what it is told."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any


def main(connection: Any) -> None:
    first = connection.recv()
    program = subprocess.Popen(["sleep", "600"])
    print("x" * 30_000 + "the last words", flush=True)
    connection.send((first, os.environ.get("ASKED"), os.environ.get("HOME"), program.pid))
    while order := connection.recv():
        if order == "exit":
            sys.exit(3)
        connection.send(os.get_inheritable(order))
