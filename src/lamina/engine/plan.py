"""`lamina plan`: what a build would run, from which cache the rest comes, how long that took last time. Runs nothing.

The way of a build up to its keys: parse, convert (metadata of images is asked for), open the context, look keys up. No
layer is pulled; what cannot be known without one is "perhaps".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lamina.cache.changes import Explanation
from lamina.cancel import Cancel
from lamina.dockerfile.convert import convert
from lamina.dockerfile.parser import parse
from lamina.dockerfile.syntax import check_syntax
from lamina.engine.build import convert_options, wanted_platforms
from lamina.engine.caches import open_caches
from lamina.engine.explaining import Explainer
from lamina.engine.gate import open_gate
from lamina.engine.options import BuildOptions, Environment
from lamina.engine.place import Place
from lamina.engine.resolve import Resolver
from lamina.engine.solve import Solver, SolveSettings, entitlements
from lamina.history.project import project_hash, project_name
from lamina.history.records import History
from lamina.llb.definition import load_definition
from lamina.progress import Sink, discard
from lamina.session import Session
from lamina.solver.planner import Planned


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """What would become of one step.

    Attributes:
        status: "cached", "run" or "perhaps" (the files of a step before it decide).
        origin: where a cached result is: "local", or the cache it would come from.
        seconds: how long it took when it ran last; None when it is cached or nobody knows.
        why: why it would run.
    """

    name: str
    status: str
    origin: str
    seconds: float | None
    why: Explanation | None

    def to_json(self) -> dict[str, Any]:
        """Return the step as a JSON object."""
        return {
            "name": self.name,
            "status": self.status,
            "from": self.origin,
            "seconds": self.seconds,
            "why": self.why.to_json() if self.why is not None else None,
        }


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What a build would do.

    Attributes:
        expected_s: how long the steps that run take, those beside one another counted once, by last time's numbers.
        at_most_s: the same with the steps that perhaps run.
        unknown: how many of them have no number from last time.
    """

    steps: tuple[PlannedStep, ...]
    expected_s: float
    at_most_s: float
    unknown: int

    def to_json(self) -> dict[str, Any]:
        """Return the plan as a JSON object."""
        return {
            "steps": [step.to_json() for step in self.steps],
            "expected_seconds": round(self.expected_s, 3),
            "at_most_seconds": round(self.at_most_s, 3),
            "unknown": self.unknown,
        }


def plan(
    options: BuildOptions, session: Session, environment: Environment, cancel: Cancel, sink: Sink = discard
) -> BuildPlan:
    """Return what a build with these options would do.

    Raises:
        Error: what would keep the build from beginning.
    """
    platforms = wanted_platforms(options)
    check_syntax(options.dockerfile, options.dockerfile_name, options.build_args)
    dockerfile = parse(options.dockerfile, options.dockerfile_name)
    place = Place(
        environment, cancel, credentials=session.credentials, platform=platforms[0], pull=options.pull, fetch=False
    )
    with place:
        gate = open_gate(options)
        resolve = Resolver(place, cancel, sink, gate)
        converted = [convert(dockerfile, convert_options(options, platform), resolve) for platform in platforms]
        graphs = [gate.admit(load_definition(one.definition)) for one in converted]
        settings = SolveSettings(allow=entitlements(options), gate=gate)
        with (
            open_caches(place, replace(options, cache_to=[]), sink) as caches,
            Solver(place, session, sink, settings, caches) as solver,
        ):
            planned = solver.plan(graphs)
            return _told(planned, _explainer(place, options, planned), cancel)


def _explainer(place: Place, options: BuildOptions, planned: Sequence[Planned]) -> Explainer:
    values = asdict(options)
    history = History(place.state, place.root)
    explainer = Explainer(place.state, history, project_hash(values), project_name(values), "", options)
    explainer.begins({item.vertex.digest: item.vertex for item in planned})
    return explainer


def _told(planned: Sequence[Planned], explainer: Explainer, cancel: Cancel) -> BuildPlan:
    """Add reasons and times."""
    steps: list[PlannedStep] = []
    sure: dict[str, float] = {}
    most: dict[str, float] = {}
    unknown = 0
    for item in planned:
        vertex = item.vertex
        why = explainer.explain(item.miss, cancel) if item.miss is not None else None
        seconds = explainer.last_time(vertex) if item.status in ("run", "perhaps") else None
        unknown += seconds is None and item.status in ("run", "perhaps")
        own = seconds or 0.0
        below = [digest for digest, _ in vertex.inputs]
        sure[vertex.digest] = max((sure[d] for d in below), default=0.0) + (own if item.status == "run" else 0.0)
        most[vertex.digest] = max((most[d] for d in below), default=0.0) + own
        if item.status != "live":
            origin = (item.origin or "local") if item.status == "cached" else ""
            steps.append(PlannedStep(vertex.name, item.status, origin, seconds, why))
    return BuildPlan(tuple(steps), max(sure.values(), default=0.0), max(most.values(), default=0.0), unknown)
