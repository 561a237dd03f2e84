"""Streams that the client offers by URL, such as a context that came on its standard input (`Upload.Pull`)."""

from __future__ import annotations

from collections.abc import Iterator

from lamina.api.services import UPLOAD
from lamina.cancel import Cancel
from lamina.tunnel.peer import Peer


def pull(peer: Peer, host: str, path: str, cancel: Cancel) -> Iterator[bytes]:
    """Yield the stream's bytes; a client gives each stream once.

    Raises:
        NetworkError: the client has no such stream, or went away.
    """
    with peer.open(UPLOAD.Pull, metadata=[("urlpath", path), ("urlhost", host)], cancel=cancel) as call:
        call.end()
        for message in call:
            yield message.data
