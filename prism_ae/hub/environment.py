"""What the environment says about ways to the hubs: proxies, certificates, endpoints, offline, tokens. No network.

Two HTTP clients read it: httpx fetches from Hugging Face and the question files, requests from ModelScope. Every
function takes the environment and gives sentences that say what is wrong and what to do; none of them holds a password
or a token.
"""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from prism_ae.hub.wanted import HubName

Client = Literal["httpx", "requests"]
Environ = Mapping[str, str]

CLIENTS: dict[HubName, Client] = {"huggingface": "httpx", "modelscope": "requests"}
ENDPOINTS: dict[HubName, str] = {"huggingface": "HF_ENDPOINT", "modelscope": "MODELSCOPE_ENDPOINT"}
TOKENS: dict[HubName, tuple[str, ...]] = {
    "huggingface": ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
    "modelscope": ("MODELSCOPE_API_TOKEN",),
}
_CERTIFICATES: dict[Client, tuple[str, ...]] = {
    "httpx": ("SSL_CERT_FILE", "SSL_CERT_DIR"),
    "requests": ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
}
CERTIFICATES = (*_CERTIFICATES["httpx"], *_CERTIFICATES["requests"])
_SOCKS: dict[Client, tuple[tuple[str, ...], str, str]] = {
    "httpx": (("socks5", "socks5h"), "socksio", "pip install 'httpx[socks]'"),
    "requests": (("socks4", "socks4a", "socks5", "socks5h"), "socks", "pip install pysocks"),
}

_added: set[str] = set()


def proxies(environ: Environ) -> dict[str, str]:
    """The variables that name a proxy -> their values without user and password; small letters go before capitals."""
    return {variable: _shown(value) for scheme, (variable, value) in _proxies(environ).items() if scheme != "no"}


def proxy_problems(environ: Environ, client: Client | None = None) -> list[str]:
    """Proxy variables that a client cannot use.

    Args:
        client: None asks for both.
    """
    if client is None:
        return list(dict.fromkeys(proxy_problems(environ, "httpx") + proxy_problems(environ, "requests")))
    exceptions, entries = _exceptions(environ)
    if client == "httpx" and "*" in entries:
        return []  # then it takes no proxy, and reads none of them
    found = [
        f"{variable}={_shown(value)} {problem}"
        for scheme, (variable, value) in _proxies(environ).items()
        if scheme != "no" and (problem := _proxy_problem(value, client))
    ]
    if client == "httpx":
        found += [
            f"{exceptions} has the entry '{redacted(entry, environ)}', which httpx cannot read: write plain names and "
            "addresses (an IPv6 address as ::1, no network of them), or take it out"
            for entry in entries
            if _unreadable(entry)
        ]
    return found


def certificate_problems(environ: Environ, client: Client | None = None) -> list[str]:
    """Variables that name certificates which are not there; the files are read.

    Args:
        client: only what this client goes by; None asks for all.
    """
    variables = CERTIFICATES if client is None else _trusted(environ, client)
    return [
        f"{variable}={environ[variable]} {problem}: correct it, or unset it"
        for variable in variables
        if environ.get(variable) and (problem := _certificate_problem(variable, environ[variable]))
    ]


def certificates_set(environ: Environ) -> str:
    """What is set of the variables that name certificates, in words."""
    found = [f"{variable}={environ[variable]}" for variable in CERTIFICATES if environ.get(variable)]
    return f"set: {', '.join(found)}" if found else "none of them is set"


@contextlib.contextmanager
def one_trust() -> Iterator[None]:
    """While it lasts each client trusts what is set for the other, where nothing is set for itself."""
    added: dict[str, str] = {}
    for client in _CERTIFICATES:
        for variable in _trusted(os.environ, client):
            if variable not in _CERTIFICATES[client]:
                value = os.environ[variable]
                is_folder = client == "httpx" and os.path.isdir(value)
                added["SSL_CERT_DIR" if is_folder else _CERTIFICATES[client][0]] = value
    os.environ.update(added)
    _added.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
            _added.discard(name)


def as_set() -> dict[str, str]:
    """The environment as the user set it, without what `one_trust` adds."""
    return {name: value for name, value in os.environ.items() if name not in _added}


def _trusted(environ: Environ, client: Client) -> list[str]:
    """The variable that a client goes by: the first that is set, its own before the other client's."""
    own = _CERTIFICATES[client]
    return [variable for variable in (*own, *(one for one in CERTIFICATES if one not in own)) if environ.get(variable)][
        :1
    ]


def endpoint(environ: Environ, hub: HubName) -> str:
    """What a hub's endpoint variable is set to, without user and password; "" where it is not."""
    return _shown(environ.get(ENDPOINTS[hub], ""))


def endpoint_problems(environ: Environ, hub: HubName) -> list[str]:
    """An endpoint variable that no request can be sent to."""
    variable = ENDPOINTS[hub]
    value = environ.get(variable)
    if value is None or (hub == "modelscope" and not value.strip()):
        return []
    if hub == "modelscope" and "://" not in value:
        value = f"https://{value.strip()}"  # as its client does
    problem = "is empty" if not value.strip() else _address_problem(value, ("http", "https"))
    said = f"{variable}={_shown(value)}" if value.strip() else variable
    return [f"{said} {problem}: write it as https://host, or unset it"] if problem else []


