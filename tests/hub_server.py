"""Both hubs and the artifact's question files on one loopback server, honest or not, spoken to by the real clients."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hubs:
    """What the server holds and how it misbehaves.

    Attributes:
        repositories: name -> path -> content.
        questions: path -> content.
        faults: path of a file -> what happens to the next requests for its content: "break" (half of what was asked
            for, then the connection closes), "corrupt" (a flipped byte), "long" (more than announced in the listing),
            or an HTTP status.
        gated: repositories whose files need the token "good".
        sizes: path -> a size that the listings say instead of the true one.
        listed: names that listings have besides the true ones.
        down: every request is answered by 503.
        portal: every listing is answered by this text instead, or None.
        slow: an event that answers wait for after half a file, or None.
        silent: an event that every listing and question file waits for, or None.
        xet: files that Hugging Face says lie in a store of chunks; the server has none, and answers 404.
        status: what every request is answered by, or 0.
        asked: (path, start) of every request for content.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.questions: dict[str, bytes] = {}
        self.faults: dict[str, list[str | int]] = {}
        self.gated: set[str] = set()
        self.sizes: dict[str, int] = {}
        self.listed: list[str] = []
        self.down = False
        self.portal: str | None = None
        self.slow: threading.Event | None = None
        self.silent: threading.Event | None = None
        self.xet: set[str] = set()
        self.status = 0
        self.asked: list[tuple[str, int]] = []
        self.requests: Counter[str] = Counter()
        self.address = ""

    def fetched(self) -> set[str]:
        return {path for path, _ in self.asked}


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _blob(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


def _large(path: str) -> bool:
    """What Hugging Face keeps outside git, with a sha256."""
    return path.endswith((".safetensors", ".bin"))


class _Handler(BaseHTTPRequestHandler):
    hubs: Hubs
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._route()

    def _route(self) -> None:
        split = urlsplit(self.path)
        path, query = unquote(split.path), {key: values[0] for key, values in parse_qs(split.query).items()}
        self.hubs.requests[path] += 1
        if self.hubs.silent is not None and path.startswith(("/api/v1/", "/api/models/", "/questions/")):
            self.hubs.silent.wait()
        if self.hubs.status:
            self._json(self.hubs.status, {"error": "so it is"})
        elif self.hubs.down:
            self._json(503, {"error": "down"})
        elif self.hubs.portal is not None and path.startswith("/api/"):
            self._answer(200, self.hubs.portal.encode(), {"Content-Type": "text/html"})
        elif path == "/api/xet/token":
            expires = str(int(time.time()) + 3600)
            self._json(
                200,
                {},
                {
                    "X-Xet-Cas-Url": self.hubs.address,
                    "X-Xet-Access-Token": "token",
                    "X-Xet-Token-Expiration": expires,
                },
            )
        elif path.startswith("/questions/"):
            self._content(path.removeprefix("/questions/"), self.hubs.questions)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/.*)?", path):
            self._huggingface_listing(found[1])
        elif found := re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/repo/files", path):
            self._modelscope_listing(found[1])
        elif found := re.fullmatch(r"/api/v1/models/([^/]+/[^/]+)/repo", path):
            if self._open(found[1]):
                self._content(query["FilePath"], self.hubs.repositories[found[1]])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if self._open(found[1]):
                self._content(found[3], self.hubs.repositories[found[1]])
        else:
            self._json(404, {"error": f"no {path}"})

    def _open(self, repository: str) -> bool:
        sent = self.headers.get("Authorization")
        if sent == "Bearer expired":
            self._json(401, {"error": "Invalid credentials in Authorization header"})
            return False
        if repository in self.hubs.gated and sent != "Bearer good":
            self._json(403, {"error": "restricted"}, {"X-Error-Code": "GatedRepo"})
            return False
        return True

    def _files(self, repository: str) -> Iterator[tuple[str, int, bytes]]:
        for path, data in self.hubs.repositories[repository].items():
            yield path, self.hubs.sizes.get(path, len(data)), data
        for path in self.hubs.listed:
            yield path, 3, b"abc"

    def _huggingface_listing(self, repository: str) -> None:
        if repository not in self.hubs.repositories:
            self._json(404, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"})
            return
        siblings = []
        for path, size, data in self._files(repository):
            entry: dict[str, Any] = {"rfilename": path, "size": size, "blobId": _blob(data)}
            if _large(path):
                entry["lfs"] = {"size": size, "sha256": _sha(data), "pointerSize": 130}
            siblings.append(entry)
        self._json(200, {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings})

    def _modelscope_listing(self, repository: str) -> None:
        if repository not in self.hubs.repositories:
            self._json(404, {"Code": 404, "Message": "not found", "Success": False})
            return
        files = [
            {"Path": path, "Name": path.rpartition("/")[2], "Size": size, "Sha256": _sha(data), "Type": "blob"}
            for path, size, data in self._files(repository)
        ]
        self._json(200, {"Code": 200, "Success": True, "Data": {"Files": files}})

    def _content(self, path: str, files: dict[str, bytes]) -> None:
        if path not in files:
            self._json(404, {"error": "not found"}, {"X-Error-Code": "EntryNotFound"})
            return
        data = files[path]
        whole = len(data)
        fault: str | int | None = None
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(found[1]) if found else 0
        if self.command == "GET":
            self.hubs.asked.append((path, start))
            queue = self.hubs.faults.get(path, [])
            fault = queue.pop(0) if queue else None
        if isinstance(fault, int):
            self._json(fault, {"error": "fault"})
            return
        if fault == "corrupt":
            data = data[:-1] + bytes([data[-1] ^ 1])
        if fault == "long":
            data += bytes(1000)
            whole = len(data)
        body = data[start:]
        self.send_response(206 if found else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{_sha(files[path]) if _large(path) else _blob(files[path])}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if path in self.hubs.xet:
            self.send_header("X-Xet-Hash", "ab" * 32)
            self.send_header("X-Xet-Refresh-Route", f"{self.hubs.address}/api/xet/token")
        if found:
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        self.end_headers()
        if self.command == "HEAD":
            return
        half = len(body) // 2
        self.wfile.write(body[:half])
        self.wfile.flush()
        if fault == "break":
            self.close_connection = True
            self.connection.close()
            return
        if self.hubs.slow is not None and whole > 1000:
            self.hubs.slow.wait()
        self.wfile.write(body[half:])

    def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self._answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextlib.contextmanager
def serve(hubs: Hubs, certificate: Path | None = None) -> Iterator[Hubs]:
    """The hubs on loopback, at ``hubs.address``; with a certificate and its key (one PEM file) by https."""
    handler = type("Handler", (_Handler,), {"hubs": hubs})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        hubs.address = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}"
        try:
            yield hubs
        finally:
            for held in filter(None, (hubs.slow, hubs.silent)):
                held.set()
            server.shutdown()
            thread.join()
