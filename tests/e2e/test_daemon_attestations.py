"""G1-G5 through the daemon: what clients ask for by default, and what frontends bring."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest

from lamina import llb
from lamina.api.pb import gateway_pb2
from support.attested import Attested, read_attested
from support.buildkit_client import Client, Offers, new_ref, raw_solve
from support.daemon import running_daemon

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("crun") is None, reason="needs root and crun: apt-get install crun"
)
pytestmark = [pytest.mark.e2e, needs_root]
V1, V02, SPDX = "https://slsa.dev/provenance/v1", "https://slsa.dev/provenance/v0.2", "https://spdx.dev/Document"
BUILDX = {"attest:provenance": "mode=min,inline-only=true,builder-id=https://ci.example/run/1"}


@pytest.fixture
def client(tmp_path: Path):
    with running_daemon(tmp_path / "root") as daemon, Client(daemon.address) as found:
        yield found


@pytest.fixture
def offers(tmp_path: Path) -> Offers:
    folder = tmp_path / "ctx"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\nARG WORD\nCOPY Dockerfile /d\n")
    found = Offers(dirs={"context": folder, "dockerfile": folder})
    found.outputs[0] = tmp_path / "out.tar"
    return found


def built(client: Client, offers: Offers, opts: dict[str, str], **attrs: str) -> Attested:
    with client.session(offers) as session:
        client.dockerfile(session, opts=opts, exporters=[("oci", {"attestation-inline": "true", **attrs})])
    return read_attested(offers.outputs[0])


def test_what_buildx_asks_by_default(client: Client, offers: Offers):
    found = built(
        client, offers, {**BUILDX, "build-arg:WORD": "xyzzy", "vcs:source": "https://a:b@git.example/r"}, name="app"
    )

    predicate = found.statement(V1)["predicate"]
    assert predicate["runDetails"]["builder"]["id"] == "https://ci.example/run/1"
    assert predicate["buildDefinition"]["externalParameters"]["request"] == {
        "frontend": "dockerfile.v0", "locals": [{"name": "context"}, {"name": "dockerfile"}]
    }  # fmt: skip
    assert predicate["runDetails"]["metadata"]["buildkit_metadata"] == {"vcs": {"source": "https://git.example/r"}}
    assert "xyzzy" not in json.dumps(predicate)


def test_all_of_it_in_the_old_version(client: Client, offers: Offers):
    found = built(client, offers, {"attest:provenance": "mode=max,version=v0.2", "build-arg:WORD": "xyzzy"})

    predicate = found.statement(V02)["predicate"]
    assert predicate["invocation"]["parameters"]["args"] == {"build-arg:WORD": "xyzzy"}
    assert predicate["buildConfig"]["llbDefinition"][0]["op"]["Op"]["source"]["identifier"] == "local://context"
    (layers,) = predicate["metadata"]["https://mobyproject.org/buildkit@v1#metadata"]["layers"].values()
    assert len(layers[0]) == 1


def test_one_statement_for_each_platform(client: Client, offers: Offers):
    built(client, offers, {**BUILDX, "platform": "linux/amd64,linux/arm64"}, name="app")

    names = [
        read_attested(offers.outputs[0], architecture).statement(V1)["subject"][0]["name"]
        for architecture in ("amd64", "arm64")
    ]
    assert [name.partition("platform=")[2] for name in names] == ["linux%2Famd64", "linux%2Farm64"]


def test_what_makes_no_sense_is_refused_before_anything_runs(client: Client, offers: Offers):
    with client.session(offers) as session, pytest.raises(grpc.RpcError) as failed:
        client.dockerfile(session, opts={"attest:provenance": "mode=most"})

    assert "neither min nor max" in str(failed.value)


def says(name: str, predicate_type: str) -> bytes:
    """Return a statement as a generator writes one."""
    return json.dumps({"predicateType": predicate_type, "predicate": {"name": name}}).encode()


def return_with(client: Client, offers: Offers, files: dict[str, bytes], added: gateway_pb2.Attestation) -> Any:
    """Be the frontend of a build: return a file, and `added`, which speaks of other files; return what went wrong."""
    ref = new_ref()
    state = llb.scratch()
    for name, data in files.items():
        state = state.mkfile(f"/{name}", data)
    failures: list[grpc.RpcError] = []

    def solve(session: str) -> None:
        try:
            client.solve(session, ref, exporters=[("oci", {})])
        except grpc.RpcError as error:
            failures.append(error)

    with client.session(offers) as session:
        solving = threading.Thread(target=solve, args=(session,))
        solving.start()
        client.ask(ref, "Ping", gateway_pb2.PingRequest())
        result = client.ask(ref, "Solve", raw_solve(llb.scratch().mkfile("/f", b"f").marshal())).result
        beside = client.ask(ref, "Solve", raw_solve(state.marshal())).result
        added.ref.id = beside.ref.id
        result.attestations["linux/amd64"].attestation.append(added)
        client.ask(ref, "Return", gateway_pb2.ReturnRequest(result=result))
        solving.join(60)
    return failures[0] if failures else None


def test_a_frontend_brings_attestations_of_its_own(client: Client, offers: Offers):
    """B23, G3: one predicate about something else, named with its digest."""
    subject = gateway_pb2.InTotoSubject(kind=1, name="log", digest=["sha256:" + "ab" * 32])
    added = gateway_pb2.Attestation(
        kind=0, path="/log.json", inTotoPredicateType="https://example.com/log", inTotoSubjects=[subject]
    )
    assert return_with(client, offers, {"log.json": b'{"lines": 3}'}, added) is None

    statement = read_attested(offers.outputs[0]).statement("https://example.com/log")
    assert statement["predicate"] == {"lines": 3}
    assert statement["subject"] == [{"name": "log", "digest": {"sha256": "ab" * 32}}]


def test_a_bundle_of_statements(client: Client, offers: Offers):
    added = gateway_pb2.Attestation(kind=1, inTotoPredicateType=SPDX)
    files = {"b.spdx.json": says("b", SPDX), "a.spdx.json": says("a", SPDX)}
    assert return_with(client, offers, files, added) is None

    found = read_attested(offers.outputs[0]).statements[SPDX]
    assert [one["predicate"]["name"] for one in found] == ["a", "b"]


@pytest.mark.parametrize(
    ("added", "files"),
    [
        (gateway_pb2.Attestation(kind=0, path="/p", inTotoPredicateType=V1), {"p": b"{}"}),
        (gateway_pb2.Attestation(kind=1), {"p.json": says("p", V02)}),
        (gateway_pb2.Attestation(kind=0, path="/none", inTotoPredicateType=SPDX), {"p": b"{}"}),
        (gateway_pb2.Attestation(kind=0, path="/p", inTotoPredicateType=SPDX), {"p": b"no JSON"}),
        (gateway_pb2.Attestation(kind=0, inTotoPredicateType=SPDX), {"p": b"{}"}),
        (gateway_pb2.Attestation(kind=0, path="/p/", inTotoPredicateType=SPDX), {"p": b"{}"}),
    ],
    ids=["provenance", "bundled provenance", "no such file", "no JSON", "no path", "no name"],
)
def test_what_a_frontend_may_not_say(
    client: Client, offers: Offers, added: gateway_pb2.Attestation, files: dict[str, bytes]
):
    """Only the builder tells provenance; everything else is checked."""
    failed = return_with(client, offers, files, added)

    assert failed is not None and failed.code() != grpc.StatusCode.INTERNAL, failed
