"""Files by http as a source: what a URL holds now, asked of the server but downloaded only when it changed.

In comes an `HttpRequest`; out comes a `Found`: digest and headers, and the content as a new file or inside a layer
that an earlier build made. For each URL the versions we hold are rows of the state file; their ETags go along with
the next request. A row says nothing by itself: the server confirms it with today's credentials, or a checksum does.

Invariants: one build sees one version of a URL; a row is written after the layer that it points to; a held version
is stamped as used before it is relied on, so that pruning beside us leaves it alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from lamina.cancel import Cancel
from lamina.errors import InputError
from lamina.layer.entry import Content, FileSlice
from lamina.oci.digest import Digest
from lamina.registry.options import RegistryOptions
from lamina.snapshot.layers import Layers
from lamina.snapshot.rows import LayerRef
from lamina.source.http_client import Download, HttpClient
from lamina.source.http_file import Answer, Watcher
from lamina.source.http_request import HttpError, HttpRequest, parse_http_date
from lamina.source.http_upload import HOST, take_upload
from lamina.state.db import State

_VERSIONS = 8
"""Versions of one URL whose ETags are sent along."""

Secret = Callable[[str], bytes | None]
Upload = Callable[[str, str], Iterator[bytes] | None]
"""Gives the client's stream behind a URL of that host and path."""


@dataclass(frozen=True, slots=True)
class Found:
    """One version of a URL's content.

    Attributes:
        digest: sha256 of the content.
        size: bytes; 0 when the content is in a layer.
        disposition: the answer's `Content-Disposition`.
        file: the download, None when the content is in `layer` already.
    """

    digest: Digest
    size: int = 0
    etag: str = ""
    modified: str = ""
    disposition: str = ""
    file: Path | None = None
    layer: int | None = None

    @property
    def mtime_ns(self) -> int:
        """The file's time: `Last-Modified`, the epoch when the server does not say."""
        return (parse_http_date(self.modified) or 0) * 10**9


