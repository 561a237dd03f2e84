"""A cache in BuildKit's form (`application/vnd.buildkit.cacheconfig.v0`), as far as that goes. Pure."""

from __future__ import annotations

import json

from lamina.cache.checked import Checked
from lamina.cache.document import MAX_LAYERS, MAX_RECORDS, Document
from lamina.errors import InputError

BUILDKIT_MEDIA_TYPE = "application/vnd.buildkit.cacheconfig.v0"
_BUILDKIT_MAX_BYTES = 1 << 20


def buildkit_config(document: Document, created: str = "1970-01-01T00:00:00Z") -> bytes:
    """Return the document as BuildKit's cache config, the most recent records as far as its limit of 1 MiB allows.

    Every record is a root of its own, named by its canonical key: BuildKit reads that without complaint, and its keys
    being made of other things, finds no step of its own among them (see docs/cache.md).
    """
    layers = [
        {
            "blob": layer.blob.digest,
            "parent": layer.parent,
            "annotations": {
                "mediaType": layer.blob.media_type,
                "diffID": layer.diff_id,
                "size": layer.blob.size,
                "createdAt": created,
            },
        }
        for layer in document.layers
    ]
    rows = [record for record in document.records if len(record.results) == 1 and record.results[0] >= 0]
    while True:
        records = [
            {"digest": record.canon, "layers": [{"layer": record.results[0], "createdAt": created}]} for record in rows
        ]
        raw = json.dumps({"layers": layers, "records": records}, sort_keys=True, separators=(",", ":")).encode()
        if len(raw) <= _BUILDKIT_MAX_BYTES:
            return raw
        if not rows:
            return b"{}"
        rows = rows[: len(rows) // 2]


def buildkit_summary(raw: bytes, where: str = "") -> tuple[int, int]:
    """Return how many layers and records a cache config written by BuildKit has.

    Raises:
        InputError: it is none.
    """
    checked = Checked(where or "BuildKit cache config")
    try:
        top = checked.table(json.loads(raw))
    except (ValueError, RecursionError) as error:
        raise InputError(f"not a cache config: {error}", where=checked.where) from error
    layers = [checked.table(entry) for entry in checked.items(top.get("layers", []), MAX_LAYERS)]
    records = [checked.table(entry) for entry in checked.items(top.get("records", []), MAX_RECORDS)]
    for layer in layers:
        checked.digest(layer.get("blob"))
        checked.whole(layer.get("parent", 0), -1, len(layers) - 1)
    for record in records:
        checked.digest(record.get("digest"))
        for result in checked.items(record.get("layers", []), MAX_LAYERS):
            checked.whole(checked.table(result).get("layer"), 0, len(layers) - 1)
        for alternatives in checked.items(record.get("inputs", []), MAX_RECORDS):
            for link in checked.items(alternatives, MAX_RECORDS):
                checked.whole(checked.table(link).get("link"), 0, len(records) - 1)
    return len(layers), len(records)
