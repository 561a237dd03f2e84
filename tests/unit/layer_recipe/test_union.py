"""The union of layers by example; the general rule is tested against overlayfs in tests/property."""

from __future__ import annotations

import pytest

from lamina.errors import InputError
from lamina.layer.entry import Entry
from lamina.layer.index import Index
from lamina.layer.union import Union, clean_path


def chain(*layers: list[Entry]) -> Union:
    return Union(Index.from_entries(layer) for layer in layers)


BASE = [
    Entry("etc", "d", 0o755, 1, 1),
    Entry("etc/passwd", "f", 0o644, size=3),
    Entry("lib", "l", target="usr/lib"),
    Entry("usr/lib/x.so", "f", size=9),
]


def test_layers_merge_and_the_top_gives_the_metadata() -> None:
    """Directories merge, files are replaced, and each is found in the layer it came from."""
    union = chain(BASE, [Entry("etc", "d", 0o700), Entry("etc/group", "f")])

    assert union.children("etc") == ["group", "passwd"]
    assert union.lookup("etc") == Entry("etc", "d", 0o700)
    assert (union.found_in("etc/passwd"), union.found_in("etc/group"), union.found_in("nope")) == (0, 1, -1)


def test_an_implied_directory_takes_its_metadata_from_below() -> None:
    """A layer that lacks the parents of its entries does not change them."""
    union = chain(BASE, [Entry("etc/hosts", "f")])

    assert union.lookup("etc") == BASE[0]
    assert union.lookup("usr") == Entry("usr", "d", 0o755)


def test_whiteouts_opaque_directories_and_files_hide_what_is_below() -> None:
    """Also for what lies deeper, and what a still higher layer brings back is new."""
    union = chain(
        BASE,
        [Entry("etc", "w"), Entry("usr", "f", size=1)],
        [Entry("etc/new", "f"), Entry("usr", "d", 0o711)],
    )

    assert union.children("etc") == ["new"]
    assert union.children("usr") == []
    assert union.lookup("usr/lib/x.so") is None
    assert chain(BASE, [Entry("etc", "d", opaque=True)]).children("etc") == []


def test_paths_are_resolved_inside_the_root() -> None:
    """Absolute links, "..", and missing ends."""
    union = chain(BASE, [Entry("up", "l", target="../../../etc"), Entry("abs", "l", target="/lib/new/file")])

    assert union.resolve("/lib/x.so") == "usr/lib/x.so"
    assert union.resolve("up/passwd") == "etc/passwd"
    assert union.resolve("abs") == "usr/lib/new/file"
    assert union.resolve("abs", follow_last=False) == "abs"
    assert union.resolve("../..//etc/./x/../passwd") == "etc/passwd"


def test_links_in_a_circle_are_an_error() -> None:
    """And not a hang."""
    union = chain([Entry("a", "l", target="b"), Entry("b", "l", target="a")])

    with pytest.raises(InputError, match="too many symbolic links"):
        union.resolve("a/x")


def test_hard_links_show_the_file_and_their_common_name() -> None:
    """Even when the first name is gone above."""
    union = chain([Entry("a", "f", 0o600, size=4), Entry("b", "h", target="a"), Entry("c", "f")], [Entry("a", "w")])

    assert union.lookup("b") == Entry("b", "f", 0o600, size=4)
    assert union.link_group("b") == "0:a"
    assert union.link_group("c") == ""


def test_a_chain_may_be_deep_and_a_path_deeper() -> None:
    """120 layers, and a path of 3,000 parts: no recursion, no blow-up."""
    deep = "/".join(["d"] * 3000)
    layers = [[Entry(f"l{number}", "f")] for number in range(119)]
    union = chain([Entry(deep, "f", size=1)], *layers)

    assert union.lookup(deep) == Entry(deep, "f", size=1)
    assert len(union.children("")) == 120
    assert sum(1 for _ in union.walk()) == 3000 + 119 + 1


def test_walking_gives_parents_first_and_names_sorted() -> None:
    """By parts: "a/b" before "a-b"."""
    union = chain([Entry("a-b", "f"), Entry("a", "d"), Entry("a/b", "f")])

    assert [entry.path for entry in union.walk()] == ["", "a", "a/b", "a-b"]


@pytest.mark.parametrize(
    ("path", "clean"), [("/", ""), (".", ""), ("../a", "a"), ("/a//b/./c/../", "a/b"), ("a/../../b", "b")]
)
def test_paths_are_cleaned(path: str, clean: str) -> None:
    """Clipped at the root."""
    assert clean_path(path) == clean