def offline(environ: Environ) -> str:
    """The variable that keeps the Hugging Face client from the network, "" where none does."""
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if value := environ.get(variable):
            return variable if value.upper() in ("1", "ON", "YES", "TRUE") else ""
    return ""


def token(environ: Environ, hub: HubName) -> str:
    """Which variable's token is sent to a hub, "" where no variable holds one (a login may be stored)."""
    return next((variable for variable in TOKENS[hub] if environ.get(variable)), "")


def redacted(text: str, environ: Environ) -> str:
    """A text without the tokens, users and passwords of the environment and of any address in it."""
    secrets = {environ.get(variable, "") for variables in TOKENS.values() for variable in variables}
    addresses = [value for _, value in _proxies(environ).values()]
    for value in (*addresses, *(environ.get(variable, "") for variable in ENDPOINTS.values())):
        user = _split(value)[1]
        password = user.partition(":")[2]
        secrets |= {user, password, unquote(user), unquote(password)}
    secrets |= {repr(secret)[1:-1] for secret in secrets}  # as errors quote them
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) > 2:
            text = text.replace(secret, "…")
    return re.sub(r"(?<=//)[^/\s'\"]*@", "…@", text)


def _proxies(environ: Environ) -> dict[str, tuple[str, str]]:
    """Scheme that is proxied (or "no") -> variable and value, by the rule of urllib that both clients take."""
    found: dict[str, tuple[str, str]] = {}
    for variable, value in sorted(environ.items(), key=lambda item: item[0].endswith("_proxy")):
        scheme, small = variable[:-6].lower(), variable.endswith("_proxy")
        if variable[-6:].lower() != "_proxy" or scheme not in ("http", "https", "all", "no"):
            continue
        if scheme == "http" and not small and "REQUEST_METHOD" in environ:
            continue  # what a CGI script finds there is a header of its request
        if value:
            found[scheme] = (variable, value)
        elif small:
            found.pop(scheme, None)
    return found


def _proxy_problem(value: str, client: Client) -> str:
    scheme, user, place = _split(value)
    if not scheme and ("/" in place.rstrip("/") or (user and client == "requests")):
        return "does not begin with a scheme: write it as http://host:port, or unset it"
    address = value if scheme else f"http://{value}"
    scheme = address.partition("://")[0].lower()
    known, module, install = _SOCKS[client]
    if scheme not in ("http", "https", *known):
        return f"has the scheme '{scheme}', which {client} does not know: write http:// or socks5://, or unset it"
    if problem := _address_problem(address, ("http", "https", *known)):
        return f"{problem}: write it as http://host:port, or unset it"
    if scheme in known and importlib.util.find_spec(module) is None:
        return f"needs a package of {client} for SOCKS: {install}, or unset it"
    return ""


def _address_problem(address: str, schemes: tuple[str, ...]) -> str:
    """Why nothing can be reached under an address, or ""."""
    try:
        split = urlsplit(address.strip())
        host, port = split.hostname, split.port
    except ValueError:
        return "is no address (its port or its brackets)"
    if split.scheme.lower() not in schemes:
        return f"does not start with {' or '.join(f'{scheme}://' for scheme in schemes[:2])}"
    if not host or re.search(r"[\s<>\"'\\^`{|}]", host):
        return "names no host"
    return "is no address (its port)" if port == 0 else ""


def _split(value: str) -> tuple[str, str, str]:
    """Scheme with "://", user and password, and place of an address that may lack the first two."""
    found = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", value.strip())
    scheme = found[0] if found else ""
    user, _, place = value.strip().removeprefix(scheme).rpartition("@")
    return scheme, user, place


def _shown(value: str) -> str:
    """An address without user and password; a port that is no number could be a password, too."""
    scheme, user, place = _split(value)
    found = re.match(r"(\[[^\]/?#]*\]?|[^:/?#]*)(:\d*(?=$|[/?#]))?", place)
    shown = found[0] if found else ""
    return scheme + ("…@" if user else "") + shown + ("" if shown == place.rstrip("/") else "…")


def _exceptions(environ: Environ) -> tuple[str, list[str]]:
    """The variable that names what is reached without a proxy, and its entries."""
    variable, value = _proxies(environ).get("no", ("", ""))
    return variable, [entry for entry in map(str.strip, value.split(",")) if entry]


def _unreadable(entry: str) -> bool:
    """Whether an entry of NO_PROXY keeps an httpx client from being built."""
    import httpx

    try:
        httpx.URL(_pattern(entry))
    except httpx.InvalidURL:
        return True
    return False


def _pattern(entry: str) -> str:
    """The pattern of addresses that httpx makes of an entry of NO_PROXY."""
    if "://" in entry:
        return entry
    try:
        version = ipaddress.ip_address(entry.split("/")[0]).version
    except ValueError:
        return f"all://{'' if entry.lower() == 'localhost' else '*'}{entry}"
    return f"all://[{entry}]" if version == 6 else f"all://{entry}"


def _certificate_problem(variable: str, value: str) -> str:
    path = Path(value)
    try:
        if path.is_dir():
            return "is a folder, not a file of certificates" if variable == "SSL_CERT_FILE" else ""
        if variable == "SSL_CERT_DIR":
            return "is no folder"
        if not path.exists():
            return "does not exist"
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError:
        return "holds no certificate (PEM)"
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return ""
