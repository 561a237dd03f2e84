"""`lamina context` (A6.8): what a build can see, and which rule kept or dropped each path."""

from __future__ import annotations

import json
import os
import stat
import tarfile
from pathlib import Path

import pytest

from support.command import Lamina
from support.git_server import Repository, running_git_server

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for the store's trees"),
]

FILES = (
    *("app.py", "app.log", "kept.log", "README.md", "docs/a.md", "docs/b/c.md", "docs/b/keep.txt", ".git/HEAD"),
    *("node_modules/p/index.js", "deep/er/x.log", "deep/er/x.py", "empty/", "!odd", "sp ace/a b"),
)
IGNORE = """\
# what is made by tools
node_modules
**/*.log

!kept.log
docs
!docs/b/*.txt
docs/b/c*
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "context"
    for name in FILES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        else:
            path.write_text(name)
    (folder / "link").symlink_to("docs/a.md")
    (folder / ".dockerignore").write_text(IGNORE)
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    return folder


def listed(lamina: Lamina, *words: str | Path) -> dict:
    """The JSON of the first context."""
    return json.loads(lamina("context", "--format=json", *words).stdout)["contexts"][0]


def built(lamina: Lamina, context: Path, *words: str) -> dict[str, str]:
    """Every path that `COPY . /` brings, with its type."""
    out = context.parent / "out"
    lamina.build(context, "-o", f"type=local,dest={out}", *words)
    types = {stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFLNK: "link"}
    return {str(path.relative_to(out)): types[stat.S_IFMT(path.lstat().st_mode)] for path in out.rglob("*")}


@pytest.mark.parametrize(
    "ignore", [IGNORE, "", "*\n!app.py\n!docs/b", "**\n!**/*.md\ndocs/a*", ".*\ndeep\n!deep/er/x.py", "docs\n!docs/zz"]
)
def test_it_lists_what_copy_brings(lamina: Lamina, context: Path, ignore: str) -> None:
    """A6.8, A6.1: the list is the file tree of `FROM scratch` and `COPY . /`."""
    (context / ".dockerignore").write_text(ignore)

    found = {row["path"]: row["type"] for row in listed(lamina, context)["paths"]}

    assert found == built(lamina, context)
    assert found


def test_the_dockerfiles_own_ignore_file_counts(lamina: Lamina, context: Path) -> None:
    """A6.2, A6.8: it takes the place of the other, and rules are said to be in it."""
    (context / "x.Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (context / "x.Dockerfile.dockerignore").write_text("\n*.md\n")
    words = ("-f", str(context / "x.Dockerfile"))

    found = listed(lamina, context, *words)

    assert {row["path"] for row in found["paths"]} == set(built(lamina, context, *words))
    assert found["leftOutPaths"] == [
        {
            "path": "README.md",
            "type": "file",
            "size": 9,
            "rule": {"file": "x.Dockerfile.dockerignore", "line": 2, "pattern": "*.md"},
        }
    ]


class TestText:
    """A6.8: what people see."""

    def test_sums_and_rules(self, lamina: Lamina, context: Path) -> None:
        """Biggest first; directories are summed up; each path with the line that left it out or brought it back."""
        (context / "deep" / "big").write_bytes(bytes(2_000_000))

        shown = lamina("context", context).stdout

        seen, _, out = shown.partition("left out, biggest first")
        rows = [line.split() for line in seen.splitlines()]
        assert rows[0][-1] == "files" and "(.dockerignore, 6 rules)" in seen
        assert ["2.00MB", "2", "yes", "deep/"] in rows
        assert rows.index(["2.00MB", "1", "yes", "deep/big"]) == rows.index(["2.00MB", "2", "yes", "deep/"]) + 1
        assert ["8B", "1", "yes", "kept.log", ".dockerignore:5", "!kept.log"] in rows
        left = [line.split() for line in out.splitlines()]
        assert ["23B", "1", "node_modules/", ".dockerignore:2", "node_modules"] in left
        assert ["13B", "1", "deep/er/x.log", ".dockerignore:3", "**/*.log"] in left
        assert "hint: .git is history; line 2 copies .git (9B): add the line .git to .dockerignore" in out

    def test_rows_and_depth(self, lamina: Lamina, context: Path) -> None:
        """The table is cut, and says so; --all has every path."""
        shown = lamina("context", "-n", "3", "--depth=1", context).stdout
        assert "more (--all)" in shown and "deep/er" not in shown.partition("left out, biggest")[0]
        assert "deep/er/x.py" in lamina("context", "--all", context).stdout

    def test_names_cannot_write_on_the_terminal(self, lamina: Lamina, context: Path) -> None:
        """A name may hold anything but a slash and a NUL."""
        (context / "\x1b[31mred").write_text("")
        (context / os.fsdecode(b"\xff")).write_text("")
        shown = lamina("context", "--all", context).stdout
        assert "\x1b" not in shown and r"\x1b[31mred" in shown


class TestRead:
    """A6.8: what instructions read, as against what is only there."""

    @pytest.fixture
    def read(self, lamina: Lamina, context: Path):
        def run(dockerfile: str, *words: str) -> dict[str, int]:
            (context / "Dockerfile").write_text(dockerfile)
            rows = listed(lamina, context, *words)["paths"]
            return {row["path"]: row["readInLine"] for row in rows if row["readInLine"]}

        return run

    def test_paths_patterns_and_exceptions(self, read) -> None:
        """Sources with wildcards, variables, --exclude and --parents; the first line that reads a path is said."""
        assert read("FROM scratch\nARG V=app\nCOPY $V.py *.md /d/\nCOPY app.py /e\n") == {"app.py": 3, "README.md": 3}
        assert read("FROM scratch\nCOPY --exclude=**/*.py deep /d\n") == {"deep": 2, "deep/er": 2}
        assert read("FROM scratch\nCOPY --parents deep/**/x.py /d\n")["deep/er/x.py"] == 2

    def test_mounts(self, read) -> None:
        """A bind mount of the context counts."""
        dockerfile = "FROM busybox\nRUN --mount=type=bind,source=deep,target=/m true\n"
        assert read(dockerfile) == {"deep": 2, "deep/er": 2, "deep/er/x.py": 2}

    def test_only_what_the_target_needs(self, read) -> None:
        """Other stages do not count; --target chooses."""
        dockerfile = "FROM scratch AS one\nCOPY app.py /\nFROM scratch\nCOPY README.md /\n"
        assert read(dockerfile) == {"README.md": 4}
        assert read(dockerfile, "--target=one") == {"app.py": 2}

    def test_what_is_not_there_is_noted(self, lamina: Lamina, context: Path) -> None:
        """With the rule that keeps it out."""
        (context / "Dockerfile").write_text("FROM scratch\nCOPY docs/a.md /\n")
        (note,) = listed(lamina, context)["notes"]
        assert note.startswith("line 2: /docs/a.md: not found in the build context") and "(rule docs)" in note

    def test_large_and_never_read(self, lamina: Lamina, context: Path) -> None:
        """It is said which line would leave it out."""
        (context / "video*").write_bytes(bytes(1_500_000))
        (context / "Dockerfile").write_text("FROM scratch\nCOPY app.py /\n")
        hints = listed(lamina, context)["hints"]
        assert {"message": "nothing of video* is read by the Dockerfile", "add": r"video\*", "size": 1500000} in hints

    def test_without_a_dockerfile_that_converts(self, lamina: Lamina, context: Path) -> None:
        """The list is there all the same."""
        (context / "Dockerfile").write_text("FROM scratch\nCOPPY a b\n")
        found = listed(lamina, context)
        assert found["read"] is None and "unknown instruction" in found["notes"][0]
        (context / "Dockerfile").unlink()
        assert listed(lamina, context)["read"] is None


class TestWhy:
    """A6.8: one path, every rule that matches, and the one that decides."""

    def test_text(self, lamina: Lamina, context: Path) -> None:
        """The last that matches decides."""
        assert lamina("context", "--why=./docs/b/c.md", context).stdout.splitlines() == [
            "docs/b/c.md is left out of the build context",
            "  .dockerignore:6  docs  leaves it out",
            "  .dockerignore:8  docs/b/c*  leaves it out, and decides: it is the last that matches",
        ]

    def test_json(self, lamina: Lamina, context: Path) -> None:
        """For programs; absolute paths inside the context are taken too."""
        shown = lamina("context", "--why", context / "docs/b/keep.txt", "--format=json", context).stdout
        found = json.loads(shown)
        assert (found["kept"], found["exists"], found["readInLine"]) == (True, True, 2)
        assert [(rule["line"], rule["decides"]) for rule in found["rules"]] == [(6, False), (7, True)]

    def test_what_is_not_there(self, lamina: Lamina, context: Path) -> None:
        """The rules can be asked about anything."""
        assert "is not there; if it were, it would be left out" in lamina("context", "--why=x.log", context).stdout

    def test_outside(self, lamina: Lamina, context: Path) -> None:
        """A path outside is an error."""
        assert "names no path inside the context" in lamina("context", "--why=../x", context, check=False).stderr


class TestOtherContexts:
    """A6.8: named contexts, archives, git."""

    def test_named(self, lamina: Lamina, context: Path, tmp_path: Path) -> None:
        """Each directory has its own ignore file."""
        (tmp_path / "other").mkdir()
        for name in ("a", "b"):
            (tmp_path / "other" / name).touch()
        (tmp_path / "other" / ".dockerignore").write_text("b\n.dockerignore\n")
        (context / "Dockerfile").write_text("FROM scratch\nCOPY --from=o a /\n")

        shown = lamina("context", "--format=json", f"--build-context=o={tmp_path / 'other'}", context).stdout

        other = json.loads(shown)["contexts"][1]
        assert other["name"] == "o"
        assert other["paths"] == [{"path": "a", "type": "file", "size": 0, "readInLine": 2}]

    def test_an_archive_on_standard_input(self, lamina: Lamina, context: Path, tmp_path: Path) -> None:
        """It has an ignore file like a directory."""
        with tarfile.open(tmp_path / "c.tar", "w") as archive:
            archive.add(context, ".")
        with open(tmp_path / "c.tar", "rb") as stdin:
            found = json.loads(lamina("context", "--format=json", "-", stdin=stdin).stdout)["contexts"][0]
        assert {row["path"] for row in found["paths"]} == set(built(lamina, context))

    def test_git(self, lamina: Lamina, tmp_path: Path) -> None:
        """A repository is fetched; ignore files do not count there, as in a build."""
        repository = Repository(tmp_path / "r.git")
        repository.commit({"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "1", "b": "2", ".dockerignore": "b\n"})
        with running_git_server(tmp_path) as server:
            found = listed(lamina, f"{server.url}/r.git")
        lines = {row["path"]: row["readInLine"] for row in found["paths"]}
        assert lines == {"Dockerfile": None, ".dockerignore": None, "a": 2, "b": None}

    def test_no_context(self, lamina: Lamina, tmp_path: Path) -> None:
        """A Dockerfile alone sees nothing."""
        (tmp_path / "d").write_text("FROM scratch\n")
        with open(tmp_path / "d", "rb") as stdin:
            done = lamina("context", "-", stdin=stdin, check=False)
        assert done.returncode == 2 and "there is no build context, only a Dockerfile" in done.stderr
