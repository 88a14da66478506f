"""What is said about proxies, certificates, endpoints and tokens, against what the two HTTP clients do with them."""

from __future__ import annotations

import os
import ssl
import urllib.request
import warnings
from pathlib import Path

import httpx
import pytest
import requests

from prism_ae.hub import environment
from prism_ae.hub.environment import (
    as_set,
    certificate_problems,
    clean_token,
    endpoint,
    endpoint_problems,
    endpoint_variable,
    offline,
    one_trust,
    proxies,
    proxy_problems,
    redacted,
    token_file_problems,
)
from prism_ae.hub.failures import explained

PROXIES = [
    "http://h:80",
    "https://h:1",
    "http://h:80/",
    "http://h:",
    "h",
    "127.0.0.1:9",
    "http://[::1]:80",
    "http://u:p@ss@h:1",
    "HTTP://h:80",
    "socks5://127.0.0.1:9",
    "SOCKS5H://h:1",
    "socks4://u:p@127.0.0.1:9",
    "socks4a://h:1",
    "socks://h:1",
    "ftp://h:1",
    "http://h:abc",
    "http://u:secret@[::1",
    "http://u:p/w@h:1",
    "http:h:80",
    "http://h:8 0",
    "http://u:s3cret",
]
REFUSED_BY_REQUESTS_ONLY = ["u:secretpw@h:80"]
USELESS = [
    "http://u:#x@127.0.0.1:9",
    "http://u:?x@127.0.0.1:9",
    "http://u:/x@127.0.0.1:9",
    "u:a#b@h:80",
    "socks5://a?b:x@h:80",
    "http://h:80 ",
    "http://h:80/\r",
    "http://h:99999",
    "nonsense host:1",
    "http:// h:80",
    "http://h:-1",
    "http:/h:80",
]
"""httpx takes them and connects to elsewhere or to nothing."""

EXCEPTIONS = [
    "127.0.0.1,fe80::/10",
    "[::1]",
    "x:y",
    "::1/128",
    "[fe80::]:80",
    "x.com:abc",
    "http://[::1",
    "::1",
    "fe80::1%eth0",
    "10.0.0.0/8",
    "*.x.com,.y.com",
    "x.com:80",
    "*,[::1]",
    "a b",
    "LOCALHOST",
    "http://x",
    "ab,,c ,",
]


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in environment.CERTIFICATES:
            monkeypatch.delenv(name)


def builds_httpx() -> bool:
    try:
        httpx.Client(verify=False).close()
    except (ImportError, ValueError, httpx.InvalidURL):
        return False
    return True


def builds_requests(proxy: str) -> bool:
    session = requests.Session()
    request = requests.Request("GET", "http://127.0.0.1/").prepare()
    try:
        session.get_adapter("http://").get_connection_with_tls_context(request, True, {"all": proxy})  # type: ignore[attr-defined]
    except (ValueError, requests.RequestException):
        return False
    return True


