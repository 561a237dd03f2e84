"""faults 6: requests that no honest client sends. Each gets a result or a clear error, and the daemon goes on."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina import llb
from lamina.api.pb import control_pb2, gateway_pb2
from support.bases import busybox_context
from support.buildkit_client import Client, Offers, new_ref, raw_solve
from support.daemon import Daemon, running_daemon
from support.hostile_messages import altered, definitions, messages

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("crun") is None, reason="needs root and crun: apt-get install crun"
    ),
]
EXAMPLES = int(os.environ.get("LAMINA_HOSTILE_EXAMPLES", "60"))
hostile = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)

ROOT = llb.local("ctx")
REAL = [
    state.marshal()
    for state in (
        ROOT.run(["true"]).mkdir("/d").mkfile("/d/f", b"x").symlink("f", "/d/l").rm("/d/f"),
        ROOT.run(["true"], mounts=[llb.cache("/c"), llb.tmpfs("/t", size=4096), llb.secret("/s", id="s")]),
        llb.merge([ROOT, llb.scratch().copy(ROOT, "/bin", "/b")]).diff(ROOT.mkfile("/f", b"")),
    )
]


class Place:
    """A daemon, a client of it and a session that offers a small root file system."""

    def __init__(self, daemon: Daemon, client: Client, session: str) -> None:
        self.daemon, self.client, self.session = daemon, client, session

    def answered(self, call: Any, *args: Any, **named: Any) -> Any:
        """Call; a refusal is fine as long as it is one of ours."""
        try:
            return call(*args, **named)
        except grpc.RpcError as error:
            assert "internal error" not in error.details(), error.details()
            assert error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED), error
            return None


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("hostile")
    context = busybox_context(folder / "ctx")
    offers = Offers(dirs={"ctx": context / "rootfs", "context": context, "dockerfile": context}, secrets={"s": b"x"})
    with running_daemon(folder / "root") as daemon, Client(daemon.address) as client:
        with client.session(offers) as session:
            found = Place(daemon, client, session)
            yield found
            client.solve(session, Definition=REAL[0])  # it still builds
        assert daemon.process.poll() is None


def raw(place: Place, definition: Any) -> None:
    request = control_pb2.SolveRequest(Ref=new_ref(), Session=place.session, Definition=definition)
    place.answered(place.client.control["Solve"], request, timeout=60)


@hostile
@given(definitions().filter(lambda found: len(getattr(found, "def")) > 0))  # none: the client is the frontend
def test_definitions_of_any_ops(place: Place, definition: Any):
    raw(place, definition)


@hostile
@given(st.sampled_from(REAL).flatmap(altered))
def test_real_definitions_with_an_op_changed(place: Place, definition: Any):
    raw(place, definition)


@hostile
@given(messages(control_pb2.SolveRequest, never=frozenset({"Definition", "Frontend", "Ref", "Session"})), st.booleans())
def test_any_request_to_solve(place: Place, request: Any, by_frontend: bool):
    request.Ref, request.Session = new_ref(), place.session
    if by_frontend:
        request.Frontend = "dockerfile.v0"
    else:
        request.Definition.CopyFrom(REAL[0])
    place.answered(place.client.control["Solve"], request, timeout=60)


UNARY = ("DiskUsage", "Prune", "ListWorkers", "Info", "UpdateBuildHistory")


@hostile
@given(st.data())
def test_any_other_request_to_the_daemon(place: Place, data: st.DataObject):
    name = data.draw(st.sampled_from(UNARY))
    kinds = {"DiskUsage": "DiskUsageRequest", "Prune": "PruneRequest", "ListWorkers": "ListWorkersRequest"}
    kind = getattr(control_pb2, kinds.get(name, f"{name}Request"))
    found = place.answered(place.client.control[name], data.draw(messages(kind)), timeout=60)
    if name == "Prune" and found is not None:
        place.answered(list, found)


@hostile
@given(st.data())
def test_any_request_of_a_frontend(place: Place, data: st.DataObject):
    client, ref = place.client, new_ref()
    names = data.draw(st.lists(st.sampled_from(sorted(METHODS)), min_size=1, max_size=4))
    asked = [(name, data.draw(messages(METHODS[name], never=frozenset({"Frontend"})))) for name in names]
    with_ref, end = data.draw(st.booleans()), data.draw(messages(gateway_pb2.ReturnRequest))
    request = control_pb2.SolveRequest(Ref=ref, Session=place.session)
    solving = threading.Thread(target=place.answered, args=(client.control["Solve"], request), kwargs={"timeout": 60})
    solving.start()
    try:
        solved = client.ask(ref, "Solve", raw_solve(REAL[2])).result.ref.id
        for name, what in asked:
            if with_ref and "Ref" in METHODS[name].DESCRIPTOR.fields_by_name:
                what.Ref = solved
            place.answered(client.ask, ref, name, what)
    finally:
        place.answered(client.ask, ref, "Return", end)
        # A result that is refused leaves the build waiting for a better one; an error always ends it.
        failed = gateway_pb2.ReturnRequest(error={"code": 9, "message": "enough"})
        place.answered(client.ask, ref, "Return", failed)
        solving.join(60)
    assert not solving.is_alive()


METHODS = {
    name: getattr(gateway_pb2, f"{name}Request")
    for name in (
        *("ResolveImageConfig", "ResolveSourceMeta", "Solve", "ReadFile", "ReadDir", "StatFile", "Evaluate"),
        *("Ping", "Inputs", "Warn", "NewContainer", "ReleaseContainer"),
    )
}
