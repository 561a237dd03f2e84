"""A build under way, recorded and explained: what stands between engine and history.

In: the solver's steps, misses and outcomes; every progress event. Out: the record; for each miss an explanation, which
also goes into the step's events; an error when a step was expected in the cache and is not.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lamina.cache.changes import Explanation, looks_secret, simple
from lamina.engine.options import BuildOptions, BuildResult
from lamina.engine.place import Place
from lamina.errors import CancelledError, Error, InputError
from lamina.history.project import without_credentials
from lamina.history.recorder import Recorder, folder_of
from lamina.progress import Event, Sink
from lamina.solver.protocol import Miss, Outcome, Vertex

if TYPE_CHECKING:
    from lamina.cache.elsewhere import Elsewhere
    from lamina.engine.explaining import Explainer
    from lamina.llb.definition import Graph

_MAX_DOCKERFILE = 64 << 10
# Of a cache only what names it: other attributes may be credentials.
_CACHE_ATTRIBUTES = ("type", "ref", "src", "dest", "mode", "name", "bucket", "region", "scope", "prefix", "container")
_PLAIN_OPTIONS = (
    *("tags", "target", "platforms", "labels", "annotations", "outputs", "push", "load", "pull", "no_cache"),
    *("no_cache_filter", "network", "add_hosts", "shm_size", "ulimits", "hostname", "allow", "cgroup_parent"),
    *("source_date_epoch", "expect_cached", "ca", "exact_modes", "attests"),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """How the steps of a build went: of all `steps`, how many were found, ran, failed; the rest was not reached."""

    steps: int = 0
    cached: int = 0
    ran: int = 0
    failed: int = 0
    warnings: int = 0


class ExpectedCachedError(Error):
    """A step that was expected in the cache would have to run."""


class Recording:
    """Records one build in an open place, and explains its misses. A context manager: leaving it ends the record.

    Args:
        client: what the client of a daemon said of the build, to be found by that again.

    Attributes:
        id: of the record.
        elsewhere: what caches from elsewhere know of steps.
    """

    def __init__(
        self, place: Place, options: BuildOptions, sink: Sink, client: Mapping[str, Any] | None = None
    ) -> None:
        self._place, self._options = place, options
        self._client = {"client": dict(client)} if client else {}
        values = asdict(options)
        described = {**_description(options, values), **self._client}
        self._recorder = Recorder(
            place.state, place.root, place.lease.id, values, sink, described, place.environment.history
        )
        self.id = self._recorder.id
        self._vertices: Mapping[str, Vertex] = {}
        self._outcomes: Sequence[Outcome] = ()
        self._explanations: dict[str, Explanation] = {}
        self._result: dict[str, Any] = {}
        self._beside: dict[str, Any] = {}
        self._lock = threading.Lock()
        self.elsewhere: Elsewhere | None = None

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._recorder.finish(error, self._outcomes, {**self._result, **self._beside})

    def sink(self, event: Event) -> None:
        """Take one progress event into the record and hand it on."""
        self._recorder.sink(event)

    def describe(self, options: BuildOptions) -> None:
        """Say anew what is built."""
        values = asdict(options)
        self._options = options
        self._recorder.describe(values, {**_description(options, values), **self._client})

    @property
    def counted(self) -> int:
        """How many steps have a key."""
        return sum(1 for outcome in self._outcomes if outcome.definition)

    @property
    def figures(self) -> Figures:
        """How the steps that have a key went; complete when nothing is solved any more."""
        keyed = [outcome for outcome in self._outcomes if outcome.definition]
        ran, failed = self._recorder.counts([outcome.vertex.digest for outcome in keyed])
        cached = sum(outcome.cached for outcome in keyed)
        return Figures(len(keyed), cached, ran, failed, self._recorder.warnings)

    @property
    def described(self) -> dict[str, str | tuple[str, ...]]:
        """What a trace tells of the build as a whole."""
        image, client = self._result.get("image") or {}, self._client.get("client") or {}
        return {
            "lamina.build.name": self._recorder.name,
            "lamina.build.ref": str(client.get("ref") or ""),
            "lamina.build.frontend": str(client.get("frontend") or ""),
            "lamina.image.digest": image.get("digest", ""),
            "lamina.image.names": tuple(image.get("names", ())),
        }

    def beside(self, what: str, told: Mapping[str, Any]) -> None:
        """Keep what is told of a file in the record's folder: its `digest`, `size`, and the `kept_bytes` it takes."""
        self._beside[what] = dict(told)
        self._recorder.beside(what, told.get("kept_bytes", 0))

    @property
    def explanations(self) -> tuple[Explanation, ...]:
        """Why each step that ran was not found."""
        return tuple(self._explanations.values())

    def defined(self, graphs: Sequence[Graph]) -> None:
        """Keep the graphs that are about to be solved; the last ones stay."""
        from lamina.engine.definitions import keep_definitions

        try:
            size = keep_definitions(folder_of(self._place.root, self.id), graphs)
        except (ValueError, TypeError):  # a text that protobuf does not take back
            logging.getLogger(__name__).debug("no definition for the record", exc_info=True)
            return
        self._recorder.beside("definition", size)

    def begins(self, vertices: Mapping[str, Vertex]) -> None:
        """Number the steps.

        Raises:
            InputError: a step that is expected in the cache is none of these.
        """
        self._recorder.declare([(digest, vertex.name) for digest, vertex in vertices.items()])
        self._vertices = vertices
        self.__dict__.pop("_explainer", None)
        for text in filter(None, self._options.expect_cached):
            if not any(text in vertex.name for vertex in vertices.values()):
                names = ", ".join(list(dict.fromkeys(vertex.name for vertex in vertices.values()))[:8])
                raise InputError(f"--expect-cached: no step has {text!r} in its name", hint=f"the steps are: {names}")

    @cached_property
    def _explainer(self) -> Explainer:
        """Made at the first miss: a build that finds everything does without."""
        from lamina.engine.explaining import Explainer
        from lamina.history.records import History

        place, recorder = self._place, self._recorder
        history = History(place.state, place.root)
        found = Explainer(place.state, history, recorder.project, recorder.name, self.id, self._options, self.elsewhere)
        found.begins(self._vertices)
        return found

    def missed(self, miss: Miss) -> str:
        """Explain a miss and note it; return the sentence.

        Raises:
            ExpectedCachedError: it was not to happen.
        """
        found = self._explain(miss)
        self._explanations[miss.vertex.digest] = found
        self._recorder.missed(miss.vertex.digest, miss.definition, miss.exact, found.to_json())
        if any(text in miss.vertex.name for text in self._options.expect_cached):
            hint = f"`lamina why {self.id}` shows all that is known about it"
            what = f"{miss.vertex.name} was expected in the cache: {found.sentence}"
            raise ExpectedCachedError(what, source=miss.vertex.source, hint=hint)
        return found.sentence

    def ends(self, outcomes: Sequence[Outcome]) -> None:
        """Keep how the steps went; one that ran in an earlier solve of the build is not cached because it is there."""
        known = {outcome.vertex.digest: outcome for outcome in self._outcomes}
        for outcome in outcomes:
            before = known.get(outcome.vertex.digest)
            if before is None or before.cached or not before.canon:
                known[outcome.vertex.digest] = outcome
        self._outcomes = list(known.values())

    def succeeded(self, result: BuildResult) -> None:
        """Keep what came out."""
        self._result = {
            "image": {"digest": result.digest, "config": result.config_digest, "names": list(result.names)},
            "metadata": result.metadata,
            "findings": list(result.warnings),
        }

    def _explain(self, miss: Miss) -> Explanation:
        """Explain a miss; whatever is wrong with the records costs the explanation, not the build."""
        try:
            with self._lock:
                explainer = self._explainer
            return explainer.explain(miss, self._place.cancel)
        except CancelledError:
            raise
        except Exception:
            logging.getLogger(__name__).debug("no explanation for %s", miss.vertex.name, exc_info=True)
            return simple(miss.vertex.name, "unknown", "the records of earlier builds do not tell why")


def _named_cache(text: str) -> str:
    """Return a `--cache-from` or `--cache-to` without what may be a secret."""
    words = [word for word in text.split(",") if "=" not in word or word.partition("=")[0] in _CACHE_ATTRIBUTES]
    return without_credentials(",".join(words))


def argument(name: str, value: str) -> str:
    """Return an argument's value for the record; of one that looks like a secret nothing is kept."""
    return "(hidden)" if looks_secret(name) or ("://" in value and "@" in value) else value[:1000]


def _description(options: BuildOptions, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the record tells of a build's options: no secret, no credentials."""
    dockerfile = options.dockerfile[:_MAX_DOCKERFILE].decode("utf-8", "replace")
    return {
        "dockerfile": {"name": options.dockerfile_name, "text": dockerfile},
        "options": {name: values[name] for name in _PLAIN_OPTIONS if values[name]},
        "build_args": {name: argument(name, value) for name, value in sorted(options.build_args.items())},
        "caches": {
            name: [_named_cache(text) for text in values[name]] for name in ("cache_from", "cache_to") if values[name]
        },
        "build_contexts": {name: without_credentials(text) for name, text in options.build_contexts.items()},
    }
