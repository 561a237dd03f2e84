"""What a frontend gets and gives back: references to file systems, and the result made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from lamina.engine.job import Job
from lamina.llb.definition import Graph, load_definition
from lamina.llb.pb import ops_pb2 as pb
from lamina.policy.values import Policy
from lamina.snapshot.rows import LayerRef

CONFIG = "containerimage.config"
"""Metadata: the image config; followed by "/" and the platform's key where there are several."""
PLATFORMS = "refs.platforms"
"""Metadata: JSON that tells which platform each of several references is for."""


class Ref:
    """The file system a definition stands for. Nothing is solved before somebody looks at it.

    Args:
        policies: of the frontend whose definition it is, beside those of the build.

    Attributes:
        scanned: other file systems that SBOMs shall speak of, by name.
        asked: name and options of the frontend that returned it, None while none has.

    Raises:
        InputError: the definition is not one; by `graph`: a policy denies one of its sources.
    """

    def __init__(self, definition: pb.Definition, job: Job, policies: Sequence[Policy] = ()) -> None:
        self.definition = definition
        self._job, self._policies = job, tuple(policies)
        self.scanned: dict[str, Graph] = {}
        self.asked: tuple[str, Mapping[str, str]] | None = None
        self._loaded: Graph = load_definition(definition)

    @cached_property
    def graph(self) -> Graph:
        """The definition's graph, with the sources that policies let it have."""
        return self._job.gate.admit(self._loaded, self._policies)

    @cached_property
    def layers(self) -> LayerRef:
        """The solved file system."""
        return self._job.solve([self.graph])[0]


@dataclass(slots=True)
class Attestation:
    """A statement that a frontend adds to its result.

    Attributes:
        kind: 0 an in-toto predicate, 1 a bundle of statements in a directory.
        ref, path: where it lies; `metadata` besides (`reason`, ...).
        predicate_type: of the predicate.
        subjects: (kind, name, digests).
    """

    kind: int
    ref: Ref | None
    path: str
    predicate_type: str
    metadata: Mapping[str, bytes] = field(default_factory=dict)
    subjects: tuple[tuple[int, str, tuple[str, ...]], ...] = ()


@dataclass(slots=True)
class Result:
    """What a frontend returns: one reference, or one for each platform (by its key), and metadata."""

    ref: Ref | None = None
    refs: dict[str, Ref | None] = field(default_factory=dict)
    metadata: dict[str, bytes] = field(default_factory=dict)
    attestations: dict[str, list[Attestation]] = field(default_factory=dict)

    def each(self) -> list[Ref]:
        """Return all references that are not empty."""
        found = [*self.refs.values(), self.ref]
        return [ref for ref in found if ref is not None]
