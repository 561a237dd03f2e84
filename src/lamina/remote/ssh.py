"""SSH agents of the client: a socket here whose connections go to the agent there."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
from pathlib import Path

from lamina.api.pb import ssh_pb2
from lamina.api.services import SSH
from lamina.cancel import Cancel
from lamina.errors import Error
from lamina.tunnel.call import Call
from lamina.tunnel.peer import Peer

_ID = "buildkit.ssh.id"
_CHUNK_BYTES = 32 << 10
_MOST_AT_ONCE = 32


class ForwardedAgent:
    """One agent, by its id, for as long as the build lasts. Close it in the end."""

    def __init__(self, peer: Peer, ssh_id: str, cancel: Cancel) -> None:
        self._peer, self._id, self._cancel = peer, ssh_id, Cancel(cancel)
        self._directory = tempfile.mkdtemp(prefix="lamina-agent-")  # short: a socket's path has 107 bytes
        self.socket = Path(self._directory, "s")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.socket))
        os.chmod(self.socket, 0o600)
        self._listener.listen(_MOST_AT_ONCE)
        threading.Thread(target=self._accept, name="ssh-agent", daemon=True).start()

    def close(self) -> None:
        """End all connections, and take the socket away."""
        self._cancel.cancel()
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _accept(self) -> None:
        slots = threading.BoundedSemaphore(_MOST_AT_ONCE)
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if not slots.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._forward, args=(connection, slots), name="ssh-agent", daemon=True).start()

    def _forward(self, connection: socket.socket, slots: threading.BoundedSemaphore) -> None:
        with connection:
            try:
                call = self._peer.open(SSH.ForwardAgent, metadata=[(_ID, self._id)], cancel=self._cancel)
                back = threading.Thread(target=_back, args=(call, connection), name="ssh-agent", daemon=True)
                back.start()
                while data := connection.recv(_CHUNK_BYTES):
                    call.send(ssh_pb2.BytesMessage(data=data))
                call.end()
                back.join()
                call.close()
            except (OSError, Error):
                pass  # the program that asked sees its connection end
            finally:
                slots.release()


def _back(call: Call, connection: socket.socket) -> None:
    try:
        while (message := call.receive()) is not None:
            connection.sendall(message.data)
        connection.shutdown(socket.SHUT_WR)
    except (OSError, Error):
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
