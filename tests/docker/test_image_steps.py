"""The images' steps carried out: not by a builder, but in Debian's bare system, in namespaces of their own.

What differs from a real build. cpu.Dockerfile: Python is Debian's 3.11 with its pip, not the base image's. Dockerfile:
Debian's system stands in for Ubuntu's with CUDA, so the packages are Debian's of the same names; SGLang is not
installed, but its set-up is resolved for Ubuntu's Python. Layers are overlays; limits, seccomp and networks of a
container are not imitated. A builder's cache is: by carrying out only the steps after it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bare_roots import Bind, CommandFailedError, Root
from dockerfiles import Instructions, instructions, sent
from image_steps import PATH, Image, pip_settings

REPOSITORY = Path(__file__).parents[2]
MODELS = REPOSITORY / "models" / "mini"
ANYBODY = "12345:12345"
RESULTS = ("models", "runs", "claims/out", "figures/out", "tables/out")
PYTHON = "apt-get update && apt-get install --yes --no-install-recommends python3.11-venv"
"""What makes Debian's bare system one with Python."""

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(0),
    pytest.mark.skipif(sys.platform != "linux", reason="namespaces and overlays are Linux's"),
    pytest.mark.skipif(os.geteuid() != 0, reason="another root needs root's rights"),
    pytest.mark.skipif(shutil.which("debootstrap") is None, reason="debootstrap is not installed"),
]


def steps(name: str) -> Instructions:
    """Without the base image, which the bare system stands in for."""
    (first, _), *others = instructions((REPOSITORY / name).read_text())
    assert first == "FROM"
    return others


CPU, GPU = steps("docker/cpu.Dockerfile"), steps("docker/Dockerfile")


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """Gigabytes, deleted at once and not with the last but two run of the tests."""
    with tempfile.TemporaryDirectory(prefix="prism-ae-image-") as folder:
        yield Path(folder)


@pytest.fixture
def layer(scratch: Path) -> Iterator[Path]:
    """Where one test may make layers of its own."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def bookworm(scratch: Path) -> Root:
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", "bookworm", scratch / "bookworm"], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no Debian can be fetched here: {made.stdout.splitlines()[-1:]} {made.stderr.strip()}")
    # As in Debian's images for containers: no step waits until everything is on the disk.
    (scratch / "bookworm/etc/dpkg/dpkg.cfg.d/docker").write_text("force-unsafe-io\n")
    root = Root((scratch / "bookworm",))
    try:
        root.with_layer(scratch / "probe").run(["true"], env={})
    except CommandFailedError as error:
        pytest.skip(f"nothing can be mounted here: {error}")
    return root


@pytest.fixture(scope="module")
def context(scratch: Path) -> Path:
    """What a builder would be sent, readable by its owner alone: how a checkout's files are is nobody's promise."""
    for path in sent(REPOSITORY):
        copy = scratch / "context" / path
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / path, copy)
        copy.chmod(0o600)
    shutil.copy2(REPOSITORY / ".dockerignore", scratch / "context")
    return scratch / "context"


@pytest.fixture(scope="module")
def slim(bookworm: Root, scratch: Path) -> Root:
    """Instead of cpu.Dockerfile's base."""
    root = bookworm.with_layer(scratch / "python")
    root.run(["sh", "-c", PYTHON], env={"PATH": PATH, "DEBIAN_FRONTEND": "noninteractive"})
    return root


def code_copied(found: Instructions) -> int:
    """The number of the step that copies the code, after the set-up."""
    [number] = [number for number, step in enumerate(found) if step[0] == "COPY" and step[1].endswith(" . .")]
    return number


@pytest.fixture(scope="module")
def cached(slim: Root, scratch: Path, context: Path) -> Image:
    """cpu.Dockerfile up to the step that copies the code."""
    conf, places = pip_settings()
    image = Image(slim.with_layer(scratch / "cpu"), context, {"pip": conf}, places)
    image.carry_out(CPU[: code_copied(CPU)])
    return image


def over(image: Image, layer: Path, found: Instructions) -> Image:
    """An image with more steps carried out, as a builder does that has those before in its cache."""
    later = replace(image, root=image.root.with_layer(layer), env=dict(image.env), volumes=list(image.volumes))
    later.carry_out(found)
    return later


@pytest.fixture(scope="module")
def image(cached: Image, scratch: Path) -> Image:
    """All of cpu.Dockerfile."""
    return over(cached, scratch / "code", CPU[code_copied(CPU) :])


