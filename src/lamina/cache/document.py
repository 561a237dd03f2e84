"""What a cache says of itself when it travels: records with their keys, and the layers they lead to. Pure.

A document is JSON, compressed. Layers stand below those that are made on them; records name layers by number. It comes
from outside, so parsing checks every field; a document that breaks a rule is refused whole. Two documents merge into
one that knows all that either knew: layers are the same when their chains of diffIDs are, and where two records claim
one key, the newer keeps it.
"""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lamina.cache.checked import Checked
from lamina.errors import InputError
from lamina.oci.chain import extend_chain
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest

MEDIA_TYPE = "application/vnd.lamina.cache.v1+gzip"
LIST_MEDIA_TYPE = "application/vnd.lamina.cache.list.v1+zlib"
CHUNK_MEDIA_TYPE = "application/vnd.lamina.cache.chunk.v1+zstd"
INDEX_MEDIA_TYPE = "application/vnd.lamina.layer.index.v1+gzip"
VERSION = 1
MAX_BYTES = 64 << 20
MAX_LAYERS = 8000
MAX_RECORDS = 20_000
MAX_DEPTH = 500
MAX_MOUNTS = 200
MAX_CHUNKS = 100_000
MAX_LISTS = 5000
MAX_LIST_BYTES = 16 << 20
"""Bytes of all lists in one cache; those of the records used last stay."""
_KEYS_A_MOUNT = 3
_MAX_PARTS_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class CacheLayer:
    """One layer of one chain.

    Attributes:
        blob: its descriptor.
        parent: number of the layer below, -1 at the bottom; always smaller than its own.
        size: bytes of file content.
        created: seconds since the epoch; images show it.
        index: descriptor of its index as a blob; None when it does not travel.
        origin: a registry reference that has the blob; "" when the cache itself does.
    """

    blob: Descriptor
    diff_id: Digest
    parent: int
    size: int = 0
    created: float = 0.0
    description: str = ""
    index: Descriptor | None = None
    origin: str = ""


@dataclass(frozen=True, slots=True)
class CacheRecord:
    """One piece of work.

    Attributes:
        keys: all that lead to it; `canon` is what its dependents' keys are made of.
        results: a layer's number for each output, -1 for the empty file system.
        parts: what the keys were made of, for explaining a miss.
        seconds: what it took.
        used: seconds since the epoch when an export last had it.
    """

    keys: tuple[str, ...]
    canon: str
    results: tuple[int, ...]
    description: str = ""
    parts: Mapping[str, Any] = field(default_factory=dict, hash=False)
    seconds: float = 0.0
    created: float = 0.0
    used: float = 0.0


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a cache mount's archive: the digest of the piece, and the blob that is the piece compressed."""

    raw: Digest
    blob: Descriptor


@dataclass(frozen=True, slots=True)
class CacheMount:
    """The content of a cache mount at one time: an archive in chunks.

    Attributes:
        name: the mount's id.
        key: digest of the lock file it goes with, "" for none.
        size: bytes of the archive.
        used: seconds since the epoch when it was exported.
    """

    name: str
    key: str
    chunks: tuple[Chunk, ...]
    size: int
    used: float


@dataclass(frozen=True, slots=True)
class CacheList:
    """The list of files behind a content digest that a record counts (see `listing.py`): for explaining a miss."""

    content: Digest
    blob: Descriptor


@dataclass(frozen=True, slots=True)
class Document:
    """What a cache holds: layers, records that lead to them, contents of cache mounts, lists of files."""

    layers: tuple[CacheLayer, ...] = ()
    records: tuple[CacheRecord, ...] = ()
    mounts: tuple[CacheMount, ...] = ()
    lists: tuple[CacheList, ...] = ()

    def chain(self, number: int) -> list[CacheLayer]:
        """Return the layers of the chain that ends with a layer, bottom first."""
        found: list[CacheLayer] = []
        while number >= 0:
            found.append(self.layers[number])
            number = self.layers[number].parent
        return found[::-1]

    def blobs(self) -> list[Descriptor]:
        """Return every blob that the cache itself must hold, each once."""
        found: dict[str, Descriptor] = {}
        for layer in self.layers:
            if not layer.origin:
                found.setdefault(layer.blob.digest, layer.blob)
            if layer.index is not None:
                found.setdefault(layer.index.digest, layer.index)
        for mount in self.mounts:
            for chunk in mount.chunks:
                found.setdefault(chunk.blob.digest, chunk.blob)
        for one in self.lists:
            found.setdefault(one.blob.digest, one.blob)
        return list(found.values())


