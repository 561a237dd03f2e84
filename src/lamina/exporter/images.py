"""The images of a result as one set: per platform, and the index over them where there is one.

Asks the result for its images in the media types and compression that the output wants.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lamina.attest.manifest import AttestationManifest
from lamina.exporter.attestations import for_attestations, make_manifest, wanted_in
from lamina.exporter.convert import convert_image
from lamina.exporter.outputs import OutputSpec
from lamina.exporter.protocol import Result, Surroundings
from lamina.image.assemble import Image, ImageIndex, make_index
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.store.errors import MissingBlobError


@dataclass(frozen=True, slots=True)
class ImageSet:
    """What an image output writes.

    Attributes:
        images: one for each platform.
        index: the index over them, None for a single image without one.
        names: full references, without doubles.
        attestations: manifests with what is said of the images; the index has them behind the images.
    """

    images: tuple[Image, ...]
    index: ImageIndex | None = field(repr=False)
    names: tuple[str, ...] = ()
    attestations: tuple[AttestationManifest, ...] = ()

    @property
    def descriptor(self) -> Descriptor:
        """Points at the index, or at the only manifest."""
        return self.index.descriptor if self.index is not None else self.images[0].descriptor

    @property
    def raw(self) -> bytes:
        """The bytes `descriptor` points at."""
        return self.index.raw if self.index is not None else self.images[0].manifest.raw

    @property
    def image_id(self) -> Digest | None:
        """The image ID of a single image."""
        return self.images[0].id if len(self.images) == 1 else None


def collect_images(result: Result, spec: OutputSpec, around: Surroundings) -> ImageSet:
    """Return the images of `result` as `spec` wants them; layers may be compressed anew and stored.

    Attestations make an index of a single image too.

    Raises:
        InputError: attestations do not fit the media types.
    """
    said = [wanted_in(spec, platform) for platform in result.platforms]
    if any(said):
        spec = for_attestations(spec)
    images = []
    for platform in result.platforms:
        around.cancel.check()
        image = platform.image(spec.media_types, spec.annotations)
        images.append(convert_image(result, image, spec, around))
    names = tuple(dict.fromkeys([*result.names, *spec.names]))
    attached = tuple(
        make_manifest(attestations, image, names, artifact=spec.oci_artifact is not False)
        for attestations, image in zip(said, images, strict=True)
        if attestations
    )
    index = None
    if len(images) > 1 or result.multi or attached:
        beside = [one.descriptor for one in attached]
        index = make_index(images, media_types=spec.media_types, beside=beside)
    return ImageSet(tuple(images), index, names, attached)


def ensure_blob(result: Result, descriptor: Descriptor) -> None:
    """Fetch a blob into the store unless it is there.

    Raises:
        MissingBlobError: it is nowhere to be had.
    """
    if result.store.has(descriptor.digest):
        return
    if result.fetch is None:
        raise MissingBlobError("a layer of the image is not in the store", where=str(descriptor.digest))
    result.fetch(descriptor)
