"""What an exporter is given, and what it says it did.

Life cycle: a build ends with one `Result`; for each `OutputSpec` one exporter is called once, in any thread, several
at a time if the caller likes. An exporter asks the result only for what it needs: `image(...)` packs layers and
fetches lazy ones, `files()` reads the merged file system; an output of files never makes a layer.

Invariant: an exporter that returns has written everything; one that raises has left no half-written file at the
destination's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from lamina.attest.values import Attestation
from lamina.cancel import Cancel
from lamina.image.assemble import Image
from lamina.layer.entry import Item
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference
from lamina.store.store import Store


@dataclass(frozen=True, slots=True)
class PlatformResult:
    """What was built for one platform.

    Attributes:
        platform: what it runs on.
        image: returns the image with the media types (`oci`, `docker`) and annotations asked for. Config and
            manifest may not be in the store yet; layers are there or can be had by `Result.fetch`.
        files: returns the merged file system, parents before what is in them, whiteouts applied. A hard link's
            target is one of the items.
        attestations: what is to be said about it; contents are asked for last.
    """

    platform: Platform
    image: Callable[[str, Mapping[str, str]], Image]
    files: Callable[[], Iterable[Item]]
    attestations: tuple[Attestation, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """What was built.

    Attributes:
        platforms: one for each platform, in the order they were asked for.
        store: where blobs lie and new ones go.
        names: full references from `--tag`.
        multi: make an index even for one platform.
        base_layers: layers that came with a base image; compressed anew only if that is forced.
        fetch: brings a blob that is not in the store there, verified; None when all are there.
        mount_from: repositories that a layer's blob is known to be in.
        mtime_ns: modification time of files that an exporter adds.
    """

    platforms: tuple[PlatformResult, ...]
    store: Store
    names: tuple[str, ...] = ()
    multi: bool = False
    base_layers: frozenset[Digest] = frozenset()
    fetch: Callable[[Descriptor], None] | None = None
    mount_from: Mapping[Digest, Sequence[Reference]] = field(default_factory=dict, hash=False)
    mtime_ns: int = 0


class Pusher(Protocol):
    """The part of a registry client that exporters use; `lamina.registry.client.Registry` has it."""

    def push_blob(
        self,
        ref: Reference,
        descriptor: Descriptor,
        open: Callable[[], BinaryIO],  # noqa: A002 - the client's name
        mount_from: Sequence[Reference] = (),
    ) -> None:
        """Bring a blob into a repository; does nothing when it is there."""

    def push_manifest(self, ref: Reference, media_type: str, raw: bytes) -> Digest:
        """Put a manifest under the tag, or under its digest when there is no tag."""


Progress = Callable[[str, int, int], None]
"""Is told (what, bytes so far, bytes in all), 0 for an unknown total. Called from many threads."""


def silent(_what: str, _current: int, _total: int) -> None:
    """A progress that nobody watches."""


Receive = Callable[[str, Iterable[Item]], None]
"""Takes a tree of files, given the directory below the destination it belongs in ("" for itself)."""


Keep = Callable[[Descriptor, Iterable[bytes]], None]
"""Takes one blob."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the caller lends to exporters.

    Attributes:
        cancel: stops the export.
        directory: what a relative destination is relative to.
        stdout: where `dest=-` goes; None when standard output must not be used. Not closed.
        pusher: returns the registry client; the flag says whether insecure registries are allowed.
        progress: is told how far things are.
        umask: permission bits that new files do not get.
        keep: takes the blobs of a layout where the destination is not on this machine, which writes its index itself.
        receive: takes the files of `type=local` where the destination is not on this machine.
    """

    cancel: Cancel
    directory: Path
    stdout: BinaryIO | None = None
    pusher: Callable[[bool], Pusher] | None = None
    progress: Progress = silent
    umask: int = 0o022
    keep: Keep | None = None
    receive: Receive | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an exporter did.

    Attributes:
        type: the output's type.
        descriptor: manifest or index that was written, None for outputs of files.
        image_id: the image ID where one image was written, None otherwise.
        names: full references it was stored or pushed under.
        dest: path that was written, "-" for standard output, "" for none.
    """

    type: str
    descriptor: Descriptor | None = None
    image_id: Digest | None = None
    names: tuple[str, ...] = ()
    dest: str = ""
