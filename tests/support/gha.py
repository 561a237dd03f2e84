"""GitHub's Actions cache service (version 2) on a free loopback port, written from its protocol.

Entries are immutable, found by key or by the newest whose key begins so; uploads and downloads go to signed URLs that
take Azure's block blobs. Switches: `evict`, `limit` (answers 429 so often).
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

TOKEN = "runtime-token"


class Service:
    """What the server holds."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], bytes] = {}
        self.reserved: dict[str, tuple[str, str]] = {}
        self.blocks: dict[str, dict[str, bytes]] = {}
        self.uploads: dict[str, bytes] = {}
        self.signed: dict[str, tuple[str, str]] = {}
        self.guard = threading.Lock()
        self.limit = 0
        self.calls: list[str] = []
        self.url = ""

    def evict(self, begins: str = "lamina-blob") -> None:
        """Forget entries."""
        with self.guard:
            for key in [key for key in self.entries if key[0].startswith(begins)]:
                del self.entries[key]

    def call(self, method: str, ask: dict[str, object], url: str) -> tuple[int, dict[str, object]]:
        """Carry out one call of the service; `url` is where the caller found it."""
        key = (str(ask["key"]), str(ask["version"]))
        with self.guard:
            self.calls.append(method)
            if method == "CreateCacheEntry":
                if key in self.entries or key in self.reserved.values():
                    return 409, {"code": "already_exists"}
                name = secrets.token_hex(8)
                self.reserved[name] = key
                return 200, {"ok": True, "signed_upload_url": f"{url}/up/{name}?sig=secret-signature"}
            if method == "FinalizeCacheEntryUpload":
                name = next(name for name, taken in self.reserved.items() if taken == key)
                if len(self.uploads[name]) != int(str(ask["size_bytes"])):
                    return 400, {"code": "invalid_argument"}
                self.entries[key] = self.uploads.pop(name)
                del self.reserved[name]
                return 200, {"ok": True, "entry_id": "1"}
            begins = [key[0], *map(str, ask.get("restore_keys") or [])]  # type: ignore[call-overload]
            for start in begins:
                exact = start == key[0] and (start, key[1]) in self.entries
                matches = [k for k in self.entries if k[1] == key[1] and k[0].startswith(start)]
                match = (start, key[1]) if exact else matches[-1] if matches and start in begins[1:] else None
                if match is not None:
                    name = secrets.token_hex(8)
                    self.signed[name] = match
                    signed = f"{url}/down/{name}?sig=secret-signature"
                    return 200, {"ok": True, "signed_download_url": signed, "matched_key": match[0]}
            return 200, {"ok": False}


@contextmanager
def running_gha() -> Iterator[Service]:
    """Run the service."""
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, status: int, data: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def body(self) -> bytes | None:
            """Return what was sent, None when the connection ended in the middle of it."""
            size = int(self.headers["Content-Length"])
            data = self.rfile.read(size)
            self.close_connection = self.close_connection or len(data) < size
            return data if len(data) == size else None

        def do_POST(self) -> None:
            data = self.body()
            if data is None:
                return None
            if service.limit > 0:
                service.limit -= 1
                return self.answer(429, Retry_After="0")
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                return self.answer(401)
            url = f"http://{self.headers['Host']}"
            status, found = service.call(self.path.rpartition("/")[2], json.loads(data), url)
            return self.answer(status, json.dumps(found).encode())

        def do_PUT(self) -> None:
            data = self.body()
            if data is None:
                return None
            url = urlsplit(self.path)
            name, query = url.path.rpartition("/")[2], parse_qs(url.query)
            if query.get("sig") != ["secret-signature"]:
                return self.answer(403)
            if query.get("comp") == ["block"]:
                service.blocks.setdefault(name, {})[query["blockid"][0]] = data
            elif query.get("comp") == ["blocklist"]:
                names = re.findall(r"<Latest>(.*?)</Latest>", data.decode())
                service.uploads[name] = b"".join(service.blocks[name][block] for block in names)
            elif self.headers["x-ms-blob-type"] == "BlockBlob":
                service.uploads[name] = data
            else:
                return self.answer(400)
            return self.answer(201)

        def do_GET(self) -> None:
            key = service.signed.get(urlsplit(self.path).path.rpartition("/")[2])
            data = service.entries.get(key) if key else None
            if data is None:
                return self.answer(404)
            found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if not found:
                return self.answer(200, data)
            end = int(found[2]) + 1 if found[2] else len(data)
            return self.answer(206, data[int(found[1]) : end])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
