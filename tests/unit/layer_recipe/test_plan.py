"""File actions by example; that they equal real ones on a mount is tested in tests/property."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.errors import InputError
from lamina.layer.entry import Entry, FileSlice, Item
from lamina.layer.index import Index
from lamina.layer.recipe import CopyOptions, Plan, PlanView
from lamina.layer.union import Union
from lamina.layer.view import ChainView
from lamina.patterns import IgnoreRules
from lamina.source.context import ContextView

NOW = 1_700_000_000_000_000_000
COPY = CopyOptions(follow_symlink=True, dir_copy_contents=True, create_dest_path=True, allow_wildcard=True)


@pytest.fixture
def context(tmp_path: Path) -> Iterator[ContextView]:
    for name in ("app/main.py", "app/util.py", "app/data/x.bin", "README", "app/data/y.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(0o640)
    (tmp_path / "to-readme").symlink_to("README")
    with ContextView(tmp_path) as view:
        yield view


def base(*entries: Entry) -> Union:
    return Union([Index.from_entries(entries)])


def copied(view: ContextView, src: str, dest: str, options: CopyOptions = COPY, below: Union | None = None) -> Plan:
    plan = Plan(below or Union(), now_ns=NOW)
    plan.copy(view, src, dest, options)
    return plan


def paths(plan: Plan) -> list[str]:
    return [item.entry.path + ("/" if item.entry.kind == "d" else "") for item in plan.items()]


@pytest.mark.parametrize(
    ("src", "dest", "made"),
    [
        ("README", "/doc", ["doc"]),
        ("README", "/doc/", ["doc/", "doc/README"]),
        ("README", "/a/b/doc", ["a/", "a/b/", "a/b/doc"]),
        ("README", "/", ["README"]),
        ("README", "/there", ["there/", "there/README"]),
        ("to-readme", "/there", ["there/", "there/to-readme"]),
        ("app", "/srv/", ["srv/", "srv/data/", "srv/data/x.bin", "srv/data/y.txt", "srv/main.py", "srv/util.py"]),
        ("../../README", "/x", ["x"]),
        ("app/*.py", "/x/", ["x/", "x/main.py", "x/util.py"]),
        ("app/d*", "/x/", ["x/", "x/x.bin", "x/y.txt"]),
        ("*/[m]ain.?y", "/x/", ["x/", "x/main.py"]),
        ("README", "/by-link/x", ["there/", "there/x"]),
        ("README", "/../../up", ["up"]),
    ],
)
def test_where_copies_go(context: ContextView, src: str, dest: str, made: list[str]) -> None:
    """As docker's COPY; parents come along, links in the destination are followed."""
    below = base(Entry("there", "d", 0o750, 5, 5), Entry("by-link", "l", target="/there"))

    plan = copied(context, src, dest, below=below)

    assert paths(plan) == made
    there = plan.lookup("there")
    assert there is not None
    assert (there.mode, there.uid) == (0o750, 5)


def test_a_link_as_source_is_followed_and_one_inside_is_kept(context: ContextView, tmp_path: Path) -> None:
    """The last part of the source is the only one that turns into what it points to."""
    (tmp_path / "app" / "l").symlink_to("/etc/passwd")

    plan = copied(context, "to-readme", "/r")
    plan.copy(context, "app", "/app", COPY)

    link = plan.lookup("app/l")
    assert plan.content("r") == FileSlice(str(tmp_path), "README")
    assert link is not None
    assert (link.kind, link.target) == ("l", "/etc/passwd")


def test_owner_mode_and_time_are_set_everywhere(context: ContextView) -> None:
    """A number goes to parents too, without special bits; the text form leaves parents 0755."""
    number = copied(context, "app/data", "/a/b", CopyOptions(**{**_fields(), "owner": (7, 8), "mode": 0o4710}))
    text = copied(context, "app/data", "/a/b", CopyOptions(**{**_fields(), "mode": "u=rwX,go=", "timestamp_ns": 5}))

    assert {item.entry.path: oct(item.entry.mode) for item in number.items()} == {
        "a": "0o710",
        "a/b": "0o710",
        "a/b/x.bin": "0o4710",
        "a/b/y.txt": "0o4710",
    }
    assert {item.entry[3:5] for item in number.items()} == {(7, 8)}
    assert [oct(item.entry.mode) for item in text.items()] == ["0o755", "0o755", "0o600", "0o600"]
    assert {item.entry.mtime_ns for item in text.items()} == {5}


def _fields() -> dict[str, object]:
    return {name: getattr(COPY, name) for name in CopyOptions.__slots__}


