"""Files that Python takes for modules of this environment: in PYTHONPATH, in the current folder, in the user's site.

Whoever has such files is told their names, and not what broke because of them. PYTHONPATH is not taken away: on
clusters a part of an environment may be found by it alone. This module itself imports only what Python has loaded when
it starts.
"""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.machinery import PathFinder

from prism_ae.errors import PrismError

PATH = tuple(sys.path)
"""Where Python looks for modules, in its order, as it was before `own_modules_first` put it in another one."""

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def foreign_modules(path: Sequence[str] | None = None, homes: Sequence[str] | None = None) -> dict[str, str]:
    """Modules that the standard library or this environment has, and that are found elsewhere first: name -> file.

    Nothing is imported. What only a foreign folder has is not meant: it may belong to the environment.

    Args:
        path: folders in Python's order; default: this process's.
        homes: folders of the standard library and of installed packages; default: this environment's.
    """
    path = list(sys.path) if path is None else list(path)
    homes = _homes() if homes is None else list(homes)
    real = {os.path.realpath(home) for home in homes}
    found: dict[str, str] = {}
    for entry in path:
        if os.path.realpath(entry or ".") in real:
            continue
        for name in _names(entry or "."):
            if name in found or name in sys.builtin_module_names or name == os.path.basename(_PACKAGE):
                continue
            ours, first = PathFinder.find_spec(name, homes), PathFinder.find_spec(name, path)
            if ours is None or first is None or not first.origin or not ours.origin:
                continue  # it is nowhere else, or no folder on the path has more than a part of it
            if os.path.realpath(first.origin) != os.path.realpath(ours.origin):
                found[name] = first.origin
    return found


def own_modules_first() -> None:
    """Let this process, for its own sake, look for modules in this environment before it looks in foreign folders.

    A foreign module must not keep doctor from naming it. What only a foreign folder has is still found there.
    """
    try:
        late = {os.path.realpath(entry_of(file)) for file in foreign_modules().values()}
        last = [entry for entry in sys.path if os.path.realpath(entry or ".") in late]
    except OSError:  # the current folder is gone
        return
    sys.path[:] = [entry for entry in sys.path if entry not in last] + last


def entry_of(file: str) -> str:
    """The folder of Python's path that a module's file belongs to."""
    folder = os.path.dirname(file)
    return os.path.dirname(folder) if os.path.basename(file).startswith("__init__.") else folder


def _homes() -> list[str]:
    library = os.path.dirname(os.path.abspath(os.__file__))
    folders = [library, os.path.join(library, "lib-dynload"), *site.getsitepackages()]
    if (own := site.getusersitepackages()) == os.path.dirname(_PACKAGE):
        folders.append(own)  # this program is installed there, and so is what it needs
    return folders


def _names(folder: str) -> list[str]:
    """What may be modules in a folder."""
    try:
        entries = os.listdir(folder)
    except OSError:
        return []
    return sorted({name for entry in entries if (name := entry.partition(".")[0]).isidentifier()})


def shadowing_error(text: str, foreign: Mapping[str, str] | None = None) -> PrismError | None:
    """The error that names the foreign modules which a failure's words speak of; None where they speak of none.

    Args:
        text: a traceback, or the files and messages of an exception.
        foreign: as `foreign_modules` tells.
    """
    foreign = foreign_modules() if foreign is None else foreign
    blamed = {name: file for name, file in foreign.items() if _speaks_of(text, name, file)}
    if not blamed:
        return None
    name, file = next(iter(blamed.items()))
    others = "".join(f", {other} for '{module}'" for module, other in blamed.items() if module != name)
    folder = _folder(name, file)
    return PrismError(f"Python takes {file} for the module '{name}' of this environment{others}", _remedy(folder))


def explained(error: BaseException) -> PrismError | None:
    """`shadowing_error` for an exception."""
    return shadowing_error("\n".join(_said(error)))


def _said(error: BaseException | None) -> Iterable[str]:
    """The files that an exception and its causes went through, and their words."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield str(error)
        yield from (str(file) for file in (getattr(error, "filename", None), getattr(error, "path", None)) if file)
        step = error.__traceback__
        while step is not None:
            yield f'"{step.tb_frame.f_code.co_filename}"'
            step = step.tb_next
        error = error.__cause__ or error.__context__


def _speaks_of(text: str, name: str, file: str) -> bool:
    inside = os.path.dirname(file) + os.sep if os.path.basename(file).startswith("__init__.") else file
    return inside in text or f"'{name}'" in text or f"'{name}." in text


def _folder(name: str, file: str) -> str:
    """The entry of the path that a module was found in."""
    folder = os.path.dirname(file)
    return os.path.dirname(folder) if os.path.basename(folder) == name else folder


def _remedy(folder: str) -> str:
    said = [os.path.realpath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if os.path.realpath(folder) in said:
        return f"take {folder} out of PYTHONPATH, or rename the file"
    if os.path.realpath(folder) == os.path.realpath("."):
        return "start the command in another folder, or rename the file"
    return f"rename the file, or take {folder} out of Python's path"
