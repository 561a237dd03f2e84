"""Sends results to the client: an archive as a stream of bytes, or files one by one (`FileSend.DiffCopy`)."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

from lamina.api.pb import filesync_pb2, fsutil_pb2
from lamina.api.services import FILE_SEND, FILE_SYNC, Method
from lamina.cancel import Cancel
from lamina.exporter.files_out import read_content
from lamina.layer.entry import Entry, Item
from lamina.remote.packets import DATA, ERROR, FIN, REQUEST, STAT, ProtocolError, stat_of
from lamina.tunnel.call import Call
from lamina.tunnel.peer import Peer

_ID = "buildkit-attachable-exporter-id"
_WHOLE = "buildkit-exporter-multi-platform"
_CHUNK_BYTES = 1 << 20
# the service's one method carries messages of bytes for archives, and fsutil's packets for directories
_FILES = Method(
    FILE_SEND.DiffCopy.path,
    FILE_SYNC.DiffCopy.request,
    FILE_SYNC.DiffCopy.response,
    client_streams=True,
    server_streams=True,
)


class ClientFile(io.RawIOBase):
    """A file at the client that is being written. Leaving the block with an error leaves it unfinished there, too."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self._call = call

    def writable(self) -> bool:
        """Say that it is."""
        return True

    def write(self, data: Any) -> int:
        """Send all of the bytes."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _CHUNK_BYTES):
            self._call.send(filesync_pb2.BytesMessage(data=bytes(view[start : start + _CHUNK_BYTES])))
        return len(view)

    def close(self) -> None:
        """Say that this was all, and wait until the client has it."""
        if self.closed:
            return
        try:
            self._call.end()
            while self._call.receive() is not None:
                pass
        finally:
            super().close()
            self._call.close()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is not None:
            self._call.close()
            super(io.RawIOBase, self).__init__()
            io.IOBase.close(self)
            return
        self.close()


def open_file(peer: Peer, number: int, cancel: Cancel) -> ClientFile:
    """Open the client's file for the output of that number."""
    return ClientFile(peer.open(FILE_SEND.DiffCopy, metadata=[(_ID, str(number))], cancel=cancel))


def send_files(peer: Peer, number: int, folder: str, items: Iterable[Item], cancel: Cancel) -> None:
    """Send a tree to the client's directory for the output of that number.

    Args:
        folder: directory below it that the tree belongs in, "" for itself.

    Raises:
        ProtocolError: the client says that it failed, or does not keep to the protocol.
    """
    # whoever removes what does not come wants to hear that all of it comes in one call
    call = peer.open(_FILES, metadata=[(_ID, str(number)), (_WHOLE, "1")], cancel=cancel)
    try:
        contents: dict[int, Item] = {}
        count = 0
        if folder:
            call.send(_packet(Entry(folder, "d", 0o755), folder))
            count = 1
        for item in items:
            if not item.entry.path:
                continue
            path = f"{folder}/{item.entry.path}" if folder else item.entry.path
            call.send(_packet(_named(item.entry, folder), path))
            if item.entry.kind == "f":
                contents[count] = item
            count += 1
        call.send(fsutil_pb2.Packet(type=STAT))
        _serve(call, contents, cancel)
    finally:
        call.close()


def _named(entry: Entry, folder: str) -> Entry:
    """Return an entry whose hard link names its target from the root of what is sent."""
    return entry._replace(target=f"{folder}/{entry.target}") if entry.kind == "h" and folder else entry


def _packet(entry: Entry, path: str) -> fsutil_pb2.Packet:
    return fsutil_pb2.Packet(type=STAT, stat=stat_of(entry, path))


def _serve(call: Call, contents: dict[int, Item], cancel: Cancel) -> None:
    """Answer requests for contents until the client has all it wants."""
    while (packet := call.receive()) is not None:
        if packet.type == REQUEST:
            item = contents.pop(packet.ID, None)
            if item is None:
                raise ProtocolError(f"the client asks for content that there is not ({packet.ID})")
            for piece in _pieces(read_content(item.content, item.entry, cancel)):
                call.send(fsutil_pb2.Packet(type=DATA, ID=packet.ID, data=piece))
            call.send(fsutil_pb2.Packet(type=DATA, ID=packet.ID))
        elif packet.type == FIN:
            call.send(fsutil_pb2.Packet(type=FIN))
            call.end()
        elif packet.type == ERROR:
            raise ProtocolError(f"the client failed: {packet.data.decode('utf-8', 'replace')[:400]}")
        else:
            raise ProtocolError(f"the client sent a packet of type {packet.type}, which is not its to send")


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), _CHUNK_BYTES):
            yield chunk[start : start + _CHUNK_BYTES]
