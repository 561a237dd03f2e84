"""A small real registry in memory, on loopback, that can be told to misbehave.

It keeps manifests, blobs and uploads as the distribution-spec says, with optional basic or bearer authorization.
`on(method, pattern, action)` puts an action before the real answer: it gets the handler and either answers (and
returns None) or returns `PASS`. Every request is recorded in `requests`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, parse_qsl, urlsplit

PASS = object()
Action = Callable[["Handler"], object]


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")


@dataclass
class Rule:
    method: str
    pattern: re.Pattern[str]
    action: Action
    times: int


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64
    fake: FakeRegistry

    def get_request(self):
        sock, address = super().get_request()
        self.fake.sockets.append(sock)
        return sock, address

    def finish_request(self, request, client_address):
        context = self.fake.tls
        if context is not None:
            request.settimeout(5)
            request = context.wrap_socket(request, server_side=True)
            request.settimeout(None)
            self.fake.sockets.append(request)
        try:
            super().finish_request(request, client_address)
        finally:
            if context is not None:
                request.close()

    def handle_error(self, request, client_address):
        pass  # clients of these tests hang up on purpose


@dataclass
class FakeRegistry:
    """Use as a context manager; `host` is `127.0.0.1:port`."""

    auth: str = ""
    user: str = "ann"
    password: str = "canary-password"
    identity: str = ""
    realm: str = ""
    expires_in: int = 300
    tls: ssl.SSLContext | None = None
    name: str = "127.0.0.1"
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    requests: list[Seen] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    scopes_asked: list[tuple[str, ...]] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    sockets: list[socket.socket] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __enter__(self) -> FakeRegistry:
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.fake = self
        self.port = self.server.server_address[1]
        self.host = f"{self.name}:{self.port}"
        self.scheme = "https" if self.tls else "http"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        for sock in self.sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.server.server_close()
        for sock in self.sockets:
            sock.close()

    def on(self, method: str, pattern: str, action: Action, times: int = 1_000_000) -> None:
        self.rules.append(Rule(method, re.compile(pattern), action, times))

    def put_blob(self, data: bytes, repository: str = "app") -> str:
        self.blobs[repository, digest_of(data)] = data
        return digest_of(data)

    def put_manifest(
        self,
        raw: bytes,
        tag: str = "1",
        repository: str = "app",
        media_type: str = "application/vnd.oci.image.manifest.v1+json",
    ) -> str:
        self.manifests[repository, tag] = self.manifests[repository, digest_of(raw)] = (media_type, raw)
        return digest_of(raw)

    def seen(self, method: str, pattern: str = "") -> list[Seen]:
        return [s for s in self.requests if s.method == method and re.search(pattern, s.path)]

    def take_rule(self, method: str, path: str) -> Action | None:
        with self.lock:
            for rule in self.rules:
                if rule.times > 0 and rule.method in (method, "*") and rule.pattern.search(path):
                    rule.times -= 1
                    return rule.action
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    @property
    def fake(self) -> FakeRegistry:
        return self.server.fake

    def handle(self) -> None:
        if self.fake.tls is None and self.connection.recv(1, socket.MSG_PEEK) == b"\x16":
            return  # a TLS client at a plain port
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str):
        if name.startswith("do_"):
            return self.dispatch
        raise AttributeError(name)

    def dispatch(self) -> None:
        self.seen = Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
        with self.fake.lock:
            self.fake.requests.append(self.seen)
        action = self.fake.take_rule(self.command, self.path)
        if action is not None and action(self) is not PASS:
            return None
        if urlsplit(self.path).path == "/token":
            return self.token()
        if not self.authorized():
            return None
        self.route()
        return None

    def body(self) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        self.seen.body = self.rfile.read(length)
        return self.seen.body

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Answer; underscores in header names become dashes."""
        self.send_response(status)
        names = {k.replace("_", "-").lower() for k in headers}
        if "content-length" not in names and status != 204:
            self.send_header("Content-Length", str(len(body)))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def raw(self, data: bytes) -> None:
        """Answer with exactly these bytes and hang up."""
        self.wfile.write(data)
        self.hang_up()

    def hang_up(self) -> None:
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def error(self, status: int, code: str, message: str = "", **headers: str) -> None:
        self.reply(status, json.dumps({"errors": [{"code": code, "message": message}]}).encode(), **headers)

    def authorized(self) -> bool:
        fake, given = self.fake, self.seen.authorization
        if fake.auth == "basic":
            pair = base64.b64encode(f"{fake.user}:{fake.password}".encode()).decode()
            if given != f"Basic {pair}":
                self.body()
                self.error(401, "UNAUTHORIZED", "authentication required", WWW_Authenticate='Basic realm="fake"')
                return False
        if fake.auth == "bearer" and given.removeprefix("Bearer ") not in fake.tokens:
            self.body()
            realm = fake.realm or f"{fake.scheme}://{fake.host}/token"
            challenge = f'Bearer realm="{realm}",service="fake"'
            self.error(401, "UNAUTHORIZED", "authentication required", WWW_Authenticate=challenge)
            return False
        return True

    def token(self) -> None:
        fake = self.fake
        if self.command == "POST":
            query = parse_qs(self.body().decode())
            good = query.get("refresh_token") == [fake.identity]
        else:
            query = parse_qs(urlsplit(self.path).query)
            pair = base64.b64encode(f"{fake.user}:{fake.password}".encode()).decode()
            good = self.seen.authorization in ("", f"Basic {pair}")
        if not good:
            return self.reply(401, b'{"details": "incorrect username or password"}')
        with fake.lock:
            fake.scopes_asked.append(tuple(query.get("scope", [])))
            text = f"token-{len(fake.scopes_asked)}"
            fake.tokens.add(text)
        self.reply(200, json.dumps({"token": text, "expires_in": fake.expires_in}).encode())
        return None

    def route(self) -> None:
        path = urlsplit(self.path).path
        if match := re.fullmatch(r"/v2/(.+)/blobs/uploads/(.*)", path):
            return self.upload(match[1], match[2])
        if match := re.fullmatch(r"/v2/(.+)/blobs/([^/]+)", path):
            return self.blob(match[1], match[2])
        if match := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", path):
            return self.manifest(match[1], match[2])
        if match := re.fullmatch(r"/v2/(.+)/tags/list", path):
            return self.tags(match[1])
        self.body()
        self.reply(200 if path == "/v2/" else 404)
        return None

    def blob(self, repository: str, digest: str) -> None:
        data = self.fake.blobs.get((repository, digest))
        if data is None:
            return self.error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        headers = {"Docker_Content_Digest": digest, "ETag": f'"{digest}"'}
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match and int(match[1]) < len(data):
            start = int(match[1])
            span = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return self.reply(206, data[start:], Content_Range=span, **headers)
        self.reply(200, data, **headers)
        return None

    def manifest(self, repository: str, target: str) -> None:
        fake = self.fake
        if self.command == "PUT":
            raw = self.body()
            fake.put_manifest(raw, target, repository, self.headers["Content-Type"])
            return self.reply(201, Docker_Content_Digest=digest_of(raw))
        if (repository, target) not in fake.manifests:
            return self.error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        media_type, raw = fake.manifests[repository, target]
        self.reply(200, raw, Content_Type=media_type, Docker_Content_Digest=digest_of(raw))
        return None

    def tags(self, repository: str) -> None:
        names = sorted(tag for name, tag in self.fake.manifests if name == repository and ":" not in tag)
        query = dict(parse_qsl(urlsplit(self.path).query))
        rest = [name for name in names if name > query.get("last", "")]
        page, more = rest[:2], rest[2:]
        headers = {"Link": f'</v2/{repository}/tags/list?n=2&last={page[-1]}>; rel="next"'} if more else {}
        self.reply(200, json.dumps({"name": repository, "tags": page}).encode(), **headers)

    def upload(self, repository: str, session: str) -> None:
        fake, query = self.fake, dict(parse_qsl(urlsplit(self.path).query))
        if self.command == "POST":
            self.body()
            source = (query.get("from", ""), query.get("mount", ""))
            if source in fake.blobs:
                fake.blobs[repository, source[1]] = fake.blobs[source]
                return self.reply(201, Docker_Content_Digest=source[1])
            with fake.lock:
                session = f"s{len(fake.uploads)}"
                fake.uploads[session] = bytearray()
            return self.reply(202, Location=f"/v2/{repository}/blobs/uploads/{session}?state=x")
        held = fake.uploads.get(session)
        if held is None:
            self.body()
            return self.error(404, "BLOB_UPLOAD_UNKNOWN", "upload unknown")
        location = f"/v2/{repository}/blobs/uploads/{session}?state=x"
        if self.command == "GET":
            return self.reply(204, Location=location, Range=f"0-{max(0, len(held) - 1)}")
        held += self.body()
        if self.command == "PATCH":
            return self.reply(202, Location=location, Range=f"0-{max(0, len(held) - 1)}")
        if digest_of(bytes(held)) != query["digest"]:
            del fake.uploads[session]
            return self.error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        fake.blobs[repository, query["digest"]] = bytes(held)
        self.reply(201, Docker_Content_Digest=query["digest"])
        return None


def status(code: int, error: str = "UNAVAILABLE", message: str = "", **headers: str) -> Action:
    """An action that answers with a failing status."""

    def act(handler: Handler) -> None:
        handler.body()
        handler.error(code, error, message, **headers)

    return act


def cut_after(count: int) -> Action:
    """An action that announces a blob whole, sends its first `count` bytes of what was asked, and hangs up."""

    def act(handler: Handler) -> None:
        match = re.fullmatch(r"/v2/(.+)/blobs/([^/]+)", handler.path)
        assert match is not None
        data = handler.fake.blobs[match[1], match[2]]
        start = int(re.sub(r"\D", "", handler.headers.get("Range", "")) or 0)
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(data) - start))
        handler.send_header("ETag", f'"{match[2]}"')
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        handler.wfile.write(data[start : start + count])
        handler.hang_up()

    return act


def hang_up(handler: Handler) -> None:
    """An action that hangs up without a word."""
    handler.hang_up()
