"""Why something could not be fetched: an exception of a client library, or of what lies below it, in one message."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Literal

from prism_ae.errors import CheckpointError, MissingError, PrismError, StoreError, UsageError
from prism_ae.hub import environment
from prism_ae.hub.environment import Environ
from prism_ae.hub.selection import HubName

Source = HubName | Literal["questions"]

HUBS: dict[HubName, str] = {"huggingface": "Hugging Face", "modelscope": "ModelScope"}
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
_DISTRUST = re.compile(r"certificate.verify.failed|invalid peer certificate", re.IGNORECASE)
_CLIENTS = ("huggingface_hub", "modelscope_hub", "httpx", "httpcore", "requests", "urllib3")
_ADDRESS = (
    "InvalidURL",
    "UnsupportedProtocol",
    "InvalidSchema",
    "MissingSchema",
    "LocationParseError",
    "TooManyRedirects",
)
UNUSABLE = "until then nothing can be fetched"
_SHAPE = (AttributeError, KeyError, TypeError, ValueError, IndexError)
"""What the libraries raise about an answer that is not what they expect."""


class UnreachableError(MissingError):
    """The hub or the way to it failed: trying again may help."""


class UnresolvedError(UnreachableError):
    """A name has no address. That may pass, but mostly there is no network, or the name is wrong."""


@contextlib.contextmanager
def told(source: Source, subject: str, file: str = "") -> Iterator[None]:
    """Whatever a client library raises in here becomes a PrismError.

    Args:
        subject: the repository, or the address of a question file.
        file: its path in the repository, "" where no single file is asked for.

    Raises:
        UsageError: a variable of the environment keeps the client from working: a proxy, a certificate, an endpoint.
        UnreachableError: a connection, a server or an answer failed.
        MissingError: the repository or file does not exist or is not open to this user, or its server is not trusted.
        CheckpointError: what is sent is not what is listed, or makes no sense.
        StoreError: the disk is full, read-only or not ours.
    """
    try:
        yield
    except (PrismError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic below hf_xet is no Exception
        what = subject if source == "questions" else f"{subject} on {HUBS[source]}"
        raise explained(source, what, file, error, environment.as_set()) from error


def explained(source: Source, subject: str, file: str, error: BaseException, environ: Environ) -> PrismError:
    """The message for an exception; pure but for the certificates' files.

    Args:
        subject: "repository on hub", or an address.
        file: see `told`.
        environ: what the client read.
    """
    subject = environment.redacted(subject, environ)
    what = f"{file} of {subject}" if file else subject
    causes = _causes(error)
    text = "\n".join(map(str, causes))
    line = _line(error, environ)
    status = next(filter(None, map(_status, causes)), 0)
    client = "httpx" if source == "questions" else environment.CLIENTS[source]
    if not status and (problems := environment.certificate_problems(environ, client)):
        return UsageError("; ".join(problems), UNUSABLE)
    if any(isinstance(one, ssl.SSLCertVerificationError) for one in causes) or _DISTRUST.search(text):
        return _distrusted(what, text, environ)
    connecting = _named(causes, "ConnectError", "NewConnectionError", "ProxyError")
    if not connecting and not status and (code := next(filter(None, map(_disk, causes)), 0)):
        return StoreError(
            f"{what} cannot be written: {os.strerror(code)}", "make room or choose another --models-dir; run again"
        )
    if _named(causes, "FileIntegrityError", "FileSizeMismatchError"):
        return CheckpointError(f"{what} is not what is listed: {line}", "try again later, or the other hub")
    if _named(causes, "OfflineModeIsEnabled"):
        variable = environment.offline(environ) or "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE"
        return MissingError(
            f"{what} is not fetched: {variable} is set", f"unset {variable}, or fetch from the other hub with --from"
        )
    if problem := _setting(source, causes, client, status, line, environ=environ):
        return problem
    if status:
        return _refused(source, subject, what, status, line, environ=environ)
    if isinstance(error, ImportError):
        return MissingError(f"{what} cannot be fetched: {line}", "'make setup' repairs a broken environment")
    if _named(causes, *_ADDRESS):
        return MissingError(f"{what} cannot be fetched: {line}", f"correct the address{_ways_set(source, environ)}")
    foreign = type(error).__module__.partition(".")[0] not in _CLIENTS
    if _named(causes, "JSONDecodeError") or (foreign and isinstance(error, _SHAPE)):
        return CheckpointError(
            f"what is answered for {what} is no list of files or no file: {line}",
            "something on the way may answer in the hub's place (a portal, a proxy); or take the other hub (--from)",
        )
    if type(error).__module__.partition(".")[0] == "hf_xet" or (foreign and not isinstance(error, OSError)):
        again = isinstance(error, Exception) and not re.search(r"client error \(4(?!08|29)\d\d", text)
        return _transfer_broke(source, what, line, again=again)
    kind = UnresolvedError if any(isinstance(one, socket.gaierror) for one in causes) else UnreachableError
    return kind(
        f"{what} cannot be fetched: {line}",
        f"check the network{_ways_set(source, environ)} and run the same command again: it continues",
    )


def _causes(error: BaseException) -> list[BaseException]:
    """An exception and all that led to it, also where a library keeps it among the arguments."""
    found = [error]
    for one in found:
        inner = (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
        found += [cause for cause in inner if isinstance(cause, BaseException) and cause not in found]
        if len(found) > 30:
            break
    return found


def _status(error: BaseException) -> int:
    status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "status_code", None)
    return status if isinstance(status, int) else 0


def _disk(error: BaseException) -> int:
    """The disk's error number, also where only the text of one below Rust tells it; 0 where the disk did not fail."""
    if isinstance(error, OSError):
        return error.errno if error.errno in _DISK else 0
    if found := re.search(r"\(os error (\d+)\)", str(error)):
        return int(found[1]) if int(found[1]) in _DISK else 0
    return next((code for code in _DISK[:4] if os.strerror(code).lower() in str(error).lower()), 0)


