"""Cache documents: what is written is read, what is damaged is refused, merging loses nothing. D9, L4."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.cache.backends.manifest import read_cache_manifest
from lamina.cache.buildkit_config import buildkit_config, buildkit_summary
from lamina.cache.document import (
    LIST_MEDIA_TYPE,
    MAX_LIST_BYTES,
    CacheLayer,
    CacheList,
    CacheRecord,
    Document,
    dump,
    merge,
    parse,
    without,
)
from lamina.errors import InputError
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest

FOR_EVER = 1e12


def named_bytes(data: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def named(text: str) -> Digest:
    return Digest("sha256:" + hashlib.sha256(text.encode()).hexdigest())


def layer(name: str, parent: int = -1, **values: Any) -> CacheLayer:
    return CacheLayer(
        Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", named(name), 5), named("d" + name), parent, **values
    )


def record(name: str, result: int, *keys: str, used: float = 0.0) -> CacheRecord:
    return CacheRecord((named(name), *map(named, keys)), named(name), (result,), name, {"a": [name]}, 1.5, used=used)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    count = draw(st.integers(0, 8))
    layers = tuple(layer(draw(st.sampled_from("abcdef")), draw(st.integers(-1, n - 1))) for n in range(count))
    records = tuple(
        record(name, draw(st.integers(-1, count - 1)), used=draw(st.integers(0, 50)))
        for name in draw(st.lists(st.sampled_from("pqrstuv"), unique=True))
    )
    return Document(layers, records)


def chains(document: Document) -> dict[str, tuple[str, ...]]:
    """Return for each canonical key the diffIDs of the chain that it leads to."""
    return {r.canon: tuple(found.diff_id for found in document.chain(r.results[0])) for r in document.records}


@given(documents())
def test_what_is_written_is_read(document: Document) -> None:
    """Equal values, and equal bytes when written again."""
    assert parse(dump(document)) == document
    assert dump(parse(dump(document))) == dump(document)


@given(st.lists(documents(), max_size=4))
def test_merging_loses_no_record_and_moves_no_chain(parts: list[Document]) -> None:
    """L4: every key of every part leads to a chain that one of the parts had for it."""
    merged = merge(parts, ttl_s=FOR_EVER, limit=1000)
    found = chains(merged)

    for part in parts:
        for canon in chains(part):
            assert found[canon] in [chains(other).get(canon) for other in parts]
    assert all(merged.layers[n].parent < n for n in range(len(merged.layers)))
    assert len({(found.diff_id, found.parent) for found in merged.layers}) == len(merged.layers)
    assert parse(dump(merged)) == merged


@given(documents(), documents())
def test_merging_again_changes_nothing(one: Document, two: Document) -> None:
    """Idempotent: exports that bring nothing new do not grow the cache."""
    merged = merge([one, two], ttl_s=FOR_EVER, limit=1000)

    assert chains(merge([merged, one, two], ttl_s=FOR_EVER, limit=1000)) == chains(merged)


def test_old_and_surplus_records_go_with_their_layers() -> None:
    """D11: what was not used for `ttl` is left out; of the rest the most recently used stay."""
    document = Document(
        (layer("a"), layer("b", 0), layer("c")), tuple(record(n, i, used=i * 10) for i, n in enumerate("xyz"))
    )

    assert chains(merge([document], ttl_s=15, limit=9, now=25)) == {
        named("y"): (named("da"), named("db")),
        named("z"): (named("dc"),),
    }
    assert [r.description for r in merge([document], ttl_s=99, limit=1, now=25).records] == ["z"]
    assert len(merge([document], ttl_s=99, limit=1, now=25).layers) == 1


def test_one_key_has_one_record() -> None:
    """Where two claim a key, the one used later has it; the other keeps its own."""
    old, new = record("old", -1, "shared", used=1), record("new", -1, "shared", used=2)
    merged = merge([Document((), (old,)), Document((), (new,))], ttl_s=FOR_EVER, limit=9)

    assert {r.description: named("shared") in r.keys for r in merged.records} == {"old": False, "new": True}


def test_without_blobs_that_are_gone() -> None:
    """What stands on them goes, what does not stays."""
    document = Document((layer("a"), layer("b", 0), layer("c")), (record("x", 0), record("y", 1), record("z", 2)))

    assert [r.description for r in without(document, {named("b")}).records] == ["x", "z"]
    assert [r.description for r in without(document, {named("a")}).records] == ["z"]


def counting(name: str, *contents: str, used: float = 0.0) -> CacheRecord:
    """A record whose key was made of contents."""
    inputs = [["key", named("k"), "base"], *(["content", named(content), "context"] for content in contents)]
    return replace(record(name, -1, used=used), parts={"inputs": inputs})


def files(content: str, size: int = 9) -> CacheList:
    return CacheList(named(content), Descriptor(LIST_MEDIA_TYPE, named(f"list of {content}"), size))


def test_lists_of_files_stay_with_the_records_that_count_them() -> None:
    one = Document((), (counting("x", "a", "b"),), lists=(files("a"), files("b")))
    two = Document((), (counting("y", "b", "c"),), lists=(files("b"), files("c"), files("nobody's")))
    merged = merge([one, two], ttl_s=FOR_EVER, limit=9)

    assert {one.content for one in merged.lists} == {named("a"), named("b"), named("c")}
    assert {blob.digest for blob in merged.blobs()} == {named(f"list of {name}") for name in "abc"}
    assert parse(dump(merged)) == merged


def test_a_list_that_is_gone_takes_no_record_along() -> None:
    document = Document((), (counting("x", "a"),), lists=(files("a"),))

    assert without(document, {named("list of a")}) == replace(document, lists=())


def test_lists_of_what_was_used_last_have_the_room() -> None:
    half = MAX_LIST_BYTES // 2
    records = counting("old", "a", used=1), counting("new", "b", "c", used=2)
    document = Document((), records, lists=(files("a", half), files("b", half), files("c", half)))

    assert [one.content for one in merge([document], ttl_s=FOR_EVER, limit=9).lists] == [named("b"), named("c")]


def test_a_document_without_lists_is_read() -> None:
    """Earlier versions wrote none."""
    table = json.loads(gzip.decompress(dump(Document())))
    del table["lists"]

    assert parse(gzip.compress(json.dumps(table).encode())) == Document()


GOOD = json.loads(gzip.decompress(dump(Document((layer("a"), layer("b", 0)), (record("x", 1),)))))


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"layers": None},
        {"layers": [{**GOOD["layers"][0], "parent": 0}]},
        {"layers": [{**GOOD["layers"][0], "parent": -2}]},
        {"layers": [{**GOOD["layers"][0], "diffID": "sha256:../../etc"}]},
        {"layers": [{**GOOD["layers"][0], "size": -1}]},
        {"layers": [{**GOOD["layers"][0], "blob": {"digest": "x", "size": 1}}]},
        {"records": [{**GOOD["records"][0], "results": [2]}]},
        {"records": [{**GOOD["records"][0], "results": [True]}]},
        {"records": [{**GOOD["records"][0], "keys": ["no digest"]}]},
        {"records": [{**GOOD["records"][0], "seconds": float("nan")}]},
        {"records": [{**GOOD["records"][0], "parts": []}]},
        {"mounts": {}},
    ],
)
def test_a_broken_rule_is_an_error(change: dict[str, Any]) -> None:
    """Documents come from outside."""
    with pytest.raises(InputError):
        parse(gzip.compress(json.dumps({**GOOD, **change}).encode()))


def test_bombs_are_refused() -> None:
    """A small document that grows large, one nested deeply, one cut short."""
    for raw in (
        gzip.compress(b" " * (65 << 20)),
        gzip.compress(b"[" * 100_000),
        dump(Document())[:-4],
        b"",
        gzip.compress(b"{}"),
    ):
        with pytest.raises(InputError):
            parse(raw)


def test_chains_are_not_too_deep() -> None:
    """A chain that no kernel would mount."""
    deep = Document(tuple(layer(str(n), n - 1) for n in range(600)), ())
    with pytest.raises(InputError, match="more than 500"):
        parse(dump(deep))


FIELDS = st.sampled_from([*GOOD["layers"][0], *GOOD["records"][0]])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("sha256:" + "0" * 64),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner),
    max_leaves=10,
)


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(["version", "layers", "records", "mounts"]), values | st.lists(values)))
def test_any_json_is_a_document_or_our_error(obj: dict[str, Any]) -> None:
    """No other exception."""
    try:
        parse(gzip.compress(json.dumps({**GOOD, **obj}).encode()))
    except InputError:
        pass


@given(documents())
def test_buildkits_form_is_sound(document: Document) -> None:
    """B15: what BuildKit checks when it reads a cache config: numbers in range, digests, parents."""
    layers, records = buildkit_summary(buildkit_config(document))

    assert layers == len(document.layers)
    assert records == sum(1 for r in document.records if r.results[0] >= 0)


@pytest.mark.parametrize(
    "raw",
    [
        b"[]",
        b"{",
        b'{"layers":[{"blob":"x"}]}',
        b'{"records":[{"digest":"sha256:00"}]}',
        b'{"records":[{"digest":"sha256:' + b"0" * 64 + b'","inputs":[[{"link":7}]]}]}',
        b'{"records":[{"digest":"sha256:' + b"0" * 64 + b'","layers":[{"layer":0}]}]}',
    ],
)
def test_buildkits_form_is_checked(raw: bytes) -> None:
    """A config that somebody made up."""
    with pytest.raises(InputError):
        buildkit_summary(raw)


def test_a_cache_that_buildkit_wrote_is_read() -> None:
    """Golden: a current BuildKit's export of seven steps with mode=max."""
    folder = Path(__file__).parents[2] / "golden" / "cache"
    manifest = read_cache_manifest((folder / "buildkit_manifest.json").read_bytes())
    raw = (folder / "buildkit_config.json").read_bytes()
    layers, records = buildkit_summary(raw)

    assert manifest.document is None and manifest.config is not None
    assert manifest.config.digest == named_bytes(raw)
    assert layers == len(manifest.blobs) == 7 and records > layers
