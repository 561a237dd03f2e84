"""Connections to the state file: opened once per thread, in WAL mode, with the schema checked.

Writers take `transaction()` (BEGIN IMMEDIATE), readers just `execute`. Several processes share the file;
SQLite's own locking orders them. A file that is not a database is moved aside and said so, never deleted.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lamina.errors import StorageError
from lamina.state import schema

FILE = "state.db"
_BUSY_TIMEOUT_S = 30.0


class State:
    """The state file below `root`. Thread-safe: every thread gets a connection of its own.

    Raises:
        StorageError: the file cannot be opened, or was written by a newer lamina.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._path = root / FILE
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        root.mkdir(parents=True, exist_ok=True)
        try:
            self._prepare(self.connection())
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise StorageError(f"cannot open the state file: {error}", where=str(self._path)) from error
            self._set_aside(error)
            self._prepare(self.connection())

    def connection(self) -> sqlite3.Connection:
        """Return this thread's connection."""
        found: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = sqlite3.connect(
                self._path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, cached_statements=64
            )
            _use_wal(found)
            found.execute("PRAGMA synchronous=NORMAL")
            found.execute("PRAGMA foreign_keys=ON")
            self._local.connection = found
            with self._lock:
                self._all.append(found)
        return found

    def execute(self, sql: str, values: Iterable[Any] = ()) -> sqlite3.Cursor:
        """Run one statement; a write outside `transaction()` commits at once."""
        try:
            return self.connection().execute(sql, tuple(values))
        except sqlite3.OperationalError as error:
            raise self._failed(error) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock for the block; commit at its end, roll back when it raises. Nests."""
        connection = self.connection()
        if connection.in_transaction:
            yield connection
            return
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                if connection.in_transaction:  # SQLite rolls back by itself when the disk is full
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise self._failed(error) from error

    def _failed(self, error: sqlite3.OperationalError) -> StorageError:
        """Return the error that tells what SQLite said, and what helps."""
        full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        hint = "free some space (lamina prune) or move the state directory (LAMINA_ROOT)" if full else ""
        return StorageError(f"the state file failed: {error}", where=str(self._path), hint=hint)

    def close(self) -> None:
        """Close every thread's connection."""
        with self._lock:
            for connection in self._all:
                connection.close()
            self._all.clear()
        self._local = threading.local()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > schema.VERSION:
            raise StorageError(
                f"the state file has schema {version}, this lamina knows up to {schema.VERSION}",
                where=str(self._path),
                hint="use the newer lamina that wrote it, or another --root",
            )
        if version < schema.VERSION:
            with self.transaction():
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version == 0:
                    for statement in schema.TABLES.split(";\n"):
                        if statement.strip():
                            connection.execute(statement)
                else:
                    for step in range(version, schema.VERSION):
                        for statement in schema.MIGRATIONS[step].split(";\n"):
                            connection.execute(statement)
                connection.execute(f"PRAGMA user_version={schema.VERSION}")
        self._drop_unsynced(connection)

    def _drop_unsynced(self, connection: sqlite3.Connection) -> None:
        """After a new boot, forget records whose files may not have reached the disk.

        `synced` is the time before which everything was known to be on disk when it was last looked at.
        """
        boot = _boot_id()
        known = dict(connection.execute("SELECT name, value FROM meta WHERE name IN ('boot', 'synced')"))
        if known.get("boot") == boot:
            return
        with self.transaction():
            if "boot" in known:
                since = float(known.get("synced", "0"))
                connection.execute(
                    "INSERT OR REPLACE INTO pruned SELECT canon, description, parts, ?, ? FROM node WHERE created > ?",
                    ("the start after a power cut", time.time(), since),
                )
                connection.execute("DELETE FROM node WHERE created > ?", (since,))
                connection.execute("UPDATE layer SET tree = 0, indexed = 0, blob = NULL WHERE created > ?", (since,))
                connection.execute("DELETE FROM memo")
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('boot', ?)", (boot,))

    def mark_synced(self) -> None:
        """Flush the file system below the state file and note that everything until now is on disk."""
        now = time.time()
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            import ctypes

            ctypes.CDLL(None, use_errno=True).syncfs(fd)
        finally:
            os.close(fd)
        self.execute("INSERT OR REPLACE INTO meta VALUES ('synced', ?)", (str(now),))

    def _set_aside(self, error: Exception) -> None:
        """Move a broken state file out of the way, with its companions."""
        self.close()
        aside = self._path.with_name(f"{FILE}.broken-{int(time.time())}")
        os.replace(self._path, aside)
        for suffix in ("-wal", "-shm"):
            companion = self._path.with_name(FILE + suffix)
            if companion.exists():
                os.replace(companion, aside.with_name(aside.name + suffix))
        import logging

        logging.getLogger(__name__).warning(
            "the state file was unreadable (%s) and was moved to %s; the cache starts empty", error, aside
        )


def _use_wal(connection: sqlite3.Connection) -> None:
    """Put the file into WAL mode, once and for all who open it.

    Several that open a new file at once may all want to change its mode, and SQLite does not wait for that lock.
    """
    deadline = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            busy = getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _boot_id() -> str:
    """Return the kernel's id of this boot."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "unknown"
