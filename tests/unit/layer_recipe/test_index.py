"""The index: one entry a path, a file that survives whole or is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import StorageError
from lamina.layer.entry import Entry
from lamina.layer.index import Index

PARTS = st.text(st.characters(exclude_characters="/\0", exclude_categories=()), min_size=1, max_size=8).filter(
    lambda part: part not in (".", "..") and encodable(part)
)
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


def encodable(text: str) -> bool:
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape") == text
    except UnicodeError:
        return False


ENTRIES = st.builds(
    Entry,
    path=PATHS,
    kind=st.sampled_from("fdlhcbpw"),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    mtime_ns=st.integers(-(2**62), 2**62),
    size=st.integers(0, 2**50),
    target=st.one_of(st.just(""), PATHS),
    dev=st.tuples(st.integers(0, 4095), st.integers(0, 2**20)),
    xattrs=st.dictionaries(PARTS, st.binary(max_size=9), max_size=2).map(lambda d: tuple(sorted(d.items()))),
    digest=st.one_of(st.just(""), st.binary(max_size=4).map(lambda b: hashlib.sha256(b).hexdigest())),
    opaque=st.booleans(),
)


@given(st.lists(ENTRIES, max_size=12))
def test_what_is_dumped_is_parsed_again(entries: list[Entry]) -> None:
    """Every field of every kind of entry survives, in order."""
    index = Index.from_entries(entries)

    again = Index.parse(index.dump())

    assert list(again.entries.items()) == list(index.entries.items())
    assert again.implied == index.implied
    assert all(type(entry) is Entry for entry in again)


def test_an_index_is_small_and_loads_from_disk(tmp_path: Path) -> None:
    """Under 300 bytes an entry, digest included, and nothing but the file is left behind."""
    digest = hashlib.sha256(b"").hexdigest()
    index = Index.from_entries(
        Entry(f"usr/share/package-{n % 50}/some-module-{n}.py", "f", 0o644, 0, 0, 10**18 + n, n, digest=digest)
        for n in range(2000)
    )

    index.save(tmp_path / "1")

    assert (tmp_path / "1").stat().st_size < 300 * 2000
    assert Index.load(tmp_path / "1").entries == index.entries
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_damaged_index_is_refused(tmp_path: Path) -> None:
    """Every single flipped or missing byte is noticed, so that the caller makes the index anew."""
    whole = Index.from_entries([Entry("a", "f", 0o644, size=3, xattrs=(("user.x", b"1"),)), Entry("b", "d")]).dump()
    damaged = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole))]
    damaged += [whole[:at] for at in range(0, len(whole), 7)] + [b"", whole + b"\0"]

    for number, data in enumerate(damaged):
        (tmp_path / "index").write_bytes(data)
        with pytest.raises(StorageError):
            Index.load(tmp_path / "index")
        assert number >= 0


def test_a_missing_index_is_a_storage_error(tmp_path: Path) -> None:
    """The caller cannot tell it from a damaged one, and need not."""
    with pytest.raises(StorageError, match="cannot read"):
        Index.load(tmp_path / "none")
    with pytest.raises(StorageError, match="cannot write"):
        Index.from_entries([]).save(tmp_path / "none" / "1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("order", [1, -1])
def test_a_whiteout_hides_only_what_is_below_the_layer(order: int) -> None:
    """Beside an entry of the same layer it adds nothing, or makes a directory opaque; in either order."""
    directory, file = Entry("d", "d", 0o755), Entry("f", "f", size=1)
    entries = [Entry("d", "w"), directory, Entry("f", "w"), file][::order]

    index = Index.from_entries(entries)

    assert index.entries["d"] == directory._replace(opaque=True)
    assert index.entries["f"] == file


def test_the_last_of_two_entries_wins_and_stands_last() -> None:
    """As when the tar is unpacked."""
    index = Index.from_entries([Entry("a", "f", size=1), Entry("b", "f"), Entry("a", "l", target="b")])

    assert list(index.entries) == ["b", "a"]
    assert index.entries["a"].kind == "l"


def test_directories_without_an_entry_are_implied() -> None:
    """They are listed like others."""
    index = Index.from_entries([Entry("a/b/c", "f"), Entry("x/y", "w"), Entry("w", "w"), Entry("w/z", "f")])

    assert index.implied == {"a", "a/b", "x", "w"}
    assert sorted(index.names("")) == ["a", "w", "x"]
    assert index.names("a/b") == ["c"]


def test_sizes_count_a_hard_link_once() -> None:
    """A link has no bytes of its own."""
    index = Index.from_entries([Entry("a", "f", size=5), Entry("b", "h", target="a"), Entry("c", "f", size=2)])

    assert index.size_bytes == 7
    assert index.linked == {"a"}
