"""Blobs in stores that the client offers by name (containerd's `Content` service): OCI layouts, caches, outputs.

A store is known by its id: `oci:NAME` for a layout to build from, `local:DIR` for a cache, `export` for an output.
What is read is not verified here; what is written is, by the client.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lamina.api.pb import content_pb2 as pb
from lamina.api.services import CONTENT
from lamina.cancel import Cancel
from lamina.remote.packets import ProtocolError
from lamina.tunnel.call import RpcError
from lamina.tunnel.peer import Peer

_STORE = "buildkit-attachable-store-id"
_NOT_FOUND, _EXISTS = 5, 6
_PATIENCE_S = 60.0
_PIECE = 1 << 20


class ClientStore:
    """One store. Implements `lamina.session.BlobStore`; any thread may call."""

    def __init__(self, peer: Peer, store: str, cancel: Cancel) -> None:
        self._peer, self._metadata, self._cancel = peer, [(_STORE, store)], cancel

    def has(self, digest: str) -> bool:
        """Tell whether a blob is there.

        Raises:
            NetworkError: the client has no such store, or went away.
        """
        request = pb.InfoRequest(digest=digest)
        try:
            self._peer.unary(CONTENT.Info, request, metadata=self._metadata, cancel=self._cancel, timeout_s=_PATIENCE_S)
        except RpcError as error:
            if error.code == _NOT_FOUND:
                return False
            raise
        return True

    def read(self, digest: str) -> Iterator[bytes]:
        """Yield a blob's bytes in order; whoever takes them verifies them.

        Raises:
            NetworkError: the client has no such blob or store, went away, or sent pieces out of order.
        """
        offset = 0
        with self._peer.open(CONTENT.Read, metadata=self._metadata, cancel=self._cancel) as call:
            call.send_last(pb.ReadContentRequest(digest=digest))
            for answer in call:
                if answer.offset != offset:
                    raise ProtocolError(f"the client sent a piece of {digest} at {answer.offset} instead of {offset}")
                offset += len(answer.data)
                yield answer.data

    def write(self, digest: str, size: int, pieces: Iterable[bytes]) -> None:
        """Write a blob, unless it is there.

        Raises:
            NetworkError: the client does not take it, or went away.
        """
        if self.has(digest):
            return
        try:
            self._write(digest, size, pieces)
        except RpcError as error:
            if error.code != _EXISTS:  # somebody else brought it meanwhile
                raise

    def _write(self, digest: str, size: int, pieces: Iterable[bytes]) -> None:
        ref, offset = f"lamina-{digest}", 0
        with self._peer.open(CONTENT.Write, metadata=self._metadata, cancel=self._cancel) as call:
            for data in (piece[at : at + _PIECE] for piece in pieces for at in range(0, len(piece), _PIECE)):
                call.send(
                    pb.WriteContentRequest(
                        action=pb.WRITE, ref=ref, total=size, expected=digest, offset=offset, data=data
                    )
                )
                offset += len(data)
                answer = call.receive()
                if answer is None or answer.offset != offset:
                    raise ProtocolError(f"the client did not take all of {digest}")
            call.send_last(
                pb.WriteContentRequest(action=pb.COMMIT, ref=ref, total=size, expected=digest, offset=offset)
            )
            if call.receive() is None:
                raise ProtocolError(f"the client did not keep {digest}")
