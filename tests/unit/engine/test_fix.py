"""The proof that a mended Dockerfile makes the same image, and the writing of it (F1)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamina.engine.fix import Sameness, write_dockerfile
from lamina.engine.options import BuildOptions
from lamina.errors import InputError
from lamina.oci.platform import Platform


class Bases:
    """Knows no base image."""

    def config(self, _name: str, _platform: Platform) -> None:
        return None


def same(one: str, other: str, *, config: bool = False, **options: object) -> bool:
    whole = BuildOptions(**options)  # type: ignore[arg-type]
    return Sameness(whole, [Platform("linux", "amd64")], Bases())(one.encode(), other.encode(), config)


SAME = {
    "spelling": ("from a as B\nrun x\n", "FROM a AS b\nRUN x\n"),
    "references": ("FROM a AS B\nFROM B\nCOPY --from=B /x /\n", "FROM a AS b\nFROM b\nCOPY --from=b /x /\n"),
    "ENV with and without =": ("FROM a\nENV A b c\nRUN x\n", 'FROM a\nENV A="b c"\nRUN x\n'),
    "what does not convert, told alike": ("FROM a As b\nEXPOSE x\nRUN y\n", "FROM a AS b\nEXPOSE x\nRUN y\n"),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME)
def test_same(one: str, other: str) -> None:
    """F1: other words, the same graph and config."""
    assert same(one, other)


OTHER = {
    "a step": ("FROM a\nRUN x\n", "FROM a\nRUN y\n"),
    "a value": ('FROM a\nENV A "b c" d\n', 'FROM a\nENV A="b c d "\n'),
    "a label": ("FROM a\nLABEL a=b\n", "FROM a\nLABEL a=c\n"),
    "a command": ("FROM a\nCMD x\n", 'FROM a\nCMD ["x"]\n'),
    "a stage that nothing needs": ("FROM a\nRUN x\nFROM b\n", "FROM a\nRUN y\nFROM b\n"),
    "one instruction fewer": ("FROM a\nARG b\nARG c\n", "FROM a\nARG b\n"),
    "what history says": ("FROM a\nEXPOSE 80\n", "FROM a\nEXPOSE 80/tcp 80\n"),
    "a comment": ("FROM a\n# x\nRUN x\n", "FROM a\n# y\nRUN x\n"),
    "a directive": ("# check=skip=X\nFROM a\n", "# check=skip=Y\nFROM a\n"),
    "a here-document": ("FROM a\nRUN <<E\nx\nE\n", "FROM a\nRUN <<E\ny\nE\n"),
    "no Dockerfile": ("FROM a\n", "FORM a\n"),
    "what does not convert, with another value": ("FROM a\nEXPOSE x\nENV A b c\n", "FROM a\nEXPOSE x\nENV A=b\n"),
    "what converts no more": ("FROM a\nEXPOSE 80\n", "FROM a\nEXPOSE x\n"),
    "the name of a stage": ("FROM a AS b\n", "FROM a AS c\n"),
}


@pytest.mark.parametrize(("one", "other"), OTHER.values(), ids=OTHER)
def test_not_the_same(one: str, other: str) -> None:
    """F1: whatever a fix did wrong, it is seen."""
    assert not same(one, other)
    assert not same(other, one)


def test_where_a_fix_says_that_it_is_about_the_config() -> None:
    """F1: author, authors' label and commands may differ then, and nothing else."""
    one = "FROM a\nMAINTAINER x\nCMD y\nLABEL l=1\n"
    other = 'FROM a\nLABEL org.opencontainers.image.authors="x"\nCMD ["y"]\nLABEL l=1\n'

    assert same(one, other, config=True)
    assert not same(one, other.replace("l=1", "l=2"), config=True)
    assert not same(one, other.replace("CMD", "RUN"), config=True)
    assert not same(one, other)


def test_build_arguments_count() -> None:
    """F1: what is compared is what this build would make."""
    one, other = "ARG A=1\nFROM a\nARG A\nRUN x\n", "ARG A=2\nFROM a\nARG A\nRUN x\n"
    assert not same(one, other)
    assert same(one, other, build_args={"A": "3"})


def test_no_stage_goes_unproved() -> None:
    """F1: in a file with very many stages, only spelling may change."""
    many = "FROM a\nRUN x\n" * 300
    assert same("FROM a as B\n" + many, "FROM a AS b\n" + many)
    assert not same("FROM a\nENV A b\n" + many, "FROM a\nENV A=c\n" + many)


class TestWriting:
    """F1: the file is replaced in one step."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "Dockerfile"
        path.write_bytes(b"old")
        path.chmod(0o640)
        return path

    def test_the_mode_stays(self, file: Path) -> None:
        """Nothing else is left in the directory."""
        write_dockerfile(str(file), b"old", b"new")
        assert file.read_bytes() == b"new"
        assert file.stat().st_mode & 0o7777 == 0o640
        assert os.listdir(file.parent) == ["Dockerfile"]

    def test_a_link_is_followed(self, file: Path) -> None:
        """What it points to is replaced, the link stays."""
        link = file.parent / "link"
        link.symlink_to("Dockerfile")
        write_dockerfile(str(link), b"old", b"new")
        assert link.is_symlink() and file.read_bytes() == b"new"

    def test_a_file_that_changed_meanwhile_is_left_alone(self, file: Path) -> None:
        """An editor may have saved it."""
        with pytest.raises(InputError, match="has changed meanwhile"):
            write_dockerfile(str(file), b"older", b"new")
        assert file.read_bytes() == b"old"
        assert os.listdir(file.parent) == ["Dockerfile"]

    def test_only_regular_files(self, tmp_path: Path) -> None:
        """A fifo is not waited for; what is not there is an error."""
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(InputError, match="only a regular file"):
            write_dockerfile(str(tmp_path / "fifo"), b"", b"new")
        with pytest.raises(InputError, match="cannot be written"):
            write_dockerfile(str(tmp_path / "none"), b"", b"new")
