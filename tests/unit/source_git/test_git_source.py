"""Git sources against a real server: which commit a ref is, what is fetched, what files come of it."""

from __future__ import annotations

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lamina.cancel import Cancel
from lamina.errors import CancelledError, Error, InputError, MachineError, NetworkError
from support.git_place import NOW, spec
from support.git_server import COMMIT_TIME, Repository


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files_modes_owner_and_times(place, repository, server):
    """B6: what a checkout gives, without `.git`; times are the build's."""
    out = place.get(spec(server))

    assert names(out) == ["file", "link", "run.sh", "sub"]
    modes = {name: stat.S_IMODE((out / name).lstat().st_mode) for name in ("file", "run.sh", "sub")}
    assert modes == {"file": 0o644, "run.sh": 0o755, "sub": 0o755}
    assert os.readlink(out / "link") == "sub/file"
    for path in (out, *out.rglob("*")):
        status = path.lstat()
        assert (status.st_uid, status.st_gid, status.st_mtime_ns) == (os.geteuid(), os.getegid(), NOW)


@pytest.mark.parametrize("version2", [True, False])
def test_every_kind_of_ref(place, repository, server, version2):
    """A4.11: branch, tag, annotated tag, full ref, pull request, commit, default branch."""
    server.version2 = version2
    first = repository.git("rev-parse", "HEAD")
    repository.git("tag", "light")
    repository.git("tag", "-a", "-m", "x", "heavy")
    repository.git("update-ref", "refs/pull/7/head", first)
    second = repository.commit({"file": "two\n"})
    repository.git("branch", "feature/x")
    third = repository.commit({"file": "three\n"})
    wanted = {
        "": (third, "three"),
        "HEAD": (third, "three"),
        "main": (third, "three"),
        "refs/heads/main": (third, "three"),
        "feature/x": (second, "two"),
        "light": (first, "one"),
        "heavy": (first, "one"),
        "refs/tags/heavy": (first, "one"),
        "tags/light": (first, "one"),
        "pull/7/head": (first, "one"),
        "refs/pull/7/head": (first, "one"),
        second: (second, "two"),
    }
    for ref, (commit, text) in wanted.items():
        asked = spec(server, ref)
        pin = place.source().resolve(asked, Cancel())
        assert (pin.commit or pin.object) == commit, ref
        assert (place.get(asked) / "file").read_text() == text + "\n", ref


def test_a_branch_wins_over_a_tag_of_the_same_name(place, repository, server):
    repository.git("tag", "both")
    repository.commit({"file": "two\n"})
    repository.git("branch", "both")

    assert (place.get(spec(server, "both")) / "file").read_text() == "two\n"
    assert (place.get(spec(server, "refs/tags/both")) / "file").read_text() == "one\n"


def test_a_commit_that_no_branch_has_any_more(place, repository, server):
    """B6: a full hash is fetched by itself where the server allows that."""
    lost = repository.commit({"file": "lost\n"})
    repository.git("reset", "-q", "--hard", "HEAD^")
    repository.git("config", "uploadpack.allowAnySHA1InWant", "true")

    assert (place.get(spec(server, lost)) / "file").read_text() == "lost\n"


def test_an_old_server_gives_an_old_commit_with_the_whole_history(place, repository, server):
    """B6: where only tips may be asked for, everything is fetched, also into a repository that is shallow."""
    server.version2 = False
    first = repository.git("rev-parse", "HEAD")
    for number in range(3):
        repository.commit({"file": f"{number}\n"})
    assert (place.get(spec(server)) / "file").read_text() == "2\n"

    assert (place.get(spec(server, first)) / "file").read_text() == "one\n"
    assert (place.get(spec(server)) / "file").read_text() == "2\n"


def test_a_server_without_git(place, repository, server):
    """B6: files only ("dumb" HTTP)."""
    server.dumb = True
    repository.git("update-server-info")

    assert (place.get(spec(server, "main")) / "file").read_text() == "one\n"


