"""The helper's part of a step with a terminal: get hold of its other end and hand that to whoever asked.

With crun the terminal is made in the step's own /dev/pts, and crun gives us the other end (runtime command line,
"--console-socket"). runc does so only for containers that it does not wait for; waiting, it copies between its own
terminal and the step's, so it gets one from us.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
import termios

CONSOLE = b"console"


class Listener:
    """Waits for the runtime to bring the terminal of the step whose directory is `home`.

    Attributes:
        path: where the runtime connects. It goes by way of a descriptor of ours, for the whole path may be longer
            than a socket's address can be.
    """

    def __init__(self, home: str) -> None:
        self._folder = os.open(home, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connected = False
        self.path = f"/proc/{os.getpid()}/fd/{self._folder}/console"
        try:
            self._socket.bind(self.path)
            self._socket.listen(1)
            self._socket.setblocking(False)  # a runtime that has ended without a word is not waited for
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def pass_on(self, step: socket.socket) -> bool:
        """Take the runtime's connection, or the terminal that came over it, which goes to the caller.

        Returns:
            Whether it is done: a runtime that fails connects and brings nothing, and says why in its log.
        """
        try:
            if not self._connected:
                connection, _ = self._socket.accept()
                connection.setblocking(True)
                self._socket.close()
                self._socket, self._connected = connection, True
                return False
            _, fds, _, _ = socket.recv_fds(self._socket, 4096, 1)
        except OSError:
            return True
        for fd in fds:
            _send(step, fd)
        return True

    def close(self) -> None:
        """Stop waiting."""
        self._socket.close()
        os.close(self._folder)


def open_between(step: socket.socket, window: tuple[int, int]) -> int:
    """Send one end of a new terminal to the caller and return the other, for the runtime to copy from and to."""
    ours, theirs = os.openpty()
    if all(window):
        set_window(theirs, *window)
    _send(step, ours)
    return theirs


def set_window(terminal: int, rows: int, columns: int) -> None:
    """Say how large the window of a terminal is; whoever is in its foreground learns of a change by SIGWINCH."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _send(step: socket.socket, terminal: int) -> None:
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [terminal]))
    try:
        step.sendmsg([CONSOLE], [rights], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except OSError:
        pass  # nobody is there any more
    finally:
        os.close(terminal)
