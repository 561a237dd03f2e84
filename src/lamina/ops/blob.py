"""SourceOps for one blob of a repository or an OCI layout: a file in a layer that holds nothing else.

The digest in the reference and the file's name, mode and owner are the key, so nothing is asked before the content
is wanted. The file's time is 0: a blob has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lamina.attest.capture import Material
from lamina.cancel import Cancel
from lamina.errors import InputError
from lamina.layer.entry import Entry, FileSlice, Item
from lamina.llb.identity import op_digest
from lamina.oci.reference import Reference
from lamina.ops.worker import Worker
from lamina.snapshot.rows import LayerRef
from lamina.solver.protocol import CacheMap, Result, RunContext
from lamina.source.http_request import file_attributes, safe_name


class BlobOp:
    """`docker-image+blob://repository@digest` and `oci-layout+blob://name@digest`."""

    def __init__(self, scheme: str, identifier: str, op: Any, worker: Worker, digest: str) -> None:
        self._reference = Reference.parse(identifier)
        attrs = dict(op.source.attrs)
        if self._reference.digest is None:
            raise InputError(f"a blob as a source must be named by its digest: {scheme}://{identifier}")
        self._blob = self._reference.digest
        self._layout: str | None = None
        if scheme == "oci-layout+blob":
            self._layout = attrs.get("oci.store") or self._reference.familiar().partition("@")[0].partition(":")[0]
        name = attrs.get("http.filename", "")
        self._name = safe_name(name) if name else self._blob.hex
        self._mode, self._uid, self._gid = file_attributes(attrs, None)
        self._worker, self._digest = worker, digest

    def cache_map(self) -> CacheMap:
        """The blob's digest, name, mode and owner."""
        name, mode, owner = self._name, f"{self._mode:o}", f"{self._uid}:{self._gid}"
        shown = self._reference.familiar().partition("@")[0]
        parts = {"kind": "blob", "reference": shown, "digest": self._blob, "name": name, "mode": mode, "owner": owner}
        return CacheMap(op_digest("blob", self._blob, name, mode, owner), parts=parts)

    def content_key(self, number: int, result: Result, cancel: Cancel) -> str:
        """Never asked: there are no inputs."""
        raise AssertionError("a blob source has no inputs")

    def run(self, inputs: Sequence[Result], context: RunContext) -> list[Result]:
        """Fetch the blob unless the store has it, and make the layer."""
        worker = self._worker
        size = worker.images.blob(self._reference, context.cancel, layout=self._layout)
        hashed = self._blob.hex if self._blob.algorithm == "sha256" else ""
        entry = Entry(self._name, "f", self._mode, self._uid, self._gid, 0, size, digest=hashed)
        content = FileSlice(str(worker.layers.store.root), f"blobs/{self._blob.algorithm}/{self._blob.hex}", 0, hashed)
        items, description, empty = [Item(entry, content)], f"blob {self._reference.familiar()}", LayerRef(None)
        if self._digest in worker.needs_tree:
            return [worker.layers.add_tree(empty, items, description, context.cancel)]
        return [worker.layers.add_blob(empty, items, description, worker.compression, context.cancel)]

    def material(self) -> Material:
        """Return the blob; its digest is in its name."""
        return Material("blob" if self._layout is None else "layout-blob", str(self._reference), str(self._blob))
