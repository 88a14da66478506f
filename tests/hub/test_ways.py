"""The way to a hub: proxies, certificates, hf_xet, tokens, offline, and waits that must end. Real clients, loopback."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import modelscope_hub.config
import pytest
from hub_server import Hubs, serve
from hub_world import EAGLE, HASS, OFFICIAL, TARGET, World, fill, patch

from prism_ae.errors import CheckpointError, MissingError, PrismError, StoreError, UsageError
from prism_ae.hub import calls, pool
from prism_ae.hub.failures import UnreachableError, explained
from prism_ae.hub.selection import HubName

WEIGHTS = f"{EAGLE}/model.safetensors"
CLOSED = "http://user:hunter2@127.0.0.1:9"


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses before further attempts, which are not made."""
    pauses: list[float] = []
    monkeypatch.setattr(calls, "time", SimpleNamespace(sleep=pauses.append))
    monkeypatch.setattr(calls, "PAUSES", (1.0, 3.0, 10.0))
    return pauses


def said(raised: pytest.ExceptionInfo[PrismError]) -> str:
    assert "hunter2" not in str(raised.value)
    return str(raised.value)


# Proxies


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://user:hunter2@127.0.0.1:9"),
        ("http_proxy", "socks5h://127.0.0.1:9"),
        ("all_proxy", "socks4://127.0.0.1:9"),
        ("HTTP_PROXY", "socks://127.0.0.1:9"),
        ("Http_Proxy", "ftp://127.0.0.1:9"),
        ("http_proxy", "http://127.0.0.1:abc"),
        ("ALL_PROXY", "http://user:hunter2@127.0.0.1:99999"),
        ("http_proxy", "http://user:hunter2@[::1"),
        ("HTTP_PROXY", "http://"),
    ],
)
def test_a_proxy_that_no_client_can_use_is_one_message(
    world: World, name: str, value: str, attempts: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=rf"^{name}=") as raised:
        world.get([EAGLE])
    assert said(raised).count("\n") <= 2  # one sentence for each of the two clients at most, and what to do
    assert attempts == []
    assert not world.hubs.requests


