"""The logs of a build's steps: whole, without limit, one file per step, written as the output comes.

`<root>/builds/<id>/<number>.log` while the step runs and after it; a long one is compressed when the step ends
(`.log.zst`). What a killed build wrote until then is there and readable. Secrets were blanked
before (lamina.ops.output).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

COMPRESS_FROM = 64 << 10
"""Bytes from which a log is compressed."""
_CHUNK = 1 << 20


class LogWriter:
    """Appends to the logs of one build. Thread-safe.

    A disk that takes no more ends the logs, not the build: `broken` says so.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[int, int] = {}
        self._lock = threading.Lock()
        self.broken = ""
        self.size_bytes = 0

    def write(self, number: int, data: bytes) -> None:
        """Append a piece of a step's output."""
        with self._lock:
            if self.broken:
                return
            try:
                fd = self._files.get(number)
                if fd is None:
                    self._folder.mkdir(parents=True, exist_ok=True)
                    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                    fd = self._files[number] = os.open(self._folder / f"{number}.log", flags, 0o600)
                view = memoryview(data)
                while view:
                    view = view[os.write(fd, view) :]
            except OSError as error:
                self.broken = error.strerror or "cannot write"

    def finish(self, number: int) -> None:
        """A step is done: compress its log if that is worth it."""
        with self._lock:
            fd = self._files.pop(number, None)
        if fd is None:
            return
        try:
            size = os.fstat(fd).st_size
        finally:
            os.close(fd)
        path = self._folder / f"{number}.log"
        try:
            if size >= COMPRESS_FROM:
                size = _compress(path)
        except OSError:
            pass  # the plain file stays
        with self._lock:
            self.size_bytes += size

    def close(self) -> None:
        """Finish every step that is not."""
        for number in list(self._files):
            self.finish(number)


def _compress(path: Path) -> int:
    """Replace a log by its compressed form; return that one's size."""
    import zstandard

    packed, making = path.with_suffix(".log.zst"), path.with_suffix(".tmp")
    with path.open("rb") as source, making.open("wb") as target:
        zstandard.ZstdCompressor(level=1).copy_stream(source, target)
        size = target.tell()
    os.replace(making, packed)
    path.unlink()
    return size


def read_log(folder: Path, number: int) -> Iterator[bytes]:
    """Iterate over the pieces of a step's log; nothing when it wrote nothing."""
    plain, packed = folder / f"{number}.log", folder / f"{number}.log.zst"
    if packed.exists():
        import zstandard

        with packed.open("rb") as source, zstandard.ZstdDecompressor().stream_reader(source) as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk
    elif plain.exists():
        with plain.open("rb") as source:
            while chunk := source.read(_CHUNK):
                yield chunk


def logged(folder: Path) -> list[int]:
    """Return the numbers of the steps that wrote something."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted({int(name.partition(".")[0]) for name in names if ".log" in name and name[0].isdigit()})
