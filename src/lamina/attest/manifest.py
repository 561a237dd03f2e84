"""The manifest that holds one image's attestations, and its place in the index. Pure.

Convention: BuildKit, docs/attestations/attestation-storage.md. By default it is an OCI artifact whose subject is the
image's manifest; with `artifact=False` it looks like an image, for registries that know nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lamina.attest.statement import MEDIA_TYPE
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest, sha256_digest
from lamina.oci.manifest import dump_manifest
from lamina.oci.media_types import OCI_CONFIG, OCI_EMPTY, OCI_MANIFEST
from lamina.oci.platform import Platform
from lamina.oci.strict_json import dump_json

ARTIFACT = "application/vnd.docker.attestation.manifest.v1+json"
PREDICATE_TYPE = "in-toto.io/predicate-type"
REFERENCE_TYPE = "vnd.docker.reference.type"
REFERENCE_DIGEST = "vnd.docker.reference.digest"
ATTESTATION = "attestation-manifest"
UNKNOWN = Platform("unknown", "unknown")


@dataclass(frozen=True, slots=True)
class AttestationManifest:
    """A manifest with everything it points at; all of it is small.

    Attributes:
        descriptor: for the index: platform unknown, annotations that name the image.
        raw: the manifest's bytes.
        config: of it; may be the empty object.
        blobs: config and statements by digest.
    """

    descriptor: Descriptor
    raw: bytes = field(repr=False)
    config: Descriptor
    layers: tuple[Descriptor, ...]
    blobs: dict[Digest, bytes] = field(repr=False, hash=False)


def attestation_manifest(
    image: Descriptor, statements: Sequence[tuple[str, bytes]], *, artifact: bool = True
) -> AttestationManifest:
    """Return the manifest with statements about an image.

    Args:
        image: of its manifest.
        statements: (predicate type, bytes).
    """
    layers, blobs = [], {}
    for predicate_type, data in statements:
        digest = sha256_digest(data)
        layers.append(Descriptor(MEDIA_TYPE, digest, len(data), {PREDICATE_TYPE: predicate_type}))
        blobs[digest] = data
    config_data = b"{}"
    if not artifact:
        diff_ids = [str(layer.digest) for layer in layers]
        rootfs = {"type": "layers", "diff_ids": diff_ids}
        config_data = dump_json({"architecture": "unknown", "os": "unknown", "config": {}, "rootfs": rootfs})
    config = Descriptor(OCI_EMPTY if artifact else OCI_CONFIG, sha256_digest(config_data), len(config_data))
    blobs[config.digest] = config_data
    bare = replace(image, annotations={}, platform=None)
    raw = dump_manifest(config, layers, subject=bare if artifact else None, artifact_type=ARTIFACT if artifact else "")
    annotations = {REFERENCE_TYPE: ATTESTATION, REFERENCE_DIGEST: str(image.digest)}
    descriptor = Descriptor(OCI_MANIFEST, sha256_digest(raw), len(raw), annotations, UNKNOWN)
    return AttestationManifest(descriptor, raw, config, tuple(layers), blobs)
