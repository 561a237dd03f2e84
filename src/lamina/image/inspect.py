"""What `inspect`, `history` and `images` show of an image, in docker's shapes. Pure: values in, plain objects out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lamina.errors import InputError
from lamina.image.assemble import Image
from lamina.oci.chain import chain_ids
from lamina.oci.digest import Digest
from lamina.oci.reference import Reference


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One step of an image's history.

    Attributes:
        id: the image ID on the newest row, "" on others: parents of a content-addressed image are not recorded.
        created: RFC 3339 time, "" when it is not known.
        created_by: the instruction.
        comment: what the builder noted.
        size: bytes of the layer as it is stored, 0 for a step that made none.
        layer: digest of the layer's blob, None for a step that made none.
        diff_id: digest of the layer uncompressed, likewise.
    """

    id: str
    created: str
    created_by: str
    comment: str
    size: int
    layer: Digest | None
    diff_id: Digest | None


def history_rows(image: Image) -> list[HistoryRow]:
    """Return the history, newest step first, sizes beside the steps that made the layers.

    A history that names fewer layers than there are is filled up at its end, as `assemble` does.
    """
    from lamina.image.assemble import fit_history

    layers = iter(image.layers)
    rows: list[HistoryRow] = []
    for step in fit_history(image.config.history, len(image.layers)):
        layer = None if step.get("empty_layer") else next(layers)
        rows.append(
            HistoryRow(
                id="",
                created=_text(step, "created"),
                created_by=_text(step, "created_by"),
                comment=_text(step, "comment"),
                size=layer.descriptor.size if layer else 0,
                layer=layer.descriptor.digest if layer else None,
                diff_id=layer.diff_id if layer else None,
            )
        )
    rows.reverse()
    if rows:
        newest = rows[0]
        rows[0] = HistoryRow(
            str(image.id), newest.created, newest.created_by, newest.comment, newest.size, newest.layer, newest.diff_id
        )
    return rows


def image_size(image: Image) -> int:
    """Return the bytes of the image's blobs: layers as they are stored, config and manifest."""
    layers = {layer.descriptor.digest: layer.descriptor.size for layer in image.layers}
    return sum(layers.values()) + image.manifest.config.size + len(image.manifest.raw)


def inspect_image(image: Image, names: Iterable[str] = ()) -> dict[str, Any]:
    """Return what `docker image inspect` shows.

    Args:
        image: the image.
        names: full references it is known by.
    """
    fields, platform = image.config.fields, image.platform
    tags, digests = _familiar(names, image.descriptor.digest)
    diff_ids = [layer.diff_id for layer in image.layers]
    out: dict[str, Any] = {
        "Id": str(image.id),
        "RepoTags": tags,
        "RepoDigests": digests,
        "Comment": _text(fields, "comment"),
        "Created": image.config.created,
        "Author": _text(fields, "author"),
        "Config": dict(image.config.run),
        "Architecture": platform.architecture,
        "Variant": platform.variant,
        "Os": platform.os,
        "OsVersion": platform.os_version,
        "Size": image_size(image),
        "RootFS": {"Type": "layers", "Layers": [str(diff_id) for diff_id in diff_ids]},
        "Descriptor": image.descriptor.to_json(),
        "Annotations": dict(image.manifest.annotations),
        "Layers": [
            {**layer.descriptor.to_json(), "diffID": str(layer.diff_id), "chainID": str(chain)}
            for layer, chain in zip(image.layers, chain_ids(diff_ids), strict=True)
        ],
    }
    return {key: value for key, value in out.items() if value != "" or key in ("Created", "Id")}


def _familiar(names: Iterable[str], digest: Digest) -> tuple[list[str], list[str]]:
    """Return the names as docker shows them, and the repositories with the digest."""
    tags: list[str] = []
    digests: list[str] = []
    for name in names:
        try:
            ref = Reference.parse(name, default_tag="")
        except InputError:
            tags.append(name)
            continue
        tags.append(ref.familiar())
        digests.append(Reference(ref.registry, ref.repository).with_digest(digest).familiar())
    return tags, sorted(set(digests))


def _text(fields: Any, key: str) -> str:
    """Return a field that ought to be text."""
    value = fields.get(key, "")
    return value if isinstance(value, str) else ""