def test_the_program_answers(image: Image) -> None:
    assert image.start().lstrip().startswith("Usage: prism-ae")
    assert image.volumes == ["/prism-ae/models", "/prism-ae/runs"]


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [("--version", "prism-ae "), ("ls", "prism_star"), ("plan all --suite mini", "run 'prism-ae train mini'")],
)
def test_it_answers_anybody(image: Image, arguments: str, answer: str) -> None:
    assert answer in image.start(*arguments.split(), user=ANYBODY)


def test_nobody_who_runs_it_can_change_it_and_everybody_has_a_place_for_results(image: Image) -> None:
    assert image.user not in ("0:0", "10001:10001")
    for user in (image.user, ANYBODY):
        writable = image.start("/prism-ae", "-writable", "-not", "-type", "l", entrypoint=["find"], user=user)
        assert set(writable.split()) == {f"/prism-ae/{folder}" for folder in RESULTS}
    unreadable = image.start("/prism-ae", "/tmp", "-not", "-readable", entrypoint=["find"], user=ANYBODY)
    assert unreadable == ""


def test_nothing_of_the_build_is_left(image: Image) -> None:
    """No secret, no list of packages; and what an installer left in /tmp, the user of that time would own."""
    names = ("/tmp", "/opt", "/etc/pip.conf", "/var/lib/apt/lists")
    left = image.start("-c", f"find {' '.join(names)} 2>&1 || true", entrypoint=["sh"]).splitlines()
    assert [line for line in left if "No such file" not in line and line not in names] == []


def test_libraries_that_ask_for_the_users_name_get_one(image: Image) -> None:
    said = image.start("-c", "import getpass; print(getpass.getuser())", entrypoint=["python"], user=ANYBODY)
    assert said == "prism-ae\n"


def test_make_in_the_image_does_not_set_up_again(image: Image, cached: Image, layer: Path) -> None:
    """Not even where the copied files are newer than a set-up that the builder had in its cache."""
    for path in sent(cached.context):
        os.utime(cached.context / path)
    copy, last, *noted = CPU[code_copied(CPU) :]
    touch = " && touch .venv/.installed"
    assert last[1].endswith(touch)
    fresh = over(cached, layer / "fresh", [copy, last, *noted])
    wrong = over(cached, layer / "wrong", [copy, ("RUN", last[1].removesuffix(touch)), *noted])
    for built, installs in ((image, False), (fresh, False), (wrong, True)):
        said = built.start("--dry-run", "mini", "all-figures", entrypoint=["make"], user=ANYBODY)
        assert "prism_ae train mini" in said
        assert ("pip install" in said) == installs


@pytest.mark.skipif(not MODELS.is_dir(), reason="the mini suite is not trained here: prism-ae train mini")
@pytest.mark.parametrize("engine", ["torch", "sglang"])
def test_it_measures_and_draws_for_anybody(image: Image, layer: Path, engine: str) -> None:
    """Into folders that are mounted, as compose.yaml has it."""
    places = [layer / folder.replace("/", "-") for folder in RESULTS]
    for place in places:
        place.mkdir()
    shutil.copytree(MODELS, places[0] / "mini")
    for path in layer.rglob("*"):
        os.chown(path, 12345, 12345)
    binds = [Bind(place, f"/prism-ae/{folder}", writable=True) for place, folder in zip(places, RESULTS, strict=True)]
    asked = "run figure4 --suite mini --targets llama-2 --benches qa --scales 1x --drafters prism --questions 2"
    said = image.start(*asked.split(), "--workers", "1", "--engine", engine, user=ANYBODY, binds=binds)
    assert "measured 2 cells" in said
    page = places[2] / "mini" / "figure4.pdf"
    assert page.read_bytes().startswith(b"%PDF")
    assert page.stat().st_uid == 12345
    assert len((places[1] / "mini" / "log.jsonl").read_text().splitlines()) == 2


def test_it_draws_where_nothing_is_mounted(image: Image) -> None:
    said = image.start("render", "figure4", "--suite", "mini", user=ANYBODY)
    assert "figures/out/mini/figure4.pdf" in said


def changed(found: Instructions, old: str, new: str) -> Instructions:
    assert sum(old in rest for _, rest in found) == 1
    return [(word, rest.replace(old, new)) for word, rest in found]


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("recommends make", "recommends", "make: not found"),
        ("--owner 10001", "--owner 0", "Permission denied"),
        (" requirements.lock", "", "No rule to make target 'requirements.lock'"),
    ],
)
def test_a_wrong_step_before_the_set_up_shows(
    slim: Root, context: Path, layer: Path, old: str, new: str, complaint: str
) -> None:
    image = Image(slim.with_layer(layer / "wrong"), context)
    with pytest.raises(CommandFailedError, match=complaint):
        image.carry_out(changed(CPU, old, new)[: code_copied(CPU)])


