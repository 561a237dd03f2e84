"""A socket in the step that leads to the user's SSH agent.

The agent's own socket is never shown to a step: it belongs to another user and another mode. A socket of the
wanted owner and mode is made in the build's work directory, and bytes are carried between the two.
"""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path


class AgentProxy:
    """Listens on `path` until closed; each connection gets one to `agent`."""

    def __init__(self, path: Path, agent: Path, *, uid: int, gid: int, mode: int) -> None:
        self._agent = str(agent)
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        # a long work directory may not fit sun_path: bind through a descriptor of its parent
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._server.bind(f"/proc/self/fd/{parent}/{path.name}")
        finally:
            os.close(parent)
        os.chown(path, uid, gid)
        os.chmod(path, mode)
        self._server.listen(16)
        self._thread = threading.Thread(target=self._accept, name="ssh-agent", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening and cut what is open."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()
        with self._guard:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            try:
                agent.connect(self._agent)
            except OSError:
                agent.close()
                client.close()
                continue
            with self._guard:
                self._open |= {client, agent}
            threading.Thread(target=self._serve, args=(client, agent), daemon=True).start()

    def _serve(self, client: socket.socket, agent: socket.socket) -> None:
        back = threading.Thread(target=_carry, args=(agent, client), daemon=True)
        back.start()
        _carry(client, agent)
        back.join()
        with self._guard:
            self._open -= {client, agent}
        client.close()
        agent.close()


def _carry(source: socket.socket, target: socket.socket) -> None:
    """Copy bytes until one side ends, then tell the other."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass
