"""Content keys are exact: equal when and only when the copy gives the same layer, but for times."""

from __future__ import annotations

import hashlib

from hypothesis import assume, event, given
from hypothesis import strategies as st

from lamina.errors import InputError
from lamina.layer.entry import Entry
from lamina.layer.index import Index
from lamina.layer.recipe import CopyOptions, Plan, content_digest
from lamina.layer.union import Union
from lamina.layer.view import ChainView

PATHS = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=3).map("/".join)


@st.composite
def trees(draw: st.DrawFn) -> list[Entry]:
    table: dict[str, Entry] = {}
    for path in draw(st.lists(PATHS, max_size=4)):
        if any(parent in table and table[parent].kind != "d" for parent in parents(path)):
            continue
        if any(known.startswith(path + "/") for known in table):
            continue
        kind = draw(st.sampled_from("ffdlch"))
        files = [known for known, entry in table.items() if entry.kind == "f" and known != path]
        if kind == "h" and not files:
            continue
        table[path] = Entry(
            path,
            kind,
            draw(st.sampled_from([0o644, 0o755])),
            draw(st.sampled_from([0, 0, 1])),
            0,
            draw(st.integers(0, 3)),
            size=1 if kind == "f" else 0,
            target=draw(st.sampled_from(["a", "b"])) if kind == "l" else files[0] if kind == "h" else "",
            dev=(1, draw(st.integers(3, 4))) if kind == "c" else (0, 0),
            xattrs=draw(st.sampled_from([(), (), (("user.x", b"1"),)])) if kind in "fd" else (),
            digest=hashlib.sha256(draw(st.sampled_from([b"x", b"y"]))).hexdigest() if kind == "f" else "",
        )
    return list(table.values())


def parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:number]) for number in range(1, len(parts))]


OPTIONS = st.builds(
    CopyOptions,
    owner=st.sampled_from([None, (5, 5)]),
    mode=st.sampled_from([None, 0o700, "go-w"]),
    follow_symlink=st.booleans(),
    dir_copy_contents=st.booleans(),
    create_dest_path=st.just(True),
    allow_wildcard=st.just(True),
    allow_empty_wildcard=st.just(True),
    include=st.sampled_from([(), (), ("b",), ("**/a",)]),
    exclude=st.sampled_from([(), (), ("a",), ("a", "!a/b")]),
)


def view_of(entries: list[Entry]) -> ChainView:
    return ChainView(Union([Index.from_entries(entries)]), lambda number: "/nowhere")


def outcome(entries: list[Entry], src: str, options: CopyOptions) -> tuple[str, list[Entry]] | None:
    """The key, and the layer without its times."""
    view = view_of(entries)
    plan = Plan(Union(), now_ns=0)
    try:
        plan.copy(view, src, "/x/", options)
        key = content_digest(view, src, options)
    except InputError:
        return None
    return key, [item.entry._replace(mtime_ns=0) for item in plan.items()]


@given(trees(), trees(), st.sampled_from(["/", "a", "a/b", "*", "a/*"]), OPTIONS)
def test_equal_keys_mean_equal_layers(one: list[Entry], two: list[Entry], src: str, options: CopyOptions) -> None:
    """And different layers different keys: everything that shows is in the key."""
    first, second = outcome(one, src, options), outcome(two, src, options)
    assume(first is not None and second is not None)
    assert first is not None and second is not None

    event("equal layers" if first[1] == second[1] else "different layers")
    if first[0] == second[0]:
        assert first[1] == second[1]


@given(trees(), st.sampled_from(["/", "a", "*"]), OPTIONS, st.data())
def test_what_does_not_show_is_not_in_the_key(
    tree: list[Entry], src: str, options: CopyOptions, data: st.DataObject
) -> None:
    """Times, the order of directories, what lies elsewhere, and what the options override."""
    before = outcome(tree, src, options)
    assume(before is not None)

    changed = [entry._replace(mtime_ns=entry.mtime_ns + 1) for entry in tree]
    if options.owner is not None:
        changed = [entry._replace(uid=9, gid=9) for entry in changed]
    if isinstance(options.mode, int):
        changed = [entry._replace(mode=0o111) for entry in changed]
    links = [entry for entry in changed if entry.kind == "h"]
    others = data.draw(st.permutations([entry for entry in changed if entry.kind != "h"]))
    if src == "a":
        others = [*others, Entry("elsewhere", "f", digest=hashlib.sha256(b"z").hexdigest())]

    after = outcome([*others, *links], src, options)

    assert before is not None and after is not None
    assert after[0] == before[0]
