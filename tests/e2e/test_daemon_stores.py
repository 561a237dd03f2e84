"""What clients offer beside directories (E5, B8): OCI layouts by the content service, streams by URL."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

import lamina
from lamina import llb
from lamina.api.pb import control_pb2
from support.buildkit_client import Client, Offers, details, new_ref
from support.daemon import running_daemon
from unit.registry.fake_registry import FakeRegistry

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("crun") is None, reason="needs root and crun: apt-get install crun"
    ),
]


@contextmanager
def client_of(root: Path) -> Iterator[Client]:
    """Run a daemon with a client."""
    with running_daemon(root) as daemon, Client(daemon.address) as found:
        yield found


@pytest.fixture
def client(tmp_path: Path):
    with client_of(tmp_path / "root") as found:
        yield found


def layout(folder: Path, root: Path) -> str:
    """Write an OCI layout with one image of two layers; return its digest."""
    made = llb.scratch().mkfile("/one", b"1" * 300_000).mkfile("/two", b"2")
    lamina.solve(made.marshal(), output=f"type=oci,tar=false,dest={folder}", root=root)
    return str(json.loads((folder / "index.json").read_text())["manifests"][0]["digest"])


def out(offers: Offers, folder: Path) -> Path:
    folder.mkdir()
    offers.outputs[0] = folder
    return folder


def dockerfile(folder: Path, text: str) -> Offers:
    folder.mkdir()
    (folder / "Dockerfile").write_text(text)
    return Offers(dirs={"context": folder, "dockerfile": folder})


def test_a_clients_layout_is_a_base_image(client: Client, tmp_path: Path):
    """B8: `--build-context base=oci-layout://...`; a second build asks for no blob."""
    digest = layout(tmp_path / "layout", tmp_path / "local")
    offers = dockerfile(tmp_path / "ctx", "FROM base\nCOPY Dockerfile /three\n")
    offers.stores["oci:mine"] = tmp_path / "layout"
    opts = {"context:base": f"oci-layout://mine@{digest}"}
    found = out(offers, tmp_path / "out")
    with client.session(offers) as session:
        client.dockerfile(session, opts=opts, exporters=[("local", {})])
        asked = len(offers.asked)
        client.dockerfile(session, opts=opts, exporters=[("local", {})])

    assert sorted(path.name for path in found.iterdir()) == ["one", "three", "two"]
    assert [what for what in offers.asked[asked:] if what.startswith("blob")] == []


def test_only_the_blobs_that_are_needed_are_asked_for(client: Client, tmp_path: Path):
    """What is copied lies in the upper layer."""
    digest = layout(tmp_path / "layout", tmp_path / "local")
    offers = dockerfile(tmp_path / "ctx", "FROM scratch\nCOPY --from=base /nothing* /two /\n")
    offers.stores["oci:mine"] = tmp_path / "layout"
    with client.session(offers) as session:
        client.dockerfile(session, opts={"context:base": f"oci-layout://mine@{digest}"})

    assert len({what for what in offers.asked if what.startswith("blob")}) <= 4  # manifest, config, two layers at most


@pytest.mark.parametrize(
    ("identifier", "words"),
    [
        ("oci-layout://none@{digest}", "not found"),
        ("oci-layout://mine@sha256:" + "0" * 64, "not found"),
        ("oci-layout://mine:latest", "must be pinned by digest"),
        ("oci-layout:///etc@{digest}", ""),
    ],
)
def test_a_layout_that_is_not_there_is_told(client: Client, tmp_path: Path, identifier: str, words: str):
    """No directory of the daemon's machine is ever opened."""
    digest = layout(tmp_path / "layout", tmp_path / "local")
    offers = dockerfile(tmp_path / "ctx", "FROM base\n")
    offers.stores["oci:mine"] = tmp_path / "layout"
    with client.session(offers) as session, pytest.raises(grpc.RpcError) as failed:
        client.dockerfile(session, opts={"context:base": identifier.format(digest=digest)})

    assert words in str(failed.value.details()), failed.value


def test_other_bytes_than_the_digest_says_are_refused(client: Client, tmp_path: Path):
    digest = layout(tmp_path / "layout", tmp_path / "local")
    blob = tmp_path / "layout/blobs" / digest.replace(":", "/")
    blob.write_bytes(blob.read_bytes().replace(b"application", b"applicatioN", 1))
    offers = dockerfile(tmp_path / "ctx", "FROM base\n")
    offers.stores["oci:mine"] = tmp_path / "layout"
    with client.session(offers) as session, pytest.raises(grpc.RpcError) as failed:
        client.dockerfile(session, opts={"context:base": f"oci-layout://mine@{digest}"})

    assert "other bytes than the digest says" in str(failed.value.details())


