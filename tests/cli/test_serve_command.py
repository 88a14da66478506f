"""``prism-ae serve``: what it refuses, the plain command, and a server that leaves nothing behind."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import itertools
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch
from sglang_prism.http_place import DRAFTERS, TARGET, WORDS, make_http_place, make_target, save_target_with_words
from sglang_prism.sglang_models import save

from prism_ae import __main__ as entry
from prism_ae.devices.slots import Slot
from prism_ae.drafters.config import DrafterConfig
from prism_ae.drafters.model import Drafter
from prism_ae.engines.sglang import server as sglang_server
from prism_ae.engines.sglang.server import Service, check_service, plain_command, server_environment, server_options
from prism_ae.errors import PrismError
from prism_ae.models.llama import Llama

needs_sglang = pytest.mark.skipif(
    importlib.util.find_spec("sglang") is None
    or not metadata.entry_points(group="sglang.srt.plugins", name="prism-ae"),
    reason="SGLang, or the plugin's entry point, is not installed",
)

CPU = (Slot("cpu slot 0", "cpu", "a CPU", 1, {"CUDA_VISIBLE_DEVICES": ""}),)
GPUS = tuple(Slot(f"gpu {n}", "cuda:0", "a GPU", 4, {"CUDA_VISIBLE_DEVICES": f"GPU-{n}"}) for n in (0, 1))
SERVICE = Service("target", "drafter", None, 30000, None, None, CPU, 1)


def service(**changes: Any) -> Service:
    return Service(**{**vars(SERVICE), **changes})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    target = make_target()
    save_target_with_words(folder / "target", target)
    save(folder / "drafter", Drafter(DRAFTERS["prism"], target))
    eagle3 = DrafterConfig("eagle3", dataclasses.replace(TARGET, num_hidden_layers=1), 1, (0,), (1, 2, 3), 24)
    save(folder / "eagle3", Drafter(eagle3, target))
    save_target_with_words(folder / "other", Llama(dataclasses.replace(TARGET, vocab_size=WORDS + 1)))
    shutil.copytree(folder / "target", folder / "wordless")
    (folder / "wordless" / "tokenizer_config.json").unlink()
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- the plain command


def pairs(words: list[str]) -> dict[str, str]:
    return dict(itertools.pairwise(words))


def test_the_command_on_a_cpu() -> None:
    options = pairs(server_options(SERVICE))
    assert options["--device"] == "cpu"
    assert options["--dtype"] == "float32"
    assert options["--host"] == "127.0.0.1"
    assert options["--speculative-algorithm"] == "PRISM"
    assert "--speculative-num-steps" not in options  # SGLang's own tree
    assert "--sleep-on-idle" in options
    environment = server_environment(SERVICE, {})
    assert environment["SGLANG_USE_CPU_ENGINE"] == environment["OMP_NUM_THREADS"] == "1"


def test_the_command_on_gpus_is_the_one_of_the_readme() -> None:
    """None of what a CPU needs; several GPUs share the target."""
    words = server_options(service(slots=GPUS[:1], tree=sglang_server.TreeShape(6, 4, 16)))
    assert words == shlex.split(
        "--model-path target --host 127.0.0.1 --port 30000 --speculative-algorithm PRISM "
        "--speculative-draft-model-path drafter --speculative-num-steps 6 --speculative-eagle-topk 4 "
        "--speculative-num-draft-tokens 16 --sleep-on-idle"
    )
    assert pairs(server_options(service(slots=GPUS)))["--tp-size"] == "2"
    assert server_environment(service(slots=GPUS), {"PYTHONPATH": "x"}) == {"CUDA_VISIBLE_DEVICES": "GPU-0,GPU-1"}


def test_a_temporary_folder_too_long_for_sockets_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sockets lie in TMPDIR, and their paths are limited."""
    assert "TMPDIR" not in server_environment(SERVICE, {})
    long = tmp_path / ("ü" * 50)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    for one in (SERVICE, service(slots=GPUS)):
        short = server_environment(one, {"TMPDIR": str(long)})["TMPDIR"]
        assert Path(short).is_dir()
        assert len(short) < 50
        assert f"TMPDIR={short} " in plain_command(one, {"TMPDIR": str(long)})


def test_without_a_drafter_nothing_is_drafted() -> None:
    assert not [word for word in server_options(service(drafter=None)) if "speculative" in word]


@pytest.mark.parametrize(
    ("chosen", "given"), [("", None), ("prism-ae", None), ("a, prism-ae", None), ("another", "another,prism-ae")]
)
def test_a_choice_of_plugins_keeps_this_one(chosen: str, given: str | None) -> None:
    """Without it SGLang says that the drafter's folder has no model type, and nothing of plugins."""
    assert server_environment(SERVICE, {"SGLANG_PLUGINS": chosen}).get("SGLANG_PLUGINS") == given


