"""A layer's blob as the bytes of its tar, decompressed and digested ahead of who reads them.

Decompression and the diffID's sha256 run in a second thread, one bounded queue ahead: both release the interpreter,
and together they take as long as reading entries and writing files (measured: a fifth to a third of the time saved).
"""

from __future__ import annotations

import threading
from hashlib import sha256
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING

from lamina.layer.compress import decompressed
from lamina.layer.errors import DiffIdError
from lamina.oci.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from lamina.cancel import Cancel

_DEPTH = 4
_WAIT_S = 0.2  # how long a thread may be unaware that the other has gone


class LayerStream:
    """The content of a blob; `read` it to the end, then `check` it. Use in a `with` block.

    Args:
        read: returns up to that many bytes of the blob; called from another thread until the block is left.
        cancel: checked for every MiB.
    """

    def __init__(self, read: Callable[[int], bytes], cancel: Cancel | None = None) -> None:
        self._cancel = cancel
        self._source = read
        self._hash = sha256()
        self._queue: Queue[bytes | BaseException] = Queue(_DEPTH)
        self._stop = threading.Event()
        self._rest = b""
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="unpack-ahead", daemon=True)

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes of the content, b"" at its end.

        Raises:
            CompressionError: the blob is damaged.
            CancelledError: the build was cancelled.
        """
        if not self._rest:
            if self._ended:
                return b""
            chunk = self._next()
            if len(chunk) <= size:
                return chunk
            self._rest = chunk
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    @property
    def diff_id(self) -> Digest:
        """The digest of the content; right once the end was read."""
        return Digest(f"sha256:{self._hash.hexdigest()}")

    def check(self, expected: Digest | None) -> Digest:
        """Return the diffID.

        Raises:
            DiffIdError: it is not the expected one.
        """
        if expected is None or expected.algorithm == "sha256":
            found = self.diff_id
            if expected is not None and found != expected:
                raise DiffIdError(
                    f"the layer's content has the digest {found}, the image's config says {expected}",
                    hint="the image is broken: build or pull it again",
                )
            return found
        raise DiffIdError(f"a diffID of another algorithm than sha256 cannot be checked: {expected}")

    def __enter__(self) -> LayerStream:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _next(self) -> bytes:
        while True:
            if self._cancel is not None:
                self._cancel.check()
            try:
                got = self._queue.get(timeout=_WAIT_S)
            except Empty:
                continue
            if isinstance(got, BaseException):
                self._ended = True
                raise got
            if not got:
                self._ended = True
            return got

    def _run(self) -> None:
        try:
            for chunk in decompressed(self._source):
                self._hash.update(chunk)
                if not self._put(chunk):
                    return
        except BaseException as error:
            self._put(error)
        else:
            self._put(b"")

    def _put(self, item: bytes | BaseException) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_WAIT_S)
            except Full:
                continue
            return True
        return False
