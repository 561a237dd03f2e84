"""`lamina build REPOSITORY`: a git repository on a web server as build context, through the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command import Lamina
from support.git_web import commit, git, web_repositories

DOCKERFILE = b"FROM scratch\nCOPY . /\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The working tree of a repository with a branch `next`."""
    made = tmp_path / "web" / "app.git"
    made.mkdir(parents=True)
    git(made, "init", "--quiet", "--initial-branch=main")
    commit(made, "one", Dockerfile=DOCKERFILE, a=b"main\n", sub__Dockerfile=DOCKERFILE, sub__b=b"sub\n",
           **{".dockerignore": b"a\n"})  # fmt: skip
    git(made, "checkout", "--quiet", "-b", "next")
    commit(made, "two", a=b"next\n")
    git(made, "checkout", "--quiet", "main")
    return made


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    """Its URL."""

    with web_repositories(folder.parent) as root:
        yield f"{root}/app.git"


def built(lamina: Lamina, out: Path, *words: str, **options: object) -> dict[str, bytes]:
    lamina.build(words[-1], "-o", f"type=local,dest={out}", *words[:-1], **options)
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_the_default_branch_without_its_git_directory(url: str, lamina: Lamina, tmp_path: Path):
    """A1.14, A6.7"""

    found = built(lamina, tmp_path / "out", url)

    assert found["a"] == b"main\n" and found["sub/b"] == b"sub\n"
    assert not any(path.startswith(".git/") for path in found)


def test_a_branch_and_a_directory(url: str, lamina: Lamina, tmp_path: Path):
    """A1.14, A6.7"""

    assert built(lamina, tmp_path / "1", f"{url}#next")["a"] == b"next\n"
    assert built(lamina, tmp_path / "2", f"{url}#next:sub") == {"Dockerfile": DOCKERFILE, "b": b"sub\n"}
    assert built(lamina, tmp_path / "3", "-f", "sub/Dockerfile", f"{url}?branch=next")["a"] == b"next\n"


def test_a_build_argument_keeps_the_git_directory(url: str, lamina: Lamina, tmp_path: Path):
    """A4.12"""

    found = built(lamina, tmp_path / "out", "--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", url)

    assert ".git/HEAD" in found


def test_a_new_commit_is_seen(url: str, folder: Path, lamina: Lamina, tmp_path: Path):
    built(lamina, tmp_path / "1", url)
    commit(folder, "three", a=b"later\n")

    assert built(lamina, tmp_path / "2", url)["a"] == b"later\n"


@pytest.mark.parametrize("suffix", ["#none", "#main:none", "?what=1", "#main:../.."])
def test_what_is_not_there_says_so_and_leaves_nothing(url: str, lamina: Lamina, tmp_path: Path, suffix: str):
    temporary = tmp_path / "tmp"
    temporary.mkdir()

    done = lamina.build(url + suffix, check=False, env={"TMPDIR": str(temporary)})

    assert done.returncode in (2, 4) and "error: " in done.stderr and "Traceback" not in done.stderr
    assert not list(temporary.iterdir())
