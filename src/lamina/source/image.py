"""Images as sources: a name becomes a pinned manifest, a manifest becomes rows of layers, blobs come when needed.

Order of look-up: the store (what was built, loaded or pulled), then what an earlier build pinned, then the
registry; `pull` asks the registry always. Manifest and config of a resolved image are kept as blobs, so that the
next build needs no network.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lamina.cancel import Cancel
from lamina.errors import InputError, NetworkError, StorageError
from lamina.oci.config import MAX_CONFIG_BYTES, ImageConfig, parse_config
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.oci.manifest import MAX_MANIFEST_BYTES, Index, Manifest, parse_any
from lamina.oci.platform import Platform, choose_platform
from lamina.oci.reference import Reference
from lamina.registry.client import Registry
from lamina.session import BlobStore
from lamina.snapshot.layers import Layers
from lamina.snapshot.rows import LayerRow, dump_origin, parse_origin
from lamina.state.db import State
from lamina.store.store import Store

if TYPE_CHECKING:
    from lamina.source.image_chain import AttestationChain

_MAX_DEPTH = 8
_BLOB = "application/octet-stream"

Stores = Callable[[str], BlobStore | None]
"""Gives one of the client's stores by its id; None when there are none."""


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """An image for one platform.

    Attributes:
        reference: pinned to the digest that the name stood for (of the index, where there is one).
        digest: of this platform's manifest.
        origin: where its blobs come from, see `dump_origin`; "" when all are in the store.
    """

    reference: Reference
    digest: Digest
    manifest: Manifest
    config: ImageConfig
    origin: str = ""


