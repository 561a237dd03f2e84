"""`lamina build URL`: archives and Dockerfiles on a web server, through the command line."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command import Lamina
from support.web import Served, Web, running_web

DOCKERFILE = b"FROM scratch\nCOPY . /\n"


@pytest.fixture
def web() -> Iterator[Web]:
    with running_web() as running:
        yield running


def archive(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def built(lamina: Lamina, out: Path, *words: str, **options: object) -> dict[str, bytes]:
    """Build to a directory; return its files."""
    lamina.build(words[-1], "-o", f"type=local,dest={out}", *words[:-1], **options)
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["tar", "gzip"])
def test_an_archive_is_told_by_its_content(web: Web, lamina: Lamina, tmp_path: Path, pack):
    """A1.14, A6.7: whatever the URL is called; and ignore files are for directories of one's own, as in BuildKit."""
    files = {"Dockerfile": DOCKERFILE, "sub__a": b"1", ".dockerignore": b"sub"}
    web.files["/download?id=3"] = Served(pack(archive(**files)))

    found = built(lamina, tmp_path / "out", web.url("/download?id=3"))

    assert found == {"Dockerfile": DOCKERFILE, "sub/a": b"1", ".dockerignore": b"sub"}


def test_an_unchanged_archive_is_not_downloaded_again(web: Web, lamina: Lamina, tmp_path: Path):
    served = web.files["/c.tar"] = Served(archive(Dockerfile=DOCKERFILE, a=b"1"))

    first = lamina.build(web.url("/c.tar"), "-t", "x:1", "--metadata-file", tmp_path / "1")
    again = lamina.build(web.url("/c.tar"), "-t", "x:1", "--metadata-file", tmp_path / "2")

    assert [headers.get("if-none-match") for headers in web.asked("/c.tar")] == [None, served.tag()]
    one, two = (json.loads((tmp_path / name).read_text()) for name in "12")
    assert one["containerimage.config.digest"] == two["containerimage.config.digest"]
    assert "load remote build context" in first.stderr and "CACHED" in again.stderr


def test_the_dockerfile_is_named_inside_the_archive(web: Web, lamina: Lamina, tmp_path: Path):
    """A1.14"""

    web.files["/c.tar"] = Served(archive(docker__web=b"FROM scratch\nCOPY a /b\n", a=b"1"))

    assert built(lamina, tmp_path / "out", "-f", "docker/web", web.url("/c.tar")) == {"b": b"1"}


def test_the_dockerfile_may_come_from_standard_input(web: Web, lamina: Lamina, tmp_path: Path):
    """A1.14"""

    web.files["/c.tar"] = Served(archive(a=b"1"))

    found = built(lamina, tmp_path / "out", "-f", "-", web.url("/c.tar"), input="FROM scratch\nCOPY a /c\n")

    assert found == {"c": b"1"}


def test_a_text_is_a_dockerfile_without_context(web: Web, lamina: Lamina, tmp_path: Path):
    """A1.14"""

    web.files["/Dockerfile"] = Served(b"FROM scratch\nCOPY <<x /y\nz\nx\n")

    assert built(lamina, tmp_path / "out", web.url("/Dockerfile")) == {"y": b"z\n"}


def test_credentials_for_the_context_are_secrets(web: Web, lamina: Lamina, tmp_path: Path):
    """A4.13."""
    web.files["/Dockerfile"] = Served(b"FROM scratch\nCOPY <<x /y\nz\nx\n")
    (tmp_path / "token").write_text("tok\n")

    built(lamina, tmp_path / "out", "--secret", f"id=HTTP_AUTH_TOKEN_127.0.0.1,src={tmp_path / 'token'}",
          web.url("/Dockerfile"))  # fmt: skip

    assert web.asked("/Dockerfile")[0]["authorization"] == "Bearer tok"


@pytest.mark.parametrize(
    ("path", "words", "says"),
    [
        ("/none", (), "404 Not Found"),
        ("/text", ("-f", "other"), "-f needs a context"),
        ("/junk", (), "neither an archive nor a Dockerfile"),
        ("/half", (), "/half: the gzip data is cut short"),
        ("/c.tar", ("-f", "../up"), "must lie in the context"),
        ("/c.tar", ("-f", "missing"), "error: missing: no such Dockerfile"),
    ],
)
def test_what_cannot_be_a_context_says_why_and_leaves_nothing(
    web: Web, lamina: Lamina, tmp_path: Path, path: str, words: tuple[str, ...], says: str
):
    web.files["/text"] = Served(b"FROM scratch\n")
    web.files["/junk"] = Served(b"\0\1\2" * 500)
    web.files["/half"] = Served(gzip.compress(archive(Dockerfile=DOCKERFILE, a=bytes(range(256)) * 200))[:300])
    web.files["/c.tar"] = Served(archive(Dockerfile=DOCKERFILE))
    temporary = tmp_path / "tmp"
    temporary.mkdir()

    done = lamina.build(web.url(path), *words, check=False, env={"TMPDIR": str(temporary)})

    assert done.returncode in (2, 3, 4)
    assert says in done.stderr and "Traceback" not in done.stderr and str(temporary) not in done.stderr
    assert not list(temporary.iterdir())
