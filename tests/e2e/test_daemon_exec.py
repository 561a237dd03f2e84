"""Processes that a frontend runs in what was built (B23): output, input, signals, secrets, and how they end."""

from __future__ import annotations

import os
import queue
import shutil
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import grpc
import pytest

from lamina import llb
from lamina.api.pb import gateway_pb2 as gw
from lamina.llb.pb import ops_pb2 as pb
from support.bases import busybox_context
from support.buildkit_client import Client, Offers, new_ref, raw_solve
from support.daemon import running_daemon

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("crun") is None, reason="needs root and crun: apt-get install crun"
)
pytestmark = [pytest.mark.e2e, needs_root]


class Frontend:
    """A frontend at the client's end with one container `c` on busybox at a time."""

    def __init__(self, client: Client, ref: str) -> None:
        self.client, self.ref, self.has_one = client, ref, False
        self.started = threading.Event()

    def container(self, *mounts: pb.Mount) -> None:
        state = llb.scratch().copy(llb.local("context"), "/rootfs", "/")
        name = self.client.ask(self.ref, "Solve", raw_solve(state.marshal())).result.ref.id
        if self.has_one:
            self.client.ask(self.ref, "ReleaseContainer", gw.ReleaseContainerRequest(ContainerID="c"))
        self.has_one = True
        request = gw.NewContainerRequest(ContainerID="c", Mounts=[pb.Mount(dest="/", resultID=name), *mounts])
        self.client.ask(self.ref, "NewContainer", request)

    def run(self, *args: str, messages: Iterable[gw.ExecMessage] = (), **init: object) -> tuple[bytes, bytes, int]:
        """Run one process; return its output, its errors and its exit code."""
        meta = pb.Meta(args=args, cwd="/", env=["PATH=/bin"])
        first = gw.ExecMessage(ProcessID="p", Init=gw.InitMessage(ContainerID="c", Meta=meta, **init))
        ended: queue.SimpleQueue[None] = queue.SimpleQueue()

        def sent() -> Iterator[gw.ExecMessage]:
            yield first
            yield from messages
            ended.get()

        metadata = [("buildkit-controlapi-buildid", self.ref)]
        output = {1: b"", 2: b""}
        code, kinds = -1, []
        for message in self.client.bridge["ExecProcess"](sent(), metadata=metadata, timeout=60):
            kind = message.WhichOneof("Input")
            kinds.append(kind)
            if kind == "Started":
                self.started.set()
            if kind == "File":
                output[message.File.Fd] += message.File.Data
            elif kind == "Exit":
                code = message.Exit.Code
                self.error = message.Exit.Error.message
            elif kind == "Done":
                ended.put(None)
        assert kinds[-2:] == ["Exit", "Done"]
        assert kinds[0] in ("Started", "Exit")
        return output[1], output[2], code


@pytest.fixture
def frontend(tmp_path: Path):
    busybox_context(tmp_path / "ctx")
    offers = Offers(dirs={"context": tmp_path / "ctx"}, secrets={"s": b"hidden"})
    with (
        running_daemon(tmp_path / "root") as daemon,
        Client(daemon.address) as client,
        client.session(offers) as session,
    ):
        ref = new_ref()
        solving = threading.Thread(target=lambda: client.solve(session, ref))
        solving.start()
        yield Frontend(client, ref)
        client.ask(ref, "Return", gw.ReturnRequest(result=gw.Result(ref=gw.Ref())))
        solving.join(30)


def test_a_process_runs_on_what_was_built(frontend: Frontend):
    frontend.container()

    assert frontend.run("sh", "-c", "ls /bin/sh; echo wrong >&2; exit 5") == (b"/bin/sh\n", b"wrong\n", 5)
    frontend.container()
    assert frontend.run("cat", "/none")[2] == 1


