"""`lamina serve` killed with -9 amid builds of many kinds: what is left, what is found again."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest

from lamina import llb
from lamina.api.pb import control_pb2
from support.bases import busybox_context
from support.buildkit_client import Client, Offers
from support.daemon import Daemon, running_daemon
from support.web import Handler, Served, Web, running_web

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("crun") is None, reason="needs root and crun: apt-get install crun"
    ),
]
PREFIX = "FROM scratch AS base\nCOPY rootfs /\nENV PATH=/bin:/usr/bin\n"
UNIQUE = "RUN cat /proc/sys/kernel/random/uuid > /once\n"
PATIENCE_S = 60


class Silence:
    """A server on loopback that takes connections and says nothing; `came` is set with the first."""

    def __init__(self) -> None:
        self.came = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._taken: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                self._taken.append(self._listener.accept()[0])
            except OSError:
                return
            self.came.set()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._taken:
            one.close()


@contextmanager
def silence() -> Iterator[Silence]:
    server = Silence()
    try:
        yield server
    finally:
        server.close()


def offers_of(folder: Path, dockerfile: str, **outputs: Path) -> Offers:
    """Return a context on busybox as what a client offers."""
    if not folder.exists():
        busybox_context(folder)
    (folder / "Dockerfile").write_text(PREFIX + dockerfile)
    offers = Offers(dirs={"context": folder, "dockerfile": folder})
    for path in outputs.values():
        path.mkdir(exist_ok=True)
        offers.outputs[len(offers.outputs)] = path
    return offers


class Begun:
    """A build in a thread of its own, with a connection of its own."""

    def __init__(self, daemon: Daemon, offers: Offers, **fields: object) -> None:
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(daemon, offers, fields), daemon=True)
        self._thread.start()

    def _run(self, daemon: Daemon, offers: Offers, fields: dict) -> None:
        try:
            with Client(daemon.address) as client, client.session(offers) as session:
                build = client.solve if "Definition" in fields else client.dockerfile
                build(session, **fields)
        except BaseException as error:
            self.error = error

    def join(self) -> None:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


def half_of(served: Served, came: threading.Event, go_on: threading.Event) -> Callable[[Handler], None]:
    """Send half of a file, and wait."""

    def act(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(served.data)))
        handler.end_headers()
        handler.wfile.write(served.data[: len(served.data) // 2])
        handler.wfile.flush()
        came.set()
        go_on.wait(PATIENCE_S)
        handler.close_connection = True

    return act


def processes_of(root: Path, *words: str) -> list[str]:
    """Return the command lines of processes that name the state directory, or one of the words."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if any(word in line for word in (str(root), *words)):
            found.append(line)
    return found


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


