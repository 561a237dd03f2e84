"""What an image brings to vouch for it: the way from its index to its attestations and to what signs them.

In: a resolved image of a registry. Out: an `AttestationChain` with the documents on that way, each of the digest it is
named by. Nothing is verified here but digests: whoever asks judges the signatures.

Sources: BuildKit's docs/attestations/attestation-storage.md; OCI distribution 1.1, "Listing Referrers".
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lamina.errors import InputError, StorageError
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.oci.manifest import MAX_MANIFEST_BYTES, Index, Manifest, parse_any
from lamina.oci.reference import Reference
from lamina.store.store import Store

if TYPE_CHECKING:
    from lamina.registry.client import Registry
    from lamina.source.image import ResolvedImage

MAX_STATEMENT_BYTES = 16 << 20
"""Most bytes of one attestation or signature."""
_MAX_LAYERS = 64
_INDEX = "application/vnd.oci.image.index.v1+json"
_TYPE, _DIGEST = "vnd.docker.reference.type", "vnd.docker.reference.digest"
_PREDICATE = "in-toto.io/predicate-type"
_SIGNATURES = (
    "application/vnd.dev.sigstore.bundle.v0.3+json",
    "application/vnd.dev.cosign.artifact.sig.v1+json",
)
"""Types of what signs an attestation; the first counts before the second."""


@dataclass(frozen=True, slots=True)
class AttestationChain:
    """Documents from an image's index on.

    Attributes:
        root: digest of the index; `image` of the manifest for the platform, which is not among the blobs.
        attestation: digest of the manifest with the attestations, "" where there is none.
        signature: digest of the manifest that signs it, "" where there is none.
        blobs: documents by digest: the index, those manifests, the signature's layers, attestations asked for.
    """

    root: str
    image: str
    attestation: str = ""
    signature: str = ""
    blobs: dict[str, tuple[Descriptor, bytes]] = field(default_factory=dict)


class ChainReader:
    """Follows the chain of one image; what it reads is kept in the store."""

    def __init__(self, store: Store, registry: Callable[[], Registry], image: ResolvedImage) -> None:
        self._store, self._registry, self._image = store, registry, image

    def read(self, predicates: Collection[str]) -> AttestationChain | None:
        """Return the chain, None for an image that is no OCI index: nothing can stand beside it.

        Args:
            predicates: types of the attestations that are wanted, too.

        Raises:
            InputError: a document is not what it should be; NetworkError: it cannot be had.
        """
        root = self._image.reference.digest
        assert root is not None
        raw = self._manifest(root)
        index = parse_any(raw, "", self._where)
        if not isinstance(index, Index) or index.media_type != _INDEX:
            return None
        chain = AttestationChain(str(root), str(self._image.digest))
        chain.blobs[str(root)] = (index.descriptor(), raw)
        found = next((one for one in index.manifests if self._attests(one)), None)
        if found is None:
            return chain
        chain = replace(chain, attestation=str(found.digest))
        manifest = self._add_manifest(chain, found)
        for layer in manifest.layers[:_MAX_LAYERS]:
            if layer.annotations.get(_PREDICATE, "") in predicates:
                chain.blobs[str(layer.digest)] = (layer, self._blob(layer))
        signature = self._signature(found.digest)
        if signature is None:
            return chain
        chain = replace(chain, signature=str(signature.digest))
        for layer in self._add_manifest(chain, signature).layers[:_MAX_LAYERS]:
            chain.blobs[str(layer.digest)] = (layer, self._blob(layer))
        return chain

    @property
    def _where(self) -> str:
        return self._image.reference.familiar()

    def _attests(self, one: Descriptor) -> bool:
        said = one.annotations
        return said.get(_TYPE) == "attestation-manifest" and said.get(_DIGEST) == str(self._image.digest)

    def _signature(self, digest: Digest) -> Descriptor | None:
        """Return what signs a manifest: the first bundle, or else the first signature of cosign's."""
        referrers = self._registry().referrers(self._named(digest))
        signing = [one for one in referrers if one.artifact_type in _SIGNATURES]
        return min(signing, key=lambda one: _SIGNATURES.index(one.artifact_type), default=None)

    def _add_manifest(self, chain: AttestationChain, descriptor: Descriptor) -> Manifest:
        raw = self._manifest(descriptor.digest)
        manifest = parse_any(raw, descriptor.media_type, self._where)
        if not isinstance(manifest, Manifest):
            raise InputError(f"{descriptor.digest} is not the manifest that it should be", where=self._where)
        chain.blobs[str(descriptor.digest)] = (descriptor, raw)
        return manifest

    def _manifest(self, digest: Digest) -> bytes:
        if self._store.has(digest):
            return self._store.read(digest, MAX_MANIFEST_BYTES)
        _, raw = self._registry().manifest(self._named(digest))
        self._store.add(raw)
        return raw

    def _blob(self, descriptor: Descriptor) -> bytes:
        if descriptor.size > MAX_STATEMENT_BYTES:
            raise InputError(f"an attestation of {descriptor.size} bytes is too large", where=self._where)
        if not self._store.has(descriptor.digest):
            with self._store.ingest(descriptor) as ingest:
                self._registry().blob(self._image.reference, descriptor, ingest)
                ingest.commit()
        try:
            return self._store.read(descriptor.digest, MAX_STATEMENT_BYTES)
        except StorageError as error:
            error.where = error.where or self._where
            raise

    def _named(self, digest: Digest) -> Reference:
        reference = self._image.reference
        return Reference(reference.registry, reference.repository, "", digest)
