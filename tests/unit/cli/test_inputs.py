"""Which Dockerfile, ignore file and context a command line means."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from lamina.cli.inputs import MAX_DOCKERFILE, Inputs, find_inputs, is_remote
from lamina.errors import InputError
from lamina.layer.magic import is_archive


class Pipe(io.BytesIO):
    """Standard input that comes in small pieces, as pipes do."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(7, size) if size is not None and size >= 0 else size)


def found(path: Path | str, file: str = "", stdin: bytes = b"") -> Inputs:
    return find_inputs(str(path), file, Pipe(stdin))


def test_the_dockerfile_of_the_context(tmp_path: Path):
    """A1.14"""

    (tmp_path / "Dockerfile").write_bytes(b"FROM scratch\n")
    (tmp_path / ".dockerignore").write_bytes(b"*.o\n")

    inputs = found(tmp_path)

    assert (inputs.context, inputs.dockerfile, inputs.name) == (str(tmp_path), b"FROM scratch\n", "Dockerfile")
    assert (inputs.ignore, inputs.ignore_name) == (b"*.o\n", ".dockerignore")


def test_a_lower_case_dockerfile_is_found_only_without_the_usual_one(tmp_path: Path):
    (tmp_path / "dockerfile").write_bytes(b"FROM a\n")
    assert found(tmp_path).dockerfile == b"FROM a\n"
    (tmp_path / "Dockerfile").write_bytes(b"FROM b\n")
    assert found(tmp_path).dockerfile == b"FROM b\n"


def test_the_ignore_file_of_the_dockerfile_comes_first(tmp_path: Path):
    """A6.2"""

    (tmp_path / "web.Dockerfile").write_bytes(b"FROM scratch\n")
    (tmp_path / "web.Dockerfile.dockerignore").write_bytes(b"own\n")
    (tmp_path / ".dockerignore").write_bytes(b"common\n")

    inputs = found(tmp_path, str(tmp_path / "web.Dockerfile"))

    assert (inputs.ignore, inputs.ignore_name) == (b"own\n", "web.Dockerfile.dockerignore")


def test_no_ignore_file_is_not_an_empty_one(tmp_path: Path):
    (tmp_path / "Dockerfile").touch()
    assert found(tmp_path).ignore is None


def test_dockerfile_on_standard_input_with_a_context(tmp_path: Path):
    """A1.14"""

    inputs = found(tmp_path, "-", b"FROM scratch\n")
    assert (inputs.context, inputs.dockerfile, inputs.name) == (str(tmp_path), b"FROM scratch\n", "-")


def test_dockerfile_alone_on_standard_input_has_no_context():
    """A1.14"""

    inputs = found("-", "", b"FROM scratch\n" * 100)
    assert (inputs.context, inputs.dockerfile) == ("", b"FROM scratch\n" * 100)


def test_archives_are_told_from_dockerfiles():
    """A1.14"""

    assert is_archive(b"\x1f\x8b\x08")
    assert is_archive(b"a".ljust(257, b"\0") + b"ustar\x0000")
    assert not is_archive(b"FROM scratch\n")
    assert not is_archive(b"# ustar" * 70)


def test_missing_dockerfile_names_the_one_that_may_be_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    context = tmp_path / "ctx"
    context.mkdir()
    (context / "web.Dockerfile").touch()
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InputError, match="no such Dockerfile") as caught:
        found(context, "web.Dockerfile")

    assert "ctx/web.Dockerfile" in caught.value.hint


@pytest.mark.parametrize(
    ("path", "remote"),
    [
        ("https://example.com/x.tar.gz", True),
        ("http://example.com/x.git#main:sub", True),
        ("git@host:x", True),
        ("ssh://git@host/x", True),
        ("git://host/x", True),
        ("github.com/a/b", True),
        ("./https:", False),
        ("githubxcom/a", False),
        ("-", False),
    ],
)
def test_what_lies_on_a_server(path: str, remote: bool):
    assert is_remote(path) == remote


def test_a_directory_comes_before_a_server_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "github.com/a/b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    assert not is_remote("github.com/a/b")


def test_impossible_inputs(tmp_path: Path):
    (tmp_path / "file").touch()
    (tmp_path / "Dockerfile").mkdir()
    for path, file in ((tmp_path / "none", ""), (tmp_path / "file", ""), ("-", "-"), (tmp_path, "")):
        with pytest.raises(InputError):
            found(path, file, b"FROM scratch")


def test_a_dockerfile_has_a_cap(tmp_path: Path):
    (tmp_path / "Dockerfile").touch()
    with open(tmp_path / "Dockerfile", "r+b") as file:
        file.truncate(MAX_DOCKERFILE + 1)
    with pytest.raises(InputError, match="larger"):
        found(tmp_path)
