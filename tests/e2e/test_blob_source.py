"""B8: one blob of a repository or of an OCI layout as a source, through `lamina.solve` and for a daemon's client."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import grpc
import pytest

import lamina
from lamina import llb
from lamina.errors import Error, InputError
from lamina.llb.pb import ops_pb2 as pb
from support.buildkit_client import Client, Offers
from support.daemon import running_daemon
from support.raw_llb import Definition, listing

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("crun") is None, reason="needs root and crun: apt-get install crun"
    ),
]


def source(identifier: str, **attrs: str) -> pb.Definition:
    made = Definition()
    named = {name.replace("_", "."): value for name, value in attrs.items()}
    return made.message(made.add(pb.Op(source=pb.SourceOp(identifier=identifier, attrs=named))))


def layer(folder: Path, root: Path) -> tuple[Path, str]:
    """Write an OCI layout; return its layer's file and digest."""
    made = llb.scratch().mkfile("/one", b"1" * 300_000)
    lamina.solve(made.marshal(), output=f"type=oci,tar=false,dest={folder}", root=root)
    blobs = folder / "blobs/sha256"
    top = json.loads((folder / "index.json").read_text())["manifests"][0]["digest"].removeprefix("sha256:")
    digest = str(json.loads((blobs / top).read_text())["layers"][0]["digest"])
    return blobs / digest.removeprefix("sha256:"), digest


def pushed(registry: str, folder: Path) -> str:
    """Push an image; return the digest of its layer."""
    made = llb.scratch().mkfile("/one", b"1" * 300_000)
    lamina.solve(made.marshal(), output=f"type=registry,name={registry}/some/image:1", root=folder / "pusher")
    return layer(folder / "same", folder / "pusher")[1]


def files(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_a_blob_of_a_registry_is_a_file(registry: str, tmp_path: Path):
    digest = pushed(registry, tmp_path)
    wanted = source(f"docker-image+blob://{registry}/some/image@{digest}")
    lamina.solve(wanted, output=f"type=local,dest={tmp_path / 'out'}", root=tmp_path / "root")

    assert files(tmp_path / "out") == {digest.removeprefix("sha256:"): digest.removeprefix("sha256:")}
    (found,) = (tmp_path / "out").iterdir()
    assert (found.stat().st_mode & 0o777, found.stat().st_mtime) == (0o600, 0)


def test_its_name_mode_and_owner_are_as_asked(registry: str, tmp_path: Path):
    digest = pushed(registry, tmp_path)
    attrs = {"http_filename": "../x.bin", "http_perm": "0444", "http_uid": "7", "http_gid": "8"}
    wanted = source(f"docker-image+blob://{registry}/some/image@{digest}", **attrs)
    lamina.solve(wanted, output=f"type=tar,dest={tmp_path / 'out.tar'}", root=tmp_path / "root")

    assert listing(tmp_path / "out.tar") == [f"x.bin f 0444 7:8 0 {digest.removeprefix('sha256:')[:12]}"]


def test_a_blob_that_is_here_needs_no_registry(registry: str, tmp_path: Path):
    digest = pushed(registry, tmp_path)
    wanted = f"some/image@{digest}"
    lamina.solve(source(f"docker-image+blob://{registry}/{wanted}"), root=tmp_path / "root", output="")
    again = source(f"docker-image+blob://127.0.0.1:1/{wanted}", http_filename="b")
    lamina.solve(again, output=f"type=local,dest={tmp_path / 'out'}", root=tmp_path / "root")

    assert files(tmp_path / "out") == {"b": digest.removeprefix("sha256:")}


def test_a_blob_that_is_not_there(registry: str, tmp_path: Path):
    pushed(registry, tmp_path)
    digest = "sha256:" + "0" * 64
    with pytest.raises(Error, match=f"(?s){digest}"):
        lamina.solve(source(f"docker-image+blob://{registry}/some/image@{digest}"), root=tmp_path / "root")


def test_a_blob_without_a_digest_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="must be named by its digest"):
        lamina.solve(source("docker-image+blob://127.0.0.1:1/some/image:1"), root=tmp_path / "root")


def test_a_blob_of_a_clients_layout(tmp_path: Path):
    blob, digest = layer(tmp_path / "layout", tmp_path / "local")
    offers, out = Offers(stores={"oci:mine": tmp_path / "layout"}), tmp_path / "out"
    out.mkdir()
    offers.outputs[0] = out
    wanted = source(f"oci-layout+blob://any@{digest}", oci_store="mine", http_filename="b")
    with running_daemon(tmp_path / "root") as daemon, Client(daemon.address) as client:
        with client.session(offers) as session:
            client.solve(session, Definition=wanted, exporters=[("local", {})])

        assert files(out) == {"b": blob.name}


def test_a_client_that_sends_other_bytes_is_found_out(tmp_path: Path):
    blob, digest = layer(tmp_path / "layout", tmp_path / "local")
    blob.chmod(0o644)
    blob.write_bytes(b"other")
    offers = Offers(stores={"oci:mine": tmp_path / "layout"})
    wanted = source(f"oci-layout+blob://any@{digest}", oci_store="mine")
    with (
        running_daemon(tmp_path / "root") as daemon,
        Client(daemon.address) as client,
        client.session(offers) as session,
        pytest.raises(grpc.RpcError, match="other bytes than the digest says"),
    ):
        client.solve(session, Definition=wanted)
