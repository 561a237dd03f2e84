"""The file that a download becomes: written and hashed as pieces come, of one version of the content only.

In come answers of a server (`registry.http.Response`), whole or partial; out come the file and what the first answer
said of it. Invariants: what the file and the hash hold comes from one version; a partial answer is taken only if it
is exactly the rest; unless `finish` was reached, nothing is left behind.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lamina.errors import StorageError
from lamina.layer.compress import decompressed
from lamina.layer.errors import CompressionError
from lamina.registry.failures import TransportError
from lamina.registry.http import Response
from lamina.registry.wire import parse_content_range
from lamina.source.http_request import HttpError, parse_http_date, plain_etag, strong_etag

_STEP = 1 << 20
"""Bytes between two reports of progress."""


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who is told how a download goes.

    Attributes:
        on_bytes: bytes so far and bytes in all (0 when the server does not say).
        on_wait: in one line, why it waits.
    """

    on_bytes: Callable[[int, int], None] = lambda _now, _total: None
    on_wait: Callable[[str], None] = lambda _why: None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came.

    Attributes:
        unchanged: a known version still holds (`etag` says which, "" for the one of `known_date`); no file was made.
        digest: sha256 of the file, in hex.
        etag: without weakness mark, "" for none.
        modified: `Last-Modified` as it stands, "" when it is no date.
        disposition: `Content-Disposition` as it stands.
    """

    unchanged: bool
    digest: str = ""
    size: int = 0
    etag: str = ""
    modified: str = ""
    disposition: str = ""


class Target:
    """The file under construction, with its hash and what names the version that its bytes come from."""

    def __init__(self, path: Path, url: str, watcher: Watcher) -> None:
        self._path, self._url, self._watcher = path, url, watcher
        try:
            self._file = open(path, "xb", buffering=0)  # noqa: SIM115 - closed in __exit__
        except OSError as error:
            raise StorageError(f"cannot keep the download: {error.strerror}", where=str(path.parent)) from error
        self._hash = hashlib.sha256()
        self._done = False
        self._total: int | None = None
        self._unpack = False
        self._validator = ""
        self._said = Answer(False)
        self.offset = 0

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()
        if not self._done:
            self._path.unlink(missing_ok=True)

    def range_headers(self) -> dict[str, str]:
        """Return the headers that ask for the rest; without a name for the version all is asked for again."""
        if self.offset and not self._validator:
            self.forget()
        return {"Range": f"bytes={self.offset}-", "If-Range": self._validator} if self.offset else {}

    def forget(self) -> None:
        """Drop everything received."""
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.sha256()
        self.offset, self._total, self._validator = 0, None, ""

    def restart(self, response: Response) -> None:
        """Make ready for a whole body."""
        self.forget()
        # Nobody asked for an encoding; gzip is undone, as BuildKit's client does.
        self._unpack = response.header("Content-Encoding").strip().lower() in ("gzip", "x-gzip")
        self._total = None if self._unpack else response.content_length()
        self._validator = "" if self._unpack else _validator(response)
        self._said = _said(response)  # now, because a later partial answer may leave these headers out
        status = os.statvfs(self._path.parent)
        if self._total is not None and self._total > status.f_bavail * status.f_frsize:
            raise StorageError(f"a download of {self._total} bytes does not fit the disk", where=str(self._path.parent))

    def check_range(self, response: Response) -> None:
        """Accept a partial answer only if it is exactly the rest."""
        found = parse_content_range(response.header("Content-Range"))
        total = found.total if found is not None else None
        if (
            found is None
            or found.start != self.offset
            or (self._total is not None and total not in (None, self._total))
        ):
            self.forget()
            raise TransportError("protocol", "the server sent another part of the file than asked", retryable=True)
        self._total = found.end + 1 if total is None else total

    def receive(self, response: Response) -> None:
        """Write the body to its end."""
        total, told = self._total, self.offset
        for piece in self._pieces(response):
            if total is not None and self.offset + len(piece) > total:
                self.forget()
                raise TransportError("protocol", f"the server sent more than the {total} bytes it said", retryable=True)
            self._write(piece)
            if self.offset - told >= _STEP:
                told = self.offset
                self._watcher.on_bytes(told, total or 0)
        if total is not None and self.offset < total:
            raise TransportError("cut", f"the file ended after {self.offset} of {total} bytes", retryable=True)

    def _pieces(self, response: Response) -> Iterator[bytes]:
        pieces = iter(response.read_piece, b"")
        if not self._unpack:
            yield from pieces
            return
        try:
            yield from decompressed(_in_bites(pieces))
        except CompressionError as error:
            raise HttpError(f"the server's encoding is broken: {error.what}", url=self._url) from error

    def finish(self) -> Answer:
        """Keep the file."""
        self._done = True
        self._watcher.on_bytes(self.offset, self.offset)
        return replace(self._said, digest=self._hash.hexdigest(), size=self.offset)

    def _write(self, piece: bytes) -> None:
        view = memoryview(piece)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise StorageError(f"cannot keep the download: {error.strerror}", where=str(self._path.parent)) from error
        self._hash.update(piece)
        self.offset += len(piece)


def _said(response: Response) -> Answer:
    """Return what an answer's headers say of the file."""
    modified = response.header("Last-Modified")
    return Answer(
        False,
        etag=plain_etag(response.header("ETag")),
        modified=modified if parse_http_date(modified) is not None else "",
        disposition=response.header("Content-Disposition"),
    )


def _in_bites(pieces: Iterator[bytes]) -> Callable[[int], bytes]:
    """Return a function that reads on in `pieces`, up to so many bytes a call."""
    rest = b""

    def read(size: int) -> bytes:
        nonlocal rest
        rest = rest or next(pieces, b"")
        bite, rest = rest[:size], rest[size:]
        return bite

    return read


def _validator(response: Response) -> str:
    """Return what names a version exactly: a strong ETag, or a date that was a minute old (RFC 9110 8.8.2.2)."""
    etag, modified = response.header("ETag"), response.header("Last-Modified")
    if etag:
        return strong_etag(etag)
    then, now = parse_http_date(modified), parse_http_date(response.header("Date"))
    return modified if then is not None and now is not None and now - then >= 60 else ""