def assert_nothing_left(daemon: Daemon, folder: Path, temporary: Path) -> None:
    """Check that of the dead daemon's builds nothing runs, is mounted or lies about, and that the store is whole."""
    assert processes_of(folder / "root") == []
    assert [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in line] == []
    assert list((daemon.root / "work").iterdir()) == []
    assert files_below(daemon.root / "oci" / "ingest") == []
    assert list(temporary.iterdir()) == []
    check = [sys.executable, "-m", "lamina", "store", "check"]
    environment = {**os.environ, "LAMINA_ROOT": str(daemon.root)}
    checked = subprocess.run(check, env=environment, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.fixture
def web() -> Iterator[Web]:
    with running_web() as found:
        yield found


def test_nothing_is_lost_and_nothing_left_when_it_dies_amid_builds_of_every_kind(
    tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch
):
    """Steps, downloads, directories of clients, outputs, cache exports and agents, all under way when it ends."""
    temporary = Path(tempfile.mkdtemp(prefix="lk-"))  # a socket's path must be short
    monkeypatch.setenv("TMPDIR", str(temporary))
    go_on, downloading = threading.Event(), threading.Event()
    data = os.urandom(300_000)
    web.files["/f"] = Served(data)
    big = os.urandom(400_000)
    sleeps = [f"sleep {1000 + secrets.randbelow(10**6)}" for _ in range(3)]
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, temporary, ignore_errors=True)
        stack.callback(go_on.set)
        daemon = stack.enter_context(running_daemon(tmp_path / "root"))
        registry, cache, base, git = (stack.enter_context(silence()) for _ in range(4))
        # ---- one that is done, and others on top of it
        done = offers_of(tmp_path / "done", f"FROM base\n{UNIQUE}", out=tmp_path / "once")
        first = Begun(daemon, done, exporters=[("local", {}), ("image", {"name": "kept"})])
        first.join()
        assert first.error is None
        once = (tmp_path / "once" / "once").read_text()
        # ---- each of these stops somewhere else
        steps = []
        for number, sleep in enumerate(sleeps):
            mounts = f"--mount=type=cache,target=/c,id=k{number} --mount=type=ssh"
            step = offers_of(tmp_path / f"step{number}", f"FROM base\n{UNIQUE}RUN {mounts} echo x > /c/n; {sleep}\n")
            step.agents["default"] = tmp_path / "agent"  # never spoken to
            steps.append(Begun(daemon, step))
        web.on("/f", half_of(web.files["/f"], downloading, go_on))
        download = llb.http(web.url("/f"))
        sources = [Begun(daemon, Offers(), Definition=download.marshal())]
        fetch = llb.git(f"http://{git.address}/r.git", ref="main")
        sources.append(Begun(daemon, Offers(), Definition=fetch.marshal()))
        sources.append(Begun(daemon, offers_of(tmp_path / "pulling", f"FROM {base.address}/i AS pulled\nRUN true\n")))
        sending = offers_of(tmp_path / "sending", "FROM scratch\nCOPY . /\n", out=tmp_path / "sent")
        (tmp_path / "sending" / "big").write_bytes(big)
        sending.stall = {"context": 100_000}
        taking = offers_of(tmp_path / "taking", f"FROM base\n{UNIQUE}", out=tmp_path / "taken")
        taking.stall_outputs = True
        archive = offers_of(tmp_path / "archive", f"FROM base\n{UNIQUE}")
        archive.outputs[0], archive.stall_outputs = tmp_path / "image.tar", True
        stopped = [
            Begun(daemon, sending, exporters=[("local", {})]),
            Begun(daemon, taking, exporters=[("local", {})]),
            Begun(daemon, archive, exporters=[("oci", {"name": "x"})]),
        ]
        exporting = offers_of(tmp_path / "exporting", f"FROM base\n{UNIQUE}")
        to_silence = {"name": f"{registry.address}/x", "push": "true", "registry.insecure": "true"}
        stopped.append(Begun(daemon, exporting, exporters=[("image", to_silence)]))
        entry = control_pb2.CacheOptionsEntry(
            Type="registry", Attrs={"ref": f"{cache.address}/c", "registry.insecure": "true"}
        )
        caching = offers_of(tmp_path / "caching", f"FROM base\n{UNIQUE}")
        stopped.append(Begun(daemon, caching, Cache=control_pb2.CacheOptions(Exports=[entry])))
        stops = [downloading, *(server.came for server in (git, base, registry, cache))]
        for event in (*stops, sending.stalled, taking.stalled, archive.stalled):
            assert event.wait(PATIENCE_S)
        for sleep in sleeps:
            _wait_for_process(sleep)
        assert len(list(temporary.glob("lamina-agent-*/s"))) == len(sleeps)

        daemon.kill()
        for begun in (*steps, *sources, *stopped):
            begun.join()
            assert isinstance(begun.error, grpc.RpcError)
        go_on.set()
        for offers in (sending, taking, archive):
            offers.resume.set()

        # ---- no process outlives it, though nobody was left to end them
        for sleep in sleeps:
            _wait_for_no_process(sleep)
        _wait_for_no_process(f"{git.address}/r.git")
        daemon.start()

        assert_nothing_left(daemon, tmp_path, temporary)

        # ---- everything goes on where it was
        again = offers_of(tmp_path / "done", f"FROM base\n{UNIQUE}", out=tmp_path / "again")
        sent = offers_of(tmp_path / "sending", "FROM scratch\nCOPY . /\n", out=tmp_path / "sent")
        (tmp_path / "got").mkdir()
        got = Offers(outputs={0: tmp_path / "got"})
        later = [
            Begun(daemon, again, exporters=[("local", {})]),
            Begun(daemon, sent, exporters=[("local", {})]),
            Begun(daemon, got, Definition=download.marshal(), exporters=[("local", {})]),
        ]
        for begun in later:
            begun.join()
            assert begun.error is None, begun.error

    assert (tmp_path / "again" / "once").read_text() == once
    assert (tmp_path / "sent" / "big").read_bytes() == big
    assert (tmp_path / "got" / "f").read_bytes() == data


def _wait_for_process(words: str) -> None:
    for _ in range(600):
        if subprocess.run(["pgrep", "-f", words], capture_output=True, check=False).returncode == 0:
            return
        subprocess.run(["sleep", "0.1"], check=True)
    raise AssertionError(f"there is no {words}")


def _wait_for_no_process(words: str) -> None:
    for _ in range(100):
        if subprocess.run(["pgrep", "-f", words], capture_output=True, check=False).returncode:
            return
        subprocess.run(["sleep", "0.1"], check=True)
    raise AssertionError(f"there is still {words}")