class ImageSource:
    """Resolves image names for one build. Thread-safe.

    Args:
        registry: makes the registry client when it is first needed.
        pull: ask the registry even when the store has the tag.
        platform: what images are chosen for when an op names no platform.

    Attributes:
        stores: those of the build's client, where it is one that cannot name directories here; None otherwise.
    """

    def __init__(
        self,
        store: Store,
        state: State,
        layers: Layers,
        registry: Callable[[], Registry],
        *,
        platform: Platform,
        pull: bool = False,
    ) -> None:
        self._store, self._state, self._layers = store, state, layers
        self._registry, self._platform, self._pull = registry, platform, pull
        self._known: dict[tuple[str, str], ResolvedImage] = {}
        self._guard = threading.Lock()
        self._layouts: dict[str, Path] = {}
        self.stores: Stores | None = None
        self._seen_stores: list[str] = []

    def offer_layout(self, name: str, path: Path) -> None:
        """Make the layout at `path` known as the source of `oci-layout://name@...`."""
        self._layouts[name] = path

    def resolve(self, reference: Reference, platform: Platform | None, cancel: Cancel) -> ResolvedImage:
        """Return what a name stands for.

        Raises:
            InputError: nothing for this platform, or a malformed image.
            NetworkError: the registry cannot be asked or does not have it.
        """
        platform = platform or self._platform
        key = (str(reference), str(platform))
        with self._guard:
            known = self._known.get(key)
        if known is None:
            known = None if self._pull and not reference.digest else self._from_store(reference, platform)
            known = known or self._from_pin(reference, platform) or self._from_registry(reference, platform)
            pinned = (str(known.reference), str(platform))
            with self._guard:
                self._known[key] = self._known[pinned] = known
        return known

    def chain(self, image: ResolvedImage, predicates: Collection[str] = ()) -> AttestationChain | None:
        """Return what an image brings to vouch for it; raises as `ChainReader.read`."""
        from lamina.source.image_chain import ChainReader

        return ChainReader(self._store, self._registry, image).read(predicates)

    def from_layout(self, reference: Reference, platform: Platform | None, store: str = "") -> ResolvedImage:
        """Return an image of an offered OCI layout; its blobs are copied in when needed.

        Args:
            store: what the client calls the layout, "" for the name of the reference.

        Raises:
            InputError: no such layout, or no such image in it; NetworkError: the client went away.
        """
        name = reference.familiar().partition("@")[0].partition(":")[0]
        if self.stores is not None and reference.digest is not None:
            return self._from_client(store or name, reference, reference.digest, platform or self._platform)
        path = self._layout(name)
        layout = Store(path, create=False)
        if reference.digest is None:
            raise InputError(f"an oci-layout source must be pinned by digest: {name!r}")
        raw = layout.read(reference.digest, MAX_MANIFEST_BYTES)
        return self._load(layout, raw, reference, platform or self._platform, dump_origin(str(path), "layout"))

    def _layout(self, name: str) -> Path:
        path = self._layouts.get(name)
        if path is None:
            raise InputError(f"no OCI layout was offered as {name!r}", hint=f"--build-context {name}=oci-layout://DIR")
        return path

    def add_layers(self, image: ResolvedImage, limit: int | None = None) -> int | None:
        """Return the top of the image's chain, noting layers that are not known yet. Fetches nothing.

        Args:
            limit: only so many layers, from the bottom; None for all.
        """
        parent: int | None = None
        layers = list(zip(image.manifest.layers, image.config.diff_ids, strict=True))
        for descriptor, diff_id in layers[:limit]:
            parent = self._layers.add_remote(
                parent,
                diff_id=diff_id,
                blob=descriptor.digest,
                blob_size=descriptor.size,
                media_type=descriptor.media_type,
                origin=image.origin,
                description=image.reference.familiar(),
            )
        self._layers.rows.touch(parent)
        return parent

    def fetch(self, row: LayerRow, cancel: Cancel) -> None:
        """Bring the blob of a remote layer into the store, verified against its descriptor."""
        kind, where = parse_origin(row.origin)
        descriptor = row.descriptor()
        assert descriptor is not None
        if kind == "layout":
            self._layout_blob(Path(where), descriptor.digest, cancel, descriptor)
            return
        if kind == "client":
            self._client_blob(where, descriptor)
            return
        self._registry_blob(Reference.parse(where), descriptor)

    def _layout_blob(self, path: Path, digest: Digest, cancel: Cancel, descriptor: Descriptor | None = None) -> None:
        layout = Store(path, create=False)
        descriptor = descriptor or Descriptor(_BLOB, digest, layout.size(digest))
        with layout.open(digest) as source, self._store.ingest(descriptor) as ingest:
            while data := source.read(1 << 20):
                cancel.check()
                ingest.write(data)
            ingest.commit()

    def _registry_blob(self, reference: Reference, descriptor: Descriptor) -> None:
        with self._store.ingest(descriptor) as ingest:
            self._registry().blob(reference, descriptor, ingest)
            ingest.commit()

    def blob(self, reference: Reference, cancel: Cancel, *, layout: str | None = None) -> int:
        """Bring a single blob, pinned by digest, into the store and return how many bytes it has.

        Args:
            reference: says in which repository it is, or in which layout.
            layout: what the user calls the OCI layout that has it; None for a registry.

        Raises:
            InputError: no such layout; NetworkError, StorageError: the blob cannot be had, or is another one.
        """
        digest = reference.digest
        if digest is None:
            raise InputError("a blob as a source must be named by its digest", where=reference.familiar())
        if not self._store.touch(digest):
            if layout is None:
                size = self._registry().blob_size(reference, digest)
                self._registry_blob(reference, Descriptor(_BLOB, digest, size))
            elif self.stores is not None:
                self._client_file(layout, digest, cancel)
            else:
                self._layout_blob(self._layout(layout), digest, cancel)
        return self._store.size(digest)

    # -- the client's stores

    def _client_file(self, store: str, digest: Digest, cancel: Cancel) -> None:
        """Bring a blob of which the client did not say how long it is."""
        with self._store.ingest() as ingest:
            for piece in self._client_pieces(store, digest):
                cancel.check()
                ingest.write(piece)
            if f"sha256:{ingest.hash.hexdigest()}" != digest:
                raise InputError("the client sent other bytes than the digest says", where=f"{store}@{digest}")
            ingest.commit()

    def _from_client(self, store: str, reference: Reference, digest: Digest, platform: Platform) -> ResolvedImage:
        """Return an image of one of the client's stores; its documents are kept here, its layers come when needed."""
        if store not in self._seen_stores:
            self._seen_stores.append(store)
        top = raw = self._client_document(store, digest, MAX_MANIFEST_BYTES)
        found = parse_any(raw, "", reference.familiar())
        for _ in range(_MAX_DEPTH):
            if isinstance(found, Manifest):
                break
            child = _choose(found, platform, reference)
            raw = self._client_document(store, child.digest, MAX_MANIFEST_BYTES)
            found = parse_any(raw, child.media_type, reference.familiar())
        else:
            raise InputError("the index is nested too deeply", where=reference.familiar())
        self._client_document(store, found.config.digest, MAX_CONFIG_BYTES)
        return self._load(self._store, top, reference, platform, dump_origin(store, "client"))

    def _client_document(self, store: str, digest: Digest, most: int) -> bytes:
        """Return a small blob of a client's store, verified, from here if it is here."""
        if self._store.has(digest):
            return self._store.read(digest, most)
        found = bytearray()
        for piece in self._client_pieces(store, digest):
            found += piece
            if len(found) > most:
                raise InputError(f"more than {most} bytes in a document of an image", where=f"{store}@{digest}")
        if hashlib.new(digest.algorithm, found).hexdigest() != digest.hex:
            raise InputError("the client sent other bytes than the digest says", where=f"{store}@{digest}")
        self._store.add(bytes(found))
        return bytes(found)

    def _client_blob(self, store: str, descriptor: Descriptor) -> None:
        """Bring a layer; where the store has another name by now, those that this build knows are tried."""
        stores = list(dict.fromkeys([*self._seen_stores, store]))
        for number, name in enumerate(stores, 1):
            try:
                with self._store.ingest(descriptor) as ingest:
                    for piece in self._client_pieces(name, descriptor.digest):
                        ingest.write(piece)
                    ingest.commit()
                return
            except NetworkError:
                if number == len(stores):
                    raise

    def _client_pieces(self, store: str, digest: Digest) -> Iterator[bytes]:
        found = self.stores(f"oci:{store}") if self.stores is not None else None
        if found is None:
            raise InputError(
                f"the client offers no OCI layouts, so none named {store!r}", hint="buildctl: --oci-layout NAME=DIR"
            )
        return found.read(str(digest))

    # -- the three places

    def _from_store(self, reference: Reference, platform: Platform) -> ResolvedImage | None:
        descriptor = self._store.resolve(str(Reference(reference.registry, reference.repository, reference.tag)))
        if reference.digest is not None and (descriptor is None or descriptor.digest != reference.digest):
            if not self._store.has(reference.digest):
                return None
            raw = self._store.read(reference.digest, MAX_MANIFEST_BYTES)
        elif descriptor is None:
            return None
        else:
            raw = self._store.read(descriptor.digest, MAX_MANIFEST_BYTES)
        try:
            return self._load(self._store, raw, reference, platform, self._origin(reference))
        except StorageError:
            return None  # not whole here: ask the registry

    def _origin(self, reference: Reference) -> str:
        return dump_origin(str(reference), "registry")

    def _from_pin(self, reference: Reference, platform: Platform) -> ResolvedImage | None:
        """Return what an earlier build resolved this tag to, so that builds do not ask the network again."""
        if self._pull or reference.digest is not None:
            return None
        row = self._state.execute("SELECT value FROM memo WHERE key = ?", (pin_key(reference, platform),)).fetchone()
        if row is None:
            return None
        digest = Digest(json.loads(row[0])["digest"])
        return self._from_store(reference.with_digest(digest), platform) if self._store.has(digest) else None

    def _from_registry(self, reference: Reference, platform: Platform) -> ResolvedImage:
        registry = self._registry()
        top, top_raw = registry.manifest(reference)
        self._store.add(top_raw)
        found = parse_any(top_raw, top.media_type, str(reference))
        for _ in range(_MAX_DEPTH):
            if isinstance(found, Manifest):
                break
            child = _choose(found, platform, reference)
            _, raw = registry.manifest(Reference(reference.registry, reference.repository, "", child.digest))
            self._store.add(raw)
            found = parse_any(raw, child.media_type, str(reference))
        else:
            raise InputError("the index is nested too deeply", where=str(reference))
        if not self._store.has(found.config.digest):
            self._registry_blob(reference, found.config)
        pinned = reference.with_digest(top.digest)
        image = self._load(self._store, top_raw, pinned, platform, self._origin(reference))
        self._state.execute(
            "INSERT OR REPLACE INTO memo VALUES (?, ?, ?)",
            (pin_key(reference, platform), json.dumps({"digest": pinned.digest}), time.time()),
        )
        return image

    def _load(self, store: Store, raw: bytes, reference: Reference, platform: Platform, origin: str) -> ResolvedImage:
        """Return the image that `raw` leads to within `store`."""
        where = reference.familiar()
        found = parse_any(raw, "", where)
        top = found.descriptor().digest
        for _ in range(_MAX_DEPTH):
            if isinstance(found, Manifest):
                break
            child = _choose(found, platform, reference)
            found = parse_any(store.read(child.digest, MAX_MANIFEST_BYTES), child.media_type, where)
        else:
            raise InputError("the index is nested too deeply", where=where)
        config = parse_config(store.read(found.config.digest, MAX_CONFIG_BYTES), where)
        config.check_layers(len(found.layers), where)
        pinned = reference if reference.digest else reference.with_digest(top)
        return ResolvedImage(pinned, found.descriptor().digest, found, config, origin)


def pin_key(reference: Reference, platform: Platform) -> str:
    """Return under which key the state file notes what a tag was resolved to."""
    return f"pin:{reference}:{platform}"


def _choose(index: Index, platform: Platform, reference: Reference) -> Descriptor:
    """Return the entry for `platform`.

    Raises:
        InputError: there is none; the message lists what there is.
    """
    offers = [entry for entry in index.manifests if entry.platform is None or entry.platform.os != "unknown"]
    found = choose_platform(platform, offers, lambda entry: entry.platform)
    if found is None and len(offers) == 1 and offers[0].platform is None:
        found = offers[0]
    if found is None:
        there = sorted({str(entry.platform) for entry in offers if entry.platform})
        raise InputError(
            f"no image for {platform} in {reference.familiar()}; it has {', '.join(there) or 'no platforms'}",
            hint="choose another with --platform, or FROM --platform=",
        )
    return found
