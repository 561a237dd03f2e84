"""What of the state file's records belongs into a cache that travels: those of one build's vertices."""

from __future__ import annotations

import gzip
import io
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, BinaryIO

from lamina.cache.document import (
    INDEX_MEDIA_TYPE,
    LIST_MEDIA_TYPE,
    CacheLayer,
    CacheList,
    CacheRecord,
    Document,
    counted_contents,
)
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest, sha256_digest
from lamina.snapshot.rows import LayerRef, LayerRow, parse_origin
from lamina.state.db import State

_CHUNK = 500
_MOST_KEYS = 100
_MAX_LIST_BYTES = 1 << 20

PackChain = Callable[[LayerRef], list[LayerRow]]
"""Returns a chain's rows, bottom first, each with its blob's descriptor and diffID."""

DumpIndex = Callable[[LayerRow], bytes | None]
"""Returns a layer's index, None when it is not at hand."""

FindList = Callable[[str], bytes | None]
"""Returns the list of files behind a content digest, None when it is not kept."""


@dataclass(frozen=True, slots=True)
class KnownRecord:
    """One node of the state file. `layers` are the rows its results are."""

    node: int
    canon: str
    keys: tuple[str, ...]
    layers: tuple[int | None, ...]
    description: str
    parts: dict[str, Any]
    seconds: float
    created: float


@dataclass(slots=True)
class Gathered:
    """A document and how its blobs are had: `rows` by the digests of layers, `openers` by those of all others."""

    document: Document
    rows: dict[str, LayerRow] = field(default_factory=dict)
    openers: dict[str, Callable[[], BinaryIO]] = field(default_factory=dict)


def known_records(state: State, keys: Iterable[str]) -> list[KnownRecord]:
    """Return the nodes that the keys lead to, with all their keys, if they have results still."""
    nodes: dict[int, set[str]] = {}
    for chunk in _chunks(list(dict.fromkeys(keys))):
        marks = ",".join("?" * len(chunk))
        for key, node in state.execute(f"SELECT key, node FROM key WHERE key IN ({marks})", chunk):
            nodes.setdefault(node, set()).add(key)
    return [record for chunk in _chunks(list(nodes)) for record in _read_nodes(state, chunk, nodes)]


def _read_nodes(state: State, nodes: list[int], asked: Mapping[int, set[str]]) -> Iterator[KnownRecord]:
    """Yield the nodes that have results; of very many keys, those that were asked for come along in any case."""
    marks = ",".join("?" * len(nodes))
    results: dict[int, list[int | None]] = {}
    for node, layer in state.execute(
        f"SELECT node, layer FROM result WHERE node IN ({marks}) ORDER BY node, output", nodes
    ):
        results.setdefault(node, []).append(layer)
    keys: dict[int, list[str]] = {}
    for key, node in state.execute(f"SELECT key, node FROM key WHERE node IN ({marks})", nodes):
        keys.setdefault(node, []).append(key)
    for node, canon, description, parts, seconds, created in state.execute(
        f"SELECT id, canon, description, parts, seconds, created FROM node WHERE id IN ({marks})", nodes
    ):
        if node in results:
            names = tuple(sorted({canon, *asked[node], *keys[node][:_MOST_KEYS]}))
            yield KnownRecord(
                node, canon, names, tuple(results[node]), description, json.loads(parts), seconds, created
            )


def gather(
    records: Iterable[KnownRecord],
    pack: PackChain,
    dump_index: DumpIndex,
    only: Collection[int] | None = None,
    find_list: FindList = lambda _content: None,
) -> Gathered:
    """Return the records as a document.

    Args:
        only: rows that results must consist of (an image's chain); None takes every result.
    """
    gathered = Gathered(Document())
    layers: list[CacheLayer] = []
    numbers: dict[int, int] = {}
    taken: list[CacheRecord] = []
    lists: dict[str, CacheList] = {}
    now = time.time()
    for record in records:
        if only is not None and any(layer is not None and layer not in only for layer in record.layers):
            continue
        results = []
        for layer in record.layers:
            number = -1
            for row in pack(LayerRef(layer)):
                if row.id not in numbers:
                    numbers[row.id] = len(layers)
                    layers.append(_layer(row, number, dump_index, gathered))
                number = numbers[row.id]
            results.append(number)
        for content in counted_contents(record.parts):
            if content not in lists and (data := find_list(content)) is not None and len(data) <= _MAX_LIST_BYTES:
                descriptor = Descriptor(LIST_MEDIA_TYPE, sha256_digest(data), len(data))
                lists[content] = CacheList(Digest(content), descriptor)
                gathered.openers[descriptor.digest] = partial(io.BytesIO, data)
        taken.append(
            CacheRecord(
                keys=record.keys,
                canon=record.canon,
                results=tuple(results),
                description=record.description,
                parts=record.parts,
                seconds=record.seconds,
                created=record.created,
                used=now,
            )
        )
    gathered.document = Document(tuple(layers), tuple(taken), lists=tuple(lists.values()))
    return gathered


def timeless(document: Document) -> Document:
    """Return the document without anything that differs between two builds of the same: for image configs."""
    return replace(
        document, records=tuple(replace(r, parts={}, seconds=0.0, created=0.0, used=0.0) for r in document.records)
    )


def _layer(row: LayerRow, parent: int, dump_index: DumpIndex, gathered: Gathered) -> CacheLayer:
    blob = row.descriptor()
    assert blob is not None and row.diff_id is not None
    kind, where = parse_origin(row.origin) if row.origin else ("", "")
    gathered.rows[blob.digest] = row
    index = dump_index(row)
    descriptor = None
    if index is not None:
        data = gzip.compress(index, 6, mtime=0)
        descriptor = Descriptor(INDEX_MEDIA_TYPE, sha256_digest(data), len(data))
        gathered.openers[descriptor.digest] = partial(io.BytesIO, data)
    return CacheLayer(
        blob=blob,
        diff_id=Digest(row.diff_id),
        parent=parent,
        size=row.size,
        created=row.created,
        description=row.description[:4096],
        index=descriptor,
        origin=where if kind == "registry" else "",
    )


def _chunks(items: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
