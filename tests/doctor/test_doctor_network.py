"""Proxies, certificates, endpoints and tokens, without a network and without a secret in any line."""

from __future__ import annotations

from pathlib import Path

import pytest
from environments import environment, levels, wrong

from prism_ae.doctor.findings import Finding
from prism_ae.doctor.network import check


def found(**variables: str) -> list[Finding]:
    return check(environment(variables=variables))


def test_nothing_set_is_fine() -> None:
    assert levels(found()) == {"ok"}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ALL_PROXY": "socks://127.0.0.1:9"}, "ALL_PROXY"),
        ({"all_proxy": "socks4://127.0.0.1:9"}, "all_proxy"),
        ({"http_proxy": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1,fe80::/10"}, "fe80::/10"),
        ({"http_proxy": "http://127.0.0.1:9", "NO_PROXY": "[::1]"}, "[::1]"),
        ({"http_proxy": "http://127.0.0.1:abc"}, "http_proxy"),
        ({"HTTPS_PROXY": "ftp://proxy:21"}, "HTTPS_PROXY"),
    ],
)
def test_a_proxy_that_no_client_can_use_is_named(variables: dict[str, str], words: str) -> None:
    findings = [finding for finding in found(**variables) if finding.level == "problem"]
    assert findings
    assert all(finding.name == "proxy" and finding.remedy for finding in findings)
    assert words in findings[0].what


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_DIR"])
def test_certificates_that_are_not_there(tmp_path: Path, name: str) -> None:
    problems = wrong(found(**{name: str(tmp_path / "gone.pem")}))
    assert name in problems["certificates"].what


def test_a_file_that_holds_no_certificate(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    assert "ca.pem" in wrong(found(SSL_CERT_FILE=str(tmp_path / "ca.pem")))["certificates"].what


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_is_named(name: str) -> None:
    assert wrong(found(**{name: "1"}))[name].level == "warning"
    assert not wrong(found(**{name: "0"}))


@pytest.mark.parametrize("name", ["HF_ENDPOINT", "MODELSCOPE_ENDPOINT"])
def test_another_endpoint_is_named(name: str) -> None:
    assert wrong(found(**{name: "https://mirror.example"}))[name].level == "warning"
    assert wrong(found(**{name: "http://"}))[name].level == "problem"


@pytest.mark.parametrize("name", ["HF_TOKEN", "MODELSCOPE_API_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
def test_a_token_is_never_shown(name: str) -> None:
    good = found(**{name: "hf_abcdefghijklmnop"})
    assert any(finding.name == name and finding.level == "ok" for finding in good)
    for value in (
        "hf_abcdefghijklmnop\n",
        "'hf_abcdefghijklmnop'",
        "Bearer hf_abcdefghijklmnop",
        "hf_abcdefghijklmnopä",
    ):
        bad = found(**{name: value})
        assert wrong(bad)[name].level == "problem"
        assert "abcdefghijklmnop" not in str(bad)
    assert "abcdefghijklmnop" not in str(good)


@pytest.mark.parametrize("value", ["http://me:s3cret-word@127.0.0.1:9", "http://me:s3cret-word@127.0.0.1:x"])
def test_a_proxys_password_is_never_shown(value: str) -> None:
    assert "s3cret-word" not in str(found(http_proxy=value, HTTPS_PROXY=value, HF_ENDPOINT=value))
