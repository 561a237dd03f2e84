"""The records that `du` shows, made of an inventory, and the sums over them. Pure.

Every record says why it is kept: the images and cache records that need it, the layers that stand on it, the live
build that relies on it. A thing without a reason goes with the next prune.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from lamina.engine.upkeep.inventory import FolderFact, Inventory, LayerFact, NodeFact
from lamina.engine.upkeep.records import CACHE_MOUNT, GIT, INTERNAL, LOCAL, REGULAR, Record, Totals

_CONTEXT = "context for a bind mount"
_MOST_NAMES = 3


class Links:
    """Who stands on what: holders and children of layers, layers of blobs.

    Attributes:
        holders: cache records whose results are a layer.
        children: layers directly above a layer.
        blob_users: layers that have a blob as a form.
    """

    def __init__(self, inventory: Inventory) -> None:
        self.holders: dict[int, list[NodeFact]] = defaultdict(list)
        self.children: dict[int, list[int]] = defaultdict(list)
        self.blob_users: dict[str, list[int]] = defaultdict(list)
        for node in inventory.nodes.values():
            for layer in dict.fromkeys(node.layers):
                if layer in inventory.layers:
                    self.holders[layer].append(node)
        for fact in inventory.layers.values():
            if fact.parent is not None:
                self.children[fact.parent].append(fact.id)
            if fact.blob:
                self.blob_users[fact.blob].append(fact.id)


def list_records(inventory: Inventory, links: Links | None = None) -> list[Record]:
    """Return one record for each thing, biggest first."""
    links = links or Links(inventory)
    found = [layer_record(inventory, links, layer) for layer in inventory.layers.values()]
    found += [folder_record(inventory, mount, CACHE_MOUNT) for mount in inventory.mounts]
    found += [folder_record(inventory, repository, GIT) for repository in inventory.repositories]
    found += [blob_record(inventory, digest) for digest in inventory.blobs if digest not in links.blob_users]
    if inventory.history is not None:
        found.append(history_record(inventory.history))
    return sorted(found, key=lambda record: (-record.size_bytes, record.kind, record.name))


def layer_record(inventory: Inventory, links: Links, layer: LayerFact) -> Record:
    """Return the record of one layer, all its forms together."""
    images = inventory.images.get(layer.blob, ()) if layer.blob else ()
    shared = layer.blob_bytes if images or len(links.blob_users.get(layer.blob, ())) > 1 else 0
    holders, children = links.holders.get(layer.id, ()), links.children.get(layer.id, ())
    in_use = layer.used >= inventory.live
    reasons = ["a live build"] if in_use else []
    reasons += [f"image {names}" for names in _named(images)]
    reasons += [f'cache of step "{one_line(text)}"' for text in _few([node.description for node in holders])]
    if children:
        reasons.append(f"below {len(children)} other layer{'' if len(children) == 1 else 's'}")
    return Record(
        kind="layer",
        type=LOCAL if layer.description == _CONTEXT else REGULAR,
        name=str(layer.id),
        description=layer.description,
        size_bytes=layer.tree_bytes + layer.index_bytes + layer.blob_bytes,
        shared_bytes=shared,
        tree_bytes=layer.tree_bytes,
        blob_bytes=layer.blob_bytes,
        index_bytes=layer.index_bytes,
        created=layer.created,
        used=max([layer.used, *(node.used for node in holders)]),
        uses=sum(node.uses for node in holders),
        in_use=in_use,
        mutable=False,
        parents=() if layer.parent is None else (str(layer.parent),),
        reasons=tuple(reasons),
    )


def folder_record(inventory: Inventory, folder: FolderFact, type_: str) -> Record:
    """Return the record of a cache mount or a repository."""
    kind, reason = (
        ("cache mount", "RUN --mount=type=cache") if type_ == CACHE_MOUNT else ("git repository", "git sources")
    )
    in_use = folder.used >= inventory.live
    if type_ == CACHE_MOUNT:
        reason = f"{reason}, id {one_line(folder.label)}"
    return Record(
        kind=kind,
        type=type_,
        name=folder.name,
        description=folder.label,
        size_bytes=folder.bytes,
        shared_bytes=0,
        tree_bytes=folder.bytes,
        blob_bytes=0,
        index_bytes=0,
        created=folder.created,
        used=folder.used,
        uses=folder.uses,
        in_use=in_use,
        mutable=True,
        parents=(),
        reasons=("a live build", reason) if in_use else (reason,),
    )


def history_record(history: FolderFact) -> Record:
    """Return the record of what builds left of themselves."""
    return Record(
        kind="history",
        type=INTERNAL,
        name=history.name,
        description=history.label,
        size_bytes=history.bytes,
        shared_bytes=0,
        tree_bytes=history.bytes,
        blob_bytes=0,
        index_bytes=0,
        created=history.created,
        used=history.used,
        uses=0,
        in_use=False,
        mutable=True,
        parents=(),
        reasons=("history of builds",),
    )


def blob_record(inventory: Inventory, digest: str) -> Record:
    """Return the record of a blob that is no layer's form: a manifest, a config, a layer nobody built on."""
    blob = inventory.blobs[digest]
    images, bases = inventory.images.get(digest, ()), inventory.bases.get(digest, ())
    in_use = blob.used >= inventory.live
    reasons = ["a live build"] if in_use else []
    reasons += [f"image {names}" for names in _named(images)]
    reasons += [f"base image {names}" for names in _named(bases)]
    return Record(
        kind="blob",
        type=REGULAR if images else INTERNAL,
        name=digest,
        description="",
        size_bytes=blob.bytes,
        shared_bytes=blob.bytes if images else 0,
        tree_bytes=0,
        blob_bytes=blob.bytes,
        index_bytes=0,
        created=blob.used,
        used=blob.used,
        uses=0,
        in_use=in_use,
        mutable=False,
        parents=(),
        reasons=tuple(reasons),
    )


def totals(inventory: Inventory, records: Iterable[Record], reclaimable_bytes: int) -> Totals:
    """Return the sums; a blob that several layers have counts once."""
    shared_blobs: Counter[str] = Counter()
    private = 0
    for record in records:
        private += record.private_bytes
        if record.shared_bytes:
            layer = inventory.layers.get(int(record.name)) if record.kind == "layer" else None
            shared_blobs[layer.blob if layer else record.name] = record.shared_bytes
    shared = sum(shared_blobs.values())
    return Totals(private + shared, shared, private, reclaimable_bytes)


def one_line(text: str) -> str:
    """Return a description short enough for a sentence."""
    words = " ".join(text.split())
    return f"{words[:77]}..." if len(words) > 80 else words


def _named(names: Sequence[str]) -> list[str]:
    return [", ".join(_few(names))] if names else []


def _few(texts: Sequence[str]) -> list[str]:
    """Return each text once, the first few, and how many more there are."""
    once = list(dict.fromkeys(texts))
    more = len(once) - _MOST_NAMES
    return [*once[:_MOST_NAMES], f"{more} more"] if more > 0 else once
