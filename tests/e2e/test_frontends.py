"""Frontends in Python, one in the daemon's process and one in a container: the examples, built with (B23)."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import google.protobuf
import grpc
import h2
import hpack
import hyperframe
import pytest

import lamina
from support.bases import debian_rootfs
from support.buildkit_client import Client, Offers, new_ref
from support.command import Lamina
from support.daemon import running_daemon

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("crun") is None, reason="needs root and crun: apt-get install crun"
)
pytestmark = [pytest.mark.e2e, needs_root]
EXAMPLES = Path(__file__).parent.parent.parent / "examples/frontends"


def test_a_frontend_in_the_daemons_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", f"{EXAMPLES}:{os.environ.get('PYTHONPATH', '')}")
    names = tmp_path / "ctx/names"
    names.mkdir(parents=True)
    out = tmp_path / "out"
    out.mkdir()
    offers = Offers(dirs={"context": tmp_path / "ctx"}, outputs={0: out})
    words = {"Frontend": "greeting", "exporters": [("local", {})]}
    with (
        running_daemon(tmp_path / "root", "--frontend", "greeting=greeting:build") as daemon,
        Client(daemon.address) as client,
        client.session(offers) as session,
    ):
        with pytest.raises(grpc.RpcError, match="nobody to greet"):
            client.solve(session, **words)
        for name in ("ada", "bob"):
            (names / name).touch()
        client.solve(session, FrontendAttrs={"build-arg:WORD": "Good day"}, **words)

    found = {path.name: path.read_text() for path in (out / "greetings").iterdir()}
    assert found == {"ada": "Good day, ada!\n", "bob": "Good day, bob!\n"}


def test_a_frontend_that_cannot_be_loaded_is_told(tmp_path: Path):
    done = Lamina(tmp_path / "root")("serve", "--frontend", "x=no.such:thing", check=False)

    assert (done.returncode, "'x' cannot be loaded" in done.stderr) == (2, True)


@pytest.fixture
def frontend_image(tmp_path: Path) -> Lamina:
    """Build the example of a frontend in a container, on a Debian with Python, as `recipe`."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("needs the Python of Debian 12 for the compiled part of protobuf: run the tests with Python 3.11")
    context = tmp_path / "image"
    shutil.copytree(EXAMPLES / "container", context)
    shutil.copy(debian_rootfs(), context / "debian.tar")
    site = context / "site"
    for module in (lamina, h2, hpack, hyperframe):
        folder = Path(module.__file__ or "").parent
        shutil.copytree(folder, site / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    google_folder = Path(google.protobuf.__file__ or "").parent.parent
    for name in ("protobuf", "_upb", "rpc"):
        shutil.copytree(google_folder / name, site / "google" / name, ignore=shutil.ignore_patterns("__pycache__"))
    (context / "Dockerfile").write_text(
        "FROM scratch\nADD debian.tar /\nCOPY site /usr/lib/python3/dist-packages/\nCOPY recipe.py /recipe.py\n"
        'LABEL moby.buildkit.frontend.network.none="true"\nENTRYPOINT ["/usr/bin/python3", "/recipe.py"]\n'
    )
    command = Lamina(tmp_path / "root")
    command.build(context, "-t", "recipe")
    return command


def test_a_frontend_in_a_container(frontend_image: Lamina, tmp_path: Path):
    """`# syntax=` names its image; what it answers is built, its errors and its own output are told."""
    folder = tmp_path / "ctx"
    folder.mkdir()
    recipe = "# syntax=recipe\nfrom recipe\nrun echo soup > /soup\nfile /menu soup of the day\n"
    (folder / "Dockerfile").write_text(recipe)
    out = tmp_path / "out"
    out.mkdir()
    offers = Offers(dirs={"context": folder, "dockerfile": folder}, outputs={0: out})
    with (
        running_daemon(frontend_image.root) as daemon,
        Client(daemon.address) as client,
        client.session(offers) as session,
    ):
        client.dockerfile(session, exporters=[("local", {})])
        (folder / "Dockerfile").write_text(recipe + "stir\n")
        ref = new_ref()
        with pytest.raises(grpc.RpcError, match="no such word: 'stir'"):
            client.dockerfile(session, ref)
        told = client.status(ref)

    assert (out / "soup").read_text() == "soup\n"
    assert (out / "menu").read_text() == "soup of the day\n"
    assert any(vertex.name == "[frontend] recipe" for response in told for vertex in response.vertexes)


def test_the_command_line_runs_the_frontend_that_a_file_names(frontend_image: Lamina, tmp_path: Path):
    """Without a daemon: by the directive or BUILDKIT_SYNTAX, from a file or standard input; the second time cached."""
    folder = tmp_path / "ctx"
    folder.mkdir()
    recipe = "from recipe\nrun echo soup > /soup\nfile /menu soup of the day\n"
    (folder / "Dockerfile").write_text("# syntax=recipe\n" + recipe)
    frontend_image.build(folder, "-o", f"type=local,dest={tmp_path / 'out'}")
    assert (tmp_path / "out/menu").read_text() == "soup of the day\n"

    words = ("--build-arg", "BUILDKIT_SYNTAX=recipe", "-f", "-", "-t", "made")
    again = frontend_image.build(folder, *words, input=recipe)
    assert any(line.endswith(" CACHED") for line in again.stderr.splitlines())
    frontend_image("save", "-o", tmp_path / "made.tar", "made")
    assert (tmp_path / "made.tar").stat().st_size > 1000

    failed = frontend_image.build(folder, "-f", "-", input="# syntax=recipe\nstir\n", check=False)
    assert failed.returncode != 0
    assert "no such word: 'stir'" in failed.stderr
