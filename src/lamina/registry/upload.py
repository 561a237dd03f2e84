"""One blob into a registry: found there, mounted from a neighbour, or uploaded. Network by way of `exchange.py`.

In comes a descriptor and a way to open its bytes; success means that the registry said, by an echoed digest or by
a HEAD afterwards, that it has the blob. Source: distribution-spec "Pushing blobs". The body goes in one PUT; after
a cut the registry is asked how much it has and gets the rest by PATCH, if it can say; else the upload starts over.
Upload locations may lie on another host, which then sees no credentials.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from lamina.cancel import Cancel
from lamina.errors import Error, StorageError
from lamina.oci.descriptor import Descriptor
from lamina.oci.reference import Reference
from lamina.registry.auth import Scope
from lamina.registry.download import Progress
from lamina.registry.endpoint import Endpoint
from lamina.registry.exchange import Exchange
from lamina.registry.failures import PassingError, RegistryError, TransportError
from lamina.registry.http import BodyError, Response
from lamina.registry.trust import redirect_fault
from lamina.registry.wire import blob_path, join_location, parse_upload_offset, uploads_path, with_query

RESTARTS = 1
"""How often an upload whose session was lost or whose bytes arrived wrong starts over."""


class BlobBody:
    """Request body: the bytes of a file from `offset`, exactly up to the descriptor's size.

    Errors of the file come out wrapped in `BodyError`, so that they do not look like the network's.
    """

    def __init__(
        self, file: BinaryIO, descriptor: Descriptor, offset: int, cancel: Cancel, progress: Progress | None
    ) -> None:
        self._file = file
        self._descriptor = descriptor
        self._offset = offset
        self._cancel = cancel
        self._progress = progress

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes."""
        left = self._descriptor.size - self._offset
        try:
            self._cancel.check()
            data = self._file.read(left if size < 0 else min(size, left)) if left else b""
            if not data and left:
                raise StorageError(
                    f"blob has {self._offset} bytes, its descriptor says {self._descriptor.size}",
                    where=str(self._descriptor.digest),
                    hint="the store is damaged: run lamina store check",
                )
        except OSError as error:
            cause = StorageError(f"cannot read the blob: {error.strerror}", where=str(self._descriptor.digest))
            raise BodyError(cause) from error
        except Error as error:
            raise BodyError(error) from error
        self._offset += len(data)
        if self._progress is not None and data:
            self._progress(str(self._descriptor.digest), self._offset, self._descriptor.size)
        return data


