"""SSH agents of the client: a socket here whose connections go to the agent there.

A socket lies in a directory of its own that is locked while its daemon lives; `sweep_agents` removes what dead ones
left.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import tempfile
import threading
import time
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
_PREFIX = "lamina-agent-"
_BEGINNING_S = 3600.0


def sweep_agents() -> int:
    """Remove the sockets of daemons that died, and return how many there were."""
    folder, count = tempfile.gettempdir(), 0
    for name in os.listdir(folder):
        if name.startswith(_PREFIX):
            count += _remove_dead(os.path.join(folder, name))
    return count


def _remove_dead(directory: str) -> bool:
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        status = os.fstat(lock)
        # one without a socket is being made, or its daemon died in that very moment
        is_made = os.path.lexists(f"{directory}/s") or time.time() - status.st_mtime > _BEGINNING_S
        if status.st_uid != os.geteuid() or not is_made:
            return False
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(directory, ignore_errors=True)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(lock)


class ForwardedAgent:
    """One agent, by its id, for as long as the build lasts. Close it in the end."""

    def __init__(self, peer: Peer, ssh_id: str, cancel: Cancel) -> None:
        self._peer, self._id, self._cancel = peer, ssh_id, Cancel(cancel)
        self._directory = tempfile.mkdtemp(prefix=_PREFIX)  # short: a socket's path has 107 bytes
        self._lock = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
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
        os.close(self._lock)

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