def archive(**files: str) -> bytes:
    """Return a tar archive."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as made:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            made.addfile(info, io.BytesIO(text.encode()))
    return data.getvalue()


def test_a_context_on_standard_input_comes_by_url(client: Client, tmp_path: Path):
    """E5: what `docker build -` and `buildx build -` send; an archive, and a Dockerfile alone."""
    offers = Offers(uploads={"one": archive(Dockerfile="FROM scratch\nCOPY a /b\n", a="sent")})
    found = out(offers, tmp_path / "out")
    with client.session(offers) as session:
        opts = {"context": "http://buildkit-session/one"}
        client.dockerfile(session, opts=opts, exporters=[("local", {})])
    assert (found / "b").read_text() == "sent"

    offers = Offers(uploads={"two": b"FROM scratch\nADD --chmod=600 <<E /c\nhere\nE\n"})
    found = out(offers, tmp_path / "out2")
    with client.session(offers) as session:
        client.dockerfile(session, opts={"context": "http://buildkit-session/two"}, exporters=[("local", {})])
    assert (found / "c").read_text() == "here\n"


def test_a_stream_that_is_not_offered_is_told(client: Client):
    for offers in (Offers(), Offers(uploads={"one": b"FROM scratch\n"})):
        with client.session(offers) as session, pytest.raises(grpc.RpcError) as failed:
            client.dockerfile(session, opts={"context": "http://buildkit-session/other"})
        assert "buildkit-session" in str(failed.value.details()) or "from session" in str(failed.value.details())
        assert details(failed.value) is not None


@pytest.mark.parametrize("password", ["right", "wrong"])
def test_a_client_fetches_the_tokens_of_registries_itself(tmp_path: Path, password: str):
    """E2: the daemon is never told the password."""
    with FakeRegistry(auth="bearer") as fake, running_daemon(tmp_path / "root", "--debug") as daemon:
        fake.password = "right"
        config = tmp_path / "buildkitd.toml"
        config.write_text(f'[registry."{fake.host}"]\nhttp = true\n')
        offers = dockerfile(tmp_path / "ctx", "FROM scratch\nCOPY Dockerfile /\n")
        offers.fetches_tokens, offers.logins = True, {fake.host: ("ann", password)}
        exporters = [("image", {"name": f"{fake.host}/app:1", "push": "true"})]
        with Client(daemon.address) as client, client.session(offers) as session:
            if password == "right":
                client.dockerfile(session, exporters=exporters)
            else:
                with pytest.raises(grpc.RpcError, match="401"):
                    client.dockerfile(session, exporters=exporters)

    assert any(what.startswith(f"token {fake.host} repository:app:pull,push") for what in offers.asked)
    assert not any(what.startswith("login") for what in offers.asked)


def test_a_client_adds_outputs_once_it_knows_the_result(client: Client, tmp_path: Path):
    """E5: the hooks of buildx' exporters; numbered on after those of the request."""
    offers = dockerfile(tmp_path / "ctx", "FROM scratch\nCOPY Dockerfile /\n")
    offers.exporters = [("local", {})]
    (tmp_path / "second").mkdir()
    offers.outputs[1] = tmp_path / "second"
    with client.session(offers) as session:
        client.dockerfile(session, exporters=[("image", {"name": "app:1"})], EnableSessionExporter=True)

    assert (tmp_path / "second/Dockerfile").is_file()
    assert [what for what in offers.asked if "export" in what or "final" in what] == [
        "exporters for 1 containerimage.config",
        "finalize containerimage.config.digest,containerimage.descriptor,containerimage.digest,image.name",
    ]


def test_a_clients_hook_that_fails_fails_the_build(client: Client, tmp_path: Path):
    offers = dockerfile(tmp_path / "ctx", "FROM scratch\nCOPY Dockerfile /\n")
    offers.exporters, offers.secrets = [("nonsense", {})], {"refuse": b""}
    with client.session(offers) as session:
        with pytest.raises(grpc.RpcError, match="nonsense"):
            client.dockerfile(session, EnableSessionExporter=True)
        offers.exporters = []
        with pytest.raises(grpc.RpcError, match="the hook says no"):
            client.dockerfile(session, EnableSessionExporter=True)
        client.dockerfile(session)


