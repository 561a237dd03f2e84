"""SourceOp for `http://` and `https://`: one file, as a layer that holds nothing else.

The key is the content's digest with the file's name, mode and owner; the time (`Last-Modified`) is in the file but
not in the key. Without a checksum the server is asked before keys are made; with one it is asked only when the
content is wanted and not held.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from lamina.attest.capture import Material
from lamina.cancel import Cancel
from lamina.errors import Error, SourceRange
from lamina.layer.entry import Entry, Item
from lamina.llb.identity import op_digest
from lamina.ops.worker import Worker
from lamina.progress import LogEvent, StatusEvent
from lamina.snapshot.rows import LayerRef
from lamina.solver.protocol import CacheMap, Result, RunContext
from lamina.source.http import Found
from lamina.source.http_file import Watcher
from lamina.source.http_request import parse_http


class HttpOp:
    """Downloads `op.source.identifier`, unless an earlier build did and the server says that nothing changed."""

    def __init__(self, op: Any, worker: Worker, digest: str, source: SourceRange | None) -> None:
        self._request = parse_http(op.source.identifier, dict(op.source.attrs), source)
        self._worker, self._digest, self._source = worker, digest, source

    def prepare(self, context: RunContext) -> None:
        """Find out what the URL holds now; nothing to do where a checksum says it."""
        if self._request.checksum is None:
            self._resolve(context.cancel, _told(context, self._request.shown))

    def cache_map(self) -> CacheMap:
        """Content, name, mode and owner; where a checksum is given, answers' headers do not count."""
        request = self._request
        digest, disposition = request.checksum, ""
        if digest is None:
            found = self._resolve(Cancel())
            digest, disposition = found.digest, found.disposition
        name, mode = request.name(disposition), f"{request.mode:o}"
        owner = f"{request.uid}:{request.gid}"
        parts = {"kind": "http", "url": request.shown, "digest": digest, "name": name, "mode": mode, "owner": owner}
        return CacheMap(op_digest("http", digest, name, mode, owner), parts=parts)

    def content_key(self, number: int, result: Result, cancel: Cancel) -> str:
        """Never asked: there are no inputs."""
        raise AssertionError("an http source has no inputs")

    def run(self, inputs: Sequence[Result], context: RunContext) -> list[Result]:
        """Make the layer, from the download or from an earlier layer with the same content."""
        request, worker = self._request, self._worker
        found = self._resolve(context.cancel, _told(context, request.shown))
        name = request.name("" if request.checksum else found.disposition)
        content, size = worker.http.content(found, context.cancel)
        entry = Entry(name, "f", request.mode, request.uid, request.gid, found.mtime_ns, size, digest=found.digest.hex)
        items, description, empty = [Item(entry, content)], f"http {request.shown}", LayerRef(None)
        if self._digest in worker.needs_tree:
            made = worker.layers.add_tree(empty, items, description, context.cancel)
        else:
            made = worker.layers.add_blob(empty, items, description, worker.compression, context.cancel)
        assert made.layer is not None
        worker.http.remember(request, found, made.layer)
        return [made]

    def material(self) -> Material:
        """Return the URL without credentials, and the digest of what it held."""
        digest = self._request.checksum or self._resolve(Cancel()).digest
        return Material("http", self._request.shown.partition("?")[0], str(digest))

    def _resolve(self, cancel: Cancel, watcher: Watcher | None = None) -> Found:
        try:
            return self._worker.http.resolve(self._request, cancel, watcher)
        except Error as error:
            if error.source is None:
                error.source = self._source
            raise


def _told(context: RunContext, name: str) -> Watcher:
    """Return what turns the course of a download into events of the vertex."""
    started = time.time()

    def on_bytes(current: int, total: int) -> None:
        ended = time.time() if total and current >= total else None
        context.sink(StatusEvent(context.vertex, name, current, total, started, ended))

    def on_wait(why: str) -> None:
        context.sink(LogEvent(context.vertex, 2, f"{why}\n".encode(), time.time()))

    return Watcher(on_bytes, on_wait)
