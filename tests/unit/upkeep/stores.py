"""Inventories made up for tests of planning, which is pure."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

from lamina.engine.upkeep.inventory import BlobFact, FolderFact, Inventory, LayerFact, NodeFact
from lamina.engine.upkeep.policy import Disk

NOW = 1_000_000.0
LIVE = NOW - 1000
"""When the one live build of these stores began."""


def layer(number: int, parent: int | None = None, **values: object) -> LayerFact:
    """Return a layer with a tree of 10,000 bytes and no blob, used an hour before the live build."""
    plain: dict[str, object] = {
        "blob": "", "blob_bytes": 0, "tree_bytes": 10_000, "index_bytes": 100, "has_tree": True, "remote": False,
        "description": f"layer {number}", "created": 1.0, "used": LIVE - 3600,
    }  # fmt: skip
    return LayerFact(id=number, parent=parent, **{**plain, **values})  # type: ignore[arg-type]


def node(number: int, *layers: int, **values: object) -> NodeFact:
    """Return a cache record whose results are these layers, used an hour before the live build."""
    plain: dict[str, object] = {"seconds": 1.0, "uses": 1, "created": 1.0, "used": LIVE - 3600}
    return NodeFact(
        id=number,
        canon=f"c{number}",
        description=f"step {number}",
        layers=layers,
        **{**plain, **values},  # type: ignore[arg-type]
    )


def folder(name: str, size: int = 5000, **values: object) -> FolderFact:
    """Return a cache mount or a repository."""
    plain: dict[str, object] = {"label": f"/{name}", "uses": 1, "created": 1.0, "used": LIVE - 3600}
    return FolderFact(name=name, bytes=size, **{**plain, **values})  # type: ignore[arg-type]


def store(
    layers: list[LayerFact] | None = None,
    nodes: list[NodeFact] | None = None,
    *,
    mounts: tuple[FolderFact, ...] = (),
    repositories: tuple[FolderFact, ...] = (),
    blobs: tuple[BlobFact, ...] = (),
    images: dict[str, tuple[str, ...]] | None = None,
    live: float = LIVE,
) -> Inventory:
    """Return a store of these things; the blobs of the layers are in it."""
    found = {blob.digest: blob for blob in blobs}
    for one in layers or []:
        if one.blob:
            found.setdefault(one.blob, BlobFact(one.blob, one.blob_bytes, 1.0))
    return Inventory(
        now=NOW,
        live=live,
        disk=Disk(10**9, 10**8),
        layers={one.id: one for one in layers or []},
        nodes={one.id: one for one in nodes or []},
        mounts=mounts,
        repositories=repositories,
        blobs=found,
        images=images or {},
    )


_TIMES = st.sampled_from([LIVE - 10_000, LIVE - 5, LIVE, LIVE + 5])


@st.composite
def stores(draw: Callable[..., object]) -> Inventory:
    """Draw a store: forests of layers with and without blobs (some shared), records, mounts, images, loose blobs."""
    count = draw(st.integers(0, 12))
    digests = [f"sha256:{number:064x}" for number in range(6)]
    sizes = {digest: draw(st.integers(1, 50_000)) for digest in digests}
    layers: list[LayerFact] = []
    for number in range(1, count + 1):
        parent = draw(st.sampled_from([None, *range(1, number)]))
        blob = draw(st.sampled_from(["", "", *digests]))
        tree = draw(st.booleans()) or not blob
        layers.append(
            layer(
                number,
                parent,
                blob=blob,
                blob_bytes=sizes[blob] if blob else 0,
                has_tree=tree,
                tree_bytes=draw(st.integers(0, 100_000)) if tree else 0,
                remote=draw(st.booleans()),
                used=draw(_TIMES),
            )
        )
    nodes = [
        node(
            number,
            *draw(st.lists(st.integers(1, count), max_size=2)),
            used=draw(_TIMES),
            seconds=draw(st.floats(0, 500)),
        )
        for number in range(1, draw(st.integers(0, 10)) + 1)
        if count
    ]
    mounts = tuple(
        folder(f"m{n}", draw(st.integers(0, 90_000)), used=draw(_TIMES)) for n in range(draw(st.integers(0, 3)))
    )
    loose = tuple(BlobFact(digest, sizes[digest], draw(_TIMES)) for digest in draw(st.sets(st.sampled_from(digests))))
    named = draw(st.sets(st.sampled_from(digests)))
    return store(layers, nodes, mounts=mounts, blobs=loose, images=dict.fromkeys(named, ("app:latest",)))
