"""Attestations of one build: what is asked for becomes graphs to solve beside the result, and values for exporters.

In: the request, what frontends returned, what the solver used. Out: `Attestation`s on what was built. Contents are made
when an exporter asks, once for all outputs: by then layers have blobs and the build has ended. Nothing is told that was
not used; what is secret is blanked (`lamina.attest.hide`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from lamina import __version__
from lamina.attest.bundle import Bundle, refuse_provenance, unbundle
from lamina.attest.capture import Capture, Material, capture
from lamina.attest.hide import Hiding
from lamina.attest.predicate import Facts, Invocation, missing_digests, predicate
from lamina.attest.request import AttestRequest, ProvenanceRequest, SbomRequest, parse_request
from lamina.attest.scan import CORE, Generator, scan_graph
from lamina.attest.values import (
    BUNDLE,
    MAX_BYTES,
    PROVENANCE_REASON,
    SBOM_REASON,
    SLSA,
    SPDX,
    Attestation,
    Subject,
)
from lamina.cache.changes import looks_secret
from lamina.errors import InputError
from lamina.llb.definition import Graph
from lamina.oci.platform import Platform, host_platform

if TYPE_CHECKING:
    from lamina.engine.job import Job, Wanted
    from lamina.engine.outputs import Built
    from lamina.snapshot.rows import LayerRef


@dataclass(frozen=True, slots=True)
class Given:
    """An attestation that a frontend returned: files of a graph's result.

    Attributes:
        kind: see `lamina.attest.values`.
        graph: None where there is nothing.
        path: of the file, or the bundle's directory.
    """

    kind: int
    graph: Graph | None
    path: str
    predicate_type: str = ""
    reason: str = ""
    inline_only: bool = False
    core: str = ""
    subjects: tuple[Subject, ...] = ()


@dataclass(frozen=True, slots=True)
class _Part:
    """A graph solved for attestations: whose it is, and how to read it."""

    platform: Platform
    given: Given
    graph: Graph = field(repr=False)


class Attesting:
    """Makes the attestations of a job's result.

    Raises:
        InputError: what is asked for, or what a frontend returned, makes no sense.
    """

    def __init__(self, job: Job, wanted: Sequence[Wanted]) -> None:
        self._job, self._wanted = job, tuple(wanted)
        self._asked: AttestRequest = parse_request(job.options.attests)
        self._parts = list(self._all_parts())

    @property
    def graphs(self) -> list[Graph]:
        """What is to be solved beside the result."""
        return [part.graph for part in self._parts]

    def attach(self, built: Sequence[Built], solved: Sequence[LayerRef]) -> None:
        """Give what was built its attestations.

        Args:
            solved: of `graphs`, in their order.
        """
        for one, of in zip(built, self._wanted, strict=True):
            found: list[Attestation] = []
            for part, ref in zip(self._parts, solved, strict=True):
                if part.platform == of.platform:
                    found += [self._supplemented(said, one.ref) for said in self._read(part.given, ref)]
            if self._asked.provenance is not None:
                found.append(self._provenance(of, self._asked.provenance))
            one.attestations = tuple(found)

    # -- SBOMs and what frontends bring

    def _all_parts(self) -> Iterator[_Part]:
        for one in self._wanted:
            for given in one.given:
                if given.kind != BUNDLE:
                    refuse_provenance(given.predicate_type)
                    if given.path.rpartition("/")[2] in ("", ".", ".."):
                        raise InputError("a frontend returned an attestation without a file's path")
                if given.graph is None:
                    raise InputError(f"a frontend returned an attestation without content: {given.path[:200]!r}")
                yield _Part(one.platform, given, self._job.gate.admit(given.graph))
        sbom = self._asked.sbom
        has = any(given.predicate_type == SPDX for one in self._wanted for given in one.given)
        if sbom is not None and not has:
            yield from self._scans(sbom)

    def _scans(self, sbom: SbomRequest) -> Iterator[_Part]:
        platform = host_platform()
        base = self._job.resolve(sbom.generator, platform)
        generator = Generator(base.reference, base.config, platform, sbom.parameters)
        for one in self._wanted:
            if one.graph is not None:
                fresh = self._job.options.no_cache
                graph = scan_graph(generator, one.graph, one.extras, str(one.platform), ignore_cache=fresh)
                graph = self._job.gate.admit(graph)
                yield _Part(one.platform, Given(BUNDLE, graph, "", SPDX, SBOM_REASON, core=CORE), graph)

    def _read(self, given: Given, ref: LayerRef) -> list[Attestation]:
        if given.kind == BUNDLE:
            bundle = Bundle(given.predicate_type, given.reason, given.inline_only, given.core)
            return unbundle(bundle, self._files(ref, given.path))
        name = given.path.rpartition("/")[2]
        data = self._file(ref, given.path)
        content = partial(bytes, data)
        return [
            Attestation(
                given.predicate_type, name, content, given.reason, given.inline_only, given.core, given.subjects
            )
        ]

    def _supplemented(self, said: Attestation, result: LayerRef) -> Attestation:
        """Return the result's own SBOM with the layers that brought its files; any other attestation as it is."""
        if said.predicate_type != SPDX or not said.core or said.path.partition(".")[0] != said.core:
            return said
        from lamina.attest.spdx import with_layers

        @cache
        def content() -> bytes:
            layers, cancel = self._job.place.layers, self._job.cancel
            rows = layers.rows.chain(result.layer)
            union = layers.union(result, cancel)

            def layer_of(path: str) -> str | None:
                number = union.found_in(path)
                return rows[number].blob if number >= 0 else None

            return with_layers(said.content(), layer_of, f"lamina-{__version__}")

        return replace(said, content=content)

    def _files(self, ref: LayerRef, path: str) -> Iterator[tuple[str, bytes]]:
        """Yield (name, content) of what lies in a directory of a result."""
        view = self._job.place.layers.view(ref, self._job.cancel)
        directory = view.resolve(path, True)
        for name in sorted(view.children(directory)):
            yield name, self._file(ref, f"{directory}/{name}")

    def _file(self, ref: LayerRef, path: str) -> bytes:
        from lamina.exporter.files_out import read_content

        view = self._job.place.layers.view(ref, self._job.cancel)
        entry = view.lookup(view.resolve(path, True))
        if entry is None or entry.kind != "f":
            raise InputError(f"the attestation {path[:200]!r} is not a file")
        if entry.size > MAX_BYTES:
            raise InputError(f"the attestation {path[:200]!r} has more than {MAX_BYTES >> 20} MiB")
        return b"".join(read_content(view.content(entry), entry, self._job.cancel))

    # -- provenance

    def _provenance(self, of: Wanted, asked: ProvenanceRequest) -> Attestation:
        seen = self._capture(of)
        if asked.complete and (seen.incomplete or seen.locals):
            names = ", ".join(one.where for one in missing_digests(seen))
            what = "the provenance cannot be complete: something the build used has no digest"
            raise InputError(what, hint=f"directories of yours have none: {names}" if names else "")

        @cache
        def content() -> bytes:
            return json.dumps(predicate(self._facts(of, seen), asked), ensure_ascii=False).encode()

        return Attestation(SLSA + asked.version, asked.filename, content, PROVENANCE_REASON, asked.inline_only)

    def _capture(self, of: Wanted) -> Capture:
        """Return what went into one platform's result: its graph, and what frontends read on the way to it."""
        job = self._job
        materials = job.solver.materials()
        others = [one.graph for one in self._wanted if one is not of and one.graph is not None]
        skip = {graph.target for graph in (*others, *self.graphs)}
        before = [graph for target, graph in job.solver.graphs.items() if target not in skip]
        seen = capture([*([of.graph] if of.graph is not None else []), *before], materials)
        if job.options.origin_materials:  # the directory is what was brought from there
            seen.materials = [one for one in seen.materials if (one.kind, one.where) != ("local", "context")]
        for material in (*job.materials, *_for_platform(job.resolve.images, of.platform, self._platforms)):
            seen.add(material)
        seen.materials = [_as_written(one, job.resolve.pins) for one in seen.materials]
        return seen

    @property
    def _platforms(self) -> list[Platform]:
        return [one.platform for one in self._wanted]

    def _facts(self, of: Wanted, seen: Capture) -> Facts:
        from lamina.engine.outputs import timestamp

        job = self._job
        invocation = of.invocation or job.invocation or Invocation()
        args = {**(of.root.args if of.root else {}), **invocation.args}
        secret = [
            value
            for name, value in args.items()
            if name.startswith("build-arg:") and looks_secret(name.partition(":")[2])
        ]
        hiding = Hiding(secret)
        return Facts(
            invocation=invocation,
            root=of.root,
            capture=seen,
            graph=of.graph,
            builder=host_platform(),
            id=job.recording.id,
            started=timestamp(job.started),
            finished=timestamp(time.time()),
            hiding=hiding,
            arguments_hidden=any(hiding.text(value) != value for value in args.values()),
            versions={"lamina": __version__},
            layers=self._layers,
        )

    def _layers(self, digest: str) -> Mapping[int, list[dict[str, Any]]]:
        """Return the descriptors of the layers of a vertex's results, of those that have blobs."""
        found = {}
        for output, ref in self._job.solver.results_of(digest).items():
            rows = self._job.place.layers.rows.chain(ref.layer)
            descriptors = [row.descriptor() for row in rows]
            kept = [descriptor.to_json() for descriptor in descriptors if descriptor is not None]
            if kept and len(kept) == len(rows):
                found[output] = kept
        return found


def _for_platform(images: Iterable[Material], platform: Platform, platforms: Sequence[Platform]) -> Iterator[Material]:
    """Yield the images that were looked up for this platform; those for others too where not all have been asked for.

    An image whose config is read for each platform of the result belongs to one of them; a helper's image, to all.
    """
    images = list(images)
    for one in images:
        asked = {other.platform for other in images if other.where == one.where}
        if one.platform == platform or not asked.issuperset(platforms):
            yield one


def _as_written(material: Material, pins: Mapping[str, tuple[str, str]]) -> Material:
    """Return an image under the name that was written: a tag stays one, though the graph has its digest as well."""
    name, at, _ = material.where.partition("@")
    if material.kind == "image" and at and name in pins:
        return Material(material.kind, name, material.digest, material.platform)
    return material
