"""What the frontend asks for base images: from the store, a registry, or an OCI layout that the user offers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lamina.attest.capture import Material
from lamina.cancel import Cancel
from lamina.dockerfile.convert import ResolvedBase
from lamina.engine.gate import Gate
from lamina.engine.place import Place
from lamina.errors import InputError
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference
from lamina.policy.values import Policy, PolicyError, Source
from lamina.progress import Sink, VertexEvent, doing
from lamina.source.image import ResolvedImage, pin_key
from lamina.source.layout import find_in_layout, split_layout

LAYOUT = "oci-layout://"


class Resolver:
    """Answers a conversion's questions, each shown as a vertex; notes what each name was pinned to.

    Attributes:
        configs: config of every image that was resolved, by full reference and platform.
        images: every image of a registry or the store that was resolved, with the digest its name stood for.
        pins: digest and key of the pin in the state file, for every name that was not pinned itself.
    """

    def __init__(self, place: Place, cancel: Cancel, sink: Sink, gate: Gate | None = None) -> None:
        self._place, self._cancel, self._sink = place, cancel, sink
        self._gate = gate or Gate()
        self.configs: dict[tuple[str, str], dict[str, Any]] = {}
        self.pins: dict[str, tuple[str, str]] = {}
        self.images: list[Material] = []

    def __call__(self, name: str, platform: Platform, extra: Sequence[Policy] = ()) -> ResolvedBase:
        """Return the image behind a reference or an `oci-layout://DIRECTORY[:TAG][@DIGEST]`.

        Args:
            extra: policies of the frontend that asks.

        Raises:
            SourceDeniedError: it may not be used; Error: it cannot be had.
        """
        shown = name if name.startswith(LAYOUT) else str(Reference.parse(name))
        digest, title = f"resolve:{name}:{platform}", f"[internal] load metadata for {shown}"
        started = time.time()
        self._sink(VertexEvent(digest, title, started=started))
        try:
            with doing(digest):
                name = self._admitted(name, platform, extra)
                image = self._layout(name, platform) if name.startswith(LAYOUT) else self._image(name, platform)
        except BaseException as error:
            self._sink(VertexEvent(digest, title, started=started, completed=time.time(), error=str(error)))
            raise
        self._sink(VertexEvent(digest, title, started=started, completed=time.time()))
        config = dict(image.config.fields)
        return ResolvedBase(str(image.reference), str(image.digest), config)

    def _admitted(self, name: str, platform: Platform, extra: Sequence[Policy]) -> str:
        """Return the name of the image that is to be used. A layout is judged as the source that it becomes."""
        if name.startswith(LAYOUT):
            return name
        scheme = "docker-image://"
        source = self._gate.judge(Source(scheme + name), platform, extra)
        if not source.identifier.startswith(scheme):
            raise PolicyError(
                f"policy converts the image {name} to {source.shown!r}, which has no image config",
                hint="an image that a Dockerfile or a frontend names is converted to another image",
            )
        return source.identifier.removeprefix(scheme)

    def _image(self, name: str, platform: Platform) -> ResolvedImage:
        reference = Reference.parse(name)
        image = self._place.images.resolve(reference, platform, self._cancel)
        if reference.digest is None:
            self.pins[str(reference)] = (str(image.reference.digest), pin_key(reference, platform))
        self.images.append(Material("image", str(reference), str(image.reference.digest), platform))
        self.configs[str(reference), str(platform)] = dict(image.config.fields)
        return image

    def admitted(self, name: str, platform: Platform) -> ResolvedImage:
        """Return an image that was judged already; it counts as one that was resolved."""
        return self._image(name, platform)

    def _layout(self, name: str, platform: Platform) -> ResolvedImage:
        path, tag, digest = split_layout(name.removeprefix(LAYOUT))
        if self._place.images.stores is not None:  # a client far away names its own stores, never directories here
            if digest is None:
                raise InputError("an OCI layout of a client must be pinned by digest", where=name)
            return self._place.images.from_layout(Reference.parse(f"{path}@{digest}"), platform, path)
        reference = find_in_layout(Path(path), tag, digest)
        self._place.images.offer_layout(reference.familiar().partition("@")[0], Path(path))
        return self._place.images.from_layout(reference, platform)
