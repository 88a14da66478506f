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

from prism_ae.hub.selection import HubName
from prism_ae.hub.settings import escaped, number_problems, switched_on

Client = Literal["httpx", "requests"]
Environ = Mapping[str, str]

CLIENTS: dict[HubName, Client] = {"huggingface": "httpx", "modelscope": "requests"}
ENDPOINTS: dict[HubName, tuple[str, ...]] = {
    "huggingface": ("HF_ENDPOINT",),
    "modelscope": ("MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"),
}
"""The first that is set counts."""
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
    if "*" in entries if client == "httpx" else entries == ["*"]:
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
    elif odd := _odd_letters(_proxies(environ).get("no", ("", ""))[1]):
        found.append(f"{exceptions} holds {odd}, with which requests knows no host: take it out")
    return found


def certificate_problems(environ: Environ, client: Client | None = None) -> list[str]:
    """Variables that name certificates which are not there; the files are read.

    Args:
        client: only what this client goes by; None asks for all.
    """
    variables = CERTIFICATES if client is None else _trusted(environ, client)
    return [
        f"{variable}={escaped(environ[variable], 4096)} {problem}: correct it, or unset it"
        for variable in variables
        if environ.get(variable) and (problem := _certificate_problem(variable, environ[variable]))
    ]


def certificates_set(environ: Environ) -> str:
    """What is set of the variables that name certificates, in words."""
    found = [f"{variable}={escaped(environ[variable], 4096)}" for variable in CERTIFICATES if environ.get(variable)]
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


def problems(environ: Environ, client: Client, hub: HubName | None) -> list[str]:
    """What keeps a client from working, or makes it send to elsewhere than is meant; looked at before it is built.

    Args:
        hub: None where the client is used for files that are on no hub.
    """
    found = proxy_problems(environ, client)
    if hub is not None:
        found += [*number_problems(environ, hub), *endpoint_problems(environ, hub)]
    if hub == "huggingface":
        found += token_file_problems(environ)
    return found


def endpoint_variable(environ: Environ, hub: HubName) -> str:
    """The variable that says where a hub is, "" where none is set."""
    if hub == "huggingface":
        return next((name for name in ENDPOINTS[hub] if name in environ), "")
    # Its client strips them, and what is empty then counts as not set; but a blank endpoint hides the domain.
    own, domain = ENDPOINTS[hub]
    if environ.get(own):
        return own if environ[own].strip() else ""
    return domain if environ.get(domain, "").strip() else ""


def endpoint(environ: Environ, hub: HubName) -> str:
    """What a hub's endpoint is set to, in a form that can be shown; "" where it is not set."""
    return _shown(environ.get(endpoint_variable(environ, hub), ""))


def endpoint_problems(environ: Environ, hub: HubName) -> list[str]:
    """An endpoint variable that no request can be sent to."""
    if not (variable := endpoint_variable(environ, hub)):
        return []
    value = environ[variable]
    if hub == "modelscope":  # as its client does
        value = value.strip()
        value = value if "://" in value else f"https://{value}"
    problem = _address_problem(value, ("http", "https"), endpoint=True) if value.strip() else "is empty"
    said = f"{variable}={_shown(value)}" if value.strip() else variable
    return [f"{said} {problem}: write it as https://host, or unset it"] if problem else []


def token_file_problems(environ: Environ) -> list[str]:
    """A file of Hugging Face's token that is there and cannot be read, where no variable holds the token."""
    if clean_token(environ, "huggingface") or switched_on(environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "")):
        return []
    variable = next((name for name in ("HF_TOKEN_PATH", "HF_HOME", "XDG_CACHE_HOME") if name in environ), "")
    folders = {"": "~/.cache/huggingface/token", "HF_HOME": "token", "XDG_CACHE_HOME": "huggingface/token"}
    path = os.path.join(environ.get(variable, ""), folders[variable]) if variable in folders else environ[variable]
    path = os.path.expandvars(os.path.expanduser(path))
    try:
        Path(path).read_text()
        return []
    except FileNotFoundError:
        return []
    except UnicodeDecodeError:
        why = "is no text"
    except (OSError, ValueError) as error:
        why = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    said = f"{variable}={escaped(environ[variable], 4096)}: " if variable else ""
    remedy = f"correct or unset {variable}" if variable else "make it readable, or remove it"
    return [f"{said}the file of Hugging Face's token, {escaped(path, 4096)}, {why}: {remedy}"]


