"""Attestations in what exporters write: manifests beside images in their index, statements as files beside files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from lamina.attest.manifest import ATTESTATION, REFERENCE_TYPE, AttestationManifest, attestation_manifest
from lamina.attest.purl import image_purl
from lamina.attest.statement import dump, statement
from lamina.attest.values import MAX_BYTES, Attestation, Subject
from lamina.cancel import Cancel
from lamina.errors import InputError
from lamina.exporter.files_out import read_content
from lamina.exporter.outputs import OutputSpec
from lamina.exporter.protocol import PlatformResult, Result
from lamina.image.assemble import Image
from lamina.layer.entry import Entry, Item
from lamina.oci.manifest import parse_index, parse_manifest
from lamina.store.store import Store

_MODE = 0o600


def wanted_in(spec: OutputSpec, platform: PlatformResult) -> tuple[Attestation, ...]:
    """Return the attestations that this output takes."""
    inline = spec.attestation_inline or spec.type == "image"
    return tuple(one for one in platform.attestations if inline or not one.inline_only)


def make_manifest(
    attestations: Sequence[Attestation], image: Image, names: Sequence[str], *, artifact: bool
) -> AttestationManifest:
    """Return the manifest with what is said about an image.

    Args:
        names: full references of the image, the subjects' names.
    """
    digests = {image.descriptor.digest.algorithm: image.descriptor.digest.hex}
    exported = [Subject(name=image_purl(name, image.platform), digests=digests) for name in names]
    exported = exported or [Subject(digests=digests)]
    statements = [(one.predicate_type, dump(statement(one, exported))) for one in attestations]
    return attestation_manifest(image.descriptor, statements, artifact=artifact)


def stored_manifests(store: Store, raw: bytes) -> tuple[AttestationManifest, ...]:
    """Return the manifests with attestations that an index names, of those that are in the store.

    Args:
        raw: the index.

    Raises:
        InputError: one is damaged or too large.
    """
    found = []
    for descriptor in parse_index(raw).manifests:
        if descriptor.annotations.get(REFERENCE_TYPE) == ATTESTATION and store.has(descriptor.digest):
            data = store.read(descriptor.digest)
            manifest = parse_manifest(data)
            blobs = {one.digest: store.read(one.digest, MAX_BYTES) for one in (manifest.config, *manifest.layers)}
            found.append(AttestationManifest(descriptor, data, manifest.config, manifest.layers, blobs))
    return tuple(found)


def for_attestations(spec: OutputSpec) -> OutputSpec:
    """Return the output as attestations need it: with OCI's media types, where the user did not say otherwise.

    Raises:
        InputError: the user did.
    """
    if spec.docker_asked:
        raise InputError(
            "attestations need OCI media types", hint="leave out oci-mediatypes=false, or ask for no attestations"
        )
    return replace(spec, media_types="oci")


def files_with(result: Result, platform: PlatformResult, spec: OutputSpec, cancel: Cancel) -> Iterator[Item]:
    """Yield the files of a result and its attestations, which name every file with its digest, in order of the paths.

    Raises:
        InputError: an attestation has the name of a file, or of another.
    """
    attestations = wanted_in(spec, platform)
    if not attestations:
        yield from platform.files()
        return
    digests = _digests(platform, cancel)  # a pass of its own: clients want paths in order, and these name all others
    exported = [Subject(name=path, digests={"sha256": digest}) for path, digest in sorted(digests.items())]
    extra: dict[str, Item] = {}
    for one in attestations:
        path = spec.attestation_prefix + one.path
        if path in extra:
            raise _taken(path)
        data = dump(statement(one, exported), indented=True)
        extra[path] = Item(Entry(path, "f", _MODE, mtime_ns=result.mtime_ns, size=len(data)), data)
    left = sorted(extra, reverse=True)
    for item in platform.files():
        path = item.entry.path
        while left and left[-1] < path.partition("/")[0]:
            yield extra[left.pop()]
        if path in extra:
            raise _taken(path)
        yield item
    while left:
        yield extra[left.pop()]


def _taken(path: str) -> InputError:
    hint = "attestation-prefix=PREFIX gives attestations other names"
    return InputError(f"two files are called {path!r}: one is an attestation", hint=hint)


def _digests(platform: PlatformResult, cancel: Cancel) -> dict[str, str]:
    """Return the digest of every file by its path."""
    digests: dict[str, str] = {}
    links: dict[str, str] = {}
    for item in platform.files():
        entry = item.entry
        if entry.kind == "f":
            digests[entry.path] = entry.digest or _digest(item, cancel)
        elif entry.kind == "h":
            links[entry.path] = entry.target
    return digests | {path: digests[target] for path, target in links.items()}


def _digest(item: Item, cancel: Cancel) -> str:
    """Return the digest of a file whose digest nobody knows yet."""
    found = hashlib.sha256()
    for chunk in read_content(item.content, item.entry, cancel):
        found.update(chunk)
    return found.hexdigest()
