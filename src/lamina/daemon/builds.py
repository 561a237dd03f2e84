"""Builds under way, by the reference their client chose: what happened in each, for whoever watches it.

Invariant: an event is told to every watcher once, in order; a watcher that comes late hears it all, but for logs
beyond `MAX_LOG_BYTES`, of which the oldest are forgotten (history has them whole).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lamina.api.errors import ExistsError, NotFoundError
from lamina.api.pb import control_pb2
from lamina.bridge.bridge import Bridge
from lamina.cancel import Cancel
from lamina.daemon.status import status_messages
from lamina.errors import InputError
from lamina.progress import Event, LogEvent, VertexEvent

MAX_LOG_BYTES = 32 << 20
_TICK_S = 0.03
_MAX_REF = 200
_KEPT_S = 10.0


class Build:
    """One build as its watchers see it.

    Attributes:
        bridge: set while a frontend may ask for things.
        cancel: stops it.
    """

    def __init__(self, ref: str) -> None:
        self.ref = ref
        self.bridge: Bridge | None = None
        self.cancel = Cancel()
        self._events: list[Event | None] = []
        self._completed: set[str] = set()
        self._oldest_log = 0
        self._log_bytes = 0
        self._first_vertex = ""
        self._ended = False
        self.changed = threading.Condition()

    def sink(self, event: Event) -> None:
        """Take an event."""
        with self.changed:
            if isinstance(event, VertexEvent):
                if event.digest in self._completed:
                    return  # a later solve of the same build found what an earlier one did
                if event.completed is not None and not event.error:
                    self._completed.add(event.digest)
                self._first_vertex = self._first_vertex or event.digest
            elif isinstance(event, LogEvent):
                self._log_bytes += len(event.data)
                self._forget_logs()
            self._events.append(event)
            self.changed.notify_all()

    def _forget_logs(self) -> None:
        while self._log_bytes > MAX_LOG_BYTES and self._oldest_log < len(self._events):
            event = self._events[self._oldest_log]
            if isinstance(event, LogEvent):
                self._log_bytes -= len(event.data)
                self._events[self._oldest_log] = None
            self._oldest_log += 1

    def offer(self, bridge: Bridge | None) -> None:
        """Let a client be the frontend, or no longer."""
        with self.changed:
            self.bridge = bridge
            self.changed.notify_all()

    def wait_for_bridge(self, timeout_s: float) -> Bridge:
        """Return the bridge once there is one.

        Raises:
            NotFoundError: the build takes no frontend, or is over.
        """
        with self.changed:
            self.changed.wait_for(lambda: self.bridge is not None or self._ended, timeout_s)
            if self.bridge is None:
                raise NotFoundError(f"the build {self.ref!r} waits for no frontend")
            return self.bridge

    def end(self) -> None:
        """Say that nothing more will happen."""
        with self.changed:
            self._ended = True
            self.bridge = None
            self.changed.notify_all()

    def watch(self, watching: Cancel) -> Iterator[control_pb2.StatusResponse]:
        """Yield what happens, from the beginning until the build ends or the watcher goes."""
        position = 0
        with watching.closing(self._wake):
            while not watching.is_cancelled():
                with self.changed:
                    while len(self._events) == position and not self._ended and not watching.is_cancelled():
                        self.changed.wait()
                    ended = self._ended
                    events = [event for event in self._events[position:] if event is not None]
                    position = len(self._events)
                yield from status_messages(events, self._first_vertex)
                if ended:
                    return
                watching.wait(_TICK_S)  # so that what comes fast goes in one message

    def _wake(self) -> None:
        with self.changed:
            self.changed.notify_all()


class Builds:
    """All builds under way. Thread-safe."""

    def __init__(self) -> None:
        self._builds: dict[str, Build] = {}
        self._ended: dict[str, float] = {}
        self._changed = threading.Condition()
        self._listeners: list[Callable[[str], None]] = []
        self._closing = False

    @contextmanager
    def begin(self, ref: str, *, internal: bool = False) -> Iterator[Build]:
        """Register a build for as long as the block lasts; watchers may still come for some seconds after.

        Args:
            internal: its client wants no record of it; nobody is told that it was.

        Raises:
            ExistsError: one of that name is under way; InputError: not a name.
        """
        if not ref or len(ref) > _MAX_REF:
            raise InputError("a build needs a reference of at most 200 characters")
        build = Build(ref)
        with self._changed:
            if ref in self._builds and ref not in self._ended:
                raise ExistsError(f"a build {ref!r} is under way already")
            if self._closing:
                raise InputError("the daemon is stopping")
            self._forget()
            self._ended.pop(ref, None)
            self._builds[ref] = build
            self._changed.notify_all()
        try:
            yield build
        finally:
            build.end()
            with self._changed:
                self._ended[ref] = time.monotonic()
                self._changed.notify_all()
            if not internal:
                self.tell(ref)

    def tell(self, ref: str) -> None:
        """Tell who listens that something became of a build."""
        with self._changed:
            listeners = list(self._listeners)
        for listener in listeners:
            listener(ref)

    @contextmanager
    def listening(self, listener: Callable[[str], None]) -> Iterator[None]:
        """Have a function called with the reference of each build that begins, ends or is forgotten."""
        with self._changed:
            self._listeners.append(listener)
        try:
            yield
        finally:
            with self._changed:
                self._listeners.remove(listener)

    def find(self, ref: str, timeout_s: float = 0.0) -> Build:
        """Return a build; a client may ask for it a little before it begins.

        Raises:
            NotFoundError: there is none.
        """
        with self._changed:
            self._changed.wait_for(lambda: ref in self._builds, timeout_s)
            self._forget()
            if ref not in self._builds:
                raise NotFoundError(f"no such build: {ref[:_MAX_REF]!r}")
            return self._builds[ref]

    def known(self, ref: str) -> Build | None:
        """Return a build that is under way or was a moment ago."""
        with self._changed:
            self._forget()
            return self._builds.get(ref)

    def running(self) -> list[Build]:
        """Return the builds that are under way."""
        with self._changed:
            return [build for ref, build in self._builds.items() if ref not in self._ended]

    def close(self, timeout_s: float) -> None:
        """Take no new builds, wait for those under way, and cancel what is left after the time."""
        with self._changed:
            self._closing = True
            self._changed.wait_for(lambda: len(self._ended) == len(self._builds), timeout_s)
        for build in self.running():
            build.cancel.cancel()
        with self._changed:
            self._changed.wait_for(lambda: len(self._ended) == len(self._builds), _KEPT_S)

    def _forget(self) -> None:
        """Forget builds that ended a while ago; called with the lock held."""
        now = time.monotonic()
        for ref, ended in list(self._ended.items()):
            if now - ended > _KEPT_S:
                del self._ended[ref]
                del self._builds[ref]
