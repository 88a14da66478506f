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
        "hf_abcdefghijklmnop\n" if name == "MODELSCOPE_API_TOKEN" else "hf_abcdefghijk\x7flmnop",
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


def test_a_line_end_behind_a_token_is_no_trouble_where_the_client_takes_it_off() -> None:
    for value in ("hf_x\n", "hf_x\r\n", " hf_x "):
        assert not wrong(found(HF_TOKEN=value))
        assert wrong(found(MODELSCOPE_API_TOKEN=value))["MODELSCOPE_API_TOKEN"].level == "problem"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_HUB_ETAG_TIMEOUT", "30s"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "x"),
        ("MODELSCOPE_DOWNLOAD_TIMEOUT", "1.5"),
        ("HF_ENDPOINT", "https://mirror\r"),
        ("HF_ENDPOINT", "https://mirror/x?token=sekret"),
        ("MODELSCOPE_ENDPOINT", "https://mirror#sekret"),
        ("MODELSCOPE_DOMAIN", "u:#sekret@mirror"),
    ],
)
def test_what_ends_a_client_is_a_problem_with_its_variable(name: str, value: str) -> None:
    bad = wrong(found(**{name: value}))
    assert (bad[name].level, name in bad[name].what) == ("problem", True)
    assert "sekret" not in str(bad)


@pytest.mark.parametrize("value", ["http://h:3128\r", "http://u:#sekret@h:1", "http://u:?sekret@h:1", "u:/sekret@h:1"])
def test_a_proxy_that_leads_elsewhere_is_a_problem(value: str) -> None:
    findings = [finding for finding in found(https_proxy=value) if finding.level == "problem"]
    assert {finding.name for finding in findings} == {"proxy"}
    assert "sekret" not in str(findings)


def test_an_old_name_of_modelscopes_endpoint_and_a_switch_that_is_off_unnoticed_are_named() -> None:
    assert wrong(found(MODELSCOPE_DOMAIN="mirror"))["MODELSCOPE_DOMAIN"].level == "warning"
    assert wrong(found(HF_HUB_OFFLINE="y"))["HF_HUB_OFFLINE"].level == "warning"
    assert wrong(found(HF_HUB_DISABLE_XET="enabled"))["HF_HUB_DISABLE_XET"].level == "warning"


def test_a_token_file_that_is_a_folder_is_named(tmp_path: Path) -> None:
    bad = wrong(found(HF_TOKEN_PATH=str(tmp_path)))
    assert (bad["token"].level, f"HF_TOKEN_PATH={tmp_path}" in bad["token"].what) == ("problem", True)
