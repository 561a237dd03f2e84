"""What records of builds point at, for clients to read: traces in BuildKit's form, errors, and the image store's blobs.

containerd's content service as far as it reads (Info, Read). `buildx history trace` and `inspect` ask for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lamina.api.errors import NotFoundError
from lamina.api.pb import content_pb2
from lamina.engine import history
from lamina.errors import InputError
from lamina.oci.digest import Digest
from lamina.rpc.call import ServedCall
from lamina.store.store import Store

_PIECE = 1 << 20


class Content:
    """Blobs by their digest, read only."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def handlers(self) -> dict[str, Any]:
        """Return what serves the service's methods that are there."""
        return {"Info": self.info, "Read": self.read}

    def info(self, request: content_pb2.InfoRequest, _call: ServedCall | None = None) -> content_pb2.InfoResponse:
        """Return how large a blob is.

        Raises:
            InputError: not a digest; NotFoundError: no such blob.
        """
        digest = Digest(request.digest)
        kept = history.kept_blob(self._root, str(digest))
        size = len(kept) if kept is not None else self._store(digest).size(digest)
        return content_pb2.InfoResponse(info=content_pb2.Info(digest=str(digest), size=size))

    def read(
        self, request: content_pb2.ReadContentRequest, _call: ServedCall | None = None
    ) -> Iterator[content_pb2.ReadContentResponse]:
        """Yield a part of a blob: from `offset`, `size` bytes or all that follow.

        Raises:
            InputError: not a digest, or a part that it does not have; NotFoundError: no such blob.
        """
        digest = Digest(request.digest)
        kept = history.kept_blob(self._root, str(digest))
        total = len(kept) if kept is not None else self._store(digest).size(digest)
        end = request.offset + request.size if request.size else total
        if not 0 <= request.offset <= end <= total:
            raise InputError(f"bytes {request.offset} to {end} of a blob of {total}", where=str(digest))
        if kept is not None:
            for start in range(request.offset, end, _PIECE):
                data = kept[start : min(start + _PIECE, end)]
                yield content_pb2.ReadContentResponse(offset=start, data=data)
            return
        with self._store(digest).open(digest) as file:
            position = file.seek(request.offset)
            while position < end and (data := file.read(min(_PIECE, end - position))):
                yield content_pb2.ReadContentResponse(offset=position, data=data)
                position += len(data)

    def _store(self, digest: Digest) -> Store:
        """Return the image store, which has this blob.

        Raises:
            NotFoundError: it has not.
        """
        folder = self._root / "oci"
        if folder.exists():
            store = Store(folder, create=False)
            if store.has(digest):
                return store
        raise NotFoundError(f"no such blob: {digest}")
