"""The image files, read as a builder reads them: pinned, unprivileged, and made by the Makefile that is tested here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from bare_roots import Root
from dockerfiles import Instructions, flags, instructions, let_in, sent
from image_steps import Image

REPOSITORY = Path(__file__).parents[2]
FILES = {"docker/Dockerfile": "make setup GPU=1", "docker/cpu.Dockerfile": "make setup"}

RULES = (
    (("RUN",), r"apt-get install(?!.* --yes )", "apt-get would ask"),
    (("RUN",), r"apt-get install(?!.* --no-install-recommends )", "more is installed than is named"),
    (("RUN",), r"^(?!.*apt-get update && ).*apt-get install", "a list of packages comes from another layer"),
    (("RUN",), r"apt-get install(?!.*&& rm -rf /var/lib/apt/lists/\*)", "the lists of packages stay"),
    (("RUN",), r"(^|&& )(sudo|su|cd|apt) ", "USER, WORKDIR and apt-get say it"),
    (("RUN",), r"(?<!\|)\|(?!\|)", "a pipe hides that its first command failed"),
    (("ADD",), r"", "COPY does not unpack or download"),
    (("WORKDIR",), r"^[^/]", "the folder depends on the one before"),
    (("ENTRYPOINT", "CMD"), r"^[^\[]", "a shell stands between the program and signals"),
    (("ENV",), r"DEBIAN_FRONTEND", "a setting of the build stays"),
    (("EXPOSE", "MAINTAINER", "ONBUILD", "SHELL"), r"", "it has no use here"),
)
"""Instructions, what is wrong in their arguments, and why."""


def problems(text: str, setup: str) -> list[str]:
    """What is wrong with a Dockerfile."""
    found = []
    steps = instructions(text)
    for image in (rest for word, rest in steps if word == "FROM"):
        if not re.fullmatch(r"[a-z0-9/.-]+:\d+\.\d+\.\d+-[a-z0-9.-]+", image):
            found.append(f"{image} is not pinned to a version")
    users = [rest for word, rest in steps if word == "USER"]
    if len(users) != 2 or not all(re.fullmatch(r"[1-9]\d*:[1-9]\d*", user) for user in users):
        found.append("it runs as root, or as a user whose number is not known")
    owners = {given.get("chown") for given, _ in (flags(rest) for word, rest in steps if word == "COPY")}
    if len(owners | set(users[-1:])) != 2 or None in owners:
        found.append("the user who runs it owns what is installed")
    if [rest for word, rest in steps if word == "ENTRYPOINT"] != ['["prism-ae"]']:
        found.append("prism-ae is not the entry point")
    runs = [re.sub(r"--mount=\S+ ", "", rest) for word, rest in steps if word == "RUN"]
    if runs.count(setup) != 1 or any(re.search(r"\bpip\b|curl|wget|git clone", run) for run in runs):
        found.append("it installs otherwise than the Makefile")
    kept = " ".join(rest for word, rest in steps if word in ("ENV", "ARG", "LABEL"))
    if re.search(r"token|secret|passw|key|://", kept, re.IGNORECASE):
        found.append("a layer would keep a secret or an address")
    volumes = [folder for word, rest in steps if word == "VOLUME" for folder in json.loads(rest)]
    if "/prism-ae/models" not in volumes:
        found.append("models would be part of the container")
    return [*found, *lint(steps)]


def lint(steps: Instructions) -> list[str]:
    """What linters of Dockerfiles look for, as far as it can come up in these."""
    found = [what for words, wrong, what in RULES for word, rest in steps if word in words and re.search(wrong, rest)]
    words = [word for word, _ in steps]
    return [*found, *(f"{word} counts once" for word in ("ENTRYPOINT", "CMD") if words.count(word) != 1)]


@pytest.mark.parametrize("name", FILES)
def test_images_are_pinned_unprivileged_and_made_by_the_makefile(name: str) -> None:
    assert problems((REPOSITORY / name).read_text(), FILES[name]) == []


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("-devel-ubuntu24.04", "", "is not pinned to a version"),
        ("nvidia/cuda:13.0.1-devel-ubuntu24.04", "nvidia/cuda:latest", "is not pinned to a version"),
        ("nvidia/cuda:13.0.1-devel-ubuntu24.04", "nvidia/cuda", "is not pinned to a version"),
        ("USER 10001:10001", "USER 0:0", "it runs as root, or as a user whose number is not known"),
        ("USER 10001:10001", "", "it runs as root, or as a user whose number is not known"),
        ('ENTRYPOINT ["prism-ae"]', "", "prism-ae is not the entry point"),
        ("make setup GPU=1", "make setup", "it installs otherwise than the Makefile"),
        ("make setup GPU=1", "make setup GPU=1 && pip install more", "it installs otherwise than the Makefile"),
        ("HOME=/tmp", "HF_TOKEN=x HOME=/tmp", "a layer would keep a secret or an address"),
        ("VOLUME", "LABEL", "models would be part of the container"),
        ("USER 10002:10002", "USER 10001:10001", "the user who runs it owns what is installed"),
        ("COPY --chown=10001:10001 . .", "COPY . .", "the user who runs it owns what is installed"),
        ("COPY --chown=10001:10001 . .", "ADD --chown=10001:10001 . .", "COPY does not unpack or download"),
        ("--yes ", "", "apt-get would ask"),
        ("--no-install-recommends", "", "more is installed than is named"),
        ("apt-get update \\\n    && ", "", "a list of packages comes from another layer"),
        ("&& rm -rf /var/lib/apt/lists/*", "", "the lists of packages stay"),
        ("apt-get update", "sudo apt-get update", "USER, WORKDIR and apt-get say it"),
        ("apt-get update", "cd / && apt-get update", "USER, WORKDIR and apt-get say it"),
        ("mkdir -p models", "ls | xargs mkdir -p models", "a pipe hides that its first command failed"),
        ("WORKDIR /prism-ae", "WORKDIR prism-ae", "the folder depends on the one before"),
        ('CMD ["--help"]', "CMD --help", "a shell stands between the program and signals"),
        ('CMD ["--help"]', 'CMD ["--version"]\nCMD ["--help"]', "CMD counts once"),
        ("HOME=/tmp", "DEBIAN_FRONTEND=noninteractive HOME=/tmp", "a setting of the build stays"),
        ("VOLUME", "EXPOSE 80\nVOLUME", "it has no use here"),
    ],
)
def test_each_check_can_fail(old: str, new: str, why: str) -> None:
    text = (REPOSITORY / "docker/Dockerfile").read_text()
    assert old in text
    assert why in " ".join(problems(text.replace(old, new), FILES["docker/Dockerfile"]))


@pytest.mark.parametrize("name", FILES)
def test_the_user_is_left_before_anything_is_copied_or_installed(name: str) -> None:
    steps = instructions((REPOSITORY / name).read_text())
    words = [word for word, _ in steps]
    assert words.index("USER") < words.index("COPY")
    # The last one is who runs it; nothing is done as that user.
    assert set(words[len(words) - words[::-1].index("USER") :]) == {"ENTRYPOINT", "CMD"}


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_makefile_installs_what_the_images_are_for() -> None:
    """What the image's step would do, as make itself says it."""
    for step, installs in (("make setup", "requirements.lock"), ("make setup GPU=1", "'.[gpu,test]'")):
        command = [*step.split(), "--dry-run", "--always-make"]
        said = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
        assert installs in said


