"""One blob from a registry into an ingest: streamed, bounded, resumed. Network by way of `exchange.py`.

In comes a descriptor and where its bytes go; nothing comes out but bytes written in order. Invariants: never more
than the descriptor's size is written, however much is sent; on success exactly that many were; what was written
before a cut stays and the rest is asked for by `Range` (distribution-spec "Pulling blobs", RFC 9110 14). Whether
the bytes are the right ones is the ingest's to check when it commits, except that a mirror's are checked here too,
because then there is another place to ask.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from lamina.oci.descriptor import Descriptor
from lamina.oci.reference import Reference
from lamina.registry.auth import Scope
from lamina.registry.endpoint import Endpoint
from lamina.registry.exchange import Exchange
from lamina.registry.failures import PassingError, RegistryError, TransportError
from lamina.registry.http import Response
from lamina.registry.wire import blob_path, parse_content_range


class BlobSink(Protocol):
    """Where a blob's bytes go, in order; the store's ingest is one."""

    @property
    def offset(self) -> int:
        """Bytes that are there already."""

    def write(self, data: bytes, /) -> object:
        """Append `data`."""

    def restart(self) -> None:
        """Drop everything written; `offset` is 0 again."""


Progress = Callable[[str, int, int], None]


@dataclass(slots=True)
class Download:
    """The state of one blob's download from one endpoint.

    Attributes:
        etag: strong validator of the representation that the bytes so far came from, "" when unknown.
        plain: ask for the whole blob only, because this server's ranges were wrong.
        hasher: over all bytes, for mirrors; None when the digest is not checked here.
    """

    exchange: Exchange
    endpoint: Endpoint
    reference: Reference
    descriptor: Descriptor
    sink: BlobSink
    progress: Progress | None = None
    etag: str = ""
    plain: bool = False
    hasher: hashlib._Hash | None = field(default=None)

    def run(self) -> None:
        """Fetch until every byte is there.

        Raises:
            RegistryError: the registry cannot or does not deliver what the descriptor says.
            CancelledError: cancelled meanwhile; what was written stays.
        """
        if self.sink.offset > self.descriptor.size:
            self.sink.restart()
        if self.endpoint.mirror and self.sink.offset == 0:
            self.hasher = hashlib.new(self.descriptor.digest.algorithm)
        patience = self.exchange.patience()
        while self.sink.offset < self.descriptor.size:
            before = self.sink.offset
            try:
                self._attempt()
            except (TransportError, PassingError) as failure:
                patience.progressed(self.sink.offset - before)
                self.exchange.pause(self.endpoint, failure, patience)
        self._check_mirror()

    def _attempt(self) -> None:
        """Ask for what is missing and write what comes."""
        offset = self.sink.offset
        headers = {"Accept": "*/*"}
        if offset and not self.plain:
            headers["Range"] = f"bytes={offset}-"
            if self.etag:
                headers["If-Range"] = self.etag
        repository = self.endpoint.repository(self.reference)
        path = blob_path(repository, self.descriptor.digest)
        with self.exchange.once(self.endpoint, "GET", path, [Scope(repository)], headers=headers) as response:
            if response.status == 206:
                self._check_range(response, offset)
            elif response.status == 200:
                if offset:
                    self._restart()
            elif response.status == 416 and offset and not self.plain:
                self._start_over("the registry cannot resume this blob")
            else:
                what = f"pull blob {self.descriptor.digest} of {self.reference}"
                name = f"{self.reference.registry}/{self.reference.repository}"
                raise self.exchange.failure(response, self.endpoint, what, name)
            etag = response.header("ETag")
            self.etag = etag if etag.startswith('"') and len(etag) < 300 else ""
            self._receive(response)

    def _check_range(self, response: Response, offset: int) -> None:
        """Accept a partial answer only if it holds exactly the bytes that are missing, from where they are missing."""
        found = parse_content_range(response.header("Content-Range"))
        size = self.descriptor.size
        if found is None or found.start != offset or found.end >= size or found.total not in (None, size) or not offset:
            self._start_over(f"the registry sent another part of the blob than asked ({offset}-)")

    def _start_over(self, why: str) -> None:
        """Go on without ranges, from the first byte; a second reason to do so ends the download."""
        error = self._error(why, "protocol", "the registry or a proxy before it is broken: try another one")
        if self.plain:
            raise error
        self.plain = True
        self._restart()
        raise PassingError(error)

    def _restart(self) -> None:
        self.sink.restart()
        if self.endpoint.mirror:
            self.hasher = hashlib.new(self.descriptor.digest.algorithm)

    def _receive(self, response: Response) -> None:
        """Write the body; its length must fit the descriptor."""
        size, digest = self.descriptor.size, str(self.descriptor.digest)
        announced, missing = response.content_length(), size - self.sink.offset
        # An encoding that nobody asked for: servers set it for blobs that are themselves gzip files, and then the
        # bytes are right as they are; if the length is not, they really were compressed on the way.
        encoding = response.header("Content-Encoding").strip().lower()
        decode = encoding not in ("", "identity") and announced != missing and response.status == 200
        if announced is not None and announced != missing and not decode:
            raise self._size_error(size - missing + announced)
        offset = size - missing
        while piece := response.read_piece(decode=decode):
            offset += len(piece)
            if offset > size:
                raise self._size_error(offset, "at least ")
            if self.hasher is not None:
                self.hasher.update(piece)
            self.sink.write(piece)
            if self.progress is not None:
                self.progress(digest, offset, size)
        if offset < size:
            raise TransportError("cut", f"the blob ended after {offset} of {size} bytes", retryable=True)

    def _check_mirror(self) -> None:
        """Turn away a mirror's wrong bytes; the next endpoint starts from nothing."""
        if self.hasher is not None and self.hasher.hexdigest() != self.descriptor.digest.hex:
            self.sink.restart()
            raise self._error("the mirror sent other bytes than the digest says", "digest", "")

    def _size_error(self, got: int, about: str = "") -> RegistryError:
        return self._error(
            f"it has {about}{got} bytes, its descriptor says {self.descriptor.size}",
            "size",
            "the registry or a proxy truncated or changed it: pull again, or push the image again",
        )

    def _error(self, what: str, kind: str, hint: str) -> RegistryError:
        where = f"{self.endpoint.registry}: blob {self.descriptor.digest} of {self.reference}"
        return RegistryError(what, kind=kind, where=where, hint=hint)
