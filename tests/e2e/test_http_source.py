"""`llb.http` solved: what is downloaded when, what is in the layer, and what counts in keys (B7, A4.9 and more)."""

from __future__ import annotations

import hashlib
import os
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import lamina
from lamina import llb
from lamina.engine.disk import prune
from lamina.engine.options import BuildResult, Environment
from lamina.errors import Error, InputError, NetworkError
from lamina.progress import StatusEvent, VertexEvent
from support.web import Served, Web, running_web

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="the library needs root (or a user namespace) to write owners"
)

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
DATE_S = 784111777


def sha(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.fixture
def web() -> Iterator[Web]:
    with running_web() as running:
        yield running


class Builder:
    """Solves states in one root and counts what the server was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.count = folder, folder / "root", 0

    def files(self, state: llb.State, **options: object) -> Path:
        """Solve to a directory."""
        self.count += 1
        out = self.folder / f"out{self.count}"
        self.result: BuildResult = lamina.solve(
            state.marshal(), output=f"type=local,dest={out}", root=self.root, **options
        )
        return out


@pytest.fixture
def build(tmp_path: Path) -> Builder:
    return Builder(tmp_path)


def test_one_file_with_mode_owner_time_and_name(web: Web, build: Builder):
    """A4.9: name from the URL, mode 0600, time from Last-Modified."""
    web.files["/a/tool.bin"] = Served(b"data", {"Last-Modified": DATE})

    out = build.files(llb.http(web.url("/a/tool.bin")))

    (file,) = out.iterdir()
    status = file.stat()
    assert (file.name, file.read_bytes(), status.st_mode & 0o7777) == ("tool.bin", b"data", 0o600)
    assert (status.st_uid, status.st_gid, int(status.st_mtime)) == (0, 0, DATE_S)


def test_the_graph_decides_name_mode_and_owner(web: Web, build: Builder):
    """B7: filename, perm, uid, gid."""
    web.files["/f"] = Served(b"data", {"Content-Disposition": "attachment; filename=other"})

    state = llb.http(web.url("/f"), filename="tool", mode=0o755, owner=(12, 34))
    lamina.solve(state.marshal(), output=f"type=tar,dest={build.folder / 'out.tar'}", root=build.root)

    with tarfile.open(build.folder / "out.tar") as archive:
        file = archive.getmember("tool")
    assert (file.mode, file.uid, file.gid) == (0o755, 12, 34)


def test_a_hostile_name_stays_in_the_layer(web: Web, build: Builder):
    web.files["/f"] = Served(b"data", {"Content-Disposition": 'attachment; filename="../../x"'})

    out = build.files(llb.http(web.url("/f")))

    assert [path.name for path in out.iterdir()] == ["x"]


@pytest.mark.parametrize("name", [".wh.etc", ".wh..wh..opq"])
def test_a_name_that_means_a_deletion_is_never_in_a_layer(web: Web, build: Builder, name: str):
    web.files["/f"] = Served(b"data", {"Content-Disposition": f'attachment; filename="{name}"'})

    out = build.files(llb.http(web.url("/f")))

    assert [path.name for path in out.iterdir()] == ["download"]


def test_an_unchanged_file_is_asked_for_and_not_downloaded(web: Web, build: Builder):
    served = web.files["/f"] = Served(b"data")
    build.files(llb.http(web.url("/f")))

    out = build.files(llb.http(web.url("/f")))

    assert (out / "f").read_bytes() == b"data"
    assert [headers.get("if-none-match") for headers in web.asked("/f")] == [None, served.tag()]
    assert build.result.cached == 1


def test_a_server_without_etags_is_asked_by_date(web: Web, build: Builder):
    web.files["/f"] = Served(b"data", {"Last-Modified": DATE}, etag=None)
    build.files(llb.http(web.url("/f")))
    build.files(llb.http(web.url("/f")))

    assert web.asked("/f")[1]["if-modified-since"] == DATE
    assert build.result.cached == 1


def test_a_changed_file_makes_new_keys_and_going_back_finds_the_old_ones(web: Web, build: Builder):
    web.files["/f"] = Served(b"one")
    build.files(llb.scratch().copy(llb.http(web.url("/f")), "/f", "/x"))
    web.files["/f"] = Served(b"two")
    out = build.files(llb.scratch().copy(llb.http(web.url("/f")), "/f", "/x"))
    assert ((out / "x").read_bytes(), build.result.cached) == (b"two", 0)

    web.files["/f"] = Served(b"one")
    out = build.files(llb.scratch().copy(llb.http(web.url("/f")), "/f", "/x"))

    assert ((out / "x").read_bytes(), build.result.cached) == (b"one", 2)
    assert "," in web.asked("/f")[2]["if-none-match"]


def test_the_time_does_not_count_but_mode_owner_and_name_do(web: Web, build: Builder):
    """A4.9: the key is content, name, mode, owner; not the time, not the URL."""
    web.files["/f"] = Served(b"data", {"Last-Modified": DATE}, etag=None)
    web.files["/g/f"] = Served(b"data", etag=None)
    build.files(llb.http(web.url("/f")))

    web.files["/f"] = Served(b"data", {"Last-Modified": "Mon, 07 Nov 1994 08:49:37 GMT"}, etag=None)
    for same in (llb.http(web.url("/f")), llb.http(web.url("/g/f"))):
        build.files(same)
        assert build.result.cached == 1
    for other in (
        llb.http(web.url("/f"), mode=0o644),
        llb.http(web.url("/f"), owner=(1, 0)),
        llb.http(web.url("/f"), owner=(0, 1)),
        llb.http(web.url("/f"), filename="n"),
    ):
        build.files(other)
        assert build.result.cached == 0


def test_another_name_for_the_same_version_is_learned(web: Web, build: Builder):
    """A server that renames its ETag costs one download, not one in every build."""
    for tag in ('"a"', '"b"', '"b"'):
        web.files["/f"] = Served(b"data", etag=tag)
        build.files(llb.http(web.url("/f")))

    assert '"b"' in web.asked("/f")[2]["if-none-match"]


def test_one_build_asks_once_for_one_url(web: Web, build: Builder):
    """And so all of its steps see one version."""
    web.files["/f"] = Served(b"data")
    one, two = llb.http(web.url("/f"), filename="a"), llb.http(web.url("/f"), filename="b", mode=0o644)

    out = build.files(llb.merge([one, two]))

    assert sorted(path.name for path in out.iterdir()) == ["a", "b"]
    assert len(web.seen) == 1


def test_with_a_checksum_nothing_is_asked_when_the_content_is_held(web: Web, build: Builder):
    """A4.10, B7."""
    web.files["/f"] = Served(b"data", {"Last-Modified": DATE, "Content-Disposition": "attachment; filename=other"})
    build.files(llb.http(web.url("/f"), checksum=sha(b"data")))
    assert len(web.seen) == 1

    build.files(llb.http(web.url("/f"), checksum=sha(b"data")))
    assert (len(web.seen), build.result.cached) == (1, 1)
    out = build.files(llb.http(web.url("/f"), checksum=sha(b"data"), mode=0o644))
    assert (len(web.seen), (out / "f").read_bytes()) == (1, b"data")


def test_a_wrong_checksum_fails_with_both_and_keeps_nothing(web: Web, build: Builder):
    """A4.10."""
    web.files["/f"] = Served(b"data")

    with pytest.raises(NetworkError) as caught:
        build.files(llb.http(web.url("/f"), checksum=sha(b"other")))

    assert sha(b"other") in str(caught.value) and sha(b"data") in str(caught.value)
    with pytest.raises(NetworkError):
        build.files(llb.http(web.url("/f"), checksum=sha(b"other")))


def test_a_cache_that_was_pruned_asks_for_everything(web: Web, build: Builder):
    web.files["/f"] = Served(b"data")
    build.files(llb.http(web.url("/f")))
    prune(Environment(build.root), everything=True)

    out = build.files(llb.http(web.url("/f")))

    assert (out / "f").read_bytes() == b"data"
    assert "if-none-match" not in web.asked("/f")[1]


@pytest.mark.parametrize(
    ("secrets", "header"),
    [
        ({"HTTP_AUTH_TOKEN_127.0.0.1": b"tok\n"}, "Bearer tok"),
        ({"HTTP_AUTH_HEADER_127.0.0.1": b"Basic abc"}, "Basic abc"),
        ({"HTTP_AUTH_HEADER_other": b"Basic abc"}, None),
        ({}, None),
    ],
)
def test_credentials_come_from_the_hosts_secrets(web: Web, build: Builder, secrets: dict[str, bytes], header: object):
    """A4.13."""
    web.files["/f"] = Served(b"data")

    build.files(llb.http(web.url("/f")), secrets=secrets)

    assert web.asked("/f")[0].get("authorization") == header


def test_a_named_secret_is_the_header_and_must_be_given(web: Web, build: Builder):
    """B7: authheadersecret."""
    web.files["/f"] = Served(b"data")
    state = llb.http(web.url("/f"), auth_secret="mine")

    with pytest.raises(InputError, match="'mine' was not given"):
        build.files(state)
    with pytest.raises(InputError, match="cannot be a header") as caught:
        build.files(state, secrets={"mine": b"hush\r\nX: y"})
    assert "hush" not in caught.value.diagnostics()
    build.files(state, secrets={"mine": b"Token t"})

    assert [headers["authorization"] for headers in web.asked("/f")] == ["Token t"]


def test_a_password_in_the_url_is_used_and_shown_nowhere(web: Web, build: Builder):
    web.files["/f"] = Served(b"data")
    events: list[object] = []

    build.files(llb.http(f"http://me:hush@{web.address}/f"), progress=events.append)
    with pytest.raises(Error) as caught:
        build.files(llb.http(f"http://me:hush@{web.address}/none"), progress=events.append)

    assert web.asked("/f")[0]["authorization"].startswith("Basic ")
    assert "hush" not in caught.value.diagnostics() + repr(events)
    assert not any(b"hush" in path.read_bytes() for path in build.root.rglob("*") if path.is_file())


def test_headers_of_the_graph_are_sent(web: Web, build: Builder):
    """B7: header.*, of which BuildKit sends two."""
    web.files["/f"] = Served(b"data")

    build.files(llb.http(web.url("/f"), headers={"Accept": "text/x", "User-Agent": "me", "Cookie": "c"}))

    seen = web.asked("/f")[0]
    assert (seen["accept"], seen["user-agent"], "cookie" in seen) == ("text/x", "me", False)


def test_downloads_run_beside_each_other(web: Web, build: Builder):
    """Two files whose server answers the one only when the other is asked for, too."""
    both = threading.Barrier(2, timeout=20)

    def wait(handler):
        both.wait()
        handler.answer(200, handler.path.encode())

    for path in ("/a", "/b"):
        web.on(path, wait)

    out = build.files(llb.merge([llb.http(web.url("/a")), llb.http(web.url("/b"))]))

    assert {path.name: path.read_bytes() for path in out.iterdir()} == {"a": b"/a", "b": b"/b"}


def test_a_failed_download_is_the_failure_of_its_step(web: Web, build: Builder):
    events: list[object] = []

    with pytest.raises(NetworkError, match="404 Not Found") as caught:
        build.files(llb.http(web.url("/none"), name="get it"), progress=events.append)

    last = [event for event in events if isinstance(event, VertexEvent)][-1]
    assert (last.name, "404" in last.error) == ("get it", True)
    assert caught.value.exit_code == 4


def test_bytes_are_told_while_they_come(web: Web, build: Builder):
    web.files["/f"] = Served(bytes(3 << 20))
    events: list[object] = []

    build.files(llb.http(web.url("/f")), progress=events.append)

    told = [event for event in events if isinstance(event, StatusEvent) and event.id == web.url("/f")]
    assert told[-1].current == told[-1].total == 3 << 20 and told[-1].completed is not None
    assert len(told) > 2


def test_a_layer_that_nothing_reads_is_packed_at_once(web: Web, tmp_path: Path):
    """The same result as an image: the file is in a blob, and nothing else is."""
    web.files["/f"] = Served(b"data")

    result = lamina.solve(llb.http(web.url("/f")).marshal(), tags=["x:1"], root=tmp_path / "root")

    assert result.digest and not any((tmp_path / "root" / "trees").iterdir())
    assert not list((tmp_path / "root" / "work").glob("*/h*"))