def dump(document: Document) -> bytes:
    """Return the compressed form; equal documents give equal bytes."""
    obj = {
        "version": VERSION,
        "layers": [_dump_layer(layer) for layer in document.layers],
        "records": [_dump_record(record) for record in document.records],
        "mounts": [_dump_mount(mount) for mount in document.mounts],
        "lists": [[one.content, one.blob.digest, one.blob.size] for one in document.lists],
    }
    text = json.dumps(obj, sort_keys=True, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return gzip.compress(text, 6, mtime=0)


def parse(raw: bytes, where: str = "") -> Document:
    """Return the document that `dump` wrote.

    Raises:
        InputError: not such bytes, a rule broken, or too large.
    """
    checked = Checked(where or "cache document")
    try:
        inflate = zlib.decompressobj(31)
        text = inflate.decompress(raw, MAX_BYTES)
        if inflate.unconsumed_tail or not inflate.eof:
            raise InputError(f"not whole, or larger than {MAX_BYTES} bytes", where=checked.where)
        obj = json.loads(text.decode("utf-8", "surrogatepass"))
    except (ValueError, zlib.error, RecursionError) as error:
        raise InputError(f"not a cache document: {error}", where=checked.where) from error
    top = checked.table(obj)
    if top.get("version") != VERSION:
        raise InputError(f"a cache document of version {top.get('version')!r}", where=checked.where)
    layers: list[CacheLayer] = []
    depths: list[int] = []
    for entry in checked.items(top.get("layers"), MAX_LAYERS):
        layer = _parse_layer(checked, entry, len(layers))
        depths.append(depths[layer.parent] + 1 if layer.parent >= 0 else 1)
        if depths[-1] > MAX_DEPTH:
            raise InputError(f"a chain of more than {MAX_DEPTH} layers", where=checked.where)
        layers.append(layer)
    records = tuple(
        _parse_record(checked, item, len(layers)) for item in checked.items(top.get("records"), MAX_RECORDS)
    )
    mounts = tuple(_parse_mount(checked, item) for item in checked.items(top.get("mounts", []), MAX_MOUNTS))
    lists = tuple(_parse_list(checked, item) for item in checked.items(top.get("lists", []), MAX_LISTS))
    return Document(tuple(layers), records, mounts, lists)


def counted_contents(parts: Mapping[str, Any]) -> list[str]:
    """Return the content digests that a record's key was made of."""
    inputs = parts.get("inputs")
    found = [item for item in inputs if isinstance(item, list) and len(item) == 3] if isinstance(inputs, list) else []
    return [str(item[1]) for item in found if item[0] == "content"]


def merge(documents: Sequence[Document], *, ttl_s: float, limit: int, now: float | None = None) -> Document:
    """Return all that the documents know: the `limit` most recently used records, none unused for `ttl_s`."""
    now = time.time() if now is None else now
    layers: list[CacheLayer] = []
    numbers: dict[str, int] = {}
    found: dict[tuple[str, tuple[int, ...]], CacheRecord] = {}
    for document in documents:
        moved = _merge_layers(document, layers, numbers)
        for record in document.records:
            results = tuple(moved[number] if number >= 0 else -1 for number in record.results)
            record = replace(record, results=results)
            same = found.get((record.canon, results))
            found[record.canon, results] = _joined(same, record) if same else record
    recent = [record for record in found.values() if now - record.used <= ttl_s]
    recent.sort(key=lambda record: (-record.used, record.canon))
    mounts = [mount for document in documents for mount in document.mounts if now - mount.used <= ttl_s]
    lists = {one.content: one for document in documents[::-1] for one in document.lists}
    return _compact(layers, _one_claim_each(recent[:limit]), _recent_mounts(mounts), lists)


def without(document: Document, gone: Collection[str]) -> Document:
    """Return the document without what needs blobs that are gone."""
    layers = [
        replace(layer, index=None) if layer.index is not None and layer.index.digest in gone else layer
        for layer in document.layers
    ]
    lost: set[int] = set()
    for number, layer in enumerate(layers):
        if layer.parent in lost or (not layer.origin and layer.blob.digest in gone):
            lost.add(number)
    records = [record for record in document.records if not lost.intersection(record.results)]
    mounts = [mount for mount in document.mounts if not any(chunk.blob.digest in gone for chunk in mount.chunks)]
    lists = {one.content: one for one in document.lists if one.blob.digest not in gone}
    return _compact(layers, records, mounts, lists)


# -- merging


def _merge_layers(document: Document, layers: list[CacheLayer], numbers: dict[str, int]) -> list[int]:
    """Add a document's layers to `layers`; return under which numbers they are there."""
    moved: list[int] = []
    chains: list[Digest] = []
    for layer in document.layers:
        chain = extend_chain(chains[layer.parent] if layer.parent >= 0 else None, layer.diff_id)
        chains.append(chain)
        number = numbers.get(chain)
        if number is None:
            number = numbers[chain] = len(layers)
            layers.append(replace(layer, parent=moved[layer.parent] if layer.parent >= 0 else -1))
        elif layers[number].index is None and layer.index is not None:
            layers[number] = replace(layers[number], index=layer.index)
        moved.append(number)
    return moved


def _joined(first: CacheRecord, second: CacheRecord) -> CacheRecord:
    newer = max(first, second, key=lambda record: record.used)
    keys = tuple(sorted({*first.keys, *second.keys}))
    return replace(newer, keys=keys, created=min(first.created, second.created))


def _one_claim_each(records: Iterable[CacheRecord]) -> list[CacheRecord]:
    """Return the records, each with the keys that no earlier one has; those left with none are dropped."""
    claimed: set[str] = set()
    kept = []
    for record in records:
        keys = tuple(key for key in record.keys if key not in claimed)
        claimed.update(keys)
        if keys:
            kept.append(replace(record, keys=keys))
    return kept


def _compact(
    layers: Sequence[CacheLayer],
    records: Sequence[CacheRecord],
    mounts: Iterable[CacheMount],
    lists: Mapping[Digest, CacheList],
) -> Document:
    """Return a document with only what records lead to; whole records go where that is too many layers."""
    kept: dict[int, int] = {}
    taken: list[CacheLayer] = []
    written: list[CacheRecord] = []
    for record in records:
        needed: dict[int, None] = {}
        for number in record.results:
            below = []
            while number >= 0 and number not in kept:
                below.append(number)
                number = layers[number].parent
            needed.update(dict.fromkeys(below[::-1]))
        if len(taken) + len(needed) > MAX_LAYERS:
            continue
        for number in needed:
            layer = layers[number]
            kept[number] = len(taken)
            taken.append(replace(layer, parent=kept[layer.parent] if layer.parent >= 0 else -1))
        written.append(replace(record, results=tuple(kept[n] if n >= 0 else -1 for n in record.results)))
    return Document(tuple(taken), tuple(written), tuple(mounts), tuple(_needed_lists(written, lists)))


def _needed_lists(records: Iterable[CacheRecord], lists: Mapping[Digest, CacheList]) -> Iterator[CacheList]:
    """Yield the lists that records count, those of the first records first, as far as there is room."""
    left = MAX_LIST_BYTES
    taken: set[Digest] = set()
    for content in (Digest(text) for record in records for text in counted_contents(record.parts) if text in lists):
        one = lists[content]
        if content not in taken and len(taken) < MAX_LISTS and one.blob.size <= left:
            taken.add(content)
            left -= one.blob.size
            yield one


def _recent_mounts(mounts: Iterable[CacheMount]) -> list[CacheMount]:
    """Return of each mount and key the newest, of each mount a few keys."""
    newest: dict[tuple[str, str], CacheMount] = {}
    for mount in sorted(mounts, key=lambda mount: (mount.used, mount.name, mount.key)):
        newest[mount.name, mount.key] = mount
    kept: list[CacheMount] = []
    for mount in sorted(newest.values(), key=lambda mount: (-mount.used, mount.name, mount.key)):
        if sum(1 for other in kept if other.name == mount.name) < _KEYS_A_MOUNT and len(kept) < MAX_MOUNTS:
            kept.append(mount)
    return kept


# -- one layer, one record


def _dump_layer(layer: CacheLayer) -> dict[str, Any]:
    obj: dict[str, Any] = {"blob": layer.blob.to_json(), "diffID": layer.diff_id, "parent": layer.parent}
    obj |= {"size": layer.size, "created": layer.created, "description": layer.description}
    if layer.index is not None:
        obj["index"] = layer.index.to_json()
    if layer.origin:
        obj["origin"] = layer.origin
    return obj


def _parse_layer(checked: Checked, obj: Any, number: int) -> CacheLayer:
    table = checked.table(obj)
    index = table.get("index")
    return CacheLayer(
        blob=Descriptor.from_json(table.get("blob"), checked.where),
        diff_id=checked.digest(table.get("diffID")),
        parent=checked.whole(table.get("parent"), -1, number - 1),
        size=checked.whole(table.get("size", 0), 0, 1 << 60),
        created=checked.number(table.get("created", 0)),
        description=checked.text(table.get("description", ""), 4096),
        index=Descriptor.from_json(index, checked.where) if index is not None else None,
        origin=checked.text(table.get("origin", ""), 1024),
    )


def _dump_record(record: CacheRecord) -> dict[str, Any]:
    return {
        "keys": list(record.keys),
        "canon": record.canon,
        "results": list(record.results),
        "description": record.description,
        "parts": _short_enough(record.parts),
        "seconds": round(float(record.seconds), 3),
        "created": round(float(record.created), 3),
        "used": round(float(record.used), 3),
    }


def _short_enough(parts: Mapping[str, Any]) -> Mapping[str, Any]:
    return parts if len(json.dumps(parts)) <= _MAX_PARTS_BYTES else {}


def _parse_record(checked: Checked, obj: Any, layers: int) -> CacheRecord:
    table = checked.table(obj)
    return CacheRecord(
        keys=tuple(checked.digest(key) for key in checked.items(table.get("keys"), 1000)),
        canon=checked.digest(table.get("canon")),
        results=tuple(checked.whole(n, -1, layers - 1) for n in checked.items(table.get("results"), 1000)),
        description=checked.text(table.get("description", ""), 4096),
        parts=checked.table(table.get("parts", {})),
        seconds=checked.number(table.get("seconds", 0)),
        created=checked.number(table.get("created", 0)),
        used=checked.number(table.get("used", 0)),
    )


def _dump_mount(mount: CacheMount) -> dict[str, Any]:
    return {
        "name": mount.name,
        "key": mount.key,
        "chunks": [[chunk.raw, chunk.blob.digest, chunk.blob.size] for chunk in mount.chunks],
        "size": mount.size,
        "used": round(float(mount.used), 3),
    }


def _parse_mount(checked: Checked, obj: Any) -> CacheMount:
    table = checked.table(obj)
    chunks = []
    for item in checked.items(table.get("chunks"), MAX_CHUNKS):
        if len(checked.items(item, 3)) != 3:
            raise InputError("a chunk is three values", where=checked.where)
        size = checked.whole(item[2], 0, 1 << 32)
        chunks.append(Chunk(checked.digest(item[0]), Descriptor(CHUNK_MEDIA_TYPE, checked.digest(item[1]), size)))
    return CacheMount(
        name=checked.text(table.get("name"), 4096),
        key=checked.text(table.get("key"), 200),
        chunks=tuple(chunks),
        size=checked.whole(table.get("size"), 0, 1 << 50),
        used=checked.number(table.get("used")),
    )


def _parse_list(checked: Checked, obj: Any) -> CacheList:
    if len(checked.items(obj, 3)) != 3:
        raise InputError("a list of files is three values", where=checked.where)
    size = checked.whole(obj[2], 0, MAX_LIST_BYTES)
    return CacheList(checked.digest(obj[0]), Descriptor(LIST_MEDIA_TYPE, checked.digest(obj[1]), size))