def test_a_repository_of_sha256(place, server, tmp_path):
    """B6: both object formats."""
    other = Repository(tmp_path / "served" / "long", object_format="sha256")
    commit = other.commit({"file": "long\n"})
    assert len(commit) == 64

    for fragment in ("main", commit, ""):
        assert (place.get(spec(server, fragment, "long")) / "file").read_text() == "long\n"
    kept = place.get(spec(server, "main", "long", keepgitdir="true"))
    assert Repository.git(_at(kept), "rev-parse", "HEAD") == commit


def test_a_known_commit_needs_no_network(place, repository, server):
    """B6: fetched once; a full hash that is here is not even asked for."""
    commit = repository.git("rev-parse", "HEAD")
    place.get(spec(server, "main"))
    assert server.fetches == 1
    server.requests.clear()

    place.get(spec(server, commit))
    assert server.requests == []
    place.get(spec(server, "main"))
    assert server.requests and server.fetches == 1


def test_one_build_asks_once(place, repository, server):
    """B6: within a build a ref is one commit, whatever is pushed meanwhile."""
    source, asked = place.source(), spec(server, "main")
    before = source.resolve(asked, Cancel())
    repository.commit({"file": "two\n"})

    assert source.resolve(spec(server, "main:sub"), Cancel()) == before
    assert place.source().resolve(asked, Cancel()) != before


def test_a_ref_that_moves_between_key_and_fetch(place, repository, server):
    """B6: what the key says is what comes."""
    source, asked = place.source(), spec(server, "main")
    pin = source.resolve(asked, Cancel())
    repository.commit({"file": "two\n"})
    out = place.folder / "out"
    out.mkdir()

    source.check_out(asked, pin, out, Cancel(), now_ns=NOW)

    assert (out / "file").read_text() == "one\n"


@pytest.mark.parametrize("length", [7, 40])
def test_a_checksum_that_holds(place, repository, server, length):
    """A4.10, A4.11: the commit, or the beginning of it; an annotated tag's own hash also counts."""
    repository.git("tag", "-a", "-m", "x", "heavy")
    commit, tag = repository.git("rev-parse", "HEAD"), repository.git("rev-parse", "heavy")

    for fragment, checksum in (("main", commit), ("heavy", commit), ("heavy", tag), (commit, commit), (tag, tag)):
        assert (place.get(spec(server, fragment, checksum=checksum[:length])) / "file").exists()


@pytest.mark.parametrize("fragment", ["main", "heavy", "", "COMMIT"])
def test_a_checksum_that_does_not_hold(place, repository, server, fragment):
    """A4.10, A4.11: told with both hashes; nothing is fetched."""
    repository.git("tag", "-a", "-m", "x", "heavy")
    commit = repository.git("rev-parse", "HEAD")

    with pytest.raises(InputError, match="checksum mismatch: expected commit 1234567, got") as caught:
        place.get(spec(server, fragment.replace("COMMIT", commit), checksum="1234567"))

    assert commit in str(caught.value)
    assert not list((place.folder / "git").iterdir())


def test_fetch_by_commit(place, repository, server):
    """A4.11: the checksum is the commit, the ref only its name."""
    old = repository.git("rev-parse", "HEAD")
    repository.commit({"file": "two\n"})

    out = place.get(spec(server, "main", checksum=old, fetchbycommit="true", keepgitdir="true"))

    assert (out / "file").read_text() == "one\n"
    assert Repository.git(_at(out), "rev-parse", "refs/heads/main") == old
    with pytest.raises(InputError, match="full commit hash"):
        spec(server, "main", checksum=old[:9], fetchbycommit="true")


@pytest.mark.parametrize(
    ("fragment", "said"),
    [("nowhere", "no ref 'nowhere'"), ("abc1234", "no ref 'abc1234'"), ("f" * 40, "no commit|not our ref|upload-pack")],
)
def test_a_ref_that_is_not_there(place, repository, server, fragment, said):
    with pytest.raises(Error, match=said) as caught:
        place.get(spec(server, fragment))

    if fragment == "abc1234":
        assert "full hash" in caught.value.hint


