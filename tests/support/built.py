"""A finished image made of files on disk, in either form of a layer, for checks on results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lamina.cancel import Cancel
from lamina.checks.result import check_result
from lamina.checks.result_view import ImageView, Trouble
from lamina.engine.options import Environment
from lamina.engine.place import Place
from lamina.engine.result_checks import ChainTree, own_layers
from lamina.layer.compress import Compression
from lamina.layer.tree import tree_items, walk_tree
from lamina.oci.platform import Platform
from lamina.snapshot.peek import Peek
from lamina.snapshot.rows import LayerRef

AMD64 = Platform("linux", "amd64")


@contextmanager
def image_of(
    folder: Path, root: Path, config: Mapping[str, Any], *, blob: bool = True, platform: Platform = AMD64
) -> Iterator[ImageView]:
    """Make `folder` a layer of a store in `root`, as a blob or as a tree, and yield the image with this config."""
    cancel = Cancel()
    with Place(Environment(root), cancel) as place:
        items = tree_items(folder, walk_tree(folder, "user"))
        if blob:
            ref = place.layers.add_blob(LayerRef(None), items, "files", Compression("gzip", None), cancel)
        else:
            ref = place.layers.add_tree(LayerRef(None), items, "files", cancel)
        rows = place.layers.rows.chain(ref.layer)
        union = place.layers.union(ref, cancel)
        with Peek(place.layers, place.state, rows, union, cancel) as peek:
            yield ImageView(ChainTree(union, peek, own_layers(rows, {}), cancel), config, platform)


def troubles(folder: Path, root: Path, config: Mapping[str, Any], **options: Any) -> list[Trouble]:
    """Return what the checks find in such an image."""
    with image_of(folder, root, config, **options) as image:
        return check_result(image)
