"""The state file, its locks and its leases."""

import os
import sqlite3
import subprocess
import sys
import threading

import pytest

from lamina.cancel import Cancel
from lamina.errors import CancelledError, StorageError
from lamina.state import leases
from lamina.state.db import State
from lamina.state.leases import Lease
from lamina.state.locks import Locks

UPKEEP_COLUMNS = [
    ("layer", "tree_bytes"),
    ("layer", "index_bytes"),
    ("node", "uses"),
    ("cachemount", "bytes"),
    ("cachemount", "uses"),
    ("cachemount", "measured"),
]


def remove(path):
    for child in path.iterdir():
        child.unlink()
    path.rmdir()


def test_a_new_file_that_others_open_too_is_waited_for(tmp_path, monkeypatch):
    """When several switch a new file to WAL at once, SQLite tells some of them to go away, whatever their timeout."""
    refused = []

    class Contended(sqlite3.Connection):
        def execute(self, sql, *values):
            if sql == "PRAGMA journal_mode=WAL" and len(refused) < 3:
                refused.append(sql)
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorcode = sqlite3.SQLITE_BUSY
                raise error
            return super().execute(sql, *values)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=Contended, **options))
    state = State(tmp_path)

    assert len(refused) == 3
    assert state.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    state.close()


def test_a_newer_schema_stops_with_a_clear_error(tmp_path):
    State(tmp_path).close()
    with sqlite3.connect(tmp_path / "state.db") as db:
        db.execute("PRAGMA user_version=99")
    db.close()

    with pytest.raises(StorageError, match="schema 99"):
        State(tmp_path)


def test_a_file_of_the_first_schema_becomes_a_new_one_and_keeps_its_rows(tmp_path):
    """Whoever updates keeps the cache; the table of downloads comes with schema 2, history with 3."""
    State(tmp_path).close()
    with sqlite3.connect(tmp_path / "state.db") as db:
        fresh = sorted(db.execute("SELECT name, sql FROM sqlite_schema").fetchall())
        for table in ("http", "step", "build", "listing", "pruned", "usage"):
            db.execute(f"DROP TABLE {table}")
        db.execute("DROP INDEX node_description")
        for table, column in UPKEEP_COLUMNS:
            db.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        db.execute("INSERT INTO cachemount VALUES ('a', 'b', 1, 2)")
        db.execute("INSERT INTO layer(tree, size, created, used) VALUES (1, 5000, 1, 2)")
        db.execute("PRAGMA user_version=1")
    db.close()

    state = State(tmp_path)

    assert sorted(state.execute("SELECT name, sql FROM sqlite_schema").fetchall()) == fresh
    assert state.execute("SELECT count(*) FROM cachemount").fetchone() == (1,)
    assert state.execute("SELECT tree_bytes FROM layer").fetchone() == (5000,)
    state.close()


def test_a_file_that_is_no_database_is_moved_aside_and_kept(tmp_path):
    (tmp_path / "state.db").write_bytes(b"not a database at all" * 100)

    state = State(tmp_path)
    state.execute("SELECT * FROM node")
    state.close()

    (aside,) = tmp_path.glob("state.db.broken-*")
    assert aside.read_bytes().startswith(b"not a database")


def test_a_transaction_that_raises_leaves_nothing(tmp_path):
    state = State(tmp_path)

    with pytest.raises(ZeroDivisionError), state.transaction() as connection:
        connection.execute("INSERT INTO meta VALUES ('a', 'b')")
        raise ZeroDivisionError

    assert state.execute("SELECT * FROM meta WHERE name = 'a'").fetchall() == []
    state.close()


def test_after_another_boot_unsynced_records_are_forgotten(tmp_path):
    state = State(tmp_path)
    state.execute("INSERT INTO node(canon, created, used) VALUES ('old', 1, 1)")
    state.mark_synced()
    state.execute("INSERT INTO node(canon, created, used) VALUES ('new', 9e12, 9e12)")
    state.execute("UPDATE meta SET value = 'another' WHERE name = 'boot'")
    state.close()

    state = State(tmp_path)

    assert state.execute("SELECT canon FROM node").fetchall() == [("old",)]
    state.close()


def test_a_lock_excludes_and_is_gone_with_its_holder(tmp_path):
    locks = Locks(tmp_path)
    code = (
        "import sys; from pathlib import Path; from lamina.state.locks import Locks;"
        "Locks(Path(sys.argv[1])).try_acquire('x'); print('held', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"held\n"
    assert locks.try_acquire("x") is None

    child.kill()
    child.communicate()

    fd = locks.try_acquire("x")
    assert fd is not None
    os.close(fd)


def test_waiting_for_a_lock_can_be_cancelled(tmp_path):
    locks, cancel = Locks(tmp_path), Cancel()
    fd = locks.try_acquire("x")
    threading.Timer(0.01, cancel.cancel).start()

    with pytest.raises(CancelledError), locks.hold("x", cancel):
        pass

    os.close(fd)


def test_many_threads_never_hold_one_lock_together(tmp_path):
    locks, inside, seen = Locks(tmp_path), [], []

    def work():
        for _ in range(20):
            with locks.hold("x", Cancel()):
                inside.append(1)
                seen.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(seen) == {1}
    assert os.listdir(tmp_path) == []


def test_sweeping_removes_the_dead_and_keeps_the_living(tmp_path):
    living = Lease(tmp_path)
    code = (
        "import sys; from pathlib import Path; from lamina.state.leases import Lease;print(Lease(Path(sys.argv[1])).id)"
    )
    out = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert (tmp_path / out.stdout.strip()).is_dir()

    assert leases.sweep(tmp_path, remove) == 1

    assert os.listdir(tmp_path) == [living.id]
    assert leases.oldest_live(tmp_path) == living.started
    living.release(remove)
    assert os.listdir(tmp_path) == []


def test_an_empty_work_directory_is_swept_at_once(tmp_path):
    """A build was killed between making its directory and its lock, or between removing its lock and its directory."""
    (tmp_path / "left").mkdir()

    leases.sweep(tmp_path, lambda path: path.rmdir())

    assert list(tmp_path.iterdir()) == []


def test_a_lease_whose_directory_was_swept_while_empty_makes_it_again(tmp_path, monkeypatch):
    real, swept = os.open, []

    def sweeping(path, *arguments, **options):
        if not swept:
            swept.append(path)
            leases.sweep(tmp_path, lambda found: found.rmdir())
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", sweeping)
    lease = leases.Lease(tmp_path)

    assert (lease.directory / "lock").exists() and [path for path, _ in leases.live(tmp_path)] == [lease.directory]
    lease.release(lambda path: [(path / "lock").unlink(), path.rmdir()])