def cached(responses: list[object]) -> list[str]:
    """Return the steps that were found."""
    return sorted({vertex.name for response in responses for vertex in response.vertexes if vertex.cached})  # type: ignore[attr-defined]


def test_a_cache_in_a_directory_of_the_clients_goes_there_and_comes_back(tmp_path: Path):
    """D8: another daemon finds everything; the client is told which manifest to name."""
    offers = dockerfile(tmp_path / "ctx", "FROM scratch AS a\nCOPY Dockerfile /a\nFROM scratch\nCOPY --from=a /a /b\n")
    offers.stores["local:/their/cache"] = tmp_path / "cache"
    (tmp_path / "cache").mkdir()
    to = control_pb2.CacheOptionsEntry(Type="local", Attrs={"dest": "/their/cache", "mode": "max"})
    with (
        running_daemon(tmp_path / "one") as daemon,
        Client(daemon.address) as client,
        client.session(offers) as session,
    ):
        response = client.dockerfile(session, Cache=control_pb2.CacheOptions(Exports=[to]))
        sent = [what for what in offers.asked if what.startswith("keep")]
        client.dockerfile(session, Cache=control_pb2.CacheOptions(Exports=[to]))
        again = [what for what in offers.asked if what.startswith("keep")][len(sent) :]
    manifest = json.loads(response["cache.manifest"])
    from_ = control_pb2.CacheOptionsEntry(Type="local", Attrs={"src": "/their/cache", "digest": manifest["digest"]})
    ref = new_ref()
    with (
        running_daemon(tmp_path / "two") as daemon,
        Client(daemon.address) as client,
        client.session(offers) as session,
    ):
        client.dockerfile(session, ref, Cache=control_pb2.CacheOptions(Imports=[from_]))
        found = cached(client.status(ref))

    assert len(sent) >= 4 and len(again) <= 3  # two layers, config, document, manifest; then no layer
    assert len([name for name in found if "COPY" in name]) == 2


def test_a_cache_that_the_client_does_not_offer_costs_time_only(client: Client, tmp_path: Path):
    """No directory of the daemon's machine is opened in its stead."""
    offers = dockerfile(tmp_path / "ctx", "FROM scratch\nCOPY Dockerfile /a\n")
    here = control_pb2.CacheOptionsEntry(Type="local", Attrs={"dest": str(tmp_path / "here"), "ignore-error": "true"})
    from_ = control_pb2.CacheOptionsEntry(Type="local", Attrs={"src": "/", "digest": "sha256:" + "0" * 64})
    with client.session(offers) as session:
        client.dockerfile(session, Cache=control_pb2.CacheOptions(Exports=[here], Imports=[from_]))

    assert not (tmp_path / "here").exists()


def test_a_layout_is_written_at_the_client_blob_by_blob(client: Client, tmp_path: Path):
    """C1: `type=oci,tar=false`; the client writes `index.json` from what it is told. What it has is not sent."""
    offers = dockerfile(tmp_path / "ctx", "FROM scratch\nCOPY Dockerfile /a\n")
    offers.stores["export"] = tmp_path / "layout"
    (tmp_path / "layout").mkdir()
    exporters = [("oci", {"tar": "false", "name": "app:1"})]
    with client.session(offers) as session:
        response = client.dockerfile(session, exporters=exporters)
        sent = [what for what in offers.asked if what.startswith("keep")]
        client.dockerfile(session, exporters=exporters)
        again = [what for what in offers.asked if what.startswith("keep")][len(sent) :]

    top = json.loads(base64.b64decode(response["containerimage.descriptor"]))
    manifest = json.loads(blob(tmp_path / "layout", top["digest"]))
    names = {top["digest"], manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])}
    assert {f"keep {name}" for name in names} == set(sent)
    assert again == []


def blob(layout: Path, digest: str) -> bytes:
    """Return a blob of a layout."""
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()


def test_a_layout_for_a_client_without_a_store_is_told(client: Client, tmp_path: Path):
    offers = dockerfile(tmp_path / "ctx", "FROM scratch\nCOPY Dockerfile /a\n")
    with client.session(offers) as session, pytest.raises(grpc.RpcError, match="the client offers no store"):
        client.dockerfile(session, exporters=[("oci", {"tar": "false"})])
