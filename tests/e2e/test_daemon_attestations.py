"""G1-G5 through the daemon: what clients ask for by default, and what frontends bring."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import grpc
import pytest

from support.attested import Attested, read_attested
from support.buildkit_client import Client, Offers
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