def test_the_context_holds_no_models_history_environment_or_secret() -> None:
    rules = (REPOSITORY / ".dockerignore").read_text()
    for path in (
        "models/Llama-2-7b-chat-hf/model.safetensors",
        "runs/paper/log.jsonl",
        ".git/config",
        ".venv/bin/python",
        ".env",
        "pip.conf",
        "figures/out/mini/figure4.pdf",
        "tables/out/mini/table4.pdf",
        "prism_ae/__pycache__/cells.cpython-311.pyc",
        "prism_ae/.env",
        "tests/conftest.py",
    ):
        assert not let_in(path, rules), path


def test_what_is_sent_is_what_the_rules_let_in(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("*\n!kept\n!some/*.toml\n**/.*\n")
    for path in ("kept/a.py", "kept/b/c.py", "kept/.env", "some/one.toml", "some/out/two.toml", "other/one.toml"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert list(sent(tmp_path)) == ["kept/a.py", "kept/b/c.py", "some/one.toml"]
    assert all(let_in(path, (REPOSITORY / ".dockerignore").read_text()) for path in sent(REPOSITORY))


@pytest.mark.parametrize(
    "step",
    [
        ("HEALTHCHECK", "NONE"),
        ("USER", "--new=flag 1:1"),
        ("RUN", "--mount=type=cache,target=/var/cache true"),
        ("RUN", "--mount=type=secret,id=pip,target=/etc/pip.conf,uid=1 true"),
        ("COPY", "--chown=1:1 no-such-file ."),
    ],
)
def test_what_is_not_known_is_not_carried_out(step: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").touch()
    with pytest.raises(ValueError, match=r"HEALTHCHECK|--new|type=cache|uid=1|no-such-file"):
        Image(Root(()), tmp_path).carry_out([step])


def test_the_context_holds_the_program() -> None:
    rules = (REPOSITORY / ".dockerignore").read_text()
    needed = [path for path in (REPOSITORY / "prism_ae").rglob("*") if path.suffix in (".py", ".toml", ".txt", ".json")]
    needed += [*(REPOSITORY / "figures").glob("*.toml"), *(REPOSITORY / "tables").glob("*.toml")]
    assert len(needed) > 100
    for path in needed:
        assert let_in(path.relative_to(REPOSITORY).as_posix(), rules), path


@pytest.mark.parametrize("name", FILES)
def test_what_is_copied_exists_and_is_let_in(name: str) -> None:
    rules = (REPOSITORY / ".dockerignore").read_text()
    copied = [
        flags(rest)[1].split()[:-1] for word, rest in instructions((REPOSITORY / name).read_text()) if word == "COPY"
    ]
    assert copied[-1] == ["."]
    for source in (source for sources in copied[:-1] for source in sources):
        assert (REPOSITORY / source).is_file(), source
        assert let_in(source, rules), source


def test_an_editable_install_finds_all_that_it_reads() -> None:
    """Before the code is copied, pip already builds the package: its metadata needs these files."""
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    reads = {
        project["project"]["readme"],
        *project["project"]["license-files"],
        project["tool"]["hatch"]["version"]["path"],
    }
    for name in FILES:
        steps = instructions((REPOSITORY / name).read_text())
        before = steps[: next(number for number, (_, rest) in enumerate(steps) if "make setup" in rest)]
        assert reads <= {source for word, rest in before if word == "COPY" for source in rest.split()}


def test_the_python_of_the_cpu_image_is_one_that_the_project_takes() -> None:
    text = (REPOSITORY / "docker/cpu.Dockerfile").read_text()
    match = re.search(r"^FROM python:(\d+)\.(\d+)\.", text, re.MULTILINE)
    assert match
    assert (int(match[1]), int(match[2])) >= (3, 11)


def test_compose_builds_the_same_files_and_opens_nothing() -> None:
    services: dict[str, Any] = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())["services"]
    assert {service["build"]["dockerfile"] for service in services.values()} == set(FILES)
    for name, service in services.items():
        steps = instructions((REPOSITORY / service["build"]["dockerfile"]).read_text())
        user = [rest for word, rest in steps if word == "USER"][-1]
        assert service["image"] == f"prism-ae:{name}"
        assert service["user"] == f"${{PRISM_AE_USER:-{user}}}"
        assert not {"ports", "privileged", "network_mode", "environment", "cap_add"} & service.keys()
        mounts = dict(volume.split(":") for volume in service["volumes"])
        assert mounts["./models"] == "/prism-ae/models"
        assert {Path(place).relative_to("/prism-ae").as_posix() for place in mounts.values()} == {
            place.removeprefix("./") for place in mounts
        }
    assert services["gpu"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
