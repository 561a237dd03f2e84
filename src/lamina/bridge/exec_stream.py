"""`ExecProcess`: processes in containers over one stream of messages, each with its number; both ways at once."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator

from google.rpc.status_pb2 import Status

from lamina.api.errors import status_of
from lamina.api.pb import gateway_pb2 as gw
from lamina.bridge.containers import Containers, Process
from lamina.errors import Error
from lamina.rpc.call import ServedCall

_MOST_WAITING = 256
_MOST_PROCESSES = 32
_UNKNOWN = 2


def run_processes(
    containers: Containers, messages: Iterable[gw.ExecMessage], call: ServedCall
) -> Iterator[gw.ExecMessage]:
    """Run what the client asks for, and yield what comes of it, until it ends its side and all processes have ended."""
    stream = _Stream(containers)
    call.on_end(stream.cancel)
    reader = threading.Thread(target=stream.read, args=(messages,), name="exec-input", daemon=True)
    reader.start()
    return stream.answers()


class _Stream:
    """One call: processes by the ids that the client gave them."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._answers: queue.Queue[gw.ExecMessage | None] = queue.Queue(_MOST_WAITING)
        self._processes: dict[str, Process] = {}
        self._guard = threading.Lock()
        self._running = 0
        self._ended = False
        self._cancelled = threading.Event()

    def answers(self) -> Iterator[gw.ExecMessage]:
        """Yield messages to the client."""
        while (message := self._answers.get()) is not None:
            yield message

    def cancel(self) -> None:
        """End all processes: the client is gone."""
        self._cancelled.set()
        with self._guard:
            processes = list(self._processes.values())
        for process in processes:
            process.cancel.cancel()

    def read(self, messages: Iterable[gw.ExecMessage]) -> None:
        """Take messages from the client."""
        try:
            for message in messages:
                self._take(message)
        except Error:  # the call has ended
            self.cancel()
        with self._guard:
            self._ended = True
            for process in self._processes.values():
                process.end_input()
        self._maybe_done()

    def _take(self, message: gw.ExecMessage) -> None:
        kind = message.WhichOneof("Input")
        if kind == "Init":
            self._start(message.ProcessID, message.Init)
            return
        with self._guard:
            process = self._processes.get(message.ProcessID)
        if process is None:
            return  # it has ended meanwhile
        if kind == "File" and message.File.Fd == 0:
            if message.File.Data:
                process.feed(message.File.Data)
            if message.File.EOF:
                process.end_input()
        elif kind == "Resize":
            process.resize(message.Resize.Rows, message.Resize.Cols)
        elif kind == "Signal":
            process.signal(message.Signal.Name)

    def _start(self, name: str, init: gw.InitMessage) -> None:
        def on_output(stream: int, data: bytes) -> None:
            self._tell(gw.ExecMessage(ProcessID=name, File=gw.FdMessage(Fd=stream, Data=data)))

        try:
            with self._guard:
                if name in self._processes or self._running >= _MOST_PROCESSES:
                    raise ValueError("a process of that name runs already, or too many do")
            process = self._containers.start(init, on_output)
        except Exception as error:
            self._tell_end(name, Status(code=_UNKNOWN, message=str(error)) if isinstance(error, ValueError) else error)
            return
        with self._guard:
            self._processes[name] = process
            self._running += 1
        self._tell(gw.ExecMessage(ProcessID=name, Started=gw.StartedMessage()))
        threading.Thread(target=self._run, args=(name, process), name="exec", daemon=True).start()

    def _run(self, name: str, process: Process) -> None:
        end: Status | Exception | None = None
        code = 0
        try:
            result = process.run()
            code = result.exit_code
            if code:
                end = Status(code=_UNKNOWN, message=result.message or f"exit code: {code}")
        except Exception as error:
            end = error
        with self._guard:
            del self._processes[name]
            self._running -= 1
        for stream in (1, 2):
            self._tell(gw.ExecMessage(ProcessID=name, File=gw.FdMessage(Fd=stream, EOF=True)))
        self._tell_end(name, end, code)
        self._maybe_done()

    def _tell_end(self, name: str, end: Status | Exception | None, code: int = 0) -> None:
        status = status_of(end) if isinstance(end, Exception) else end
        failed = isinstance(end, Exception)
        self._tell(gw.ExecMessage(ProcessID=name, Exit=gw.ExitMessage(Code=255 if failed else code, Error=status)))
        self._tell(gw.ExecMessage(ProcessID=name, Done=gw.DoneMessage()))

    def _tell(self, message: gw.ExecMessage) -> None:
        """Queue a message; waits while the client takes none, unless it is gone."""
        while not self._cancelled.is_set():
            try:
                self._answers.put(message, timeout=1.0)
                return
            except queue.Full:
                continue

    def _maybe_done(self) -> None:
        with self._guard:
            done = self._ended and not self._running
        if done:
            try:
                self._answers.put_nowait(None)
            except queue.Full:
                threading.Thread(target=self._answers.put, args=(None,), daemon=True).start()
