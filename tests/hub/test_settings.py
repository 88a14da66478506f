"""Numbers and switches of the hubs' clients, against what the installed clients make of the same values."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import modelscope_hub.constants as modelscope
import pytest
from huggingface_hub import constants as huggingface

from prism_ae.cli.measure import measure
from prism_ae.engines import registry
from prism_ae.errors import UsageError
from prism_ae.hub.calls import prepare
from prism_ae.hub.settings import escaped, number_problems, switched_on, unknown_switches

VALUES = ["x", "30s", "", " ", "1.5", "1e3", " 30 ", "30\r", "1_0", "0", "30", "٣", "10 s", "None", "0x10", "+5"]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", ["HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"])
def test_a_number_of_hugging_face_is_a_problem_exactly_where_its_client_ends(name: str, value: str) -> None:
    try:
        huggingface._as_int(value)
        ends = False
    except ValueError:
        ends = True
    found = number_problems({name: value}, "huggingface")
    assert bool(found) == ends
    assert all(problem.startswith(f"{name}={escaped(value)} ") for problem in found)
    assert number_problems({name: value}, "modelscope") == []


@pytest.mark.parametrize("value", [*VALUES, "-1"])
@pytest.mark.parametrize(
    ("name", "zero"),
    [
        ("MODELSCOPE_API_TIMEOUT", False),
        ("MODELSCOPE_DOWNLOAD_PARALLEL_WORKERS", False),
        ("MODELSCOPE_DOWNLOAD_MAX_RETRIES", True),
    ],
)
def test_a_number_of_modelscope_is_a_problem_exactly_where_its_client_passes_it_over(
    name: str, zero: bool, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        modelscope._env_int(name, 7, allow_zero=zero)
    assert bool(number_problems(os.environ, "modelscope")) == bool(said)


def test_every_number_that_a_download_reads_is_known() -> None:
    """Another version of a client may have others."""
    names = [
        name
        for one in modelscope.ENV_REGISTRY
        if one.name.startswith(("MODELSCOPE_API", "MODELSCOPE_REPO", "MODELSCOPE_DOWNLOAD")) and one.default.isdigit()
        for name in (one.name, *(old for old in one.deprecated_names if old.startswith("MODELSCOPE_")))
    ]
    assert len(names) > 10
    assert [name for name in names if not number_problems({name: "x"}, "modelscope")] == []


@pytest.mark.parametrize("value", ["1", "on", "True", "YES", "0", "", "off", "y", "t", "1\r", "enabled"])
def test_a_switch_is_on_where_the_client_takes_it_for_on(value: str) -> None:
    assert switched_on(value) == huggingface._is_true(value)
    assert bool(unknown_switches({"HF_HUB_OFFLINE": value})) == (value in ("y", "t", "1\r", "enabled"))


@pytest.mark.parametrize("value", ["30s", "", "ten"])
def test_sglang_is_not_started_where_its_import_would_end(value: str) -> None:
    with pytest.raises(UsageError, match=r"^HF_HUB_ETAG_TIMEOUT="):
        registry.check_environment("sglang", {"HF_HUB_ETAG_TIMEOUT": value})
    registry.check_environment("torch", {"HF_HUB_ETAG_TIMEOUT": value})
    registry.check_environment("sglang", {"HF_HUB_ETAG_TIMEOUT": "30"})


@pytest.mark.parametrize("value", ["30s", "x"])
def test_a_run_asks_before_anything_is_started(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", value)
    resolved = SimpleNamespace(cells=[SimpleNamespace(engine="sglang")])
    store = SimpleNamespace(prepare=lambda: pytest.fail("something was started"))
    with pytest.raises(UsageError, match=r"^HF_HUB_DOWNLOAD_TIMEOUT="):
        measure(None, resolved, store, tmp_path, [])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("hub", "name", "value"),
    [
        ("huggingface", "HF_HUB_ETAG_TIMEOUT", "30s"),
        ("huggingface", "HF_HUB_DOWNLOAD_TIMEOUT", ""),
        ("modelscope", "MODELSCOPE_DOWNLOAD_TIMEOUT", "x"),
        ("modelscope", "MODELSCOPE_API_MAX_RETRIES", "-1"),
    ],
)
def test_a_client_is_not_imported_with_a_wrong_number(
    hub: str, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"^{name}="):
        prepare(hub)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("hub", "library", "variables"),
    [
        ("modelscope", "modelscope_hub.config", {"MODELSCOPE_DOMAIN": "127.0.0.1:9"}),
        ("modelscope", "modelscope_hub.config", {"MODELSCOPE_UPLOAD_MAX_WORKERS": "x", "API_TIMEOUT": "9"}),
        ("huggingface", "huggingface_hub.constants", {"HF_HUB_ENABLE_HF_TRANSFER": "1"}),
    ],
)
def test_a_librarys_own_warnings_about_variables_do_not_reach_the_user(
    hub: str, library: str, variables: dict[str, str]
) -> None:
    code = f"from prism_ae.hub.calls import prepare; prepare({hub!r}); import {library} as it\n"
    code += "getattr(it, 'HubConfig', int)()"
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run([sys.executable, "-c", code], env=clean | variables, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