def test_a_subdirectory_is_the_root(place, repository, server):
    """A4.11, B6: `#ref:subdir`; no `.git` in it even if asked for."""
    repository.commit({"a/b/deep": "x", "a/run": "y"})
    (repository.folder / "a" / "run").chmod(0o755)
    repository.commit({})

    assert names(place.get(spec(server, "main:a", keepgitdir="true"))) == ["b", "run"]
    deep = place.get(spec(server, "main:a/b"))
    assert names(deep) == ["deep"] and deep.stat().st_mtime_ns == NOW
    assert stat.S_IMODE(deep.stat().st_mode) == 0o755


@pytest.mark.parametrize("subdir", ["nowhere", "file", "to_etc", "to_sub", "to_sub/x", "up"])
def test_a_subdirectory_that_is_none(place, repository, server, subdir):
    """B6: CVE-2026-33748: links are not followed, neither out of the repository nor within it."""
    for name, target in (("to_etc", "/etc"), ("to_sub", "sub"), ("up", "../..")):
        (repository.folder / name).symlink_to(target)
    repository.commit({"sub/x/y": "z"})

    with pytest.raises(InputError, match="has no directory"):
        place.get(spec(server, f"main:{subdir}"))


def test_times_of_the_commit(place, repository, server):
    """A4.11: `mtime=commit`."""
    out = place.get(spec(server, "main", mtime="commit"))

    assert {path.lstat().st_mtime_ns for path in (out, *out.rglob("*"))} == {COMMIT_TIME * 10**9}


def _at(folder: Path) -> Repository:
    """Use a checkout with the repository's own settings only."""
    made = Repository.__new__(Repository)
    made.folder = folder
    return made


def test_a_git_directory_that_is_kept(place, repository, server):
    """A4.12: a repository that git understands, with the plain origin and no trace of us."""
    repository.git("tag", "-a", "-m", "x", "heavy")
    commit = repository.commit({"file": "two\n"})

    out = place.get(spec(server, "main", keepgitdir="true"))

    kept = _at(out)
    assert kept.git("status", "--porcelain") == ""
    assert kept.git("rev-parse", "HEAD") == commit == kept.git("rev-parse", "refs/heads/main")
    assert kept.git("log", "--format=%s") == "change"
    assert kept.git("config", "remote.origin.url") == f"{server.url}/r/.git"
    assert kept.git("fsck", "--no-progress") == ""
    inside = [str(path.relative_to(out)) for path in (out / ".git").rglob("*")]
    assert not [
        name for name in inside if "hooks/" in name or "logs" in name or "FETCH_HEAD" in name or "lamina" in name
    ]
    text = b"".join(path.read_bytes() for path in (out / ".git").rglob("*") if path.is_file())
    assert str(place.folder).encode() not in text

    tagged = _at(place.get(spec(server, "heavy", keepgitdir="true")))
    assert tagged.git("cat-file", "-t", "refs/tags/heavy") == "tag"
    plain = _at(place.get(spec(server, commit, keepgitdir="true")))
    assert plain.git("rev-parse", "HEAD") == commit and plain.git("for-each-ref") == ""


# -- submodules


@pytest.fixture
def nested(repository, server, tmp_path) -> Repository:
    """`outer` has `r` at lib/r (relative address) and `middle`, which has `r` again."""
    middle = Repository(tmp_path / "served" / "middle")
    middle.git("submodule", "-q", "add", "--name", "inner", f"{server.url}/r/.git", "in")
    middle.commit({"m": "m"})
    outer = Repository(tmp_path / "served" / "outer")
    outer.git("submodule", "-q", "add", f"{server.url}/r/.git", "lib/r")
    outer.git("config", "--file", ".gitmodules", "submodule.lib/r.url", "../../r/.git")
    outer.git("submodule", "-q", "add", f"{server.url}/middle/.git", "middle")
    outer.commit({"o": "o"})
    server.requests.clear()
    return outer


def test_submodules_of_submodules(place, nested, server):
    """B6: all of them, at the commits that are recorded, without `.git` files."""
    out = place.get(spec(server, "main", "outer"))

    assert (out / "lib/r/file").read_text() == "one\n" == (out / "middle/in/file").read_text()
    assert not list(out.rglob(".git"))
    assert {path.lstat().st_mtime_ns for path in out.rglob("*")} == {NOW}