@pytest.mark.parametrize("value", PROXIES)
@pytest.mark.parametrize("name", ["ALL_PROXY", "https_proxy", "Http_Proxy"])
def test_a_proxy_is_a_problem_exactly_where_the_client_refuses_it(
    value: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert (proxy_problems(os.environ, "httpx") == []) == builds_httpx()
    assert (proxy_problems(os.environ, "requests") == []) == builds_requests(value)
    for problem in proxy_problems(os.environ):
        assert problem.startswith(f"{name}=")
        assert "unset" in problem


@pytest.mark.parametrize("value", REFUSED_BY_REQUESTS_ONLY)
def test_requests_wants_a_scheme_before_a_user(value: str) -> None:
    assert not builds_requests(value)
    assert proxy_problems({"all_proxy": value}, "requests")
    assert not proxy_problems({"all_proxy": value}, "httpx")


@pytest.mark.parametrize("value", USELESS)
def test_what_httpx_takes_and_cannot_mean_anything_is_a_problem_for_both(value: str) -> None:
    assert proxy_problems({"all_proxy": value}, "requests")
    assert proxy_problems({"all_proxy": value}, "httpx")


@pytest.mark.parametrize("value", EXCEPTIONS)
def test_an_exception_is_a_problem_exactly_where_httpx_refuses_it(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("No_Proxy", value)
    assert (proxy_problems(os.environ, "httpx") == []) == builds_httpx()
    assert proxy_problems(os.environ, "requests") == []


@pytest.mark.parametrize("name", ["socksio", "socks"])
def test_with_the_package_a_socks_proxy_is_no_problem(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{name}.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    client: environment.Client = "httpx" if name == "socksio" else "requests"
    other: environment.Client = "requests" if name == "socksio" else "httpx"
    assert proxy_problems({"ALL_PROXY": "socks5h://h:1"}, client) == []
    assert len(proxy_problems({"ALL_PROXY": "socks5h://h:1"}, other)) == 1


@pytest.mark.parametrize(
    "environ",
    [
        {"HTTP_PROXY": "http://a", "http_proxy": "http://b"},
        {"HTTP_PROXY": "http://a", "http_proxy": ""},
        {"HTTP_PROXY": "http://a", "REQUEST_METHOD": "GET"},
        {"http_proxy": "http://a", "REQUEST_METHOD": "GET"},
        {"All_Proxy": "http://a", "https_PROXY": "http://b", "_proxy": "c", "ftp_proxy": "d"},
    ],
)
def test_which_variable_counts_is_pythons_rule(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    counted = {scheme: value for scheme, value in urllib.request.getproxies_environment().items() if scheme != "ftp"}
    assert sorted(proxies(os.environ).values()) == sorted(value for scheme, value in counted.items() if scheme)


SECRETS = [
    "http://user:hunter2@h:80",
    "user:hunter2@h:80",
    "http://user:hunter2@h:abc",
    "http://user:hun/ter2@h:1",
    "http://user:hunt%652@[::1",
    "http://user:hunter2",
    "socks5://hunter2@h:1",
    "user:http://hunter2@h",
    "hunter2@",
    "http://user:#hunter2@h:1",
    "http://user:?hunter2@h:1",
    "https://mirror?token=hunter2",
    "https://mirror/x?token=hunter2&a=b",
]


@pytest.mark.parametrize("value", SECRETS)
def test_no_password_is_ever_shown(value: str) -> None:
    environ = {
        "HTTPS_PROXY": value,
        "HF_ENDPOINT": value,
        "MODELSCOPE_DOMAIN": value,
        "HF_TOKEN": "hf_hunter2",
        "NO_PROXY": "[hf_hunter2]",
    }
    said = [*proxies(environ).values(), *proxy_problems(environ), *endpoint_problems(environ, "huggingface")]
    said += [endpoint(environ, "huggingface"), endpoint(environ, "modelscope")]
    said += [redacted(f"cannot connect to {value}, {value.rpartition('@')[0]} hf_hunter2", environ)]
    for secret in ("hunter2", "hun/ter2", "hunt%652"):
        if value != "http://user:hunter2":  # no "@": a host and a wrong port, which is hidden where it is shown
            assert not [text for text in said if secret in text]
        else:
            assert not [text for text in said[:-1] if secret in text]


def test_an_address_in_a_text_loses_its_user() -> None:
    assert "hunter2" not in redacted("Failed to parse: https://user:hunter2@mirror/x", {})


@pytest.mark.parametrize("variable", environment.CERTIFICATES)
def test_certificates_that_are_not_there_are_named(variable: str, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    (tmp_path / "html.pem").write_text("<html>log in</html>")
    good = ssl.get_default_verify_paths().cafile or requests.certs.where()
    folder = variable == "SSL_CERT_DIR"
    for path in (tmp_path / "nothing", tmp_path / "empty.pem", tmp_path / "html.pem"):
        [problem] = certificate_problems({variable: str(path)})
        assert problem.startswith(f"{variable}={path} ")
    assert bool(certificate_problems({variable: str(good)})) == folder
    assert bool(certificate_problems({variable: str(tmp_path)})) == (variable == "SSL_CERT_FILE")
    assert certificate_problems({variable: ""}) == []


def test_a_client_is_not_blamed_for_the_others_certificates() -> None:
    environ = {"SSL_CERT_FILE": requests.certs.where(), "REQUESTS_CA_BUNDLE": "/nothing"}
    assert certificate_problems(environ, "httpx") == []
    assert len(certificate_problems(environ, "requests")) == 1
    assert len(certificate_problems({"CURL_CA_BUNDLE": "/nothing"}, "httpx")) == 1


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ({}, {}),
        ({"SSL_CERT_FILE": "/a"}, {"REQUESTS_CA_BUNDLE": "/a"}),
        ({"SSL_CERT_DIR": "/tmp"}, {"REQUESTS_CA_BUNDLE": "/tmp"}),
        ({"REQUESTS_CA_BUNDLE": "/a"}, {"SSL_CERT_FILE": "/a"}),
        ({"CURL_CA_BUNDLE": "/tmp"}, {"SSL_CERT_DIR": "/tmp"}),
        ({"SSL_CERT_FILE": "/a", "CURL_CA_BUNDLE": "/b"}, {}),
    ],
)
def test_both_clients_trust_the_same(
    given: dict[str, str], added: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with one_trust():
        assert {name: os.environ[name] for name in environment.CERTIFICATES if name in os.environ} == given | added
        assert {name for name in environment.CERTIFICATES if name in as_set()} == given.keys()
    assert {name for name in environment.CERTIFICATES if name in os.environ} == given.keys()


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({}, ""),
        ({"HF_HUB_OFFLINE": "0"}, ""),
        ({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
        ({"HF_HUB_OFFLINE": "", "TRANSFORMERS_OFFLINE": "yes"}, "TRANSFORMERS_OFFLINE"),
        ({"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"}, ""),
        ({"HF_HUB_OFFLINE": "on"}, "HF_HUB_OFFLINE"),
    ],
)
def test_the_variable_that_keeps_offline(environ: dict[str, str], variable: str) -> None:
    from huggingface_hub.constants import _is_true

    assert offline(environ) == variable
    assert bool(variable) == _is_true(environ.get("HF_HUB_OFFLINE") or environ.get("TRANSFORMERS_OFFLINE"))


@pytest.mark.parametrize(
    "value", ["", " ", "nonsense", "ftp://h", "http://", "http://[::1", "http://h:x", "http://a b"]
)
def test_an_endpoint_that_is_no_address_is_named(value: str) -> None:
    [problem] = endpoint_problems({"HF_ENDPOINT": value}, "huggingface")
    assert problem.startswith("HF_ENDPOINT")
    client_adds_a_scheme = value in ("", " ", "nonsense")
    assert bool(endpoint_problems({"MODELSCOPE_ENDPOINT": value}, "modelscope")) != client_adds_a_scheme


@pytest.mark.parametrize("value", ["https://huggingface.co", "http://127.0.0.1:80/", "https://mirror/hf", "HTTPS://x"])
def test_an_endpoint_that_is_an_address_is_no_problem(value: str) -> None:
    assert endpoint_problems({"HF_ENDPOINT": value}, "huggingface") == []
    assert endpoint_problems({"MODELSCOPE_ENDPOINT": value}, "modelscope") == []


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("https://x\r", r"'\r' at its end"),
        ("https://x/hf\n", r"'\n' at its end"),
        (" https://x", "' '"),
        ("https://x\u200b", r"'\u200b'"),
        ("https://x\xa0", r"'\xa0'"),
        ("https://x/\x1b[2J", r"'\x1b'"),
        ("https://x?", "query"),
        ("https://x/hf?token=s", "query"),
        ("https://x#a", "fragment"),
    ],
)
def test_letters_that_nobody_sees_and_queries_are_named(value: str, words: str) -> None:
    [problem] = endpoint_problems({"HF_ENDPOINT": value}, "huggingface")
    assert problem.startswith("HF_ENDPOINT=")
    assert words in problem
    assert problem.isprintable()
    stripped = value.strip() == value.strip(" \r\n") != value  # ModelScope's client does that itself
    assert bool(endpoint_problems({"MODELSCOPE_ENDPOINT": value}, "modelscope")) != (stripped or "xa0" in words)


@pytest.mark.parametrize("value", ["http://h:80\r", "h:80\n", "\thttp://h:80", "http://h\u200b:80", "socks5://h:1\r"])
def test_a_proxy_with_a_letter_that_nobody_sees_is_shown_with_it(value: str) -> None:
    for client in ("httpx", "requests"):
        [problem] = proxy_problems({"HTTPS_PROXY": value}, client)  # type: ignore[arg-type]
        assert problem.isprintable()
        assert any(letter in problem for letter in (r"\r", r"\n", r"\t", r"\u200b"))


def test_exceptions_and_certificates_are_shown_with_what_nobody_sees() -> None:
    [problem] = proxy_problems({"NO_PROXY": "localhost,127.0.0.1\r"}, "requests")
    assert problem.startswith("NO_PROXY ")
    assert r"\r" in problem
    [problem] = certificate_problems({"SSL_CERT_FILE": "/ca.pem\r"}, "httpx")
    assert r"SSL_CERT_FILE=/ca.pem\r" in problem


@pytest.mark.parametrize("text", ["GET https://h/x?sig=hunter2 failed", "for url: 'http://h?a=hunter2'", "//h#hunter2"])
def test_an_address_in_a_text_loses_its_query(text: str) -> None:
    assert "hunter2" not in redacted(text, {})


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"MODELSCOPE_DOMAIN": "mirror"},
        {"MODELSCOPE_DOMAIN": " "},
        {"MODELSCOPE_DOMAIN": "mirror", "MODELSCOPE_ENDPOINT": ""},
        {"MODELSCOPE_DOMAIN": "mirror", "MODELSCOPE_ENDPOINT": " "},
        {"MODELSCOPE_DOMAIN": "http://mirror:8", "MODELSCOPE_ENDPOINT": "https://other"},
        {"MODELSCOPE_DOMAIN": "http://mirror:8/\r"},
    ],
)
def test_the_variable_that_says_where_modelscope_is(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from modelscope_hub.config import HubConfig
    from modelscope_hub.constants import DEFAULT_ENDPOINT

    for name in ("MODELSCOPE_DOMAIN", "MODELSCOPE_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        used = HubConfig().endpoint
    said = environ.get(endpoint_variable(os.environ, "modelscope"), "").strip().rstrip("/")
    assert used == (DEFAULT_ENDPOINT if not said else said if "://" in said else f"https://{said}")
    assert endpoint_problems(os.environ, "modelscope") == []


def test_a_token_file_is_a_problem_exactly_where_the_client_cannot_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants
    from huggingface_hub.utils import _auth

    (tmp_path / "text").write_text("hf_x\n")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "home/token").mkdir(parents=True)
    for name, value in (
        ("HF_TOKEN_PATH", tmp_path),
        ("HF_TOKEN_PATH", tmp_path / "text"),
        ("HF_TOKEN_PATH", tmp_path / "bytes"),
        ("HF_TOKEN_PATH", tmp_path / "text/x"),
        ("HF_TOKEN_PATH", tmp_path / "gone"),
        ("HF_HOME", tmp_path / "home"),
        ("HF_HOME", tmp_path / "text"),
        ("HF_HOME", tmp_path),
        ("XDG_CACHE_HOME", tmp_path / "text"),
    ):
        below = {"HF_TOKEN_PATH": "", "HF_HOME": "/token", "XDG_CACHE_HOME": "/huggingface/token"}[name]
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", f"{value}{below}")
        try:
            _auth._get_token_from_file()
            readable = True
        except (OSError, UnicodeDecodeError):
            readable = False
        found = token_file_problems({name: str(value)})
        assert (found == []) == readable, (name, value)
        assert all(problem.startswith(f"{name}={value}: ") for problem in found)
        assert token_file_problems({name: str(value), "HF_TOKEN": "hf_x"}) == []


@pytest.mark.parametrize("value", ["good", "good\n", " good\r\n", "\n", "go\nod", "'good'"])
def test_a_token_is_what_the_client_makes_of_it(value: str) -> None:
    from huggingface_hub.utils._auth import _clean_token

    assert (clean_token({"HF_TOKEN": value}, "huggingface") or None) == _clean_token(value)
    assert clean_token({"MODELSCOPE_API_TOKEN": value}, "modelscope") == value


def test_an_error_names_the_variable_that_led_there() -> None:
    environ = {"MODELSCOPE_DOMAIN": "http://user:hunter2@mirror:8/x"}
    said = str(explained("modelscope", "a/b on ModelScope", "", ConnectionError("refused"), environ))
    assert "MODELSCOPE_DOMAIN=http://…@mirror:8" in said
    assert "hunter2" not in said