def _line(error: BaseException, environ: Environ) -> str:
    """What went wrong: the system's own words, wherever in a long text they stand, or the text's first line."""
    if found := re.search(r"\[Errno -?\d+\] ([\w ,.-]+)", str(error)):
        return found[1].strip()
    lines = environment.redacted(str(error), environ).strip().splitlines()
    return lines[0].partition(" (Caused by")[0][:200] if lines else type(error).__name__


def _distrusted(what: str, text: str, environ: Environ) -> PrismError:
    found = re.search(r"verify failed: ([^(\]\n]+)|invalid peer certificate: (\w+)", text)
    why = f" ({(found[1] or found[2]).strip()})" if found else ""
    return MissingError(
        f"{what} cannot be fetched: the certificate on the way to it is not trusted{why}",
        "a proxy or mirror has a certificate authority of its own: name that authority's file in SSL_CERT_FILE (for "
        "Hugging Face and the questions) or REQUESTS_CA_BUNDLE (for ModelScope); one that is set stands for both, "
        f"{environment.certificates_set(environ)}",
    )


def _refused(source: Source, subject: str, what: str, status: int, line: str, *, environ: Environ) -> PrismError:
    if status in (401, 403) and source != "questions":
        sent, hint = _token_hint(source, environ)
        closed = f"is not open to {sent}" if sent and status == 401 else "does not exist, or is not open to you"
        return MissingError(f"{subject} {closed} (HTTP {status})", hint)
    if status in (404, 410) and source != "questions":
        return MissingError(f"{what} does not exist", "take the other hub with --from, or leave it out with --only")
    if 400 <= status < 500 and status not in (408, 416, 429):
        if source == "questions":
            return MissingError(f"{what} does not exist (HTTP {status})", "correct hub.questions of the suite")
        return MissingError(
            f"{what} cannot be fetched: {line}{_ways_set(source, environ)}", "take the other hub with --from"
        )
    return UnreachableError(
        f"{what} cannot be fetched: {line}",
        f"check the network{_ways_set(source, environ)} and run the same command again: it continues",
    )


