"""`type=image` and `type=registry`: the image in the local store under its names, and at its registries.

The store gets a name only when everything the image is made of is there and synced; a registry gets blobs first,
then manifests, then the index or manifest under its tag.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

from lamina.cancel import Cancel
from lamina.errors import InputError
from lamina.exporter.images import ImageSet, ensure_blob
from lamina.exporter.outputs import OutputSpec
from lamina.exporter.protocol import Outcome, Pusher, Result, Surroundings
from lamina.image.assemble import write_image, write_index
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.oci.media_types import is_foreign
from lamina.oci.reference import Reference

PARALLEL_BLOBS = 4


def export_image(result: Result, spec: OutputSpec, images: ImageSet, around: Surroundings) -> Outcome:
    """Store and push the image as `spec` asks.

    Raises:
        InputError: it shall be pushed and has no name.
        StorageError: a blob is missing or the store is full.
        RegistryError: a registry refused.
    """
    names = images.names
    if not names and spec.dangling_prefix:
        names = (f"{Reference.parse(spec.dangling_prefix, default_tag='')}@{images.descriptor.digest}",)
    if spec.push and not names:
        raise InputError("nothing to push to: the image has no name", hint="name it with --tag or name=")
    if spec.store and (not spec.push or _all_here(result, images)):
        # what is pushed need not come here for that: a runner's image may consist of a cache's layers alone
        store_image(result, images, names, around.cancel)
    if spec.push:
        if around.pusher is None:
            raise InputError("this build cannot push: it was given no registry client")
        push_images(result, images, names, around.pusher(spec.insecure), around.cancel, by_digest=spec.push_by_digest)
    return Outcome("image", images.descriptor, images.image_id, tuple(names))


def _all_here(result: Result, images: ImageSet) -> bool:
    """Tell whether the store has every layer."""
    return all(result.store.has(layer.descriptor.digest) for image in images.images for layer in image.layers)


def store_image(result: Result, images: ImageSet, names: tuple[str, ...], cancel: Cancel) -> None:
    """Put manifests into the store and give the image its names; without one it is kept by its digest."""
    for image in images.images:
        for layer in image.layers:
            cancel.check()
            ensure_blob(result, layer.descriptor)
        write_image(result.store, image)
    for attached in images.attestations:
        for data in (*attached.blobs.values(), attached.raw):
            result.store.add(data)
    if images.index is not None:
        write_index(result.store, images.index)
    for name in names or ("",):
        cancel.check()
        result.store.tag(name, images.descriptor, keep_dangling=True)


def push_images(
    result: Result,
    images: ImageSet,
    names: tuple[str, ...],
    pusher: Pusher,
    cancel: Cancel,
    *,
    by_digest: bool = False,
) -> None:
    """Push to every name's registry; blobs once per repository, several at a time.

    Args:
        result: knows the store, how to fetch lazy blobs and where they may be mounted from.
        images: what to push.
        names: full references.
        pusher: the registry client.
        cancel: stops between blobs; the client stops within them.
        by_digest: set no tag.
    """
    done: list[Reference] = []
    blobs = _blobs_of(images)
    for name in names:
        ref = Reference.parse(name)
        repository = Reference(ref.registry, ref.repository)
        if repository not in done:
            _push_blobs([_push_job(result, blob, repository, tuple(done), pusher) for blob in blobs], cancel)
            done.append(repository)
        cancel.check()
        children = images.images if images.index is not None else ()
        for image in children:
            target = repository.with_digest(image.descriptor.digest)
            pusher.push_manifest(target, image.descriptor.media_type, image.manifest.raw)
        for attached in images.attestations:
            target = repository.with_digest(attached.descriptor.digest)
            pusher.push_manifest(target, attached.descriptor.media_type, attached.raw)
        top = images.descriptor
        target = repository.with_digest(top.digest) if by_digest or not ref.tag else ref
        pusher.push_manifest(target, top.media_type, images.raw)


def _blobs_of(images: ImageSet) -> list[tuple[Descriptor, bytes | None]]:
    """Return layers and configs, each once; with their bytes where they are small.

    Layers that lie elsewhere are left out.
    """
    found: dict[Digest, tuple[Descriptor, bytes | None]] = {}
    for image in images.images:
        for layer in image.layers:
            if not (is_foreign(layer.descriptor.media_type) and layer.descriptor.urls):
                found.setdefault(layer.descriptor.digest, (layer.descriptor, None))
        found.setdefault(image.id, (image.manifest.config, image.config.raw))
    for attached in images.attestations:
        for descriptor in (attached.config, *attached.layers):
            found.setdefault(descriptor.digest, (descriptor, attached.blobs[descriptor.digest]))
    return list(found.values())


def _push_job(
    result: Result,
    blob: tuple[Descriptor, bytes | None],
    repository: Reference,
    pushed: tuple[Reference, ...],
    pusher: Pusher,
) -> Callable[[], None]:
    """Return what pushes one blob; its bytes are fetched only if the registry does not have them."""
    descriptor, raw = blob

    def opened() -> BinaryIO:
        if raw is not None:
            return io.BytesIO(raw)
        ensure_blob(result, descriptor)
        return result.store.open(descriptor.digest)

    lenders = [*pushed, *result.mount_from.get(descriptor.digest, ())]
    return lambda: pusher.push_blob(repository, descriptor, opened, lenders)


def _push_blobs(jobs: list[Callable[[], None]], cancel: Cancel) -> None:
    """Run the jobs, several at a time; the first failure stops those that have not begun."""

    def run(job: Callable[[], None]) -> None:
        cancel.check()
        job()

    with ThreadPoolExecutor(PARALLEL_BLOBS, thread_name_prefix="push") as pool:
        running = [pool.submit(run, job) for job in jobs]
        try:
            for future in running:
                future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