def test_the_command_can_be_pasted() -> None:
    odd = service(target="my models/it's", drafting="stock", more=("--served-model-name", "a b"))
    line = plain_command(odd, {"PYTHONPATH": "/with space"})
    shown = subprocess.run(
        ["bash", "-c", f'python() {{ printf "%s\\n" "$PRISM_AE_DRAFTING" "$PYTHONPATH" "$@"; }}; {_as_python(line)}'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert shown[0] == "stock"
    assert shown[1].endswith("/with space")
    assert shown[2:] == ["-m", "sglang.launch_server", *server_options(odd)]


def _as_python(line: str) -> str:
    return line.replace(shlex.quote(sys.executable), "python")


# --- what is refused before anything is started


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"target": "nowhere/at/all"}, 4, "nowhere/at/all does not exist"),
        ({"target": "nowhere"}, 4, "nowhere does not exist"),
        ({"drafter": "/no/drafter"}, 4, "/no/drafter does not exist"),
        ({"drafter": "{models}/target/config.json"}, 2, "is a file"),
        ({"target": "{models}/other"}, 5, f" {WORDS} "),
        ({"target": "{models}/wordless"}, 4, "wordless.* tokenizer_config.json"),
        ({"drafter": "{models}/target"}, 5, "target"),
        ({"tree": sglang_server.TreeShape(2, 500, 40)}, 2, f"{WORDS} tokens"),
        (
            {"drafter": "{models}/eagle3", "tree": sglang_server.TreeShape(2, 25, 40)},
            2,
            "eagle3, 24 tokens",
        ),
        ({"port": 70000}, 2, "70000"),
        ({"more": ("--port=3",)}, 2, "--port "),
        ({"more": ("--por", "3")}, 2, "--por "),
        ({"more": ("--host", "0.0.0.0")}, 2, "--host "),
        ({"more": ("--speculative-algorithm", "EAGLE")}, 2, "--speculative-algorithm "),
    ],
)
def test_what_cannot_be_served_is_one_message(changes: dict[str, Any], code: int, says: str, models: Path) -> None:
    given = {"target": "{models}/target", "drafter": "{models}/drafter", "port": free_port(), **changes}
    places = {
        key: value.format(models=models) if isinstance(value, str) and value else value for key, value in given.items()
    }
    with pytest.raises(PrismError, match=says) as caught:
        check_service(service(**places))
    assert caught.value.exit_code == code


def test_what_can_be_served_is_not_refused(models: Path) -> None:
    for changes in (
        {"drafter": str(models / "drafter")},
        {"drafter": str(models / "eagle3"), "tree": sglang_server.TreeShape(2, 24, 40)},
        {"drafter": None},
        {"drafter": "org/name"},
        {"drafter": None, "more": ("--max-total-tokens", "9", "--enable-metrics")},
    ):
        check_service(service(**{"target": str(models / "target"), "port": free_port(), **changes}))


def test_a_port_that_is_in_use_is_one_message(models: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(PrismError, match="Address already in use"):
            check_service(service(target=str(models / "target"), drafter=None, port=other.getsockname()[1]))


@needs_sglang
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--tree", "0,4,16"], "steps and branch must be at least 1"),
        (["--tree", "1,2,64"], "at most 3 can be verified"),
        (["--dtype", "fp8"], "--dtype: there is no 'fp8'"),
        (["--drafting", "exakt"], "did you mean 'exact'"),
        (["--threads", "0"], "--threads must be at least 1"),
        (["--gpus", "x"], "not a list of GPU numbers"),
    ],
)
def test_options_that_say_nothing_possible(
    options: list[str], says: str, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = entry.run(["serve", str(models / "target"), str(models / "drafter"), *options, "--dry-run"])
    assert code == 2
    assert says in capsys.readouterr().err


@needs_sglang
def test_a_dry_run_prints_the_command_alone(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["serve", str(models / "target"), "--port", str(free_port()), "--dry-run", "--", "--enable-metrics"]
    assert entry.run(words) == 0
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1
    assert " -m sglang.launch_server " in printed.out
    assert printed.out.endswith(" --enable-metrics\n")
    assert "speculative" not in printed.out
    assert printed.err == ""


# --- a server


PROMPTS = ["a quick", "b", "hello th", "xy z"]
START = 300.0
"""Seconds that a start may take on a busy machine."""


@contextlib.contextmanager
def served(words: list[str], environment: Mapping[str, str] | None, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            words, env=environment, stdout=output, stderr=output, process_group=0, preexec_fn=_listens_to_ctrl_c
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _listens_to_ctrl_c() -> None:
    """Tests may run in the background of a shell, which has SIGINT ignored in what it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def texts(port: int, process: subprocess.Popen[bytes], log: Path) -> list[str]:
    """Wait until the server answers, then ask."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as client:
        deadline = time.monotonic() + START
        while True:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            with contextlib.suppress(httpx.HTTPError):
                if client.get("/health").status_code == httpx.codes.OK:
                    break
            time.sleep(0.5)
        parameters = {"temperature": 0, "max_new_tokens": 24}
        answer = client.post("/generate", json={"text": PROMPTS, "sampling_params": parameters})
        assert answer.status_code == httpx.codes.OK, answer.text
        assert all(one["meta_info"]["spec_verify_ct"] > 0 for one in answer.json())
        return [one["text"] for one in answer.json()]


@needs_sglang
def test_a_server_answers_ends_with_ctrl_c_and_is_the_command_it_printed(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    place = make_http_place(tmp_path / "models")
    # A target that says bfloat16, as Llama-3 does; a CPU serves it in float32 unless told otherwise.
    config = place.target / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"torch_dtype": "bfloat16"}))
    port, log = free_port(), tmp_path / "serve.log"
    words = [sys.executable, "-m", "prism_ae", "serve", str(place.target), str(place.drafter("prism"))]
    words += ["--tree", "5,4,16", "--port", str(port), "--dtype", "bfloat16"]
    with served(words, None, log) as process:
        found = texts(port, process, log)
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 3  # the server, its scheduler, its detokenizer
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
        psutil.wait_procs(family, timeout=30)  # they were told to end; a loaded machine takes a moment
        assert [child for child in family if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []
    printed = log.read_text()
    assert f"ready: http://127.0.0.1:{port}" in printed
    assert printed.rstrip().endswith("the server has ended")

    (line,) = [line for line in printed.splitlines() if " -m sglang.launch_server " in line and "=" in line]
    other, log = free_port(), tmp_path / "plain.log"
    plain = line.replace(f"--port {port}", f"--port {other}")
    with served(["bash", "-c", f"exec env {plain}"], None, log) as process:
        assert texts(other, process, log) == found