def _token_hint(hub: HubName, environ: Environ) -> tuple[str, str]:
    """Which token was sent, "" where none was, and what to do."""
    variable = environment.TOKENS[hub][0]
    ask = f"ask for access on its page, then set {variable} to your token and run again"
    if used := environment.token(environ, hub):
        return f"the token of {used}", f"{used} is set and was sent: see that it is valid and has access; or {ask}"
    if _stored(hub):
        return (
            "the stored token",
            f"the token of a stored login was sent: see that it is valid, or log in again; or {ask}",
        )
    return "", ask


def _stored(hub: HubName) -> bool:
    """Whether the hub's own client finds a token that a login left."""
    with contextlib.suppress(Exception):
        if hub == "huggingface":
            from huggingface_hub import get_token

            return bool(get_token())
        from modelscope_hub.config import HubConfig

        return bool(HubConfig().token)
    return False


def _setting(
    source: Source, causes: list[BaseException], client: environment.Client, status: int, line: str, *, environ: Environ
) -> UsageError | None:
    """The error for a proxy variable or a token that keeps the client from working, None where it is none of them."""
    text = "\n".join(map(str, causes))
    if status == 407 or re.search(r"\b407\b.*proxy auth|proxy.*\b407\b", text, re.IGNORECASE):
        return UsageError(
            f"the proxy wants a user and a password (HTTP 407){_proxies_set(environ)}",
            "write them into the variable as http://user:password@host:port",
        )
    if status:
        return None
    if problems := environment.proxy_problems(environ, client):
        return UsageError("; ".join(problems), UNUSABLE)
    by_tls = [f"{name}={value}" for name, value in environment.proxies(environ).items() if "https://" in value.lower()]
    if by_tls and any(isinstance(one, ssl.SSLError) for one in causes):
        return UsageError(f"{', '.join(by_tls)} does not answer by TLS: write it as http://host:port", UNUSABLE)
    if _named(causes, "InvalidProxyURL", "ProxySchemeUnknown") or (
        isinstance(causes[0], ImportError | ValueError) and re.search("proxy|socks", str(causes[0]), re.IGNORECASE)
    ):
        return UsageError(f"{line}{_proxies_set(environ)}", UNUSABLE)
    if source != "questions" and _named(causes, "UnicodeEncodeError", "InvalidHeader", "LocalProtocolError"):
        sent, _ = _token_hint(source, environ)
        return UsageError(f"{sent} holds a letter that no token has", "correct or remove it") if sent else None
    return None


def _named(causes: list[BaseException], *names: str) -> bool:
    """Whether a class of that name is among them, without importing its library."""
    return any(type(one).__name__ in names for one in causes)


def _transfer_broke(source: Source, what: str, line: str, *, again: bool) -> PrismError:
    """For what comes from below a client, as hf_xet's errors do, which have no class of their own."""
    hint = "run the same command again: it continues"
    if source == "huggingface":
        hint += "; if it fails again, set HF_HUB_DISABLE_XET=1 (plain HTTP, without hf_xet), or take --from modelscope"
    return (UnreachableError if again else MissingError)(f"{what} cannot be fetched: {line}", hint)


def _proxies_set(environ: Environ) -> str:
    found = environment.proxies(environ)
    return f"; set: {', '.join(f'{name}={value}' for name, value in found.items())}" if found else ""


def _ways_set(source: Source, environ: Environ) -> str:
    """What of the environment leads elsewhere than to the hub itself, to stand in a sentence."""
    found = environment.proxies(environ)
    if source != "questions" and (endpoint := environment.endpoint(environ, source)):
        found[environment.endpoint_variable(environ, source)] = endpoint
    return f" ({', '.join(f'{name}={value}' for name, value in found.items())})" if found else ""