def test_made_directories_have_the_build_s_time_and_copied_ones_their_own(context: ContextView, tmp_path: Path) -> None:
    """So that two builds of the same files differ only where they must."""
    os.utime(tmp_path / "app" / "data", ns=(1, 2_000_000_001))

    plan = copied(context, "app", "/made/app")

    assert plan.lookup("made").mtime_ns == NOW  # type: ignore[union-attr]
    assert plan.lookup("made/app/data").mtime_ns == 2_000_000_001  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("src", "dest", "message"),
    [
        ("app", "/file", "is not a directory|which is not one"),
        ("README", "/file/x", "/file is not a directory"),
        ("README", "/dirs/", "cannot replace the directory"),
        ("nothing", "/x", "not found in the build context"),
    ],
)
def test_what_is_in_the_way_is_an_error(context: ContextView, src: str, dest: str, message: str) -> None:
    """With the path in it; unless replacing was asked for."""
    below = base(Entry("file", "f", 0o644), Entry("dirs/README/x", "f"))

    with pytest.raises(InputError, match=message):
        copied(context, src, dest, below=below)


def test_replacing_leaves_whiteouts_only_by_replacing(context: ContextView) -> None:
    """A file over a directory hides it by itself; a directory over a removed one is opaque."""
    below = base(Entry("dirs/README/x", "f"), Entry("app/old", "f"), Entry("gone/x", "f"))
    options = CopyOptions(**{**_fields(), "always_replace_existing_dest_paths": True})

    plan = copied(context, "README", "/dirs/", options, below)
    plan.rm("/app")
    plan.mkdir("/app")
    plan.rm("/gone")

    kinds = {item.entry.path: item.entry.kind + ("!" if item.entry.opaque else "") for item in plan.items()}
    assert kinds == {"app": "d!", "dirs": "d", "dirs/README": "f", "gone": "w"}
    assert plan.union().children("") == ["app", "dirs"]


def test_missing_sources_are_explained(tmp_path: Path) -> None:
    """By the rule that excludes it, or by names that look alike."""
    (tmp_path / "requirements.txt").write_text("")
    (tmp_path / "secret.env").write_text("")
    with ContextView(tmp_path, IgnoreRules(["*.env"])) as view:
        with pytest.raises(InputError) as typo:
            copied(view, "requirement.txt", "/")
        with pytest.raises(InputError) as ignored:
            copied(view, "secret.env", "/")

    assert "/requirement.txt" in str(typo.value)
    assert typo.value.hint == "did you mean /requirements.txt?"
    assert "*.env" in ignored.value.hint


def test_empty_wildcards(context: ContextView) -> None:
    """Nothing, where that is allowed; an error where not."""
    allowed = CopyOptions(**{**_fields(), "allow_empty_wildcard": True})

    assert copied(context, "*.none", "/x/", allowed).is_empty()
    with pytest.raises(InputError, match="not found"):
        copied(context, "*.none", "/x/")
    with pytest.raises(InputError, match="not found"):
        copied(context, "none", "/x/", allowed)


def test_include_and_exclude(context: ContextView) -> None:
    """Directories come along only for what is in them."""
    only = CopyOptions(**{**_fields(), "include": ("data/*.txt", "none")})
    but = CopyOptions(**{**_fields(), "exclude": ("data", "!data/y.txt", "main.py")})

    assert paths(copied(context, "app", "/x", only)) == ["x/", "x/data/", "x/data/y.txt"]
    assert paths(copied(context, "app", "/x", but)) == ["x/", "x/data/", "x/data/y.txt", "x/util.py"]


def test_hard_links_stay_among_what_is_copied_together(context: ContextView, tmp_path: Path) -> None:
    """The first name in tar order has the data."""
    os.link(tmp_path / "app/util.py", tmp_path / "app/data/also")

    plan = copied(context, "app", "/x")
    plan.copy(context, "app/util.py", "/alone", COPY)

    links = {item.entry.path: item.entry.target for item in plan.items() if item.entry.kind == "h"}
    assert links == {"x/util.py": "x/data/also"}
    assert plan.union().lookup("x/util.py").size == len("app/util.py")  # type: ignore[union-attr]