def test_input_reaches_the_process_and_ends(frontend: Frontend):
    frontend.container()
    messages = iter(
        [
            gw.ExecMessage(ProcessID="p", File=gw.FdMessage(Fd=0, Data=b"to be turned")),
            gw.ExecMessage(ProcessID="p", File=gw.FdMessage(Fd=0, EOF=True)),
        ]
    )

    assert frontend.run("rev", messages=messages)[0].strip() == b"denrut eb ot"


def test_a_signal_reaches_the_process(frontend: Frontend):
    frontend.container()
    messages = iter([gw.ExecMessage(ProcessID="p", Signal=gw.SignalMessage(Name="SIGTERM"))])

    out, _, code = frontend.run("sh", "-c", "trap 'echo caught; exit 3' TERM; sleep 60 & wait", messages=messages)
    assert (out, code) in ((b"caught\n", 3), (b"", 143))  # it may come before the shell has set its trap


def test_a_terminal_is_one(frontend: Frontend):
    frontend.container()

    out, _, code = frontend.run("sh", "-c", "test -t 0 && test -t 1 && echo yes", Tty=True)
    assert (out.strip(), code) == (b"yes", 0)


def test_mounts_and_secrets_are_there_and_writes_are_not_kept(frontend: Frontend):
    cache = pb.Mount(dest="/c", input=-1, output=-1, mountType=3, cacheOpt=pb.CacheOpt(ID="x"))
    memory = pb.Mount(dest="/t", input=-1, output=-1, mountType=4)
    frontend.container(cache, memory)
    secret = [pb.SecretEnv(ID="s", name="S")]

    script = "echo $S | wc -c; echo kept > /c/f; echo gone > /bin/f; touch /t/f"
    assert frontend.run("sh", "-c", script, secretenv=secret)[0] == b"7\n"
    frontend.container(cache, memory)
    assert frontend.run("sh", "-c", "cat /c/f; ls /bin/f /t/f")[:1] == (b"kept\n",)


def test_a_second_process_joins_the_first_with_secrets_of_its_own(frontend: Frontend):
    """The first one waits for what the second one writes, in files that both see."""
    frontend.container()
    ends: list[tuple[bytes, bytes, int]] = []
    wait = ("sh", "-c", "until test -e /go; do :; done")
    first = threading.Thread(target=lambda: ends.append(frontend.run(*wait)))
    first.start()
    assert frontend.started.wait(30)
    secret = [pb.SecretEnv(ID="s", name="S")]
    found = frontend.run("sh", "-c", "echo $S; test $$ != 1 && touch /go", secretenv=secret)
    first.join(30)

    assert found == (b"hidden\n", b"", 0)
    assert [end[2] for end in ends] == [0]


def test_what_cannot_run_is_told(frontend: Frontend):
    frontend.container()

    assert frontend.run("nobody-has-this")[2] == 127
    assert frontend.run("true")[2] == 255
    assert "first process has ended" in frontend.error
    frontend.container()
    meta = pb.Meta(args=["true"], cwd="/")
    assert frontend.run("true", Security=pb.INSECURE)[2] == 255
    assert "was not allowed" in frontend.error
    other = gw.InitMessage(ContainerID="other", Meta=meta)
    call = frontend.client.bridge["ExecProcess"](
        iter([gw.ExecMessage(ProcessID="p", Init=other)]),
        metadata=[("buildkit-controlapi-buildid", frontend.ref)],
    )
    assert [m.Exit.Error.message for m in call if m.HasField("Exit")] == ["no such container: 'other'"]


def test_a_container_is_released_once(frontend: Frontend):
    frontend.container()
    request = gw.ReleaseContainerRequest(ContainerID="c")
    frontend.client.ask(frontend.ref, "ReleaseContainer", request)
    with pytest.raises(grpc.RpcError) as failed:
        frontend.client.ask(frontend.ref, "ReleaseContainer", request)

    assert failed.value.code() == grpc.StatusCode.NOT_FOUND
