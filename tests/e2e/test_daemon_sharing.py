"""Clients that build the same at once: none is hurt by another's end or kept waiting by its size (H6)."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from lamina import llb
from lamina.api.pb import control_pb2
from support.bases import busybox_context
from support.buildkit_client import Client, Offers, new_ref
from support.daemon import Daemon, running_daemon
from support.git_server import Repository, running_git_server
from support.web import Handler, Served, Web, running_web

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("crun") is None, reason="needs root and crun: apt-get install crun"
    ),
]
PREFIX = "FROM scratch AS base\nCOPY rootfs /\nENV PATH=/bin:/usr/bin\n"
PATIENCE_S = 60
GATE = "RUN --mount=type=cache,id=gate,target=/g "
HELD = GATE + "echo x >> /g/begun; until [ -e /g/go ]; do sleep 0.1; done; cat /proc/sys/kernel/random/uuid > /once\n"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with running_daemon(tmp_path / "root") as found:
        yield found


@pytest.fixture
def web() -> Iterator[Web]:
    with running_web() as found:
        yield found


OPEN: list[Building] = []


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    yield
    for building in list(OPEN):
        building.close()


class Building:
    """A build in a thread, by a client of its own; it can be cancelled."""

    def __init__(self, daemon: Daemon, offers: Offers, **fields: object) -> None:
        OPEN.append(self)
        self.ref = new_ref()
        self._client = Client(daemon.address)
        self._session = self._client.session(offers)
        exporters = [control_pb2.Exporter(Type="local", Attrs={})] if offers.outputs else []
        frontend = "" if "Definition" in fields else "dockerfile.v0"
        request = control_pb2.SolveRequest(
            Ref=self.ref, Session=self._session.__enter__(), Frontend=frontend, Exporters=exporters, **fields
        )
        self._call = self._client.control["Solve"].future(request)

    def cancel(self) -> None:
        """Give up, and wait until the daemon has."""
        self._call.cancel()
        try:
            self._client.status(self.ref)
        finally:
            self.close()

    def finish(self) -> None:
        """Wait for the end, which has to be a good one."""
        try:
            self._call.result(PATIENCE_S)
        finally:
            self.close()

    def until(self, is_seen: Callable[[control_pb2.StatusResponse], bool]) -> None:
        """Wait until something is told of the build."""
        for response in self._client.control["Status"](control_pb2.StatusRequest(Ref=self.ref), timeout=PATIENCE_S):
            if is_seen(response):
                return
        raise AssertionError(f"the build ended without that: {self._call.exception(PATIENCE_S)}")

    def close(self) -> None:
        """Let the connection go. Idempotent."""
        if self in OPEN:
            OPEN.remove(self)
            self._session.__exit__(None, None, None)
            self._client.channel.close()


def context(folder: Path, dockerfile: str, out: Path | None = None) -> Offers:
    if not folder.exists():
        busybox_context(folder)
    (folder / "Dockerfile").write_text(PREFIX + dockerfile)
    if out is not None:
        out.mkdir()
    return Offers(dirs={"context": folder, "dockerfile": folder}, outputs={0: out} if out is not None else {})


def gate_of(daemon: Daemon) -> Path:
    """Return the directory of the cache mount by which steps are held, once a step has begun."""
    for _ in range(PATIENCE_S * 20):
        for path in (daemon.root / "caches").rglob("begun"):
            return path.parent
        subprocess.run(["sleep", "0.05"], check=True)
    raise AssertionError("no step has begun")


def is_done(words: str) -> Callable[[control_pb2.StatusResponse], bool]:
    """Tell of a response whether it says that a vertex with these words in its name is completed."""
    return lambda response: any(words in one.name and one.HasField("completed") for one in response.vertexes)


def test_a_step_that_two_want_runs_once(daemon: Daemon, tmp_path: Path):
    outs = tmp_path / "a", tmp_path / "b"
    first = Building(daemon, context(tmp_path / "ctx1", f"FROM base\nRUN true\n{HELD}", outs[0]))
    gate = gate_of(daemon)
    second = Building(daemon, context(tmp_path / "ctx2", f"FROM base\nRUN true\n{HELD}", outs[1]))
    second.until(is_done("RUN true"))
    (gate / "go").touch()
    first.finish()
    second.finish()

    assert (outs[0] / "once").read_text() == (outs[1] / "once").read_text()
    assert (gate / "begun").read_text() == "x\n"


def test_who_waits_for_a_step_of_one_that_gives_up_runs_it(daemon: Daemon, tmp_path: Path):
    first = Building(daemon, context(tmp_path / "ctx1", f"FROM base\nRUN true\n{HELD}"))
    gate = gate_of(daemon)
    others = [
        Building(daemon, context(tmp_path / f"ctx{name}", f"FROM base\nRUN true\n{HELD}", tmp_path / name))
        for name in "abc"
    ]
    for other in others:
        other.until(is_done("RUN true"))
    first.cancel()
    (gate / "go").touch()
    for other in others:
        other.finish()

    assert len({(tmp_path / name / "once").read_text() for name in "abc"}) == 1
    assert (gate / "begun").read_text() == "x\nx\n"


def test_who_waits_for_a_step_of_one_that_was_killed_runs_it(daemon: Daemon, tmp_path: Path):
    context(tmp_path / "ctx1", f"FROM base\nRUN true\n{HELD}")
    command = [sys.executable, "-m", "support.client_process", daemon.address, str(tmp_path / "ctx1")]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, env=environ) as killed:
        gate = gate_of(daemon)
        second = Building(daemon, context(tmp_path / "ctx2", f"FROM base\nRUN true\n{HELD}", tmp_path / "out"))
        second.until(is_done("RUN true"))
        killed.send_signal(signal.SIGKILL)
    (gate / "begun").write_text("")
    (gate / "go").touch()
    second.finish()

    assert len((tmp_path / "out" / "once").read_text()) == 37
    for _ in range(PATIENCE_S * 20):  # what the killed one left is put away beside the other's end
        if not os.listdir(daemon.root / "work"):
            return
        subprocess.run(["sleep", "0.05"], check=True)
    raise AssertionError(os.listdir(daemon.root / "work"))


def test_one_that_waits_may_give_up_too(daemon: Daemon, tmp_path: Path):
    """It leaves who runs the step, and the third that waits, alone."""
    outs = tmp_path / "a", tmp_path / "c"
    first = Building(daemon, context(tmp_path / "ctx1", f"FROM base\nRUN true\n{HELD}", outs[0]))
    gate = gate_of(daemon)
    second = Building(daemon, context(tmp_path / "ctx2", f"FROM base\nRUN true\n{HELD}"))
    third = Building(daemon, context(tmp_path / "ctx3", f"FROM base\nRUN true\n{HELD}", outs[1]))
    for one in (second, third):
        one.until(is_done("RUN true"))
    second.cancel()
    (gate / "go").touch()
    first.finish()
    third.finish()

    assert (outs[0] / "once").read_text() == (outs[1] / "once").read_text()
    assert (gate / "begun").read_text() == "x\n"


def test_a_step_that_fails_for_one_fails_for_the_other_by_its_own_doing(daemon: Daemon, tmp_path: Path):
    """Both are told, and what went wrong is nobody's cached result."""
    step = GATE + "echo x >> /g/begun; until [ -e /g/go ]; do sleep 0.1; done; exit $(wc -l < /g/begun)\n"
    first = Building(daemon, context(tmp_path / "ctx1", f"FROM base\nRUN true\n{step}"))
    gate = gate_of(daemon)
    second = Building(daemon, context(tmp_path / "ctx2", f"FROM base\nRUN true\n{step}"))
    second.until(is_done("RUN true"))
    (gate / "go").touch()
    with pytest.raises(grpc.RpcError, match="exit code: 1"):
        first.finish()
    with pytest.raises(grpc.RpcError, match="exit code: 2"):
        second.finish()


