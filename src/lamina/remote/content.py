"""Blobs of OCI layouts that the client offers (containerd's `Content` service); each layout is a store with a name."""

from __future__ import annotations

from collections.abc import Iterator

from lamina.api.pb import content_pb2
from lamina.api.services import CONTENT
from lamina.cancel import Cancel
from lamina.remote.packets import ProtocolError
from lamina.tunnel.peer import Peer

_STORE = "buildkit-attachable-store-id"


def read_blob(peer: Peer, store: str, digest: str, cancel: Cancel) -> Iterator[bytes]:
    """Yield a blob's bytes in order; whoever takes them verifies them.

    Raises:
        NetworkError: the client has no such blob or store, went away, or sent pieces out of order.
    """
    offset = 0
    with peer.open(CONTENT.Read, metadata=[(_STORE, f"oci:{store}")], cancel=cancel) as call:
        call.send_last(content_pb2.ReadContentRequest(digest=digest))
        for answer in call:
            if answer.offset != offset:
                raise ProtocolError(f"the client sent a piece of {digest} at {answer.offset} instead of {offset}")
            offset += len(answer.data)
            yield answer.data
