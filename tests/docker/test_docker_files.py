"""The image files: what hadolint makes of them, and what it does not know of: users, folders, what is sent."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from bare_roots import Root
from dockerfiles import flags, instructions, let_in, sent
from image_steps import Image

REPOSITORY = Path(__file__).parents[2]
FILES = {"docker/Dockerfile": "make setup GPU=1", "docker/cpu.Dockerfile": "make setup"}


def hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "--no-color", path], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ("", "", ""),
        ("nvidia/cuda:13.0.1-devel-ubuntu24.04", "nvidia/cuda:latest", "DL3007"),
        ("USER 10002:10002", "USER 0:0", "DL3002"),
        ("--no-install-recommends", "", "DL3015"),
        ("mkdir -p models", "ls | xargs mkdir -p models", "DL4006"),
        ('CMD ["--help"]', "CMD --help", "DL3025"),
    ],
)
def test_make_lint_refuses_a_spoiled_dockerfile(old: str, new: str, rule: str, tmp_path: Path) -> None:
    """As it is, it passes: no rule is ignored but those that the file names."""
    text = (REPOSITORY / "docker/Dockerfile").read_text()
    assert old in text
    (tmp_path / "Dockerfile").write_text(text.replace(old, new))
    done = hadolint(tmp_path / "Dockerfile")
    assert (done.returncode, rule in done.stdout) == (int(bool(rule)), True), done.stdout + done.stderr


def test_make_lint_reads_every_dockerfile() -> None:
    lint = (REPOSITORY / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    assert "hadolint docker/*Dockerfile" in lint
    assert {path.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob("docker/*Dockerfile")} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_images_are_made_by_the_makefile_and_run_by_a_user_who_owns_nothing_of_it(name: str) -> None:
    """What hadolint does not know of."""
    steps = instructions((REPOSITORY / name).read_text())
    said = {word: [rest for other, rest in steps if other == word] for word, _ in steps}
    owner, user = said["USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert user != owner
    assert {flags(rest)[0]["chown"] for rest in said["COPY"]} == {owner}
    runs = [re.sub(r"--mount=\S+ ", "", rest) for rest in said["RUN"]]
    assert runs.count(FILES[name]) == 1
    assert not any(re.search(r"\bpip\b|curl|wget|git clone", run) for run in runs)
    assert not re.search(r"token|secret|passw|key|://", " ".join(said["ENV"]), re.IGNORECASE)
    assert said["ENTRYPOINT"] == ['["prism-ae"]']
    assert "/prism-ae/models" in json.loads(said["VOLUME"][0])


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
