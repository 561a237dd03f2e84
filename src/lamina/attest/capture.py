"""What went into a build: sources with the digests they had, secrets and agents by id, and whether steps had a network.

In: checked graphs, and for each source vertex the `Material` that the op behind it really used. Out: one `Capture`,
sorted, so that the same build always tells the same. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lamina.attest.purl import image_purl
from lamina.llb.definition import Graph, Vertex
from lamina.llb.pb import ops_pb2 as pb
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference


@dataclass(frozen=True, slots=True)
class Material:
    """One source of a build.

    Attributes:
        kind: `image`, `layout` (an image out of an OCI layout), `blob` and `layout-blob` (one blob of these), `git`,
            `http` or `local`.
        where: reference, URL, or name of a directory of the user's.
        digest: `sha256:...`; of a repository the commit; "" for a directory.
        platform: of an image.
    """

    kind: str
    where: str
    digest: str = ""
    platform: Platform | None = None

    def descriptor(self) -> dict[str, Any]:
        """Return the resource descriptor (in-toto: `uri`, `digest`) of what is not a directory."""
        uri = self.where
        if self.kind in ("image", "layout", "blob", "layout-blob"):
            blob = {"ref_type": "blob"} if self.kind.endswith("blob") else {}
            kind = "oci" if self.kind.startswith("layout") else "docker"
            uri = image_purl(self.where, self.platform, kind=kind, **blob)
        found: dict[str, Any] = {"uri": uri}
        if self.kind == "git":
            found["digest"] = {"sha256" if len(self.digest) == 64 else "sha1": self.digest}
        elif self.digest:
            algorithm, _, digits = self.digest.partition(":")
            found["digest"] = {algorithm: digits}
        return found


@dataclass(slots=True)
class Capture:
    """What a result was made of.

    Attributes:
        secrets, ssh: id to whether steps can do without.
        network: some step had one.
        incomplete: something was used that has no digest, or cannot be known.
    """

    materials: list[Material] = field(default_factory=list)
    secrets: dict[str, bool] = field(default_factory=dict)
    ssh: dict[str, bool] = field(default_factory=dict)
    network: bool = False
    incomplete: bool = False

    def add(self, material: Material) -> None:
        """Note a source, once."""
        if material not in self.materials:
            self.materials.append(material)

    @property
    def locals(self) -> list[str]:
        """Names of directories of the user's."""
        return sorted({material.where for material in self.materials if material.kind == "local"})

    def resolved(self) -> list[dict[str, Any]]:
        """Return descriptors of all sources that have a digest: images first, then blobs, repositories, files."""
        ranks = {"image": 0, "layout": 0, "blob": 1, "layout-blob": 1, "git": 2, "http": 3}
        kept = [one for one in without_doubles(self.materials) if one.kind in ranks]
        kept.sort(key=lambda one: (ranks[one.kind], one.where, str(one.platform or ""), one.digest))
        return [one.descriptor() for one in kept]


def capture(graphs: Iterable[Graph], materials: Mapping[str, Material]) -> Capture:
    """Return what graphs were made of.

    Args:
        materials: of source vertices, by digest.
    """
    found = Capture()
    for graph in graphs:
        for vertex in reachable(graph):
            _note(vertex, materials, found)
    return found


def reachable(graph: Graph) -> list[Vertex]:
    """Return the vertices that the target stands on, inputs first and depth first, as BuildKit numbers them."""
    vertices = {vertex.digest: vertex for vertex in graph.vertices}
    found: dict[str, Vertex] = {}
    pending: list[tuple[str, bool]] = [(graph.target[0], False)]
    while pending:
        digest, done = pending.pop()
        if done:
            found[digest] = vertices[digest]
        elif digest not in found:
            pending.append((digest, True))
            pending += [(below, False) for below, _ in reversed(vertices[digest].inputs) if below not in found]
    return list(found.values())


def _note(vertex: Vertex, materials: Mapping[str, Material], found: Capture) -> None:
    kind = vertex.op.WhichOneof("op")
    if kind == "source":
        material = materials.get(vertex.digest)
        if material is None:
            found.incomplete = True
        else:
            found.add(material)
    elif kind == "exec":
        step = vertex.op.exec
        found.network |= step.network != pb.NONE
        for mount in step.mounts:
            if mount.mountType == pb.SECRET:
                _ask(found.secrets, mount.secretOpt.ID, mount.secretOpt.optional)
            elif mount.mountType == pb.SSH:
                _ask(found.ssh, mount.SSHOpt.ID or "default", mount.SSHOpt.optional)
        for secret in step.secretenv:
            _ask(found.secrets, secret.ID, secret.optional)
    elif kind == "build":
        found.incomplete = True


def _ask(known: dict[str, bool], name: str, optional: bool) -> None:
    known[name] = known.get(name, True) and optional


def without_doubles(materials: Sequence[Material]) -> list[Material]:
    """Leave out what is named by digest where the same image is there by its tag."""
    tags = set()
    for one in materials:
        if one.kind == "image" and Reference.parse(one.where, default_tag="").digest is None:
            tags.add(_name(one.where))
    return [
        one
        for one in dict.fromkeys(materials)
        if one.kind != "image"
        or Reference.parse(one.where, default_tag="").digest is None
        or _name(one.where) not in tags
    ]


def _name(text: str) -> str:
    reference = Reference.parse(text, default_tag="")
    return f"{reference.registry}/{reference.repository}:{reference.tag or 'latest'}"
