"""Entry point: every error a user can meet becomes one message and its exit code, here and nowhere else."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from prism_ae.errors import INTERRUPTED, PrismError, StoreError
from prism_ae.processes.shadowing import explained, own_modules_first


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command line and exit.

    Args:
        argv: the arguments, default those of the process.
    """
    os.environ["PYTHONSAFEPATH"] = "1"  # no process that is started takes files of the current folder for modules
    sys.exit(run(argv))


def run(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code (`prism_ae.errors`). A bug's exception passes through.

    An exception that comes from a foreign file, taken for a module of the environment, is no bug: the file is named.
    """
    if (sys.argv[1:] if argv is None else list(argv))[:1] == ["doctor"]:
        own_modules_first()  # what it is to find may keep even the parser from being imported
    try:
        from prism_ae.cli.output import replace_unencodable

        replace_unencodable()
        return _flushed(argv)
    except PrismError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return INTERRUPTED
    except (Exception, SystemExit) as error:
        said = _too_long(error) or explained(error)
        if said is None:
            raise
        print(f"error: {said}", file=sys.stderr)
        return said.exit_code


def _too_long(error: BaseException) -> PrismError | None:
    """A name that no file can have is found wherever it is first used; None for any other error."""
    if not isinstance(error, OSError) or error.errno != errno.ENAMETOOLONG:
        return None
    return StoreError(f"{str(error.filename)[:200]}…: {error.strerror}", "choose a shorter name")


def _flushed(argv: Sequence[str] | None) -> int:
    """The exit code; results are out before anything is said about an error."""
    from prism_ae.cli.output import flush

    try:
        return _call(argv)
    finally:
        flush()


def _call(argv: Sequence[str] | None) -> int:
    """The exit code of the parser: it ends with SystemExit, also for its own messages about wrong options."""
    words = sys.argv[1:] if argv is None else list(argv)
    from prism_ae.cli.app import app

    try:
        app(args=words, prog_name="prism-ae")
    except SystemExit as end:
        if end.code == INTERRUPTED:
            raise KeyboardInterrupt from None
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    main()
