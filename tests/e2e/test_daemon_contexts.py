"""Contexts that the daemon's Dockerfile frontend takes: named ones, results of other builds, repositories, servers."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import shutil
import tarfile
import threading
from pathlib import Path

import grpc
import pytest

from lamina import llb
from lamina.api.pb import gateway_pb2
from support.buildkit_client import Client, Offers, new_ref
from support.daemon import running_daemon
from support.git_web import commit, git, web_repositories
from support.web import Served, running_web

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("crun") is None, reason="needs root and crun: apt-get install crun"
)
pytestmark = [pytest.mark.e2e, needs_root]


@pytest.fixture
def client(tmp_path: Path):
    with running_daemon(tmp_path / "root") as daemon, Client(daemon.address) as found:
        yield found


def build(client: Client, tmp_path: Path, offers: Offers, **fields: object) -> dict[str, bytes]:
    """Build, and return the files that came out."""
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    offers.outputs[0] = out
    with client.session(offers) as session:
        client.dockerfile(session, exporters=[("local", {})], **fields)
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def directory(folder: Path, **files: str) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_a_named_context_is_a_directory_of_the_clients(client: Client, tmp_path: Path):
    """A5.10: its ignore file counts."""
    main = directory(tmp_path / "main", Dockerfile="FROM scratch\nCOPY --from=more . /\n")
    more = directory(tmp_path / "more", a="1", b="2", __dockerignore="b\n.dockerignore\n")
    offers = Offers(dirs={"context": main, "dockerfile": main, "extra": more})

    assert build(client, tmp_path, offers, opts={"context:more": "local:extra"}) == {"a": b"1"}


def test_a_named_context_is_the_result_of_another_build(client: Client, tmp_path: Path):
    """How bake hands one target to another: `input:`, with the image config beside it."""
    main = directory(tmp_path / "main", Dockerfile="FROM base\nCOPY own /own-of-$WHO\n", own="3")
    state = llb.scratch().mkfile("/made", b"before")
    config = '{"config": {"Env": ["WHO=base"]}}'
    opts = {
        "context:base": "input:first",
        "input-metadata:first": json.dumps({"containerimage.config": base64.b64encode(config.encode()).decode()}),
    }
    offers = Offers(dirs={"context": main, "dockerfile": main})

    found = build(client, tmp_path, offers, opts=opts, FrontendInputs={"first": state.marshal()})
    assert found == {"made": b"before", "own-of-base": b"3"}


def test_the_whole_context_may_be_the_result_of_another_build(client: Client, tmp_path: Path):
    main = directory(tmp_path / "main", Dockerfile="FROM scratch\nCOPY sub /\n")
    state = llb.scratch().mkdir("/sub").mkfile("/sub/f", b"x")
    offers = Offers(dirs={"dockerfile": main})

    found = build(client, tmp_path, offers, opts={"context": "input:it"}, FrontendInputs={"it": state.marshal()})
    assert found == {"f": b"x"}


def test_an_input_that_was_not_given_is_named(client: Client, tmp_path: Path):
    main = directory(tmp_path / "main", Dockerfile="FROM base\n")
    with pytest.raises(grpc.RpcError) as failed:
        build(client, tmp_path, Offers(dirs={"dockerfile": main}), opts={"context:base": "input:nothing"})

    assert "'nothing'" in failed.value.details()


def test_the_context_is_a_repository(client: Client, tmp_path: Path):
    folder = tmp_path / "web/app.git"
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    commit(folder, "one", Dockerfile=b"FROM scratch\nCOPY . /\n", sub__Dockerfile=b"FROM scratch\nCOPY f /\n", f=b"1")
    with web_repositories(folder.parent) as root:
        found = build(client, tmp_path, Offers(), opts={"context": f"{root}/app.git"})
        other = build(client, tmp_path, Offers(), opts={"context": f"{root}/app.git", "filename": "sub/Dockerfile"})

    assert set(found) == {"Dockerfile", "sub/Dockerfile", "f"}
    assert other == {"f": b"1"}


def test_the_context_is_an_archive_on_a_server(client: Client, tmp_path: Path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in (("Dockerfile", b"FROM scratch\nCOPY f /\n"), ("f", b"from afar")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with running_web() as web:
        web.files["/c.tar.gz"] = Served(gzip.compress(out.getvalue()))
        web.files["/Dockerfile"] = Served(b"FROM scratch\nLABEL a=b\nADD http://%s/f /\n" % web.address.encode())
        web.files["/f"] = Served(b"alone")
        found = build(client, tmp_path, Offers(), opts={"context": web.url("/c.tar.gz")})
        alone = build(client, tmp_path, Offers(), opts={"context": web.url("/Dockerfile")})

    assert found == {"f": b"from afar"}
    assert alone == {"f": b"alone"}


def test_a_dockerfile_can_be_asked_about_instead_of_built(client: Client, tmp_path: Path):
    """A1.12: checks, outline and targets, as clients show them with --call."""
    text = "ARG A=1\nFROM scratch AS first\nFROM scratch as second\nCOPY f /\n"
    main = directory(tmp_path / "main", Dockerfile=text, f="1")
    ref = new_ref()

    def ask(request: str, ref: str) -> dict[str, bytes]:
        solve = gateway_pb2.SolveRequest(Frontend="dockerfile.v0", FrontendOpt={"requestid": request})
        solve.allowResultReturn = solve.allowResultArrayRef = True
        return dict(client.ask(ref, "Solve", solve).result.metadata)

    with client.session(Offers(dirs={"context": main, "dockerfile": main})) as session:
        solving = threading.Thread(target=lambda: client.solve(session, ref))
        solving.start()
        lint, targets = ask("frontend.lint", ref), ask("frontend.targets", ref)
        with pytest.raises(grpc.RpcError, match="unknown request"):
            ask("frontend.nothing", ref)
        client.ask(ref, "Return", gateway_pb2.ReturnRequest(result=gateway_pb2.Result(ref=gateway_pb2.Ref())))
        solving.join(30)

    assert [one["ruleName"] for one in json.loads(lint["result.json"])["warnings"]] == ["FromAsCasing"]
    assert lint["result.statuscode"] == b"1"
    assert [one["name"] for one in json.loads(targets["result.json"])["targets"]] == ["first", "second"]
    assert b"second" in targets["result.txt"]
