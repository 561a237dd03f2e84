"""A real web server on loopback that serves files as told and can be told to misbehave.

`web.files[path]` is what is served, with ETag and ranges; `web.on(path, action)` puts an action before the real
answer: it gets the handler and answers, or returns `PASS`. Every request is in `web.seen`.
"""

from __future__ import annotations

import hashlib
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PASS = object()
Action = Callable[["Handler"], object]


@dataclass
class Served:
    """One file; a None header is not sent."""

    data: bytes
    headers: dict[str, str] = field(default_factory=dict)
    etag: str | None = ""

    def tag(self) -> str | None:
        return f'"{hashlib.sha256(self.data).hexdigest()[:16]}"' if self.etag == "" else self.etag


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: Web

    def do_GET(self) -> None:
        self.web.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        for action in self.web.actions(self.path):
            if action(self) is not PASS:
                return
        served = self.web.files.get(self.path)
        if served is None:
            self.answer(404, b"no such file")
        else:
            self.serve(served)

    def serve(self, served: Served) -> None:
        """Answer as a good server does."""
        tag, headers = served.tag(), dict(served.headers)
        if tag is not None:
            headers["ETag"] = tag
        asked = [part.strip() for part in self.headers.get("If-None-Match", "").split(",")]
        since = self.headers.get("If-Modified-Since")
        if (tag is not None and tag in asked) or (since and since == headers.get("Last-Modified")):
            self.answer(304, b"", headers)
            return
        match = re.fullmatch(r"bytes=([0-9]+)-", self.headers.get("Range", ""))
        if match and self.headers.get("If-Range") in (None, tag, headers.get("Last-Modified")):
            start, size = int(match[1]), len(served.data)
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
            self.answer(206, served.data[start:], headers)
            return
        self.answer(200, served.data, headers)

    def answer(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, *, length: int | None = None
    ) -> None:
        """Send an answer whose Content-Length may lie; then the connection is closed."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        if length is not None and length != len(body):
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if status != 304:
            self.wfile.write(body)

    def log_message(self, *_words: object) -> None:
        pass


@dataclass
class Web:
    """What one server serves and saw."""

    address: str
    scheme: str = "http"
    files: dict[str, Served] = field(default_factory=dict)
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    _rules: list[list[object]] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"{self.scheme}://{self.address}{path}"

    def on(self, path: str, action: Action, times: int = 1) -> None:
        """Let `action` come first for the next requests of `path`."""
        self._rules.append([path, action, times])

    def actions(self, path: str) -> Iterator[Action]:
        for rule in self._rules:
            if rule[0] == path and rule[2] > 0:  # type: ignore[operator]
                rule[2] -= 1  # type: ignore[operator]
                yield rule[1]  # type: ignore[misc]

    def asked(self, path: str) -> list[dict[str, str]]:
        """Return the headers of every request for `path`."""
        return [headers for seen, headers in self.seen if seen == path]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients of these tests hang up on purpose


@contextmanager
def running_web(host: str = "127.0.0.1", tls: Path | None = None) -> Iterator[Web]:
    """Serve for the block; `tls` is the path of certificate and key without their endings."""
    handler = type("Bound", (Handler,), {})
    server = _Server(("127.0.0.1", 0), handler)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.with_suffix(".crt"), tls.with_suffix(".key"))
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    scheme = "http" if tls is None else "https"
    web = handler.web = Web(f"{host}:{server.server_address[1]}", scheme)  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def cut_after(count: int, served: Served) -> Action:
    """Announce a whole file and hang up after `count` bytes."""

    def act(handler: Handler) -> None:
        headers = dict(served.headers)
        if (tag := served.tag()) is not None:
            headers["ETag"] = tag
        handler.answer(200, served.data[:count], headers, length=len(served.data))

    return act