def test_small_actions(context: ContextView) -> None:
    """mkdir, mkfile, symlink, rm, and what they refuse."""
    plan = Plan(base(Entry("f", "f", 0o4755, 3, 3, xattrs=(("security.capability", b"x"),))), now_ns=NOW)
    plan.mkdir("/a/b", 0o700, make_parents=True, owner=(1, 2))
    plan.mkfile("/a/b/new", b"data", 0o600)
    plan.mkfile("/f", b"longer")
    plan.symlink("b/new", "/a/link")

    assert [tuple(item.entry[:5]) for item in plan.items()] == [
        ("a", "d", 0o700, 1, 2),
        ("a/b", "d", 0o700, 1, 2),
        ("a/b/new", "f", 0o600, 0, 0),
        ("a/link", "l", 0o777, 0, 0),
        ("f", "f", 0o4755, 3, 3),
    ]
    assert plan.items()[2].content == b"data"
    assert plan.items()[2].entry.digest == hashlib.sha256(b"data").hexdigest()
    assert plan.lookup("f").xattrs == ()  # type: ignore[union-attr]
    plan.rm("/a/l*", wildcard=True)
    assert paths(plan) == ["a/", "a/b/", "a/b/new", "f"]
    for refused in (
        lambda: plan.mkdir("/x/y"),
        lambda: plan.mkdir("/f/y", make_parents=True),
        lambda: plan.mkfile("/x/y", b""),
        lambda: plan.mkfile("/a", b""),
        lambda: plan.symlink("t", "/f"),
        lambda: plan.rm("/none"),
        lambda: plan.rm("/"),
        lambda: plan.rm("/.."),
    ):
        with pytest.raises(InputError):
            refused()
    plan.rm("/none", allow_not_found=True)


def test_removals_stay_inside_the_root_and_take_links_as_links() -> None:
    """The link goes, what it points to stays; `..` is clipped."""
    plan = Plan(base(Entry("etc/passwd", "f"), Entry("l", "l", target="/etc"), Entry("x", "f")), now_ns=NOW)

    plan.rm("../../l")
    plan.rm("/a/../../x")

    assert [(item.entry.path, item.entry.kind) for item in plan.items()] == [("l", "w"), ("x", "w")]


def archive(*entries: Entry) -> object:
    return lambda view, entry: [Item(one, b"!" if one.kind == "f" else None) for one in entries]


def test_an_archive_is_unpacked_below_its_destination(context: ContextView) -> None:
    """Links in it cannot lead out of the destination, files replace what is there, links need their file."""
    options = CopyOptions(**{**_fields(), "attempt_unpack": True})
    entries = [
        Entry("out", "l", target="/../../etc"),
        Entry("out/evil", "f", 0o644, 9, 9, size=1),
        Entry("old", "f", 0o600, size=1),
        Entry("link", "h", target="old"),
        Entry("deep/er/x", "f", size=1),
    ]
    plan = Plan(base(Entry("d/old/x", "f"), Entry("etc", "d", 0o755)), now_ns=NOW, unpack=archive(*entries))  # type: ignore[arg-type]

    plan.copy(context, "README", "/d", options)

    assert paths(plan) == [
        "d/",
        "d/deep/",
        "d/deep/er/",
        "d/deep/er/x",
        "d/etc/",
        "d/etc/evil",
        "d/link",
        "d/old",
        "d/out",
    ]
    kinds = {item.entry.path: (item.entry.kind, item.entry.uid) for item in plan.items()}
    assert kinds["d/etc/evil"] == ("f", 9)
    assert (kinds["d/link"][0], kinds["d/old"][0]) == ("f", "h")
    assert plan.union().children("d/old") == []


@pytest.mark.parametrize(
    "bad", [Entry("x", "h", target="../../etc/passwd"), Entry("x", "h", target="y"), Entry("x", "w")]
)
def test_archives_that_break_the_rules_are_refused(context: ContextView, bad: Entry) -> None:
    """A link to what the archive does not have, a whiteout."""
    plan = Plan(base(Entry("etc/passwd", "f")), unpack=archive(bad))  # type: ignore[arg-type]

    with pytest.raises(InputError):
        plan.copy(context, "README", "/d/", CopyOptions(**{**_fields(), "attempt_unpack": True}))


def test_a_file_that_is_no_archive_is_copied(context: ContextView) -> None:
    """ADD of an ordinary file."""
    plan = Plan(Union(), unpack=lambda view, entry: None)

    plan.copy(context, "README", "/d/", CopyOptions(**{**_fields(), "attempt_unpack": True}))

    assert paths(plan) == ["d/", "d/README"]


def test_an_action_may_copy_from_an_earlier_one(context: ContextView, tmp_path: Path) -> None:
    """What the plan made, and what it found below."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "below").write_bytes(b"lower")
    union = base(Entry("below", "f", 0o644, size=5))
    plan = Plan(union, now_ns=NOW)
    plan.mkfile("/made", b"upper")
    view = PlanView(plan, ChainView(union, lambda layer: str(tree)))

    other = Plan(Union(), now_ns=NOW)
    other.copy(view, "/", "/", COPY)

    assert [item.content for item in other.items()] == [FileSlice(str(tree), "below"), b"upper"]
    assert view.digest(view.lookup("below")) == hashlib.sha256(b"lower").hexdigest()  # type: ignore[arg-type]
    assert view.digest(view.lookup("made")) == hashlib.sha256(b"upper").hexdigest()  # type: ignore[arg-type]