def test_a_recorded_commit_counts_and_not_the_branch(place, nested, repository, server):
    repository.commit({"file": "newer\n"})

    assert (place.get(spec(server, "main", "outer")) / "lib/r/file").read_text() == "one\n"


def test_submodules_left_out(place, nested, server):
    """A4.11: `submodules=false`."""
    out = place.get(spec(server, "main", "outer", skipsubmodules="true"))

    assert names(out / "lib/r") == [] and names(out / "middle") == []
    assert not [path for _, path, _ in server.requests if "/middle/" in path]


def test_submodules_with_git_directories(place, nested, server):
    """A4.12: git finds each submodule's repository from the superproject's."""
    out = place.get(spec(server, "main", "outer", keepgitdir="true"))

    assert _at(out).git("submodule", "status", "--recursive").count("\n") == 2
    assert _at(out).git("status", "--porcelain") == ""
    assert (out / "lib/r/.git").read_text() == "gitdir: ../../.git/modules/lib/r\n"
    assert _at(out / "middle/in").git("config", "remote.origin.url") == f"{server.url}/r/.git"


def test_a_submodule_that_is_switched_off(place, nested, server):
    nested.git("config", "--file", ".gitmodules", "submodule.middle.update", "none")
    nested.commit({})

    assert names(place.get(spec(server, "main", "outer")) / "middle") == []


# -- failures


def test_no_git_program(tmp_path):
    """B6: what is missing, and how to get it."""
    from lamina.source.git_program import GitProgram

    with pytest.raises(MachineError, match="git") as caught:
        GitProgram(str(tmp_path), tmp_path, {})
    assert "apt-get install git" in caught.value.hint


def test_nobody_listens(place, server):
    from dataclasses import replace

    asked = spec(server)
    nobody = replace(asked, remote=replace(asked.remote, host="127.0.0.1:1"))

    with pytest.raises(NetworkError, match="connect"):
        place.get(nobody)


def test_a_repository_that_is_not_there(place, server):
    with pytest.raises(NetworkError, match="not found"):
        place.get(spec(server, "main", "nowhere"))


def test_many_builds_of_one_remote(place, repository, server):
    """B6: builds at once fetch one after the other, and a commit once."""
    commits = [repository.commit({"file": f"{number}\n"}) for number in range(4)]
    specs = [spec(server, commit) for commit in commits * 2]
    sources = [place.source() for _ in specs]

    def one(number: int) -> str:
        out = place.folder / f"at-once{number}"
        out.mkdir()
        asked = specs[number]
        source = sources[number]
        source.check_out(asked, source.resolve(asked, Cancel()), out, Cancel(), now_ns=NOW)
        return (out / "file").read_text()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, range(8)))

    assert found == [f"{number % 4}\n" for number in range(8)]
    assert server.fetches == 4
    assert len([path for path in (place.folder / "git").iterdir() if path.is_dir()]) == 1


def test_a_cancelled_fetch_ends_at_once(place, repository, server):
    """B6: the program and its helpers are gone, and the next build works."""
    asked = spec(server, repository.git("rev-parse", "HEAD"))
    server.gate = threading.Event()
    cancel = Cancel()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(place.get, asked, cancel=cancel)
        assert server.reached.wait(60)
        cancel.cancel()
        with pytest.raises(CancelledError):
            running.result(60)
    server.gate.set()

    assert processes_that_name(server.url) == []
    assert (place.get(asked) / "file").read_text() == "one\n"


def processes_that_name(text: str) -> list[str]:
    """Return the command lines that hold `text`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except OSError:
            continue
    return [line for line in found if text in line]


def test_a_damaged_repository_is_fetched_anew(place, repository, server):
    """B6: a crash or a disk may have spoiled what was kept."""
    asked = spec(server, "main")
    place.get(asked)
    (kept,) = [path for path in (place.folder / "git").iterdir() if path.is_dir()]
    (kept / "shallow.lock").touch()
    for path in (kept / "objects").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.write_bytes(b"rubbish")
    assert (place.get(asked) / "file").read_text() == "one\n"
    repository.commit({"file": "two\n"})
    (kept / "HEAD").unlink()
    assert (place.get(asked) / "file").read_text() == "two\n"
