"""A context archive on standard input becomes a directory, and nothing outside it."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from lamina.cli.inputs import find_inputs
from lamina.errors import Error

BIG = bytes(range(256)) * 8192


def archive(*members: tuple[str, bytes | str | None]) -> bytes:
    """Return a tar archive: bytes are files, text is a symbolic link's target, None a directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
                continue
            info.type = tarfile.DIRTYPE if content is None else tarfile.SYMTYPE
            info.linkname = content or ""
            tar.addfile(info)
    return out.getvalue()


WHOLE = archive(
    ("Dockerfile", b"FROM scratch\n"),
    (".dockerignore", b"*.o\n"),
    ("deep/er/file", b"x"),
    ("big", BIG),
    ("link", "big"),
)


@pytest.mark.parametrize("data", [WHOLE, gzip.compress(WHOLE)], ids=["tar", "gzip"])
def test_an_archive_is_a_context(data: bytes):
    inputs = find_inputs("-", "", io.BytesIO(data))
    try:
        context = Path(inputs.context)
        assert (inputs.dockerfile, inputs.name, inputs.ignore) == (b"FROM scratch\n", "Dockerfile", b"*.o\n")
        assert (context / "deep/er/file").read_bytes() == b"x"
        assert (context / "big").read_bytes() == BIG
        assert (context / "link").readlink() == Path("big")
    finally:
        inputs.close()
    assert not context.exists()


def test_the_dockerfile_is_named_within_the_archive():
    inputs = find_inputs("-", "deep/web.Dockerfile", io.BytesIO(archive(("deep/web.Dockerfile", b"FROM a\n"))))
    inputs.close()
    assert (inputs.dockerfile, inputs.name) == (b"FROM a\n", "deep/web.Dockerfile")


@pytest.mark.parametrize(
    "data",
    [
        archive(("../evil", b"x")),
        archive(("out", "/tmp"), ("out/evil", b"x")),
        archive(("Dockerfile", "/etc/passwd")),
        archive(("other", b"x")),
        WHOLE[:1500],
    ],
    ids=["dotdot", "through a link", "dockerfile is a link outside", "no dockerfile", "truncated"],
)
def test_a_bad_archive_is_refused_and_leaves_nothing(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(Error):
        find_inputs("-", "", io.BytesIO(data))
    assert list(tmp_path.iterdir()) == []
