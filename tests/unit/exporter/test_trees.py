"""C8: outputs of files for several platforms: directories of their own, one directory, and nothing else in it."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from lamina.errors import InputError, NotYetError
from lamina.exporter.export import export
from lamina.exporter.outputs import parse_output
from lamina.exporter.protocol import Result
from lamina.layer.entry import Entry, Item
from lamina.store.store import Store
from unit.exporter.support import make_result, surroundings

BOTH = ("amd64", "arm64")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def with_files(result: Result, *files: list[Item]) -> Result:
    """Return the result with these files for its platforms."""
    platforms = [
        replace(one, files=lambda items=items: items) for one, items in zip(result.platforms, files, strict=True)
    ]
    return replace(result, platforms=tuple(platforms))


def tree(name: str) -> list[Item]:
    """A directory with a file, and a second name of that."""
    return [
        Item(Entry("d", "d", 0o755)),
        Item(Entry(f"d/{name}", "f", 0o644, size=1), b"x"),
        Item(Entry(f"d/{name}-too", "h", 0o644, target=f"d/{name}")),
    ]


def test_a_tar_has_a_directory_for_each_of_several_platforms(store: Store, tmp_path: Path) -> None:
    result = with_files(make_result(store, *BOTH), tree("a"), tree("a"))
    export(result, parse_output("type=tar,dest=x.tar"), surroundings(tmp_path))

    with tarfile.open(tmp_path / "x.tar") as tar:
        names = [member.name for member in tar]
        assert tar.getmember("linux_arm64/d/a-too").linkname == "linux_arm64/d/a"
    assert [name for name in names if name.endswith("/a")] == ["linux_amd64/d/a", "linux_arm64/d/a"]


def test_one_platform_gets_a_directory_when_asked(store: Store, tmp_path: Path) -> None:
    result = with_files(make_result(store), tree("a"))
    export(result, parse_output("type=local,dest=out,platform-split=true"), surroundings(tmp_path))

    assert (tmp_path / "out/linux_amd64/d/a-too").read_bytes() == b"x"


def test_platforms_share_a_directory_when_asked(store: Store, tmp_path: Path) -> None:
    result = with_files(make_result(store, *BOTH), tree("a"), tree("b"))
    for text in ("type=local,dest=out,platform-split=false", "type=tar,dest=x.tar,platform-split=false"):
        export(result, parse_output(text), surroundings(tmp_path))

    assert sorted(path.name for path in (tmp_path / "out/d").iterdir()) == ["a", "a-too", "b", "b-too"]
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert [member.name for member in tar if member.isdir()] == ["d"]


def test_no_platform_overwrites_what_another_one_made(store: Store, tmp_path: Path) -> None:
    result = with_files(make_result(store, *BOTH), tree("a"), tree("a"))
    with pytest.raises(InputError, match="'d/a' of linux/arm64 would overwrite that of linux/amd64"):
        export(result, parse_output("type=local,dest=out,platform-split=false"), surroundings(tmp_path))


def test_what_the_other_side_shall_delete_comes_all_at_once(store: Store, tmp_path: Path) -> None:
    taken: list[tuple[str, list[str]]] = []

    def receive(folder: str, items: Iterable[Item]) -> None:
        taken.append((folder, [item.entry.path for item in items]))

    result = with_files(make_result(store, *BOTH), tree("a"), tree("b"))
    around = surroundings(tmp_path, receive=receive)
    export(result, parse_output("type=local,dest=x,mode=delete"), around)

    assert [folder for folder, _ in taken] == [""]
    assert taken[0][1] == [
        *("linux_amd64", "linux_amd64/d", "linux_amd64/d/a", "linux_amd64/d/a-too"),
        *("linux_arm64", "linux_arm64/d", "linux_arm64/d/b", "linux_arm64/d/b-too"),
    ]
    with pytest.raises(NotYetError, match="several platforms in one directory"):
        export(result, parse_output("type=local,dest=x,mode=delete,platform-split=false"), around)
    with pytest.raises(NotYetError, match="mode=delete on this machine"):
        export(result, parse_output("type=local,dest=x,mode=delete"), surroundings(tmp_path))
