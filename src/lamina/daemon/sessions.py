"""Sessions of clients: the connections through which the daemon calls them back. Thread-safe.

A session is named by its client; the first who claims a name has it until the connection ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lamina.api.errors import ExistsError, NotFoundError
from lamina.cancel import Cancel
from lamina.errors import InputError
from lamina.tunnel.peer import Peer

_MAX_ID = 200
_MAX_METHODS = 256


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What a client says of its session.

    Attributes:
        id: what builds call it; `name` what people may.
        shared_key: tells the client's directories from those of others.
        methods: what it serves, `/package.Service/Method`.
    """

    id: str
    name: str = ""
    shared_key: str = ""
    methods: frozenset[str] = frozenset()


def info_of(metadata: Iterable[tuple[str, str | bytes]]) -> SessionInfo:
    """Return what the request metadata (or HTTP headers) of a session say.

    Raises:
        InputError: they name no session.
    """
    values: dict[str, list[str]] = {}
    for key, value in metadata:
        if isinstance(value, str):
            values.setdefault(key.lower(), []).append(value)

    def first(name: str) -> str:
        return values.get(f"x-docker-expose-session-{name}", [""])[0]

    if not first("uuid") or len(first("uuid")) > _MAX_ID:
        raise InputError("a session needs a name of its own (x-docker-expose-session-uuid)")
    methods = values.get("x-docker-expose-session-grpc-method", [])[:_MAX_METHODS]
    return SessionInfo(first("uuid"), first("name"), first("sharedkey"), frozenset(methods))


@dataclass(frozen=True, slots=True)
class Connected:
    """A session that is there."""

    info: SessionInfo
    peer: Peer


class Sessions:
    """All sessions that are there."""

    def __init__(self) -> None:
        self._sessions: dict[str, Connected] = {}
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, info: SessionInfo, connect: Callable[[], Peer]) -> Iterator[Peer]:
        """Keep a session for as long as the block lasts.

        Raises:
            ExistsError: another connection has that name.
        """
        with self._changed:
            if info.id in self._sessions:
                raise ExistsError(f"there is a session {info.id!r} already")
            peer = connect()
            self._sessions[info.id] = Connected(info, peer)
            self._changed.notify_all()
        try:
            yield peer
        finally:
            with self._changed:
                del self._sessions[info.id]
            peer.close()

    def hold(self, info: SessionInfo, connect: Callable[[], Peer]) -> None:
        """Keep a session until its connection ends."""
        ended = threading.Event()
        with self.holding(info, connect) as peer:
            peer.on_close(ended.set)
            ended.wait()

    def wait(self, name: str, cancel: Cancel, timeout_s: float = 5.0) -> Connected:
        """Return a session; a client may name it a little before it is there.

        Raises:
            NotFoundError: it does not come.
        """
        with self._changed, cancel.closing(self._wake):
            self._changed.wait_for(lambda: name in self._sessions or cancel.is_cancelled(), timeout_s)
            cancel.check()
            if name not in self._sessions:
                raise NotFoundError(f"no such session: {name[:_MAX_ID]!r}")
            return self._sessions[name]

    def count(self) -> int:
        """Return how many there are."""
        with self._changed:
            return len(self._sessions)

    def close(self) -> None:
        """End all sessions."""
        with self._changed:
            peers = [connected.peer for connected in self._sessions.values()]
        for peer in peers:
            peer.close()

    def _wake(self) -> None:
        threading.Thread(target=self._notify, daemon=True).start()  # who cancels may hold the lock

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()
