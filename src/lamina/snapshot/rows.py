"""Layer rows in the state file: one layer of one chain each.

A row's blob, diffID and index belong to the layer; its tree belongs to the chain that ends with it.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from lamina.errors import StorageError
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.state.db import State

_COLUMNS = (
    "id, parent, chain_id, diff_id, blob, blob_size, media_type, origin, tree, indexed, size, description, created"
)


class LayerGoneError(StorageError):
    """A layer that a cache elsewhere promised is not to be had (any more), or is not what was promised.

    Args:
        layer: its row.
        origin: where it was to come from, see `dump_origin`.
    """

    def __init__(self, what: str, layer: int, origin: str, *, where: str = "") -> None:
        super().__init__(what, where=where, hint="build without this --cache-from")
        self.layer, self.origin = layer, origin


@dataclass(frozen=True, slots=True)
class LayerRef:
    """A root file system as a solver result: the topmost layer's row id, None for the empty one."""

    layer: int | None


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One row; see the schema for the meaning of the columns.

    Attributes:
        origin: for remote layers, where the blob comes from (JSON object), "" otherwise.
        tree: 1 when the tree is on disk; `indexed`: 1 when the index file is.
        size: bytes of file content, as far as it is known.
        created: when the layer was made here, seconds since the epoch.
    """

    id: int
    parent: int | None
    chain_id: str | None
    diff_id: str | None
    blob: str | None
    blob_size: int
    media_type: str
    origin: str
    tree: int
    indexed: int
    size: int
    description: str
    created: float

    def descriptor(self) -> Descriptor | None:
        """Return the blob's descriptor when the layer was packed or came as one."""
        if self.blob is None:
            return None
        return Descriptor(self.media_type, Digest(self.blob), self.blob_size)


class LayerRows:
    """Reads and writes layer rows."""

    def __init__(self, state: State) -> None:
        self._state = state

    def get(self, layer: int) -> LayerRow:
        """Return one row, fresh from the file.

        Raises:
            StorageError: there is no such layer (any more).
        """
        found = self._state.execute(f"SELECT {_COLUMNS} FROM layer WHERE id = ?", (layer,)).fetchone()
        if found is None:
            raise StorageError(f"layer {layer} is gone from the cache", hint="run the build again")
        return _row(found)

    def chain(self, layer: int | None) -> list[LayerRow]:
        """Return the rows of a chain, bottom first."""
        rows: list[LayerRow] = []
        if layer is None:
            return rows
        found = self._state.execute(
            f"""WITH RECURSIVE chain(n, cid, up) AS (
                SELECT 0, id, parent FROM layer WHERE id = ?
                UNION ALL SELECT n + 1, layer.id, layer.parent FROM layer JOIN chain ON layer.id = chain.up)
            SELECT {_COLUMNS} FROM chain JOIN layer ON layer.id = cid ORDER BY n DESC""",
            (layer,),
        ).fetchall()
        if not found:
            raise StorageError(f"layer {layer} is gone from the cache", hint="run the build again")
        return [_row(values) for values in found]

    def by_chain_id(self, chain_id: str) -> LayerRow | None:
        """Return the row that ends the chain of this chainID, if we have one."""
        found = self._state.execute(
            f"SELECT {_COLUMNS} FROM layer WHERE chain_id = ? ORDER BY tree DESC, id LIMIT 1", (chain_id,)
        ).fetchone()
        return _row(found) if found else None

    def add(self, parent: int | None, **values: Any) -> int:
        """Insert a row and return its id. What it points to is on disk already."""
        now = time.time()
        values = {"parent": parent, "created": now, "used": now, **values}
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        with self._state.transaction() as connection:
            new = connection.execute(f"INSERT INTO layer({names}) VALUES ({marks})", list(values.values())).lastrowid
        assert new is not None
        return new

    def update(self, layer: int, **values: Any) -> None:
        """Set columns of one row."""
        sets = ", ".join(f"{name} = ?" for name in values)
        self._state.execute(f"UPDATE layer SET {sets} WHERE id = ?", [*values.values(), layer])

    def discard(self, layer: int) -> None:
        """Remove the row of a layer that could not be finished; nothing points to it yet."""
        self._state.execute("DELETE FROM layer WHERE id = ?", (layer,))

    def touch(self, layer: int | None) -> None:
        """Stamp a chain as used now."""
        now = time.time()
        with self._state.transaction() as connection:
            for row in self.chain(layer):
                connection.execute("UPDATE layer SET used = ? WHERE id = ?", (now, row.id))


def _row(values: Any) -> LayerRow:
    return LayerRow(*values)


def dump_origin(reference: str, kind: str, index: Descriptor | None = None) -> str:
    """Return the text kept for a layer whose blob has not been fetched; `index` is a blob that holds its index."""
    found: dict[str, Any] = {"kind": kind, "reference": reference}
    if index is not None:
        found["index"] = index.to_json()
    return json.dumps(found, sort_keys=True)


def parse_origin(text: str) -> tuple[str, str]:
    """Return kind and reference of a remote layer's origin."""
    found = json.loads(text)
    return found["kind"], found["reference"]


def parse_origin_index(text: str) -> Descriptor | None:
    """Return the descriptor of the blob that holds a remote layer's index, None when there is none."""
    found = json.loads(text).get("index")
    return Descriptor.from_json(found) if found is not None else None