def offline(environ: Environ) -> str:
    """The variable that keeps the Hugging Face client from the network, "" where none does."""
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if value := environ.get(variable):
            return variable if switched_on(value) else ""
    return ""


def token(environ: Environ, hub: HubName) -> str:
    """Which variable's token is sent to a hub, "" where no variable holds one (a login may be stored)."""
    return next((variable for variable in TOKENS[hub] if environ.get(variable)), "")


def clean_token(environ: Environ, hub: HubName) -> str:
    """The token that a variable holds, as the hub's client sends it; "" where there is none."""
    value = environ.get(token(environ, hub), "")
    return value.replace("\r", "").replace("\n", "").strip() if hub == "huggingface" else value


def redacted(text: str, environ: Environ) -> str:
    """A text without the tokens, users and passwords of the environment and of any address in it."""
    secrets = {environ.get(variable, "") for variables in TOKENS.values() for variable in variables}
    addresses = [value for _, value in _proxies(environ).values()]
    endpoints = [environ.get(variable, "") for variables in ENDPOINTS.values() for variable in variables]
    for value in (*addresses, *endpoints):
        user = _split(value)[1]
        password = user.partition(":")[2]
        secrets |= {user, password, unquote(user), unquote(password)}
    secrets |= {repr(secret)[1:-1] for secret in secrets}  # as errors quote them
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) > 2:
            text = text.replace(secret, "…")
    text = re.sub(r"(?<=//)[^/\s'\"]*@", "…@", text)
    return re.sub(r"(//[^\s'\"?#]*[?#])[^\s'\"]+", r"\1…", text)


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
    if odd := _odd_letters(value):
        return f"holds {odd}, which no address has: take it out, or unset it"
    if problem := _unescaped(user):
        return f"{problem}: percent-encode it, or unset it"
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


def _address_problem(address: str, schemes: tuple[str, ...], *, endpoint: bool = False) -> str:
    """Why nothing can be reached under an address, or "".

    Args:
        endpoint: whether paths are put behind it.
    """
    if odd := _odd_letters(address):
        return f"holds {odd}, which no address has"
    if problem := _unescaped(_split(address)[1]):
        return problem
    try:
        split = urlsplit(address)
        host, port = split.hostname, split.port
    except ValueError:
        return "is no address (its port or its brackets)"
    if split.scheme.lower() not in schemes:
        return f"does not start with {' or '.join(f'{scheme}://' for scheme in schemes[:2])}"
    if not host or re.search(r"[\s<>\"'\\^`{|}]", host):
        return "names no host"
    if endpoint and re.search(r"[?#]", address):
        return "has a query or a fragment (behind '?' or '#'), and paths are put behind it"
    return "is no address (its port)" if port == 0 else ""


def _odd_letters(value: str) -> str:
    """The first letter of an address that is not printable, or a blank at one of its ends, shown; "" without one.

    They come from files with the line ends of another system, and from copied texts. Nobody sees them.
    """
    found = next((letter for letter in value if not letter.isprintable()), "")
    if not found and value != value.strip():
        found = value[0] if value[0].isspace() else value[-1]
    where = " at its end" if found and value.endswith(found) else ""
    return f"'{escaped(found)}'{where}" if found else ""


def _unescaped(user: str) -> str:
    """That user and password hold what ends the name of a host, so that a client would go to another one; or ""."""
    if re.search("[#?/]", user):
        return "has a '#', '?' or '/' in its user or password that is not percent-encoded (%23, %3F, %2F)"
    return ""


def _split(value: str) -> tuple[str, str, str]:
    """Scheme with "://", user and password, and place of an address that may lack the first two."""
    found = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", value.strip())
    scheme = found[0] if found else ""
    user, _, place = value.strip().removeprefix(scheme).rpartition("@")
    return scheme, user, place


def _shown(value: str) -> str:
    """An address as it may be shown, in one line: scheme, host and port, the rest is cut.

    A port that is no number could be a password, too.
    """
    scheme, user, place = _split(value)
    found = re.match(r"(\[[^\]/?#]*\]?|[^:/?#]*)(:\d*(?=$|[/?#]))?", place)
    shown = found[0] if found else ""
    return escaped(scheme + ("…@" if user else "") + shown) + ("" if shown == place.rstrip("/") else "…")


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
