"""The images of a result as one set: per platform, and the index over them where there is one.

Asks the result for its images in the media types and compression that the output wants.
"""

from __future__ import annotations

from dataclasses import dataclass, field

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
    """

    images: tuple[Image, ...]
    index: ImageIndex | None = field(repr=False)
    names: tuple[str, ...] = ()

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
    """Return the images of `result` as `spec` wants them; layers may be compressed anew and stored."""
    images = []
    for platform in result.platforms:
        around.cancel.check()
        image = platform.image(spec.media_types, spec.annotations)
        images.append(convert_image(result, image, spec, around))
    index = make_index(images, media_types=spec.media_types) if len(images) > 1 or result.multi else None
    return ImageSet(tuple(images), index, tuple(dict.fromkeys([*result.names, *spec.names])))


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
