"""Images in the shapes of docker's API: rows of a list, what `inspect` shows, history. Pure: images in, objects out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lamina.errors import InputError
from lamina.image.assemble import Image
from lamina.image.inspect import history_rows, image_size, inspect_image
from lamina.oci.descriptor import Descriptor
from lamina.oci.reference import Reference

_NO_TIME = "0001-01-01T00:00:00Z"
_NO_SECONDS = -62135596800.0
_CONFIG: dict[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Env": None,
    "Cmd": None,
    "Image": "",
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}


@dataclass(frozen=True, slots=True)
class Known:
    """One image of the store with all its names.

    Attributes:
        id: digest of its config, of its index where it has several platforms, as docker names images.
        names: full references, in the store's order.
        images: one for each platform; none for one that is damaged.
    """

    id: str
    descriptor: Descriptor
    names: tuple[str, ...]
    images: tuple[Image, ...]

    @property
    def created(self) -> float:
        """When it was made, seconds since the epoch; the newest of its platforms, the year 1 when none says."""
        return max((seconds(image.config.created) for image in self.images), default=_NO_SECONDS)

    @property
    def size(self) -> int:
        """Bytes of its blobs."""
        return sum(map(image_size, self.images)) or self.descriptor.size

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the first platform."""
        found = self.images[0].config.run.get("Labels") if self.images else None
        return dict(found) if isinstance(found, dict) else {}

    @property
    def tags(self) -> list[str]:
        """Names as docker shows them."""
        return [familiar(name) for name in self.names]

    @property
    def digests(self) -> list[str]:
        """Repositories with the digest, as docker shows them."""
        found = []
        for name in self.names:
            try:
                reference = Reference.parse(name, default_tag="")
            except InputError:
                continue
            bare = Reference(reference.registry, reference.repository).with_digest(self.descriptor.digest)
            found.append(bare.familiar())
        return list(dict.fromkeys(found))


def summary(known: Known, version: tuple[int, int], *, used: bool = False) -> dict[str, Any]:
    """Return the row of a list of images.

    Args:
        version: of the API; old clients expect words where there is no name.
        used: fill in what is otherwise -1 for "not asked".
    """
    tags, digests = known.tags, known.digests
    if not tags and version < (1, 43):
        tags, digests = ["<none>:<none>"], ["<none>@<none>"]
    row = {
        "Containers": 0 if used else -1,
        "Created": int(known.created),
        "Id": known.id,
        "Labels": known.labels or None,
        "ParentId": "",
        "RepoDigests": digests,
        "RepoTags": tags,
        "SharedSize": 0 if used else -1,
        "Size": known.size,
    }
    if version < (1, 44):
        row["VirtualSize"] = known.size
    return row


def inspected(known: Known, image: Image, version: tuple[int, int]) -> dict[str, Any]:
    """Return what `docker image inspect` shows."""
    found = inspect_image(image, known.names)
    shown: dict[str, Any] = {
        "Id": known.id,
        "RepoTags": known.tags,
        "RepoDigests": known.digests,
        "Parent": "",
        "Comment": found.get("Comment") or next((row.comment for row in history_rows(image)), ""),
        "Created": found.get("Created") or _NO_TIME,
        "DockerVersion": "",
        "Author": found.get("Author", ""),
        "Config": {**_CONFIG, **found.get("Config", {})},
        "Architecture": found["Architecture"],
        "Os": found["Os"],
        "Size": found["Size"],
        "GraphDriver": {"Data": None, "Name": "overlayfs"},
        "RootFS": found["RootFS"],
        "Metadata": {"LastTagTime": _NO_TIME},
        "Descriptor": {name: found["Descriptor"][name] for name in ("mediaType", "digest", "size")},
    }
    for name in ("Variant", "OsVersion"):
        if found.get(name):
            shown[name] = found[name]
    if version < (1, 44):
        shown |= {"VirtualSize": found["Size"], "Container": "", "ContainerConfig": dict(_CONFIG)}
    return shown


def history(known: Known, image: Image) -> list[dict[str, Any]]:
    """Return what `docker history` shows, newest step first."""
    return [
        {
            "Comment": row.comment,
            "Created": int(seconds(row.created)),
            "CreatedBy": row.created_by,
            "Id": known.id if number == 0 else "<missing>",
            "Size": row.size,
            "Tags": known.tags or None if number == 0 else None,
        }
        for number, row in enumerate(history_rows(image))
    ]


def familiar(name: str) -> str:
    """Return a name as docker shows it."""
    try:
        return Reference.parse(name).familiar()
    except InputError:
        return name


def seconds(text: str) -> float:
    """Return an RFC 3339 time as seconds since the epoch; the year 1, as docker has it, when it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return _NO_SECONDS
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def short(image_id: str) -> str:
    """Return the twelve digits by which people know an image."""
    return image_id.removeprefix("sha256:")[:12]


def page(rows: Sequence[Known]) -> list[Known]:
    """Return images in the order of docker's list: newest first."""
    return sorted(rows, key=lambda known: (-known.created, known.names))