# ---- sources ----


class Held:
    """Holds the first answer of a server when half of it is sent."""

    def __init__(self) -> None:
        self.came, self.go_on = threading.Event(), threading.Event()

    def half_of(self, data: bytes, content_type: str = "application/octet-stream") -> Callable[[Handler], None]:
        def act(handler: Handler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(data)))
            handler.send_header("Content-Type", content_type)
            handler.end_headers()
            handler.wfile.write(data[: len(data) // 2])
            handler.wfile.flush()
            self.came.set()
            self.go_on.wait(PATIENCE_S)
            handler.close_connection = True

        return act


@contextmanager
def held() -> Iterator[Held]:
    found = Held()
    try:
        yield found
    finally:
        found.go_on.set()


def test_a_download_that_one_gives_up_reaches_the_other(daemon: Daemon, web: Web, tmp_path: Path):
    data = os.urandom(500_000)
    web.files["/f"] = Served(data)
    definition = llb.http(web.url("/f")).marshal()
    (tmp_path / "out").mkdir()
    with held() as stop:
        web.on("/f", stop.half_of(data))
        first = Building(daemon, Offers(), Definition=definition)
        assert stop.came.wait(PATIENCE_S)
        second = Building(daemon, Offers(outputs={0: tmp_path / "out"}), Definition=definition)
        first.cancel()
        second.finish()

    assert (tmp_path / "out" / "f").read_bytes() == data


def serve_image(web: Web, name: str) -> tuple[bytes, str]:
    """Serve an image of one layer with a file; return the layer's blob and its path."""
    tar = io.BytesIO()
    content = os.urandom(800_000)
    with tarfile.open(fileobj=tar, mode="w") as archive:
        member = tarfile.TarInfo("content")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    layer = gzip.compress(tar.getvalue(), 1)
    diff_id = f"sha256:{hashlib.sha256(tar.getvalue()).hexdigest()}"
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
    blobs = [json.dumps(config).encode(), layer]
    kinds = ["application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip"]
    described = []
    for kind, data in zip(kinds, blobs, strict=True):
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        web.files[f"/v2/{name}/blobs/{digest}"] = Served(data)
        described.append({"mediaType": kind, "digest": digest, "size": len(data)})
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": described[0], "layers": [described[1]]})
    web.files["/v2/"] = Served(b"{}")
    digest = f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}"
    headers = {"Content-Type": kind, "Docker-Content-Digest": digest}
    for tag in ("latest", digest):
        web.files[f"/v2/{name}/manifests/{tag}"] = Served(manifest.encode(), headers)
    return layer, f"/v2/{name}/blobs/{described[1]['digest']}"


def test_an_image_that_one_gives_up_to_pull_reaches_the_other(daemon: Daemon, web: Web, tmp_path: Path):
    layer, path = serve_image(web, "app")
    dockerfile = (
        f"FROM --platform=linux/amd64 {web.address}/app AS pulled\nFROM scratch\nCOPY --from=pulled /content /\n"
    )
    with held() as stop:
        web.on(path, stop.half_of(layer))
        first = Building(daemon, context(tmp_path / "ctx1", dockerfile, tmp_path / "never"))
        assert stop.came.wait(PATIENCE_S)
        second = Building(daemon, context(tmp_path / "ctx2", dockerfile, tmp_path / "out"))
        second.until(is_done("load metadata"))
        first.cancel()
        second.finish()

    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        assert (tmp_path / "out" / "content").read_bytes() == archive.extractfile("content").read()


@pytest.mark.parametrize("where", ["hold", "hold_objects"])
def test_a_repository_that_one_gives_up_to_fetch_reaches_the_other(daemon: Daemon, tmp_path: Path, where: str):
    repository = Repository(tmp_path / "work")
    repository.write({"f": "one"})
    repository.git("add", "--all")
    repository.git("commit", "-q", "-m", "one")
    (tmp_path / "served").mkdir()
    repository.git("clone", "-q", "--bare", ".", str(tmp_path / "served" / "r.git"))
    (tmp_path / "out").mkdir()
    with running_git_server(tmp_path / "served") as server:
        definition = llb.git(f"{server.url}/r.git", ref="main").marshal()
        setattr(server, where, True)
        first = Building(daemon, Offers(), Definition=definition)
        assert server.reached.wait(PATIENCE_S)
        setattr(server, where, False)
        second = Building(daemon, Offers(outputs={0: tmp_path / "out"}), Definition=definition)
        first.cancel()
        second.finish()
        assert server.gone.wait(PATIENCE_S)

    assert (tmp_path / "out" / "f").read_text() == "one"


# ---- directories of clients ----


def test_one_client_that_stops_sending_holds_nobody_up(daemon: Daemon, tmp_path: Path):
    """Both say that their directory is the same one, as two builds of one user's do; each gets what is in its own."""
    # of different sizes: what has the same name, size and time in one directory is the same file, by the protocol
    contents = {name: os.urandom(400_000 + number) for number, name in enumerate(("slow", "quick", "dead"))}
    offers = {}
    for name, data in contents.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_bytes(data)
        offers[name] = context(tmp_path / name, "FROM scratch\nCOPY f /\n", tmp_path / f"{name}-out")
    for name in ("slow", "dead"):
        offers[name].stall = {"context": 100_000}
    dead, slow = (Building(daemon, offers[name]) for name in ("dead", "slow"))
    for name in ("slow", "dead"):
        assert offers[name].stalled.wait(PATIENCE_S)
    quick = Building(daemon, offers["quick"])
    quick.finish()
    dead.cancel()
    offers["dead"].resume.set()
    again = Building(daemon, context(tmp_path / "dead", "FROM scratch\nCOPY f /\n", tmp_path / "again"))
    again.finish()
    offers["slow"].resume.set()
    slow.finish()

    assert (tmp_path / "quick-out" / "f").read_bytes() == contents["quick"]
    assert (tmp_path / "slow-out" / "f").read_bytes() == contents["slow"]
    assert (tmp_path / "again" / "f").read_bytes() == contents["dead"]


# ---- turns ----


def test_a_build_of_two_hundred_steps_does_not_keep_one_of_a_single_step_waiting(tmp_path: Path):
    """H6: with one step at a time, whoever has fewest waiting is served in his turn."""
    order = GATE + "echo {0} >> /g/begun; until [ -e /g/go ]; do sleep 0.1; done\n"
    stages = [f"FROM base AS s{number}\n{order.format(f'many{number}')}" for number in range(200)]
    copies = [f"COPY --from=s{number} /etc/passwd /p{number}\n" for number in range(200)]
    many_of = context(tmp_path / "ctx1", "".join(stages) + "FROM base\n" + "".join(copies))
    with running_daemon(tmp_path / "root", "--max-parallelism", "1", "--jobs", "200") as daemon:
        many = Building(daemon, many_of)
        waiting: set[str] = set()

        def all_wait(response: control_pb2.StatusResponse) -> bool:
            waiting.update(
                one.digest for one in response.vertexes if "/g/begun" in one.name and one.HasField("started")
            )
            return len(waiting) == 200

        many.until(all_wait)
        one = Building(daemon, context(tmp_path / "ctx2", f"FROM base\n{order.format('single')}", tmp_path / "out"))
        one.until(lambda response: any("echo single" in v.name and v.HasField("started") for v in response.vertexes))
        gate = gate_of(daemon)
        (gate / "go").touch()
        one.finish()
        many.cancel()
        begun = (gate / "begun").read_text().split()

    assert begun.index("single") < 10
