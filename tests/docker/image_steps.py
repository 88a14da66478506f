"""Carries out a Dockerfile's instructions in a bare root, and starts programs in the result as `docker run` does."""

from __future__ import annotations

import ast
import io
import json
import os
import pwd
import shlex
import string
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bare_roots import Bind, Root
from dockerfiles import Instructions, flags, sent

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Image:
    """What is built of a base: files, and what is noted for the program that is started."""

    root: Root
    context: Path
    secrets: Mapping[str, str] = field(default_factory=dict)
    """Texts by their id."""
    sources: Sequence[Bind] = ()
    """What a step may read that is given a secret: a pip.conf may name folders."""
    env: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    folder: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)

    def carry_out(self, steps: Instructions) -> None:
        """Raises:
        bare_roots.CommandFailedError: A step failed.
        ValueError: An instruction or flag that is not known here.
        """
        for word, rest in steps:
            given, arguments = flags(rest)
            if word == "RUN":
                self._run(arguments, **given)
            elif word == "COPY":
                self._copy(*shlex.split(arguments), **given)
            elif given:
                raise ValueError(f"{word} {rest}")
            else:
                self._note(word, arguments)

    def _note(self, word: str, rest: str) -> None:
        match word:
            case "WORKDIR":
                self.folder = os.path.join(self.folder, rest)
                self._as_root("mkdir", "--parents", self.folder)
            case "USER":
                self.user = rest
            case "ENV":
                for name, value in (pair.split("=", 1) for pair in shlex.split(rest)):
                    self.env[name] = string.Template(value).substitute(self.env)
            case "VOLUME":
                self.volumes += json.loads(rest)
            case "ENTRYPOINT":
                self.entrypoint = json.loads(rest)
            case "CMD":
                self.command = json.loads(rest)
            case _:
                raise ValueError(f"{word} {rest}")

    def _run(self, command: str, mount: str = "") -> None:
        with tempfile.TemporaryDirectory() as folder:
            binds = self._secret(Path(folder) / "secret", mount) if mount else []
            home = {"HOME": "/root" if self.user.startswith("0:") else "/"}
            shell = ["/bin/sh", "-c", command]
            self.root.run(shell, user=self.user, folder=self.folder, env=home | self.env, binds=binds)

    def _secret(self, path: Path, mount: str) -> list[Bind]:
        """A secret that was not given is no file, as with a builder."""
        said = dict(part.split("=", 1) for part in mount.split(","))
        if said.pop("type") != "secret" or not {"id", "target"} <= said.keys() <= {"id", "target", "mode"}:
            raise ValueError(mount)
        if said["id"] not in self.secrets:
            return []
        path.write_text(self.secrets[said["id"]])
        path.chmod(int(said.get("mode", "0400"), 8))
        return [Bind(path, said["target"]), *self.sources]

    def _copy(self, *names: str, chown: str) -> None:
        """Files and folders keep their mode and time, as with a builder."""
        *sources, target = names
        present = set(sent(self.context))
        files: dict[str, str] = {}
        for source in sources:
            if source != "." and source not in present:
                raise ValueError(f"COPY: the context has no {source}")
            files |= {path: path for path in present} if source == "." else {Path(source).name: source}
        folders = {str(folder) for path in files for folder in Path(path).parents} - {"."}
        uid, gid = map(int, chown.split(":"))

        def owned(info: tarfile.TarInfo) -> tarfile.TarInfo:
            info.uid, info.gid, info.uname, info.gname = uid, gid, "", ""
            return info

        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for name in sorted(files | {folder: folder for folder in folders}):
                archive.add(self.context / files.get(name, name), name, recursive=False, filter=owned)
        place = os.path.join(self.folder, target)
        made = f'[ -d "{place}" ] || install --directory --owner {uid} --group {gid} "{place}"'
        self._as_root("sh", "-c", made)
        unpack = ("tar", "--extract", "--preserve-permissions", "--same-owner", "--numeric-owner", "--directory", place)
        self._as_root(*unpack, data=stream.getvalue())

    def _as_root(self, *command: str, data: bytes = b"") -> None:
        self.root.run(command, env={"PATH": PATH}, data=data)

    def start(
        self,
        *arguments: str,
        user: str = "",
        entrypoint: Sequence[str] = (),
        binds: Sequence[Bind] = (),
    ) -> str:
        """What `docker run --rm` prints: in a layer of its own, which is deleted afterwards."""
        command = [*(entrypoint or self.entrypoint), *(arguments or (() if entrypoint else self.command))]
        with tempfile.TemporaryDirectory() as folder:
            container = self.root.with_layer(Path(folder) / "container")
            return container.run(command, user=user or self.user, folder=self.folder, env=self.env, binds=binds)


def pip_settings() -> tuple[str, list[Bind]]:
    """A pip.conf that says what pip is told on this machine, by files and by the environment, and the places it names.

    The environment says it last, as for pip. Of a folder with an index, the folder around it is seen: an index names
    its files relative to itself.
    """
    # The tests' own settings leave pip without the user's file.
    env = {name: value for name, value in os.environ.items() if name != "XDG_CONFIG_HOME"}
    env["HOME"] = pwd.getpwuid(os.getuid()).pw_dir
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], env=env, capture_output=True, text=True, check=True
    )
    sections: dict[str, dict[str, str]] = {"global": {}}
    lines = [line.partition("=") for line in listed.stdout.splitlines()]
    for name, _, value in sorted(lines, key=lambda line: line[0].startswith(":env:")):
        section, key = ("global", name[5:]) if name.startswith(":env:") else name.split(".", 1)
        sections.setdefault(section, {})[key] = ast.literal_eval(value)
    text = "".join(
        f"[{section}]\n" + "".join(f"{key} = {' '.join(value.split())}\n" for key, value in values.items())
        for section, values in sections.items()
    )
    places = set()
    for word in text.split():
        if word.startswith("file://"):
            places.add(Path(word.removeprefix("file://")).parent)
        elif word.startswith("/"):
            places.add(Path(word))
    return text, [Bind(place, str(place)) for place in sorted(places) if place.exists() and place != Path("/")]