@dataclass(slots=True)
class Upload:
    """The state of one blob's upload."""

    exchange: Exchange
    endpoint: Endpoint
    reference: Reference
    descriptor: Descriptor
    open: Callable[[], BinaryIO]
    progress: Progress | None = None

    def run(self, mount_from: Sequence[Reference] = ()) -> None:
        """Bring the blob there, with the least traffic.

        Raises:
            RegistryError: refused, or not confirmed.
            StorageError: our own copy is shorter than its descriptor says.
        """
        if self.exists():
            return
        location = ""
        for source in mount_from:
            if source.registry == self.reference.registry and source.repository != self.reference.repository:
                mounted, location = self._mount(source)
                if mounted:
                    return
                if location:
                    break
        patience = self.exchange.patience()
        restarts = 0
        while True:
            try:
                location = location or self._begin()
                self._send(location)
                return
            except _LostUploadError as lost:
                restarts += 1
                if restarts > RESTARTS:
                    raise lost.error from lost
            except (TransportError, PassingError) as failure:
                self.exchange.pause(self.endpoint, failure, patience)
                if self.exists():
                    return
            location = ""

    @property
    def _push(self) -> Scope:
        return Scope(self.reference.repository, "pull,push")

    def exists(self) -> bool:
        """Ask whether the registry has the blob already."""
        return self.exchange.patiently(
            self.endpoint,
            lambda: has_blob(self.exchange, self.endpoint, self.reference, self.descriptor.digest, self._push),
        )

    def _mount(self, source: Reference) -> tuple[bool, str]:
        """Ask to mount from `source`; return whether that was done, and an upload's location if offered instead."""
        path = uploads_path(self.reference.repository, mount=self.descriptor.digest, source=source.repository)
        scopes = [self._push, Scope(source.repository)]
        try:
            with self.exchange.once(self.endpoint, "POST", path, scopes, headers={"Content-Length": "0"}) as response:
                response.read_error(1 << 16)
                if response.status == 201:
                    return self._confirmed(response), ""
                if response.status == 202:
                    return False, self._location(response)
        except (RegistryError, TransportError, PassingError):
            # No right to read the neighbour, or a registry that cannot mount: an upload works all the same.
            self.exchange.cancel.check()
        return False, ""

    def _begin(self) -> str:
        """Open an upload and return its location."""
        path = uploads_path(self.reference.repository)
        response = self.exchange.once(self.endpoint, "POST", path, [self._push], headers={"Content-Length": "0"})
        if response.status != 202:
            raise self._failure(response)
        with response:
            response.read_error(1 << 16)
            return self._location(response)

    def _location(self, response: Response) -> str:
        """Return the absolute location that an answer names."""
        location = join_location(response.url, response.header("Location"))
        if location is None:
            raise self._error("the registry accepted an upload but did not say where", "protocol")
        if fault := redirect_fault(response.url, location):
            raise self._error(f"upload location refused: {fault}", "protocol")
        return location

    def _send(self, location: str) -> None:
        """Send the bytes to an opened upload; after a cut, send the rest once."""
        try:
            self._put(location, 0)
        except TransportError as fault:
            if not fault.retryable:
                raise
            again = self._status(location)
            if again is None:
                raise
            location, offset = again
            self._resume(location, offset)

    def _put(self, location: str, offset: int) -> None:
        """Finish the upload with all bytes from `offset`; at the end there are none left."""
        left = self.descriptor.size - offset
        with self.open() as file:
            response = self.exchange.once(
                self.endpoint,
                "PUT",
                with_query(location, digest=self.descriptor.digest),
                [self._push],
                headers={"Content-Type": "application/octet-stream", "Content-Length": str(left)},
                body=lambda: self._body(file, offset),
                idle_s=self.exchange.options.timeouts.commit_s,
            )
        if response.status not in (201, 204):
            raise self._failure(response)
        with response:
            response.read_error(1 << 16)
            if not self._confirmed(response):
                raise self._error("the registry took the upload but does not have the blob", "protocol")

    def _body(self, file: BinaryIO, offset: int) -> BlobBody:
        file.seek(offset)
        return BlobBody(file, self.descriptor, offset, self.exchange.cancel, self.progress)

    def _status(self, location: str) -> tuple[str, int] | None:
        """Return where to go on and from which byte, or None when the registry cannot say."""
        try:
            with self.exchange.once(self.endpoint, "GET", location, [self._push]) as response:
                response.read_error(1 << 16)
                offset = parse_upload_offset(response.header("Range"))
                if response.status != 204 or offset is None or offset > self.descriptor.size:
                    return None
                return (self._location(response) if response.header("Location") else location), offset
        except (TransportError, PassingError, RegistryError):
            self.exchange.cancel.check()
            return None

    def _resume(self, location: str, offset: int) -> None:
        """Send the bytes from `offset` by PATCH, then close the upload."""
        if offset < self.descriptor.size:
            with self.open() as file:
                response = self.exchange.once(
                    self.endpoint,
                    "PATCH",
                    location,
                    [self._push],
                    headers={
                        "Content-Type": "application/octet-stream",
                        "Content-Length": str(self.descriptor.size - offset),
                        "Content-Range": f"{offset}-{self.descriptor.size - 1}",
                    },
                    body=lambda: self._body(file, offset),
                    idle_s=self.exchange.options.timeouts.commit_s,
                )
            if response.status not in (201, 202, 204):
                raise self._failure(response)
            with response:
                response.read_error(1 << 16)
                location = self._location(response) if response.header("Location") else location
        self._put(location, self.descriptor.size)

    def _confirmed(self, response: Response) -> bool:
        """Tell whether the registry has the blob: it echoed the digest, or a HEAD finds it."""
        echoed = response.header("Docker-Content-Digest")
        if echoed and echoed != self.descriptor.digest:
            raise self._error(f"the registry stored something else: {echoed[:100]!r}", "digest")
        return bool(echoed) or self.exists()

    def _failure(self, response: Response) -> RegistryError | PassingError | _LostUploadError:
        """Return what to raise for a failing answer: lost sessions and wrong bytes start over."""
        status = response.status
        name = f"{self.reference.registry}/{self.reference.repository}"
        error = self.exchange.failure(response, self.endpoint, f"push blob {self.descriptor.digest} to {name}", name)
        upload_gone = status in (404, 416) and "uploads/" in response.url
        bytes_wrong = status == 400 and isinstance(error, RegistryError)
        if isinstance(error, RegistryError) and (upload_gone or bytes_wrong):
            return _LostUploadError(error)
        return error

    def _error(self, what: str, kind: str) -> RegistryError:
        return RegistryError(what, kind=kind, where=f"{self.reference}: blob {self.descriptor.digest}")


class _LostUploadError(Exception):
    """The upload's session is gone, or its bytes arrived wrong."""

    def __init__(self, error: RegistryError) -> None:
        super().__init__(str(error))
        self.error = error


def has_blob(exchange: Exchange, endpoint: Endpoint, reference: Reference, digest: str, scope: Scope) -> bool:
    """Ask once, by HEAD, whether a repository has a blob; a bare 403 is asked again by GET, for its words."""
    path = blob_path(endpoint.repository(reference), digest)
    name = f"{reference.registry}/{reference.repository}"
    for method in ("HEAD", "GET"):
        response = exchange.once(endpoint, method, path, [scope])
        if response.status in (200, 404):
            response.close()
            return response.status == 200
        if response.status == 403 and method == "HEAD":
            response.close()
            continue
        break
    raise exchange.failure(response, endpoint, f"look for blob {digest} in {name}", name)
