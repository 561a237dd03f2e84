"""`index.json` of a layout: entries that point at manifests, with their names, unknown fields kept.

Bytes to entries and back; pure. An entry keeps the JSON object it came from, so that what other tools wrote there
survives our changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lamina.errors import InputError
from lamina.oci.descriptor import Descriptor
from lamina.oci.media_types import OCI_INDEX
from lamina.oci.strict_json import dump_json, parse_object
from lamina.store.errors import CorruptError
from lamina.store.names import MAX_INDEX_BYTES, REF_NAME

MAX_ENTRIES = 100_000


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One entry of `index.json`.

    Attributes:
        descriptor: the manifest or index it points at.
        raw: its JSON object.
    """

    descriptor: Descriptor
    raw: dict[str, Any] = field(hash=False)

    @property
    def name(self) -> str:
        """The reference it is known by, "" for one that has no name."""
        return self.descriptor.annotations.get(REF_NAME, "")

    @classmethod
    def make(cls, name: str, descriptor: Descriptor) -> IndexEntry:
        """Return a new entry for `descriptor` under `name` ("": without a name)."""
        annotations = {key: value for key, value in descriptor.annotations.items() if key != REF_NAME}
        if name:
            annotations[REF_NAME] = name
        named = Descriptor(
            descriptor.media_type, descriptor.digest, descriptor.size, annotations, descriptor.platform,
            descriptor.artifact_type,
        )  # fmt: skip
        return cls(named, named.to_json())


def parse_entries(raw: bytes, where: str) -> list[IndexEntry]:
    """Return the entries of an `index.json`.

    Raises:
        CorruptError: the text is not an index.
    """
    return _entries(_parse(raw, where), where)


def _parse(raw: bytes, where: str) -> dict[str, Any]:
    """Return the checked JSON object."""
    try:
        return parse_object(raw, where, max_bytes=MAX_INDEX_BYTES)
    except InputError as exc:
        raise CorruptError(f"index.json is damaged: {exc.what}", where=where) from exc


def _entries(obj: dict[str, Any], where: str) -> list[IndexEntry]:
    """Return the entries of the parsed object."""
    listed = obj.get("manifests")
    if listed is None:
        listed = []
    if not isinstance(listed, list) or len(listed) > MAX_ENTRIES:
        raise CorruptError("index.json is damaged: manifests must be a list", where=where)
    try:
        return [IndexEntry(Descriptor.from_json(item, where), item) for item in listed]
    except InputError as exc:
        raise CorruptError(f"index.json is damaged: {exc.what}", where=where) from exc


@dataclass(slots=True)
class IndexFile:
    """The content of an `index.json`, to be changed and dumped."""

    fields: dict[str, Any]
    entries: list[IndexEntry]

    @classmethod
    def parse(cls, raw: bytes, where: str) -> IndexFile:
        """Parse; b"" is an empty index. Raises `CorruptError` as `parse_entries`."""
        if not raw:
            return cls({"schemaVersion": 2, "mediaType": OCI_INDEX}, [])
        fields = _parse(raw, where)
        return cls(fields, _entries(fields, where))

    def dump(self) -> bytes:
        """Return the bytes; fields and entries that were not touched come out as they came in."""
        return dump_json({**self.fields, "manifests": [entry.raw for entry in self.entries]})

    def find(self, name: str) -> IndexEntry | None:
        """Return the entry of that name."""
        return next((entry for entry in self.entries if entry.name == name), None)

    def put(self, name: str, descriptor: Descriptor, *, keep_dangling: bool = False) -> bool:
        """Let `name` stand for `descriptor`; return False when it already does, and nothing changed.

        Args:
            name: full reference, "" to keep the image without a name.
            descriptor: where it shall point.
            keep_dangling: keep what the name stood for, without a name, unless it has another one.
        """
        old = [entry for entry in self.entries if entry.name == name] if name else []
        if name and len(old) == 1 and _same(old[0], descriptor):
            return False
        if not name and any(_same(entry, descriptor) for entry in self.entries):
            return False
        # what lay here without a name has one now
        self._drop(old + [entry for entry in self.entries if not entry.name and _same(entry, descriptor)])
        self.entries.append(IndexEntry.make(name, descriptor))
        if keep_dangling:
            self._keep(entry.descriptor for entry in old)
        return True

    def remove(self, name: str, *, keep_dangling: bool = False) -> bool:
        """Take the name away; return whether it was there."""
        old = [entry for entry in self.entries if entry.name == name]
        self._drop(old)
        if keep_dangling:
            self._keep(entry.descriptor for entry in old)
        return bool(old)

    def _drop(self, old: list[IndexEntry]) -> None:
        """Remove these very entries."""
        gone = {id(entry) for entry in old}
        self.entries = [entry for entry in self.entries if id(entry) not in gone]

    def _keep(self, descriptors: Iterable[Descriptor]) -> None:
        """Add what nothing points at any more without a name."""
        for descriptor in descriptors:
            if not any(_same(entry, descriptor) for entry in self.entries):
                self.entries.append(IndexEntry.make("", descriptor))


def _same(entry: IndexEntry, descriptor: Descriptor) -> bool:
    """Tell whether the entry points at the same bytes, read in the same way."""
    mine = entry.descriptor
    return (mine.digest, mine.size, mine.media_type) == (descriptor.digest, descriptor.size, descriptor.media_type)
