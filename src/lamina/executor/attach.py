"""A step that somebody sits in front of: his input, his terminal, his signals.

`Attached` is made by whoever has the user (the command line), handed to `Executor.run`, and may be used from signal
handlers and other threads while the step runs: its methods take no lock and only make system calls that do not
block. `Follower` is the loop that carries bytes both ways until the step has ended.
Must not know where the bytes come from or go to; must not change the user's terminal (the command line does that).
"""

from __future__ import annotations

import array
import os
import select
import socket
import time

from lamina.executor import wire
from lamina.executor.terminal import set_window

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.cancel import Cancel
    from lamina.executor.step import Step

_CHUNK_BYTES = 1 << 18
_INPUT_BYTES = 1 << 16
_ANSWER_BYTES = 1 << 18
_GRACE_S = 10.0


class Attached:
    """The user's end of one running step.

    Args:
        stdin: descriptor that the step's standard input is read from; -1 gives it an empty one. Not closed here.
        size: (rows, columns) of the user's window, for a step with a terminal; zeros when unknown.
    """

    def __init__(self, stdin: int = -1, size: tuple[int, int] = (0, 0)) -> None:
        self.stdin = stdin
        self._size = size
        self._early: list[int] = []  # signals that came before the step was there
        self._socket: socket.socket | None = None
        self._terminal = -1

    def send_signal(self, number: int) -> None:
        """Hand a signal to the step's first process; before its start it is kept, after its end nothing happens.

        Where the process neither catches nor ignores a signal that ends programs, it is ended: the kernel would
        spare it, being the first of its pid namespace, which nobody who presses Ctrl-C means.
        """
        step = self._socket
        if step is None:
            self._early.append(number)
            return
        try:
            step.send(wire.dump_signal(number), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            pass  # it has ended by itself

    def resize(self, rows: int, columns: int) -> None:
        """Tell the step's terminal how large the user's window is now."""
        self._size = (rows, columns)
        if self._terminal >= 0 and rows > 0 and columns > 0:
            try:
                set_window(self._terminal, rows, columns)
            except OSError:
                return  # it has ended by itself
            # The kernel tells whoever reads the terminal; a runtime that stands between has to pass it on.
            self.send_signal(wire.SIGWINCH)

    def bind(self, step: socket.socket) -> None:
        """Take the socket of the step that now runs (for `Executor`)."""
        self._socket = step
        while self._early:
            self.send_signal(self._early.pop(0))

    def bind_terminal(self, terminal: int) -> None:
        """Take the step's terminal (for `Executor`)."""
        self._terminal = terminal
        self.resize(*self._size)

    def unbind(self) -> None:
        """Forget the step, before its descriptors are closed (for `Executor`)."""
        self._socket, self._terminal = None, -1


class Streams:
    """The pipes of one step: what it is given, and our ends.

    Attributes:
        given: output, errors and perhaps input, for the step's process.
        outputs: our ends of the first two, with their numbers.
        sink: our end of the input, -1 when there is none or it is a terminal.
    """

    def __init__(self, step: Step, attached: Attached | None) -> None:
        (out, out_given), (errors, errors_given) = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
        self.given, self.outputs, self.sink = [out_given, errors_given], {out: 1, errors: 2}, -1
        if attached is not None and attached.stdin >= 0 and not step.terminal:
            source, self.sink = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self.sink, False)
            self.given.append(source)

    def close_given(self) -> None:
        """Close the step's ends, which the helper has by now."""
        for fd in self.given:
            os.close(fd)


