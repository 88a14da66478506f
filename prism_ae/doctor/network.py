"""The ways to the hubs, as the environment describes them. Nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prism_ae.doctor.findings import Finding, ok, problem, shown, warning
from prism_ae.doctor.snapshot import Snapshot
from prism_ae.hub import environment
from prism_ae.hub.selection import HubName
from prism_ae.hub.settings import number_problems, unknown_switches

_HUBS: tuple[HubName, ...] = ("huggingface", "modelscope")


def check(snapshot: Snapshot) -> list[Finding]:
    """Findings about proxies, certificates, endpoints and tokens."""
    variables = snapshot.variables
    return [
        *_proxies(variables),
        *_certificates(variables),
        *_endpoints(variables),
        *_tokens(variables),
        *_settings(variables),
    ]


def _proxies(variables: Mapping[str, str]) -> Iterator[Finding]:
    wrong = environment.proxy_problems(variables)
    yield from _problems("proxy", wrong)
    found = environment.proxies(variables)
    if found and not wrong:
        yield ok("proxy", ", ".join(f"{name}={shown(value)}" for name, value in found.items()))
    elif not found and not wrong:
        yield ok("proxy", "none is set")


def _certificates(variables: Mapping[str, str]) -> Iterator[Finding]:
    wrong = environment.certificate_problems(variables)
    yield from _problems("certificates", wrong)
    if not wrong:
        yield ok("certificates", shown(environment.certificates_set(variables)))


def _endpoints(variables: Mapping[str, str]) -> Iterator[Finding]:
    for hub in _HUBS:
        name = environment.endpoint_variable(variables, hub)
        wrong = environment.endpoint_problems(variables, hub)
        yield from _problems(name, wrong)
        if name and not wrong:
            said = shown(environment.endpoint(variables, hub))
            yield warning(name, f"{name}={said}: models come from there", f"unset {name}, unless that is meant")
    if name := environment.offline(variables):
        yield warning(
            name,
            f"{name}={shown(variables[name])} keeps 'prism-ae download' from Hugging Face",
            f"unset {name} to download; for everything else it may stay",
        )


def _tokens(variables: Mapping[str, str]) -> Iterator[Finding]:
    for hub in _HUBS:
        if name := environment.token(variables, hub):
            value = environment.clean_token(variables, hub)
            if value.isascii() and value.isprintable() and value.strip(" \"'") == value and " " not in value:
                yield ok(name, f"{name} is set (what it says is not shown)")
            else:
                yield problem(
                    name,
                    f"{name} holds a space, a quote or another letter that no token has (what it says is not shown)",
                    f"set {name} to the token alone, without quotes or a line end",
                )
    yield from _problems("token", environment.token_file_problems(variables))


def _settings(variables: Mapping[str, str]) -> Iterator[Finding]:
    for hub in _HUBS:
        for sentence in number_problems(variables, hub):
            yield from _problems(sentence.partition("=")[0], [sentence])
    for name, value in unknown_switches(variables).items():
        yield warning(
            name,
            f"{name}={value} is neither on nor off to its client, which takes it for off",
            f"set {name} to 1 or 0, or unset it",
        )


def _problems(name: str, sentences: list[str]) -> Iterator[Finding]:
    """Each sentence says what is wrong and then, behind its last colon, what to do."""
    for sentence in sentences:
        what, _, remedy = sentence.rpartition(": ")
        yield problem(name, shown(what or sentence), remedy if what else "correct it, or unset it")
