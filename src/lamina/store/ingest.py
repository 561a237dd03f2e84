"""Bytes on their way into the store: written beside the blobs, checked in passing, visible only when they are right.

Life cycle: `write` any number of times, then `commit` or `abort`; leaving the `with` block without a commit aborts.
The partial file lies in `ingest/` under a name nobody can guess and is locked for as long as its writer lives.
With a resume key its name follows from the key instead, and what an interrupted transfer left is taken up again.

Invariants: never more bytes are taken than were promised; a blob has its final name only after digest and size
were checked (and, when durable, after its bytes were synced); on a wrong digest or a full disk nothing is left.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from types import TracebackType
from typing import TYPE_CHECKING

from lamina.errors import StorageError
from lamina.oci.digest import Digest
from lamina.store.errors import VerificationError, storage_error
from lamina.store.files import random_name, sync_directory, unlink_quietly, write_all
from lamina.store.space import UNLIMITED, Space

if TYPE_CHECKING:
    from lamina.oci.descriptor import Descriptor

_BUFFER_BYTES = 1 << 20
RESUME_PREFIX = "resume-"


class Ingest:
    """One blob being written. Not thread-safe; made by `Store.ingest`.

    Args:
        root: the store's root directory.
        expected: digest and size the bytes must have; None when they are not known yet.
        resume_key: names a transfer that may be continued later, "" for none; hashed before it becomes a name.
        durable: whether `commit` returns only once the blob would survive a power cut.
        space: grants what is written; it keeps what a blob takes and gets back the rest.
    """

    def __init__(
        self,
        root: str,
        expected: Descriptor | None = None,
        resume_key: str = "",
        *,
        durable: bool = False,
        space: Space = UNLIMITED,
    ) -> None:
        self._root = root
        self._space, self._claimed = space, 0
        self._expected = expected
        self._durable = durable
        self._algorithm = expected.digest.algorithm if expected is not None else "sha256"
        self._buffer = bytearray()
        self._closed = False
        self._resumable = False
        self.hash = hashlib.new(self._algorithm)
        """Running hash of what was written so far; read it, do not update it."""
        self.offset = 0
        """How many bytes were taken so far; a resumed transfer starts here and not at 0."""
        self.path = ""
        self._fd = -1
        self._open(resume_key)

    # -- writing ---------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take `data` and return its length.

        Raises:
            VerificationError: this is more than was promised; nothing is kept.
            DiskFullError, StorageError: it could not be written; nothing is kept.
        """
        length = len(data)
        if self._expected is not None and self.offset + length > self._expected.size:
            self._fail(f"more than the {self._expected.size} bytes its descriptor promises")
        self.hash.update(data)
        self.offset += length
        if length < _BUFFER_BYTES:
            self._buffer += data
            if len(self._buffer) >= _BUFFER_BYTES:
                self._flush()
        else:
            self._flush()
            self._write_out(data)
        return length

    def restart(self) -> None:
        """Drop what was written and start at 0 again (the server could not continue)."""
        self._buffer.clear()
        try:
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
        except OSError as exc:
            raise storage_error(exc, self.path) from exc
        self.hash = hashlib.new(self._algorithm)
        self.offset = 0
        self._give_back()

    def commit(self) -> tuple[Digest, int]:
        """Check the bytes, give the blob its name, and return its digest and size in bytes.

        A blob that is here already is replaced by these bytes, which have just been checked.

        Raises:
            VerificationError: digest or size are not the expected ones; nothing is kept.
            DiskFullError, StorageError: it could not be written; nothing is kept.
        """
        self._flush()
        digest = Digest(f"{self._algorithm}:{self.hash.hexdigest()}")
        if self._expected is not None:
            if self.offset != self._expected.size:
                self._fail(f"{self.offset} bytes, its descriptor promises {self._expected.size}")
            if digest != self._expected.digest:
                self._fail(f"the content has the digest {digest}")
        folder = os.path.join(self._root, "blobs", digest.algorithm)
        target = os.path.join(folder, digest.hex)
        try:
            # an existing blob may be one that was synced: what takes its place must not be weaker
            known = os.path.lexists(target)
            durable = self._durable or known
            os.fchmod(self._fd, 0o644)
            if durable:
                os.fsync(self._fd)
            os.makedirs(folder, exist_ok=True)
            os.rename(self.path, target)
            if durable:
                sync_directory(folder)
        except OSError as exc:
            self.abort(discard=True)
            raise storage_error(exc, target) from exc
        if known:
            self._give_back()
        self._claimed = 0
        self._close()
        return digest, self.offset

    def abort(self, *, discard: bool = False) -> None:
        """Stop without a blob; idempotent. What a resumable transfer has so far is kept unless `discard`."""
        if self._closed:
            return
        if self._resumable and not discard and self.offset:
            try:
                self._flush()
            except StorageError:
                return  # _flush removed it
        else:
            unlink_quietly(self.path)
        self._close()

    def __enter__(self) -> Ingest:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.abort()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.abort()

    # -- inside ----------------------------------------------------------------------------------------------

    def _open(self, resume_key: str) -> None:
        """Open the partial file and lock it; a resumable one that somebody else writes is left to them."""
        folder = os.path.join(self._root, "ingest")
        names = [random_name() for _ in range(3)]
        if resume_key:
            names.insert(0, RESUME_PREFIX + hashlib.sha256(resume_key.encode()).hexdigest())
        for name in names:
            self.path = os.path.join(folder, name)
            try:
                os.makedirs(folder, exist_ok=True)
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                self._fd = os.open(self.path, flags, 0o600)
            except OSError as exc:
                self._closed = True
                raise storage_error(exc, self.path) from exc
            if self._lock():
                self._resumable = name.startswith(RESUME_PREFIX)
                self._take_up()
                return
            os.close(self._fd)
        self._closed = True
        raise StorageError("cannot lock a file for a new blob", where=folder)

    def _lock(self) -> bool:
        """Lock the open file; False when another writer has it or a sweep has just removed it."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return os.fstat(self._fd).st_nlink == 1

    def _take_up(self) -> None:
        """Hash what an earlier transfer left, or drop it when it cannot be the beginning of what is expected."""
        limit = self._expected.size if self._expected is not None else None
        if limit is not None and os.fstat(self._fd).st_size > limit:
            self.restart()
            return
        while part := os.read(self._fd, _BUFFER_BYTES):
            self.hash.update(part)
            self.offset += len(part)

    def _flush(self) -> None:
        """Write the buffer out."""
        if self._closed:
            raise StorageError("this blob was committed or aborted already", where=self.path)
        if self._buffer:
            data, self._buffer = self._buffer, bytearray()
            self._write_out(data)

    def _write_out(self, data: bytes | bytearray | memoryview) -> None:
        """Write to the file; on failure nothing is kept."""
        if self._closed:
            raise StorageError("this blob was committed or aborted already", where=self.path)
        try:
            self._space.take(len(data))
            self._claimed += len(data)
        except BaseException:
            self.abort(discard=True)
            raise
        try:
            write_all(self._fd, data)
        except OSError as exc:
            needed = len(data) + (self._expected.size - self.offset if self._expected is not None else 0)
            error = storage_error(exc, self.path, needed)
            self.abort(discard=True)
            raise error from exc

    def _fail(self, what: str) -> None:
        """Drop everything and raise."""
        self.abort(discard=True)
        where = str(self._expected.digest) if self._expected is not None else self.path
        raise VerificationError(what, where=where, hint="what was sent is damaged or not what was asked for: try again")

    def _give_back(self) -> None:
        """Return what was claimed and is not part of a blob."""
        if self._claimed:
            self._space.give(self._claimed)
            self._claimed = 0

    def _close(self) -> None:
        """Close the file, which also unlocks it."""
        self._closed = True
        self._give_back()
        self._buffer.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
