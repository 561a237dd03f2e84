"""SourceOps: images from a registry or the store, OCI layouts, and live directories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lamina.attest.capture import Material
from lamina.cancel import Cancel
from lamina.errors import InputError
from lamina.llb.identity import op_digest
from lamina.oci.digest import Digest
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference
from lamina.ops.worker import LocalRef, Worker
from lamina.snapshot.rows import LayerRef
from lamina.solver.protocol import CacheMap, Result, RunContext


class ImageOp:
    """`docker-image://`: the layers of an image, none of them fetched before something needs it.

    Args:
        identifier: the reference; pinned by digest when the frontend resolved it.
    """

    def __init__(self, identifier: str, op: Any, worker: Worker) -> None:
        self._reference = Reference.parse(identifier)
        self._op = op
        self._worker = worker
        self._platform = platform_of(op)
        self._limit = _layer_limit(op, "image.layerlimit")
        checksum = op.source.attrs.get("image.checksum", "")
        self._checksum = Digest(checksum) if checksum else None

    def cache_map(self) -> CacheMap:
        """The manifest's digest decides; an unpinned reference is pinned by asking now."""
        self._check_sum()
        digest = self._reference.digest or self._resolve().digest
        parts = {"kind": "image", "reference": str(self._reference), "digest": digest, "platform": str(self._platform)}
        return CacheMap(op_digest("image", digest, str(self._platform), *_counted(self._limit)), parts=parts)

    def content_key(self, number: int, result: Result, cancel: Cancel) -> str:
        """Never asked: there are no inputs."""
        raise AssertionError("an image source has no inputs")

    def run(self, inputs: Sequence[Result], context: RunContext) -> list[Result]:
        """Note the layers and where they come from."""
        image = self._worker.images.resolve(self._reference, self._platform, context.cancel)
        return [LayerRef(self._worker.images.add_layers(image, self._limit))]

    def material(self) -> Material:
        """Return the image that was used, with the digest that its name stands for."""
        digest = self._reference.digest or self._resolve().reference.digest
        return Material("image", str(self._reference), str(digest), self._platform)

    def _check_sum(self) -> None:
        """Refuse an image that is not the one the op's author saw.

        Raises:
            InputError: its name stands for another digest.
        """
        if self._checksum is None:
            return
        found = self._reference.digest or self._resolve().reference.digest
        if str(found) != str(self._checksum):
            raise InputError(f"the image is {found}, and was to be {self._checksum}", where=str(self._reference))

    def _resolve(self) -> Any:
        return self._worker.images.resolve(self._reference, self._platform, Cancel())


class LayoutOp:
    """`oci-layout://name@sha256:...`: an image in a directory that the user offers."""

    def __init__(self, identifier: str, op: Any, worker: Worker) -> None:
        self._limit = _layer_limit(op, "oci.layerlimit")
        self._reference = Reference.parse(identifier)
        if self._reference.digest is None:
            raise InputError(f"an oci-layout source must be pinned by digest: {identifier!r}")
        self._op = op
        self._worker = worker
        self._platform = platform_of(op)

    def cache_map(self) -> CacheMap:
        """The manifest's digest decides, wherever the layout lies."""
        digest = str(self._reference.digest)
        parts = {"kind": "oci-layout", "digest": digest, "platform": str(self._platform)}
        return CacheMap(op_digest("image", digest, str(self._platform), *_counted(self._limit)), parts=parts)

    def content_key(self, number: int, result: Result, cancel: Cancel) -> str:
        """Never asked: there are no inputs."""
        raise AssertionError("a layout source has no inputs")

    def run(self, inputs: Sequence[Result], context: RunContext) -> list[Result]:
        """Note the layers; their blobs are read from the layout when needed."""
        store = self._op.source.attrs.get("oci.store", "")
        image = self._worker.images.from_layout(self._reference, self._platform, store)
        return [LayerRef(self._worker.images.add_layers(image, self._limit))]

    def material(self) -> Material:
        """Return the image that was used."""
        return Material("layout", str(self._reference), str(self._reference.digest), self._platform)


class LocalOp:
    """`local://`: a live directory of the user's, seen through its filter rules. Has no identity of its own."""

    def __init__(self, name: str, op: Any, worker: Worker) -> None:
        self._name = name
        self._attrs = dict(op.source.attrs)
        self._worker = worker

    def cache_map(self) -> CacheMap:
        """Only what dependents read from it counts."""
        return CacheMap(None)

    def content_key(self, number: int, result: Result, cancel: Cancel) -> str:
        """Never asked: there are no inputs."""
        raise AssertionError("a local source has no inputs")

    def run(self, inputs: Sequence[Result], context: RunContext) -> list[Result]:
        """Open the directory; nothing is read yet."""
        return [LocalRef(self._worker.context(self._name, self._attrs))]

    def material(self) -> Material:
        """Return the directory's name: what lies in it has no digest."""
        return Material("local", self._name)


def platform_of(op: Any) -> Platform | None:
    """Return the platform an op names, None for the build's own."""
    if not op.HasField("platform") or not op.platform.OS:
        return None
    return Platform.normal(op.platform.OS, op.platform.Architecture, op.platform.Variant)


def _layer_limit(op: Any, name: str) -> int | None:
    """Return how many layers of an image are wanted, None for all.

    Raises:
        InputError: the attribute is not a number from 1 on.
    """
    text = op.source.attrs.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and int(text[:9]) > 0):
        raise InputError(f"{name} of a source must be a number of layers from 1 on, not {text[:40]!r}")
    return int(text[:9])


def _counted(limit: int | None) -> tuple[str, ...]:
    return () if limit is None else (f"layers={limit}",)