@pytest.mark.parametrize("entries", ["127.0.0.1,fe80::/10", "[::1]", "x:y", "10.0.0.0/8,[fe80::1]:8080"])
def test_exceptions_that_httpx_cannot_read_are_named(
    world: World, entries: str, attempts: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", entries)
    with pytest.raises(UsageError, match=r"^no_proxy "):
        world.get([EAGLE])
    assert attempts == []
    assert world.here() == (world.expected(EAGLE) if world.hub == "modelscope" else {})  # requests can read them


def test_questions_go_through_the_same_proxies(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.get([EAGLE])
    (world.models / "benchmarks/qa/question.jsonl").unlink()
    monkeypatch.setenv("ALL_PROXY", "socks5://user:hunter2@127.0.0.1:9")
    with pytest.raises(UsageError, match=r"^ALL_PROXY=socks5://…@127\.0\.0\.1:9 "):
        world.get([EAGLE])


def test_a_proxy_that_is_away_is_named_without_its_password(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", CLOSED)
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(UnreachableError, match="Connection refused") as raised:
        world.get([EAGLE])
    assert "HTTP_PROXY=http://…@127.0.0.1:9" in said(raised)


def test_a_proxy_that_wants_a_password_is_not_asked_again(
    world: World, attempts: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.hubs.status = 407  # a proxy for http answers in the hub's place
    monkeypatch.setenv("http_proxy", world.hubs.address.replace("//", "//user:hunter2@"))
    with pytest.raises(UsageError, match=r"http_proxy=http://…@") as raised:
        world.get([EAGLE])
    assert said(raised)
    assert attempts == []


def test_a_proxy_without_tls_is_told_apart(
    world: World, attempts: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", world.hubs.address.replace("http://", "https://user:hunter2@"))
    with pytest.raises(UsageError, match=r"^http_proxy=https://…@\S+ .*http://") as raised:
        world.get([EAGLE])
    assert said(raised)
    assert attempts == []


def test_nothing_to_fetch_needs_no_proxy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.get([EAGLE])
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    monkeypatch.setenv("SSL_CERT_FILE", "/nothing")
    monkeypatch.setenv("HF_ENDPOINT", "")
    world.get([EAGLE])


# Endpoints, offline, tokens


@pytest.mark.parametrize("value", ["http://[::1", "ftp://mirror", "http://user:hunter2@h:x", "http://"])
def test_an_endpoint_that_is_no_address_is_named(
    world: World, value: str, attempts: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = {"modelscope": "MODELSCOPE_ENDPOINT", "huggingface": "HF_ENDPOINT"}[world.hub]
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"^{name}=") as raised:
        world.get([EAGLE])
    assert said(raised)
    assert attempts == []


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_names_the_variable_that_is_set(
    hubs: Hubs, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    patch(monkeypatch, hubs, tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    monkeypatch.setenv(name, "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MissingError) as raised:
        World(hubs, tmp_path / "models", "huggingface").get([EAGLE])
    assert set(re.findall(r"\w+_OFFLINE", str(raised.value))) == {name}


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "stored"])
def test_a_token_that_is_refused_is_said_not_shown(
    hubs: Hubs, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    patch(monkeypatch, hubs, tmp_path)
    hubs.gated = {OFFICIAL}
    (tmp_path / "token").write_text("expired" if name == "stored" else "")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    if name != "stored":
        monkeypatch.setenv(name, "expired")
    world = World(hubs, tmp_path / "models", "huggingface")
    with pytest.raises(MissingError, match=r"HTTP 401") as raised:
        world.get([TARGET], official=True)
    assert ("stored token" if name == "stored" else name) in raised.value.what
    assert "expired" not in str(raised.value)


def test_modelscopes_token_is_named(hubs: Hubs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patch(monkeypatch, hubs, tmp_path)
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "expired")
    modelscope_hub.config.set_default_config(modelscope_hub.config.HubConfig())
    hubs.faults[WEIGHTS] = [401] * 20
    with pytest.raises(MissingError, match=r"HTTP 401") as raised:
        World(hubs, tmp_path / "models", "modelscope").get([EAGLE])
    assert "MODELSCOPE_API_TOKEN" in raised.value.what


@pytest.mark.parametrize(
    ("hub", "name", "value"),
    [("huggingface", "HF_TOKEN", "hf_hunter2ü"), ("modelscope", "MODELSCOPE_API_TOKEN", "hf_hunter2\nx")],
)
def test_a_token_that_cannot_be_sent_is_named_not_shown(
    hubs: Hubs, tmp_path: Path, hub: HubName, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch(monkeypatch, hubs, tmp_path)
    monkeypatch.setenv(name, value)
    modelscope_hub.config.set_default_config(modelscope_hub.config.HubConfig())
    with pytest.raises(UsageError, match=name) as raised:
        World(hubs, tmp_path / "models", hub).get([EAGLE])
    assert said(raised)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_is_refused_is_not_asked_again(world: World, status: int, attempts: list[float]) -> None:
    world.hubs.faults[WEIGHTS] = [status] * 50
    world.hubs.faults["qa/question.jsonl"] = [status] * 50
    with pytest.raises(MissingError, match=r"qa/question\.jsonl"):
        world.get([EAGLE])
    assert attempts == []
    assert len(world.hubs.faults["qa/question.jsonl"]) == 49


def test_a_name_without_an_address_is_asked_for_a_few_times(attempts: list[float]) -> None:
    def attempt() -> None:
        error = OSError("cannot connect")
        error.__cause__ = socket.gaierror(-2, "Name or service not known")
        raise explained("questions", "https://h/q", "", error, {})

    with pytest.raises(UnreachableError):
        calls.persistently(attempt)
    assert attempts == [1.0, 3.0]


# Certificates


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that is its own authority, and its key, in one file."""
    path = tmp_path_factory.mktemp("certificate") / "server.pem"
    command = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    places = ["-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run(["openssl", *command.split(), *places], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture(params=["modelscope", "huggingface"])
def secure(
    request: pytest.FixtureRequest, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    hubs = Hubs()
    fill(hubs)
    with serve(hubs, certificate):
        patch(monkeypatch, hubs, tmp_path)
        yield World(hubs, tmp_path / "models", request.param)


@pytest.mark.parametrize(
    "names", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE CURL_CA_BUNDLE"]
)
def test_one_variable_serves_everything_that_is_fetched(
    secure: World, names: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in names.split():
        monkeypatch.setenv(name, f"{certificate}.crt")
    secure.get([EAGLE])
    assert secure.here() == secure.expected(EAGLE)


def test_an_authority_that_is_not_trusted_is_not_asked_again(secure: World, attempts: list[float]) -> None:
    with pytest.raises(MissingError, match=r"certificate") as raised:
        secure.get([EAGLE])
    assert not isinstance(raised.value, UnreachableError)
    assert {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"} <= set(re.findall(r"\w+", raised.value.hint))
    assert "question.jsonl" in raised.value.what  # whatever is fetched says the same
    assert attempts == []


@pytest.mark.parametrize(
    ("name", "content"), [("SSL_CERT_FILE", None), ("REQUESTS_CA_BUNDLE", ""), ("CURL_CA_BUNDLE", "<html>")]
)
def test_certificates_that_are_not_there_are_named(
    secure: World,
    name: str,
    content: str | None,
    tmp_path: Path,
    attempts: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "own.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv(name, str(path))
    with pytest.raises(UsageError) as raised:
        secure.get([EAGLE])
    assert raised.value.what.startswith(f"{name}={path} ")
    assert "\n" not in raised.value.what
    assert attempts == []


def test_another_authority_is_not_trusted(secure: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import certifi

    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    with pytest.raises(MissingError, match="certificate") as raised:
        secure.get([EAGLE])
    assert f"SSL_CERT_FILE={certifi.where()}" in raised.value.hint
    assert "REQUESTS_CA_BUNDLE=" not in raised.value.hint  # the user did not set it


# hf_xet, the disk


@pytest.fixture
def chunks(hubs: Hubs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Hugging Face, whose large files come by hf_xet."""
    patch(monkeypatch, hubs, tmp_path)
    hubs.xet = {WEIGHTS, f"{HASS}/pytorch_model.bin"}
    return World(hubs, tmp_path / "models", "huggingface")


def test_the_real_hf_xet_without_its_store_is_one_message(chunks: World, attempts: list[float]) -> None:
    with pytest.raises(MissingError, match=WEIGHTS) as raised:
        chunks.get([EAGLE, HASS])
    assert "HF_HUB_DISABLE_XET=1" in raised.value.hint
    assert attempts == []  # the store says that it has no such file


class PanicException(BaseException):
    """As Rust's panics arrive."""


@pytest.mark.parametrize(
    ("error", "kind", "tried_again"),
    [
        (
            RuntimeError("Data processing error: CAS service error: request failed after 5 retries"),
            UnreachableError,
            True,
        ),
        (PanicException("called `Option::unwrap()` on a `None` value"), MissingError, False),
        (RuntimeError("Request error: HTTP status client error (404 Not Found)"), MissingError, False),
        (RuntimeError("error sending request: invalid peer certificate: UnknownIssuer"), MissingError, False),
        (RuntimeError("IO Error: No space left on device (os error 28)"), StoreError, False),
        (RuntimeError("IO Error: Disk quota exceeded (os error 122)"), StoreError, False),
        (RuntimeError("Read-only file system"), StoreError, False),
        (OSError(122, os.strerror(122)), StoreError, False),
        (KeyError("unexpected"), CheckpointError, False),
    ],
)
def test_whatever_comes_from_below_hf_xet_is_one_message(
    chunks: World,
    error: BaseException,
    kind: type[PrismError],
    tried_again: bool,
    attempts: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(**words: object) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.file_download.xet_get", fail)
    with pytest.raises(kind, match=WEIGHTS) as raised:
        chunks.get([EAGLE])
    assert isinstance(raised.value, UnreachableError) == tried_again
    assert bool(attempts) == tried_again
    assert chunks.here() == {}


# Waits that end


def test_a_transfer_that_hangs_is_ended_and_goes_on_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.hubs.slow = threading.Event()
    monkeypatch.setattr(pool, "PATIENCE", 1.0)
    with pytest.raises(UnreachableError, match=WEIGHTS) as raised:
        world.get([EAGLE])
    assert raised.value.hint
    assert world.here() == {}
    world.hubs.slow.set()
    world.get([EAGLE])
    assert world.here() == world.expected(EAGLE)
    assert f"{EAGLE}/config.json" not in world.hubs.fetched()  # what was here is kept


def test_a_hanging_file_does_not_keep_back_what_else_is_fetched(chunks: World, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(**words: object) -> None:
        released.wait()
        raise RuntimeError("released")

    monkeypatch.setattr("huggingface_hub.file_download.xet_get", hang)
    monkeypatch.setattr(pool, "PATIENCE", 1.0)
    chunks.hubs.xet = {WEIGHTS}
    try:
        with pytest.raises(UnreachableError, match=WEIGHTS):
            chunks.get([EAGLE, HASS])
        assert chunks.here() == chunks.expected(HASS)
    finally:
        released.set()


def test_files_that_move_are_never_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = [0.0]
    monkeypatch.setattr(pool, "time", SimpleNamespace(monotonic=lambda: now[0]))
    fetching = pool.DownloadPool(tmp_path)
    fetching._under_way[1] = "a file"
    for staged in range(5):
        fetching.watch(staged)
        now[0] += pool.PATIENCE - 1
    fetching._under_way.clear()
    now[0] += pool.PATIENCE
    fetching.watch(4)  # nothing is under way
    fetching._under_way[1] = "a file"
    fetching.watch(4)
    now[0] += pool.PATIENCE
    with pytest.raises(pool.HangingError):
        fetching.watch(4)
    assert pool.PATIENCE >= 300


def test_a_listing_and_questions_that_hang_are_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.hubs.silent = threading.Event()
    monkeypatch.setattr(calls, "ANSWER_PATIENCE", 0.5)
    with pytest.raises(UnreachableError, match=r"(?s)Akem.*question\.jsonl"):
        world.get([EAGLE])


def test_a_question_file_without_an_end_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prism_ae.hub.questions._LARGEST", 100)
    with pytest.raises(CheckpointError, match=r"question\.jsonl"):
        world.get([EAGLE])
