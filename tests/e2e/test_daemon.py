"""`lamina serve` as BuildKit's clients use it: builds, sessions, progress, errors, history (B22, B23, E1-E4)."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from lamina import llb
from lamina.api.pb import control_pb2, gateway_pb2
from support.bases import busybox_context
from support.buildkit_client import Client, Offers, details, new_ref, raw_solve
from support.daemon import Daemon, running_daemon

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("crun") is None, reason="needs root and crun: apt-get install crun"
)
pytestmark = [pytest.mark.e2e, needs_root]
HOST_NETWORK = ("--allow-insecure-entitlement", "network.host")
PREFIX = "FROM scratch AS base\nCOPY rootfs /\nENV PATH=/bin:/usr/bin\n"


@pytest.fixture
def daemon(tmp_path: Path):
    with running_daemon(tmp_path / "root") as found:
        yield found


@pytest.fixture
def client(daemon: Daemon):
    with Client(daemon.address) as found:
        yield found


def context(folder: Path, dockerfile: str, **files: str) -> Offers:
    """Make a build context; return it as what a client offers."""
    folder.mkdir(exist_ok=True)
    for name, text in {**files, "Dockerfile": dockerfile}.items():
        (folder / name).write_text(text)
    return Offers(dirs={"context": folder, "dockerfile": folder})


def on_busybox(folder: Path, dockerfile: str) -> Offers:
    """Make a build context with a stage `base` that has a shell."""
    busybox_context(folder)
    return context(folder, PREFIX + dockerfile)


def sleep_of_its_own() -> str:
    """Return a command that no other test runs at the same time."""
    return f"sleep {1000 + secrets.randbelow(10**6)}"


def names(responses: list[control_pb2.StatusResponse]) -> set[str]:
    return {vertex.name for response in responses for vertex in response.vertexes}


def test_a_dockerfile_becomes_files_at_the_client(client: Client, tmp_path: Path):
    offers = context(tmp_path / "ctx", "FROM scratch\nCOPY a /d/a\nCOPY b /b\n", a="hello", b="x" * 100_000)
    offers.outputs[0] = tmp_path / "out"
    offers.outputs[0].mkdir()
    with client.session(offers) as session:
        client.dockerfile(session, exporters=[("local", {})])

    assert (tmp_path / "out/d/a").read_text() == "hello"
    assert (tmp_path / "out/b").read_text() == "x" * 100_000


def test_only_what_changed_is_sent_again(client: Client, tmp_path: Path):
    """E1: the second build asks for nothing that it has."""
    offers = context(tmp_path / "ctx", "FROM scratch\nCOPY . /\n", a="a" * 5000, b="b" * 7000)
    with client.session(offers) as session:
        client.dockerfile(session)
        first = dict(offers.sent)
        client.dockerfile(session)
        again = dict(offers.sent)
        (tmp_path / "ctx/b").write_text("c" * 300)
        client.dockerfile(session)

    assert first["context"] >= 12_000
    assert again == first
    assert offers.sent["context"] == first["context"] + 300


def test_an_image_in_the_store_is_told_with_its_digest(client: Client, daemon: Daemon, tmp_path: Path):
    offers = context(tmp_path / "ctx", 'FROM scratch\nCOPY a /a\nENTRYPOINT ["/a"]\n', a="1")
    with client.session(offers) as session:
        response = client.dockerfile(session, exporters=[("image", {"name": "app:1"})])

    assert response["image.name"] == "docker.io/library/app:1"
    assert response["containerimage.digest"].startswith("sha256:")
    environment = {**os.environ, "LAMINA_ROOT": str(daemon.root)}
    shown = subprocess.run(
        [sys.executable, "-m", "lamina", "inspect", "app:1"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert response["containerimage.config.digest"] in shown.stdout


def test_an_archive_is_streamed_to_the_client(client: Client, tmp_path: Path):
    offers = context(tmp_path / "ctx", "FROM scratch\nCOPY a /a\n", a="1")
    offers.outputs[0] = tmp_path / "image.tar"
    with client.session(offers) as session:
        client.dockerfile(session, exporters=[("oci", {"name": "app"})])

    with tarfile.open(tmp_path / "image.tar") as archive:
        assert "index.json" in archive.getnames()


def test_several_outputs_at_once(client: Client, tmp_path: Path):
    offers = context(tmp_path / "ctx", "FROM scratch\nCOPY a /a\n", a="1")
    offers.outputs = {0: tmp_path / "files.tar", 1: tmp_path / "out"}
    (tmp_path / "out").mkdir()
    with client.session(offers) as session:
        client.dockerfile(session, exporters=[("tar", {}), ("local", {}), ("image", {"name": "both"})])

    with tarfile.open(tmp_path / "files.tar") as archive:
        assert archive.extractfile("a").read() == b"1"
    assert (tmp_path / "out/a").read_text() == "1"


def test_steps_get_the_clients_secrets_and_arguments(client: Client, tmp_path: Path):
    """E3: a secret is asked of the session, and is in no result."""
    steps = "ARG A\nRUN --mount=type=secret,id=s sha256sum < /run/secrets/s > /sum; echo $A > /a\n"
    offers = on_busybox(tmp_path / "ctx", f"FROM base AS built\n{steps}FROM scratch\nCOPY --from=built /sum /a /\n")
    offers.secrets["s"] = b"hidden"
    offers.outputs[0] = tmp_path / "out"
    (tmp_path / "out").mkdir()
    with client.session(offers) as session:
        client.dockerfile(session, opts={"build-arg:A": "from outside"}, exporters=[("local", {})])

    assert (tmp_path / "out/a").read_text() == "from outside\n"
    assert (
        (tmp_path / "out/sum")
        .read_text()
        .startswith("e564b4081d7a9ea4b00dada53bdae70c99b87b6fce869f0c3dd4d2bfa1e53e1c")
    )
    assert "secret s" in offers.asked


def test_a_secret_that_is_not_there_is_told(client: Client, tmp_path: Path):
    offers = on_busybox(tmp_path / "ctx", "FROM base\nRUN --mount=type=secret,id=s,required=true true\n")
    with client.session(offers) as session, pytest.raises(grpc.RpcError) as failed:
        client.dockerfile(session)

    assert "secret 's' was not given" in failed.value.details()


def test_a_failing_step_names_its_lines_and_its_output_is_told(client: Client, tmp_path: Path):
    """K8: the client shows the excerpt itself, from typed details."""
    offers = on_busybox(tmp_path / "ctx", "FROM base\nRUN echo almost; exit 7\n")
    ref = new_ref()
    with client.session(offers) as session, pytest.raises(grpc.RpcError) as failed:
        client.dockerfile(session, ref)
    told = client.status(ref)

    status = details(failed.value)
    by_type = {one.type_url.rpartition("/")[2]: json.loads(one.value) for one in status.details}
    assert "exit code: 7" in status.message
    assert by_type["errdefs.Source+json"]["info"]["filename"] == "Dockerfile"
    assert by_type["errdefs.Source+json"]["ranges"] == [{"start": {"line": 5}, "end": {"line": 5}}]
    logs = {log.vertex: log.msg for response in told for log in response.logs}
    assert logs == {by_type["errdefs.Vertex+json"]["digest"]: b"almost\n"}
    errors = [vertex.error for response in told for vertex in response.vertexes if vertex.error]
    assert any("exit code: 7" in error for error in errors)


def test_progress_is_told_while_it_happens_and_after(client: Client, daemon: Daemon, tmp_path: Path):
    offers = context(tmp_path / "ctx", "FROM scratch\nCOPY a /a\n", a="1")
    ref = new_ref()
    told: list[control_pb2.StatusResponse] = []
    watcher = threading.Thread(target=lambda: told.extend(client.status(ref)))
    watcher.start()
    with client.session(offers) as session:
        client.dockerfile(session, ref)
    watcher.join(30)

    assert {"[internal] load build definition from Dockerfile", "[internal] load build context"} <= names(told)
    assert any(name.endswith("COPY a /a") for name in names(told))
    daemon.stop()
    daemon.start()
    with Client(daemon.address) as later:
        assert any(name.endswith("COPY a /a") for name in names(later.status(ref)))


def test_what_is_transferred_is_shown_where_it_is_wanted(client: Client, tmp_path: Path):
    offers = context(tmp_path / "ctx", "FROM scratch\nCOPY a /\n", a="a" * 5000)
    ref = new_ref()
    with client.session(offers) as session:
        client.dockerfile(session, ref=ref)

    told = client.status(ref)
    by_digest = {vertex.digest: vertex.name for response in told for vertex in response.vertexes}
    shown = {(by_digest[one.vertex], one.ID) for response in told for one in response.statuses}
    assert ("[internal] load build context", "transferring context:") in shown
    assert ("[internal] load build definition from Dockerfile", "transferring dockerfile:") in shown


def test_two_clients_with_an_equal_step_run_it_once_and_both_read_its_log(tmp_path: Path):
    """B18: the step ends when the second client has read what it said before that one came."""
    with socket.create_server(("127.0.0.1", 0)) as gate, running_daemon(tmp_path / "root", *HOST_NETWORK) as daemon:
        step = f"RUN --network=host echo it-$((6*7)) && nc 127.0.0.1 {gate.getsockname()[1]}\n"
        offers = on_busybox(tmp_path / "ctx", "FROM base\n" + step)

        def build(ref: str) -> None:
            with Client(daemon.address) as one, one.session(offers) as session:
                one.dockerfile(session, ref, Entitlements=["network.host"])

        def read(ref: str) -> None:
            with Client(daemon.address) as one:
                assert any(b"it-42" in log.msg for response in one.watch(ref) for log in response.logs)

        with ThreadPoolExecutor() as pool:
            first = new_ref(), new_ref()
            builds = [pool.submit(build, ref) for ref in first]
            for watching in [pool.submit(read, ref) for ref in first]:
                watching.result(60)
            gate.settimeout(60)
            gate.accept()[0].close()
            for building in builds:
                building.result(60)


def test_a_raw_definition_is_solved(client: Client, tmp_path: Path):
    offers = Offers(outputs={0: tmp_path / "out"})
    (tmp_path / "out").mkdir()
    definition = llb.scratch().mkfile("/made", b"by hand").marshal()
    with client.session(offers) as session:
        client.solve(session, Definition=definition, exporters=[("local", {})])

    assert (tmp_path / "out/made").read_bytes() == b"by hand"


def test_the_client_itself_is_the_frontend(client: Client, tmp_path: Path):
    """B23: it solves, looks into what came out, and returns it; then it is exported."""
    offers = Offers(outputs={0: tmp_path / "out"})
    (tmp_path / "out").mkdir()
    ref = new_ref()
    state = llb.scratch().mkdir("/d").mkfile("/d/f", b"0123456789").symlink("f", "/d/l")
    with client.session(offers) as session:
        solving = threading.Thread(target=lambda: client.solve(session, ref, exporters=[("local", {})]))
        solving.start()
        pong = client.ask(ref, "Ping", gateway_pb2.PingRequest())
        result = client.ask(ref, "Solve", raw_solve(state.marshal())).result
        name = result.ref.id
        part = gateway_pb2.ReadFileRequest(Ref=name, FilePath="/d/l", Range=gateway_pb2.FileRange(Offset=2, Length=3))
        read = client.ask(ref, "ReadFile", part).Data
        listed = client.ask(ref, "ReadDir", gateway_pb2.ReadDirRequest(Ref=name, DirPath="/d")).entries
        found = client.ask(ref, "StatFile", gateway_pb2.StatFileRequest(Ref=name, Path="/d/l")).stat
        with pytest.raises(grpc.RpcError) as missing:
            client.ask(ref, "ReadFile", gateway_pb2.ReadFileRequest(Ref=name, FilePath="/none"))
        client.ask(ref, "Evaluate", gateway_pb2.EvaluateRequest(Ref=name))
        client.ask(ref, "Return", gateway_pb2.ReturnRequest(result=result))
        solving.join(60)

    assert "solve.base" in {cap.ID for cap in pong.FrontendAPICaps}
    assert "file.base" in {cap.ID for cap in pong.LLBCaps}
    assert read == b"234"
    assert [entry.path for entry in listed] == ["f", "l"]
    assert (found.linkname, found.mode >> 27 & 1) == ("f", 1)
    assert missing.value.code() == grpc.StatusCode.NOT_FOUND
    assert (tmp_path / "out/d/f").read_bytes() == b"0123456789"


def test_what_a_frontend_says_went_wrong_is_the_builds_error(client: Client):
    ref = new_ref()
    failed: list[grpc.RpcError] = []

    def solve() -> None:
        try:
            client.solve(ref=ref)
        except grpc.RpcError as error:
            failed.append(error)

    solving = threading.Thread(target=solve)
    solving.start()
    request = gateway_pb2.ReturnRequest()
    request.error.code, request.error.message = 9, "the recipe is burnt"
    client.ask(ref, "Return", request)
    solving.join(30)

    assert (failed[0].code(), failed[0].details()) == (grpc.StatusCode.FAILED_PRECONDITION, "the recipe is burnt")


def test_a_client_that_goes_away_leaves_nothing_running(client: Client, daemon: Daemon, tmp_path: Path):
    """B21: cancelling the call ends the step."""
    sleep = sleep_of_its_own()
    offers = on_busybox(tmp_path / "ctx", f"FROM base\nRUN echo begun; {sleep}\n")
    ref = new_ref()
    with client.session(offers) as session:
        request = control_pb2.SolveRequest(Ref=ref, Session=session, Frontend="dockerfile.v0")
        call = client.control["Solve"].future(request)
        for response in client.control["Status"](control_pb2.StatusRequest(Ref=ref)):
            if any(log.msg == b"begun\n" for log in response.logs):
                break
        call.cancel()
        client.status(ref)  # ends when the build has

    assert subprocess.run(["pgrep", "-f", sleep], capture_output=True, check=False).stdout == b""
    assert not [name for name in os.listdir(daemon.root / "work") if not name.endswith(".lock")]


def test_a_killed_daemon_starts_again_with_its_cache(client: Client, daemon: Daemon, tmp_path: Path):
    """What was finished before the kill is found; nothing of the rest is left."""
    sleep = sleep_of_its_own()
    offers = on_busybox(tmp_path / "ctx", f"FROM base\nRUN echo one > /one\nRUN {sleep}\n")
    ref = new_ref()
    with client.session(offers) as session:
        request = control_pb2.SolveRequest(Ref=ref, Session=session, Frontend="dockerfile.v0")
        call = client.control["Solve"].future(request)
        for response in client.control["Status"](control_pb2.StatusRequest(Ref=ref)):
            if any(sleep in vertex.name and vertex.HasField("started") for vertex in response.vertexes):
                break
        daemon.kill()
        assert call.exception(30) is not None
    daemon.start()
    offers = on_busybox(tmp_path / "ctx2", "FROM base\nRUN echo one > /one\n")
    ref = new_ref()
    with Client(daemon.address) as later, later.session(offers) as session:
        later.dockerfile(session, ref)
        cached = [v.name for response in later.status(ref) for v in response.vertexes if v.cached]

    assert any("echo one" in name for name in cached)
    assert subprocess.run(["pgrep", "-f", sleep], capture_output=True, check=False).stdout == b""


def test_history_tells_of_builds_and_forgets_them(client: Client, tmp_path: Path):
    offers = context(tmp_path / "ctx", "FROM scratch\nCOPY a /a\n", a="1")
    ref = new_ref()
    with client.session(offers) as session:
        client.dockerfile(session, ref, opts={"build-arg:TOKEN": "hidden", "target": ""})
    request = control_pb2.BuildHistoryRequest(EarlyExit=True, Ref=ref)
    (event,) = client.control["ListenBuildHistory"](request)
    client.control["UpdateBuildHistory"](control_pb2.UpdateBuildHistoryRequest(Ref=ref, Delete=True))

    assert event.record.Ref == ref
    assert event.record.Frontend == "dockerfile.v0"
    assert event.record.FrontendAttrs["build-arg:TOKEN"] == "(hidden)"
    assert event.record.numTotalSteps > 0
    assert list(client.control["ListenBuildHistory"](request)) == []


def test_a_record_is_pinned_and_unpinned(client: Client, tmp_path: Path):
    offers = context(tmp_path / "ctx", "FROM scratch\nCOPY a /a\n", a="1")
    ref = new_ref()
    with client.session(offers) as session:
        client.dockerfile(session, ref)
    request = control_pb2.BuildHistoryRequest(EarlyExit=True, Ref=ref)

    def pinned() -> list[bool]:
        return [event.record.pinned for event in client.control["ListenBuildHistory"](request)]

    assert pinned() == [False]
    client.control["UpdateBuildHistory"](control_pb2.UpdateBuildHistoryRequest(Ref=ref, Pinned=True))
    assert pinned() == [True]
    client.control["UpdateBuildHistory"](control_pb2.UpdateBuildHistoryRequest(Ref=ref, Finalize=True))
    assert pinned() == [True]
    client.control["UpdateBuildHistory"](control_pb2.UpdateBuildHistoryRequest(Ref=ref))
    assert pinned() == [False]


def test_an_internal_build_leaves_no_record(client: Client, tmp_path: Path):
    offers = context(tmp_path / "ctx", "FROM scratch\nCOPY a /a\n", a="1")
    with client.session(offers) as session:
        client.dockerfile(session, Internal=True)

    assert list(client.control["ListenBuildHistory"](control_pb2.BuildHistoryRequest(EarlyExit=True))) == []


def test_disk_usage_and_prune(client: Client, tmp_path: Path):
    offers = context(tmp_path / "ctx", "FROM scratch\nCOPY a /a\n", a="1")
    with client.session(offers) as session:
        client.dockerfile(session, exporters=[("image", {"name": "app"})])
    before = client.control["DiskUsage"](control_pb2.DiskUsageRequest()).record
    gone = list(client.control["Prune"](control_pb2.PruneRequest(all=True)))

    assert sum(record.Size for record in before) > 0
    assert {record.ID for record in gone} <= {record.ID for record in before}
    assert gone


def test_workers_and_version_are_told(client: Client):
    (worker,) = client.control["ListWorkers"](control_pb2.ListWorkersRequest()).record
    info = client.control["Info"](control_pb2.InfoRequest())

    assert worker.platforms[0].OS == "linux"
    assert info.buildkitVersion.package == "lamina"


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"Frontend": "nobody.v9"}, "INVALID_ARGUMENT", "unknown frontend"),
        ({"Session": "not there", "Frontend": "dockerfile.v0"}, "NOT_FOUND", "no such session"),
        ({"Entitlements": ["network.host"]}, "INVALID_ARGUMENT", "does not grant network.host"),
        ({"Entitlements": ["root"]}, "INVALID_ARGUMENT", "unknown entitlement"),
        ({"Frontend": "gateway.v0"}, "INVALID_ARGUMENT", "needs the frontend's image"),
        ({"Frontend": "dockerfile.v0"}, "INVALID_ARGUMENT", "offers no directory"),
        ({"Frontend": "dockerfile.v0", "FrontendAttrs": {"shm-size": "x"}}, "INVALID_ARGUMENT", "shm-size"),
        ({"exporters": [("paper", {})]}, "INVALID_ARGUMENT", "unknown type 'paper'"),
        ({"exporters": [("image", {"colour": "red"})]}, "INVALID_ARGUMENT", "no option 'colour'"),
        ({"exporters": [("local", {})], "Frontend": "dockerfile.v0"}, "INVALID_ARGUMENT", "offers no session"),
    ],
)
def test_what_cannot_be_is_refused(client: Client, fields: dict, code: str, words: str):
    with pytest.raises(grpc.RpcError) as failed:
        client.solve(fields.pop("Session", ""), **fields)

    assert failed.value.code().name == code
    assert words in failed.value.details()


def test_names_of_builds_and_sessions_are_taken_once(client: Client, tmp_path: Path):
    """Two clients that claim one name: the first has it."""
    with client.session(Offers(), "mine") as session:
        with pytest.raises(grpc.RpcError, match="offers no directory"):
            client.dockerfile(session)  # so that it is known to be there
        second = client.control["Session"](iter(()), metadata=[("x-docker-expose-session-uuid", session)])
        with pytest.raises(grpc.RpcError) as failed:
            list(second)
    assert failed.value.code() == grpc.StatusCode.ALREADY_EXISTS

    ref = new_ref()
    call = client.control["Solve"].future(control_pb2.SolveRequest(Ref=ref))  # waits for its frontend
    client.ask(ref, "Ping", gateway_pb2.PingRequest())
    with pytest.raises(grpc.RpcError) as failed:
        client.solve(ref=ref)
    call.cancel()
    assert failed.value.code() == grpc.StatusCode.ALREADY_EXISTS