class Follower:
    """Carries a step's output to `on_output` and the user's input to the step, until it has ended. Used once.

    Args:
        step: our end of the step's socket.
        outputs: pipes to read, to 1 or 2; closed here.
        on_output: takes the stream's number and a chunk.
        attached: the user's end, None when nobody is there.
        sink: write end of the step's standard input (closed here), -1 when it has none or a terminal.
    """

    def __init__(
        self,
        step: socket.socket,
        outputs: dict[int, int],
        on_output: Callable[[int, bytes], None],
        attached: Attached | None,
        sink: int,
    ) -> None:
        self._step = step
        self._pipes = list(outputs)
        self._outputs = dict(outputs)  # those that have not ended
        self._on_output = on_output
        self._attached = attached
        self._poll = select.poll()
        self._terminal = -1
        self._sink = sink
        self._source = attached.stdin if attached is not None and sink >= 0 else -1
        self._pending = b""  # input that the sink had no room for
        self._answer: bytes | None = None

    def run(self, cancel: Cancel) -> bytes | None:
        """Return the helper's answer, b"" when it has gone, None when a cancelled step did not end in time."""
        self._poll.register(self._step, select.POLLIN)
        for fd in self._outputs:
            self._poll.register(fd, select.POLLIN)
        self._watch_input()
        give_up_at: float | None = None
        while self._outputs or self._answer is None:
            # Nothing waits without a bound once it is over: what holds the pipes then is gone or not ours.
            if give_up_at is None and (cancel.is_cancelled() or self._answer is not None):
                give_up_at = time.monotonic() + _GRACE_S
            left = None if give_up_at is None else max(0, give_up_at - time.monotonic())
            ready = self._poll.poll(left if left is None else int(left * 1000) + 1)
            if not ready and left is not None and left <= 0:
                break
            for fd, events in ready:
                self._handle(fd, events)
        return self._answer

    def close(self) -> None:
        """Close our ends. Idempotent."""
        self._close_sink()
        while self._pipes:
            os.close(self._pipes.pop())
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1

    def _handle(self, fd: int, events: int) -> None:
        if fd == self._step.fileno():
            self._hear()
            return
        if fd == self._sink and self._pending:
            self._write()
        if fd == self._source:
            self._read()
        elif fd in self._outputs and events & ~select.POLLOUT:
            self._pass_on(fd)

    def _hear(self) -> None:
        """Take a message of the helper: the step's terminal, or the answer."""
        try:
            data, ancillary, _, _ = self._step.recvmsg(
                _ANSWER_BYTES, socket.CMSG_SPACE(array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
            )
        except OSError:
            data, ancillary = b"", []
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._take_terminal(array.array("i", payload)[0])
                return
        self._answer = data
        self._poll.unregister(self._step)
        self._drop_source()

    def _take_terminal(self, terminal: int) -> None:
        os.set_blocking(terminal, False)
        self._terminal = terminal
        self._outputs[terminal] = 1
        self._poll.register(terminal, select.POLLIN)
        if self._attached is not None:
            self._attached.bind_terminal(terminal)
            self._sink, self._source = terminal, self._attached.stdin
            self._watch_input()

    def _pass_on(self, fd: int) -> None:
        try:
            chunk = os.read(fd, _CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""  # EIO: nobody has the terminal open any more
        if chunk:
            self._on_output(self._outputs[fd], chunk)
            return
        self._poll.unregister(fd)
        del self._outputs[fd]
        if fd == self._sink:
            self._drop_source()
            self._sink, self._pending = -1, b""

    def _watch_input(self) -> None:
        """Wait for input while there is room for it, else for room."""
        if self._sink < 0:
            return
        reads = select.POLLIN if self._sink == self._terminal else 0
        if self._pending:
            self._poll.register(self._sink, reads | select.POLLOUT)
            self._unwatch(self._source)
            return
        if reads:
            self._poll.register(self._sink, reads)
        else:
            self._unwatch(self._sink)
        if self._source >= 0:
            self._poll.register(self._source, select.POLLIN)

    def _unwatch(self, fd: int) -> None:
        try:
            self._poll.unregister(fd)
        except (KeyError, ValueError):
            pass  # it was not watched

    def _read(self) -> None:
        """Read from the user; the end of his input is the end of the step's, unless that is a terminal."""
        try:
            self._pending = os.read(self._source, _INPUT_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._pending = b""  # his terminal has gone
        if not self._pending:
            self._drop_source()
            if self._sink != self._terminal:
                self._close_sink()
            return
        self._write()

    def _write(self) -> None:
        try:
            self._pending = self._pending[os.write(self._sink, self._pending) :]
        except BlockingIOError:
            pass
        except OSError:
            # The step closed its input, or its terminal has gone: it wants no more.
            self._pending = b""
            self._drop_source()
            if self._sink != self._terminal:
                self._close_sink()
            return
        self._watch_input()

    def _drop_source(self) -> None:
        self._unwatch(self._source)
        self._source = -1

    def _close_sink(self) -> None:
        if self._sink >= 0 and self._sink != self._terminal:
            self._unwatch(self._sink)
            os.close(self._sink)
        self._sink, self._pending = -1, b""