@pytest.mark.parametrize("missing", ["README.md", "prism_ae/__init__.py"])
def test_a_file_that_is_not_copied_before_the_set_up_shows(cached: Image, layer: Path, missing: str) -> None:
    """In an environment that is filled, so that only what reads the file is done again."""
    setup = CPU[code_copied(CPU) - 1]
    assert "make setup" in setup[1]
    with pytest.raises(CommandFailedError, match=Path(missing).name):
        over(cached, layer / "wrong", [("RUN", f"rm {missing} && touch pyproject.toml"), setup])


def test_code_that_is_not_copied_shows(cached: Image, layer: Path) -> None:
    _, *found = CPU[code_copied(CPU) :]
    with pytest.raises(CommandFailedError, match="No module named"):
        over(cached, layer / "wrong", found).start()


@pytest.mark.parametrize("part", ["chmod -R go=rX ./* && ", f" && chmod 1777 {' '.join(RESULTS)}"])
def test_without_a_part_of_the_last_step_not_everybody_can_use_it(cached: Image, layer: Path, part: str) -> None:
    wrong = over(cached, layer / "wrong", changed(CPU[code_copied(CPU) :], part, ""))
    with pytest.raises(CommandFailedError, match=r"Permission denied|No module named"):
        wrong.start("render", "figure4", "--suite", "mini", user=ANYBODY)


PROBES = {
    "g++": "echo 'int main() {}' > /tmp/a.cpp && g++ -o /tmp/a /tmp/a.cpp && /tmp/a",
    "libnuma1": "python3 -c \"import ctypes; ctypes.CDLL('libnuma.so.1')\"",
    "make": "make --version",
    "ninja-build": "ninja --version",
    "python3-dev": "cat $(python3 -c 'import sysconfig; print(sysconfig.get_paths()[\"include\"])')/Python.h",
    "python3-venv": "python3 -m venv /tmp/environment",
}
"""What SGLang's kernels and the Makefile want of each package. python3 comes with the last two."""


@pytest.fixture(scope="module")
def gpu(bookworm: Root, scratch: Path, context: Path) -> Image:
    """Dockerfile up to its set-up, which may not fetch here."""
    image = Image(bookworm.with_layer(scratch / "gpu"), context, {"pip": "[global]\nno-index = true\n"})
    image.carry_out(GPU[: code_copied(GPU) - 1])
    return image


def test_the_gpu_image_has_what_compilers_of_kernels_want(gpu: Image) -> None:
    for probe in PROBES.values():
        gpu.start("-c", probe, entrypoint=["sh"], user=ANYBODY)


@pytest.mark.parametrize("package", PROBES)
def test_each_package_of_the_gpu_image_is_needed(gpu: Image, layer: Path, package: str) -> None:
    less = replace(gpu, root=gpu.root.with_layer(layer / "less"))
    unnamed = [f"-oAPT::AutoRemove::{kind}Important=false" for kind in ("Recommends", "Suggests")]
    less.root.run(["apt-get", "purge", "--yes", "--auto-remove", *unnamed, package], env={"PATH": PATH})
    with pytest.raises(CommandFailedError):
        less.start("-c", PROBES[package], entrypoint=["sh"], user=ANYBODY)


def test_the_gpu_image_is_made_but_for_what_is_fetched(gpu: Image, layer: Path) -> None:
    """Its set-up makes the environment, and comes as far as the first package."""
    setup, *found = GPU[code_copied(GPU) - 1 :]
    built = over(gpu, layer / "made", [])
    with pytest.raises(CommandFailedError, match="No matching distribution found for hatchling"):
        built.carry_out([setup])
    built.carry_out(found)
    said = built.start("--dry-run", "all-figures", "GPUS=0", entrypoint=["make"], user=ANYBODY)
    assert "run all --suite paper --gpus 0" in said
    assert "pip install" not in said
    writable = built.start("/prism-ae", "-writable", "-not", "-type", "l", entrypoint=["find"])
    assert set(writable.split()) == {f"/prism-ae/{folder}" for folder in RESULTS}


def test_the_probes_name_every_package() -> None:
    [install] = [rest for _, rest in GPU if "apt-get" in rest]
    named = install.split("--no-install-recommends ")[1].split(" && ")[0].split()
    assert named == sorted({*PROBES, "python3"})