class HttpSource:
    """Http sources of one build. Thread-safe; `close()` when the build is over.

    Args:
        options: how servers are reached.
        secret: the user's secrets by id.
        upload: None where there is no client that could have streams.
    """

    def __init__(
        self,
        state: State,
        layers: Layers,
        options: RegistryOptions,
        secret: Secret,
        upload: Upload | None = None,
    ) -> None:
        self._state, self._layers = state, layers
        self._upload = upload
        self._options, self._secret = options, secret
        self._guard = threading.Lock()
        self._asking: dict[str, threading.Lock] = {}
        self._found: dict[str, Found] = {}
        self._clients: list[tuple[Cancel, HttpClient]] = []

    def close(self) -> None:
        """Close connections."""
        with self._guard:
            for _, client in self._clients:
                client.close()
            self._clients.clear()

    def resolve(self, request: HttpRequest, cancel: Cancel, watcher: Watcher | None = None) -> Found:
        """Return what the URL holds now (the same for the whole build).

        With a checksum nothing is asked where that content is held.

        Raises:
            HttpError: it cannot be downloaded, or is not what the checksum says.
            InputError: a secret that the request names was not given.
        """
        key = request.origin_key + (request.checksum or "")
        with self._guard:
            lock = self._asking.setdefault(key, threading.Lock())
        while not lock.acquire(timeout=0.1):
            cancel.check()
        try:
            found = self._found.get(key)
            if found is None or not self._usable(found):
                found = (
                    self._held_by_checksum(request)
                    or (found is not None and self._held_again(found))
                    or self._ask(request, cancel, watcher)
                )
                self._found[key] = found
            return found
        finally:
            lock.release()

    def content(self, found: Found, cancel: Cancel) -> tuple[Content, int]:
        """Return where the bytes of a resolved file lie, and how many they are."""
        if found.file is not None:
            return FileSlice(str(found.file.parent), found.file.name, 0, found.digest.hex), found.size
        view = self._layers.view(LayerRef(found.layer), cancel)
        (entry,) = (entry for name in view.children("") if (entry := view.lookup(name)) and entry.kind == "f")
        return view.content(entry), entry.size

    def remember(self, request: HttpRequest, found: Found, layer: int) -> None:
        """Note that `layer`, which holds nothing but this file, is what the URL holds."""
        row = (request.origin_key, found.digest, found.etag, found.modified, found.disposition, layer, time.time())
        self._state.execute("INSERT OR REPLACE INTO http VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    # -- asking the server

    def _ask(self, request: HttpRequest, cancel: Cancel, watcher: Watcher | None) -> Found:
        if self._upload is not None and request.host == HOST:
            return self._ask_client(request, cancel, watcher)
        held = [] if request.checksum else self._versions(request)
        tagged = {found.etag: found for found in reversed(held) if found.etag}
        dated = next((found for found in held if found.modified and not tagged), None)
        download = Download(
            request.url,
            dict(request.headers),
            self._authorization(request),
            tuple(tagged),
            dated.modified if dated else "",
        )
        file = self._layers.scratch("h")
        answer = self._client(cancel).fetch(download, file, watcher)
        if answer.unchanged:
            return self._confirmed(request, tagged.get(answer.etag) or dated, answer)
        return self._new(request, answer, file)

    def _ask_client(self, request: HttpRequest, cancel: Cancel, watcher: Watcher | None) -> Found:
        """Take the client's stream behind a URL that stands for it."""
        assert self._upload is not None
        pieces = self._upload(request.host, urlsplit(request.url).path)
        if pieces is None:
            raise HttpError("the client offers no uploads", url=request.url)
        file = self._layers.scratch("h")
        return self._new(request, take_upload(pieces, file, cancel, watcher or Watcher()), file)

    def _new(self, request: HttpRequest, answer: Answer, file: Path) -> Found:
        """Return a version that came as a file."""
        digest = Digest("sha256:" + answer.digest)
        if request.checksum is not None and digest != request.checksum:
            file.unlink()
            hint = "check the checksum, and where the file comes from"
            what = f"the checksum is wrong: expected {request.checksum}, got {digest}"
            raise HttpError(what, url=request.url, hint=hint)
        found = Found(digest, answer.size, answer.etag, answer.modified, answer.disposition, file)
        return self._instead(request, found)

    def _confirmed(self, request: HttpRequest, held: Found | None, answer: Answer) -> Found:
        assert held is not None  # the client answers "unchanged" only for what it was told of
        now = time.time()
        self._state.execute(
            "UPDATE http SET used = ? WHERE origin = ? AND digest = ?", (now, request.origin_key, held.digest)
        )
        disposition = answer.disposition or held.disposition
        return Found(held.digest, 0, held.etag, held.modified, disposition, layer=held.layer)

    def _instead(self, request: HttpRequest, found: Found) -> Found:
        """Return a downloaded version as one we hold, if we do: the server has just another name for it."""
        layer = self._held(found.digest)
        if layer is None:
            return found
        self.remember(request, found, layer)
        if found.file is not None:
            found.file.unlink(missing_ok=True)
        return Found(found.digest, 0, found.etag, found.modified, found.disposition, layer=layer)

    def _client(self, cancel: Cancel) -> HttpClient:
        """Return the client that this token cancels; a build that starts over has another token."""
        with self._guard:
            for known, client in self._clients:
                if known is cancel:
                    return client
            client = HttpClient(self._options, cancel)
            self._clients.append((cancel, client))
            return client

    def _authorization(self, request: HttpRequest) -> str:
        return authorization(request, self._secret)

    # -- what we hold

    def _held_by_checksum(self, request: HttpRequest) -> Found | None:
        if request.checksum is None or (layer := self._held(request.checksum)) is None:
            return None
        row = self._state.execute(
            "SELECT etag, modified, disposition FROM http WHERE digest = ? ORDER BY origin = ? DESC, used DESC LIMIT 1",
            (request.checksum, request.origin_key),
        ).fetchone()
        etag, modified, disposition = row or ("", "", "")
        return Found(request.checksum, 0, etag, modified, disposition, layer=layer)

    def _held_again(self, found: Found) -> Found | None:
        """Return a version whose file has become a layer meanwhile."""
        layer = self._held(found.digest)
        if layer is None:
            return None
        return Found(found.digest, 0, found.etag, found.modified, found.disposition, layer=layer)

    def _held(self, digest: Digest) -> int | None:
        """Return a layer that holds this content and nothing else, stamped as used; None when there is none."""
        rows = self._state.execute("SELECT layer FROM http WHERE digest = ? ORDER BY used DESC", (digest,)).fetchall()
        return next((layer for (layer,) in rows if self._is_there(layer)), None)

    def _versions(self, request: HttpRequest) -> list[Found]:
        """Return the versions of a URL that we hold, the one used last first."""
        rows = self._state.execute(
            """SELECT digest, etag, modified, disposition, layer FROM http WHERE origin = ?
            ORDER BY used DESC LIMIT ?""",
            (request.origin_key, _VERSIONS),
        ).fetchall()
        return [
            Found(Digest(digest), 0, etag, modified, disposition, layer=layer)
            for digest, etag, modified, disposition, layer in rows
            if self._is_there(layer)
        ]

    def _is_there(self, layer: int) -> bool:
        """Tell whether a layer still has content, and stamp it as used, in one transaction."""
        with self._state.transaction() as connection:
            row = connection.execute("SELECT tree, blob FROM layer WHERE id = ?", (layer,)).fetchone()
            if row is None or not (row[0] or (row[1] and self._layers.store.has(Digest(row[1])))):
                return False
            self._layers.rows.touch(layer)
        return True

    def _usable(self, found: Found) -> bool:
        return found.file.exists() if found.file is not None else self._is_there(found.layer or 0)


def authorization(request: HttpRequest, secret: Secret) -> str:
    """Return the Authorization header for a request: from the secret that it names, else from the host's usual ones.

    `HTTP_AUTH_HEADER_<host>` is the whole header, `HTTP_AUTH_TOKEN_<host>` a bearer token; the token wins.

    Raises:
        InputError: the named secret was not given, or a secret cannot be a header.
    """
    if request.auth_secret:
        value = secret(request.auth_secret)
        if value is None:
            hint = f"add --secret id={request.auth_secret},src=FILE"
            raise InputError(f"secret {request.auth_secret!r} was not given to this build", hint=hint)
        return _header_text(value, request.auth_secret)
    for name, prefix in ((f"HTTP_AUTH_TOKEN_{request.host}", "Bearer "), (f"HTTP_AUTH_HEADER_{request.host}", "")):
        if (value := secret(name)) is not None:
            return prefix + _header_text(value, name)
    return request.authorization


def _header_text(value: bytes, name: str) -> str:
    text = value.decode("latin-1").strip()
    if not text or any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        raise InputError(f"the value of secret {name!r} cannot be a header")
    return text
