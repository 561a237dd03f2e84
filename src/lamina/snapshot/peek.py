"""Looks into files of a chain, without a mount and without unpacking: headers of programs, small texts.

A file in a *tree* is opened there and a few KiB of it are read. A layer that is only a *blob* is read through once,
and what every program in it says is noted; since a blob never changes, the notes are kept in the state file and the
next build on the same base reads nothing at all.

What is not at hand is not fetched, what is too large is not read: the answer is None then, and whoever asks must take
that as "not known", never as "not there" (that, the union of the indexes says).
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lamina.cancel import Cancel
from lamina.errors import Error
from lamina.layer.compress import open_stream
from lamina.layer.entry import Entry
from lamina.layer.program import HEAD_BYTES, MAX_SEARCH_BYTES, Program, dump_program, load_program, look_at
from lamina.layer.tar_read import iter_entries
from lamina.layer.union import Union
from lamina.oci.digest import Digest
from lamina.rooted import open_beneath, open_root
from lamina.snapshot.layers import Layers
from lamina.snapshot.rows import LayerRow
from lamina.state.db import State

MAX_BLOB_BYTES = 512 << 20
"""Content of the largest blob that is read through."""
MAX_ASIDE_BYTES = 64 << 20
"""The same for files that nobody must know about (see `Peek.program`)."""
MAX_TEXT_BYTES = 64 << 10
MAX_PROGRAMS = 20_000
"""Programs noted of one blob."""

_VERSION = 1
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Notes:
    """What the programs and texts of one blob say."""

    programs: dict[str, Program] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)


class Peek:
    """Looks into one chain. Not thread-safe; close it at the end (a context manager).

    Args:
        rows: the chain, bottom first, as `union` has it.
    """

    def __init__(self, layers: Layers, state: State, rows: list[LayerRow], union: Union, cancel: Cancel) -> None:
        self._layers, self._state, self._rows, self._union, self._cancel = layers, state, rows, union, cancel
        self._roots: dict[int, int] = {}
        self._notes: dict[int, _Notes | None] = {}
        self._seen: dict[tuple[str, bool], Program | None] = {}

    def __enter__(self) -> Peek:
        return self

    def __exit__(self, *_error: object) -> None:
        while self._roots:
            os.close(self._roots.popitem()[1])

    def program(self, path: str, *, deep: bool = False, aside: bool = False) -> Program | None:
        """Return what the file at `path` is.

        Args:
            path: a regular file of the union, links resolved.
            deep: find out whether a static program wants certificates (reads up to 64 MiB of it).
            aside: it would be nice to know, but is not worth reading through a large blob.
        """
        key = (path, deep)
        if key not in self._seen:
            self._seen[key] = self._program(path, deep, aside)
        return self._seen[key]

    def text(self, path: str) -> bytes | None:
        """Return the content of a small file below /etc, None when it is not known, not there, or too large."""
        found = self._place(path)
        if found is None or found[2].size > MAX_TEXT_BYTES:
            return None
        number, name, entry = found
        if not entry.size:
            return b""
        if self._rows[number].tree:
            return self._in_tree(number, name, lambda read_at, size: read_at(0, min(size, MAX_TEXT_BYTES)))
        notes = self._notes_of(number, MAX_BLOB_BYTES)
        return notes.texts.get(name) if notes is not None else None

    def _program(self, path: str, deep: bool, aside: bool) -> Program | None:
        found = self._place(path)
        if found is None:
            return None
        number, name, entry = found
        if not entry.size:
            return Program(b"")
        if self._rows[number].tree:
            return self._in_tree(number, name, lambda read_at, size: look_at(read_at, size, deep=deep))
        notes = self._notes_of(number, MAX_ASIDE_BYTES if aside else MAX_BLOB_BYTES)
        return notes.programs.get(name) if notes is not None else None

    def _place(self, path: str) -> tuple[int, str, Entry] | None:
        """Return the layer that a file's bytes lie in, and their name there."""
        found = self._union.find(path)
        if found is None or found.entry.kind != "f":
            return None
        own = self._union.indexes[found.layer].entries.get(path)
        if own is not None and own.kind == "h" and not self._rows[found.layer].tree:
            return found.layer, own.target, found.entry
        return found.layer, path, found.entry

    def _in_tree(self, number: int, path: str, look: Callable[[Callable[[int, int], bytes], int], T]) -> T | None:
        try:
            fd = open_beneath(self._root(number), path, _READ)
            try:
                return look(lambda offset, length: os.pread(fd, length, offset), os.fstat(fd).st_size)
            finally:
                os.close(fd)
        except OSError as error:
            _log.debug("cannot look at /%s: %s", path, error)
            return None

    def _root(self, number: int) -> int:
        if number not in self._roots:
            self._roots[number] = open_root(self._layers.tree_path(self._rows[number].id))
        return self._roots[number]

    def _notes_of(self, number: int, max_bytes: int) -> _Notes | None:
        """Return the notes of a layer that is only a blob; None when there are none and it will not be read."""
        if number in self._notes:
            return self._notes[number]
        row = self._rows[number]
        if row.blob is None:
            return None
        key = f"programs:{_VERSION}:{row.blob}"
        notes = self._load(key)
        if notes is None:
            if max(row.size, row.blob_size) > max_bytes or not self._layers.store.has(Digest(row.blob)):
                return None
            try:
                notes = self._read_through(row)
            except (Error, OSError) as error:
                self._cancel.check()
                _log.debug("cannot look into layer %s: %s", row.blob, error)
                notes = _Notes()
            else:
                self._save(key, notes)
        self._notes[number] = notes
        return notes

    def _read_through(self, row: LayerRow) -> _Notes:
        notes = _Notes()
        taken = 0  # sparse files may be long in a short blob
        with self._layers.store.open(Digest(row.blob or "")) as stream:
            read = open_stream(stream.read, max_bytes=2 * MAX_BLOB_BYTES, where=row.blob or "")
            for entry, body in iter_entries(read):
                self._cancel.check()
                if entry.kind != "f" or not entry.size or taken > 2 * MAX_BLOB_BYTES:
                    continue
                content = _Forward(body)
                if is_wanted_text(entry):
                    notes.texts[entry.path] = content.read_at(0, entry.size)
                elif may_be_program(entry) and len(notes.programs) < MAX_PROGRAMS:
                    notes.programs[entry.path] = look_at(content.read_at, entry.size, deep=True)
                taken += content.taken
        return notes

    def _load(self, key: str) -> _Notes | None:
        row = self._state.execute("SELECT value FROM memo WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        try:
            value: dict[str, Any] = json.loads(row[0])
            return _Notes(
                {path: load_program(program) for path, program in value["programs"].items()},
                {path: text.encode("latin-1") for path, text in value["texts"].items()},
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return None  # derived: made again

    def _save(self, key: str, notes: _Notes) -> None:
        value = {
            "programs": {path: dump_program(program) for path, program in notes.programs.items()},
            "texts": {path: text.decode("latin-1") for path, text in notes.texts.items()},
        }
        row = (key, json.dumps(value), time.time())
        self._state.execute("INSERT OR REPLACE INTO memo VALUES (?, ?, ?)", row)


def may_be_program(entry: Entry) -> bool:
    """Tell whether a file of a layer is worth looking at: it may be executed, or is named like a library."""
    return bool(entry.mode & 0o111) or ".so" in entry.path.rpartition("/")[2]


def is_wanted_text(entry: Entry) -> bool:
    """Tell whether a file is one of the few texts that say where programs find things."""
    path = entry.path
    return entry.size <= MAX_TEXT_BYTES and (
        path in ("etc/passwd", "etc/group", "etc/ld.so.conf", "etc/ld.so.cache")
        or (path.startswith("etc/ld.so.conf.d/") and path.endswith(".conf"))
        or (path.startswith("etc/ld-musl-") and path.endswith(".path"))
    )


class _Forward:
    """Reads at any offset what comes as a stream, by keeping what has passed (up to 64 MiB)."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._kept = bytearray()

    @property
    def taken(self) -> int:
        """How many bytes have been read."""
        return len(self._kept)

    def read_at(self, offset: int, length: int) -> bytes:
        """Return the bytes there; fewer at the end of the stream or of what is kept."""
        end = min(offset + length, MAX_SEARCH_BYTES)
        while len(self._kept) < end:
            chunk = self._read(min(1 << 20, max(end - len(self._kept), HEAD_BYTES)))
            if not chunk:
                break
            self._kept += chunk
        return bytes(self._kept[offset:end])
