"""Why a step was not found in the cache: which record to compare it with, and what that comes to.

In: a miss (what its keys are made of), the builds before of the same project. Out: an `Explanation`. What to compare
with is the same step of the last build that got that far (`lamina.cache.align`); where a key below differs, the way
goes down until it finds the step in which the difference began.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from lamina.cache.align import Match, align, split_title
from lamina.cache.changes import (
    Change,
    Explanation,
    below,
    below_change,
    clip,
    explanation,
    looks_secret,
    simple,
    told_value,
)
from lamina.cache.compare_files import modes_aside
from lamina.cache.elsewhere import Elsewhere
from lamina.cache.explain import compare
from lamina.cache.facts import Facts, Pruned, facts_of, find_facts, find_like, find_pruned
from lamina.cache.listing import Row, find_listing, keep_listing
from lamina.cancel import Cancel
from lamina.engine.options import BuildOptions
from lamina.history.records import Build, History, Step
from lamina.solver.protocol import Listing, Miss, Vertex
from lamina.state.db import State

_MOST_DEEP = 200


@dataclass(frozen=True, slots=True)
class Past:
    """One earlier build and which of its steps the new ones were."""

    build: Build
    steps: list[Step]
    matches: Mapping[int, Match]

    def step(self, number: int) -> tuple[Step, Match] | None:
        """Return what the new step of this number was."""
        match = self.matches.get(number)
        return (self.steps[match.old], match) if match is not None else None

    def is_like(self, names: Sequence[str]) -> bool:
        """Tell whether at least half of the new steps were in this build, so that it may be the same project."""
        same = sum(names[number] == self.steps[match.old].name for number, match in self.matches.items())
        return 2 * same >= sum(not name.startswith("[internal]") for name in names)


class Explainer:
    """Explains the misses of one build. Thread-safe after `begins`.

    Args:
        project, name: under which earlier builds are found.
        build: id of this build.
        elsewhere: what the caches from elsewhere know; None without any.
    """

    def __init__(
        self,
        state: State,
        history: History,
        project: str,
        name: str,
        build: str,
        options: BuildOptions,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._elsewhere = elsewhere
        self._state, self._history = state, history
        self._project, self._name, self._build = project, name, build
        self._options = options
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._explained: dict[str, Explanation] = {}

    def begins(self, vertices: Mapping[str, Vertex]) -> None:
        """Take the steps of the build, inputs first."""
        self._names = [vertex.name for vertex in vertices.values()]
        self._numbers = {digest: number for number, digest in enumerate(vertices)}
        self._explained = {}
        self.__dict__.pop("_past", None)

    def explain(self, miss: Miss, cancel: Cancel) -> Explanation:
        """Return why this step was not found, and note what its content keys were made of.

        What it stands on was explained before.
        """
        self._keep_lists(miss, cancel)
        found = self._explain(miss)
        self._explained[miss.vertex.digest] = found
        return found

    def last_time(self, vertex: Vertex) -> float | None:
        """Return how many seconds the step took when it ran last, None when nobody knows."""
        for past in self._past:
            known = past.step(self._numbers[vertex.digest])
            if known is None:
                continue
            step = known[0]
            if not step.cached and step.completed is not None and not step.error:
                return step.seconds
            facts = find_facts(self._state, step.canon, step.exact, step.definition)
            if facts is not None and facts.seconds:
                return facts.seconds
        like = find_like(self._state, vertex.name)
        return like.seconds if like is not None else None

    @cached_property
    def _past(self) -> list[Past]:
        """Earlier builds that made keys, newest first."""
        found = []
        for build in self._history.past(self._project, self._name, self._build):
            steps = [step for step in self._history.steps(build) if step.definition]
            if not steps:
                continue
            past = Past(build, steps, align([step.name for step in steps], self._names))
            if build.project == self._project or past.is_like(self._names):
                found.append(past)
        return found

    def _explain(self, miss: Miss) -> Explanation:
        name = miss.vertex.name
        if miss.vertex.ignore_cache:
            return simple(name, "no-cache", f"it runs again as asked ({self._who_asked(name)})")
        if (pruned := find_pruned(self._state, miss.exact)) is not None:
            return simple(name, "pruned", _pruned_sentence(pruned))
        if not self._past:
            return self._first(miss)
        unreached: Build | None = None
        for past in self._past:
            known = past.step(self._numbers[miss.vertex.digest])
            if known is None:
                continue
            step, match = known
            if miss.exact in (step.exact, step.canon) and (told := self._same_key(name, step, past.build)):
                return told
            facts = find_facts(self._state, step.canon, step.exact, step.definition)
            if facts is not None:
                return self._compare(miss, facts, past, match)
            unreached = unreached or (past.build if not step.completed and not step.cached else None)
        if unreached is not None:
            ended = _ENDED.get(unreached.status, "ended")
            sentence = f"it never ran: build {unreached.id} {ended} before it came to it"
            return simple(name, "failed", sentence, unreached.id)
        return simple(name, "new", "this step is new", self._past[0].build.id)

    def _who_asked(self, name: str) -> str:
        if self._options.no_cache:
            return "--no-cache"
        stage = split_title(name)[0]
        if any(text.lower() in stage.lower().split() for text in self._options.no_cache_filter):
            return f"--no-cache-filter {stage}"
        return "its definition says so"

    def _first(self, miss: Miss) -> Explanation:
        name = miss.vertex.name
        if (told := self._by_caches(miss)) is not None:
            return told
        sentence = "no record: this is the first build of this project here"
        like = find_like(self._state, name)
        if like is None:
            return simple(name, "first", sentence)
        new = facts_of(name, miss.parts, canon=miss.exact)
        changes = [change for change in compare(like, new, self._lists) if change.kind != "below"]
        if not changes:
            return simple(name, "first", sentence)
        told = explanation(name, changes)
        sentence += f"; the same step of another one differs: {told.sentence}"
        return Explanation(name, sentence, "first", name, sentence, told.changes)

    def _by_caches(self, miss: Miss) -> Explanation | None:
        """Compare with the same step as the caches from elsewhere know it; None when none does, or nothing differs."""
        name = miss.vertex.name
        found = self._elsewhere.like(name, miss.parts) if self._elsewhere is not None else None
        if found is None:
            return None
        old, where = found
        changes = compare(old, facts_of(name, miss.parts, canon=miss.exact), self._lists)
        own = [change for change in changes if change.kind != "below"]
        below_it = [miss.vertex.inputs[int(change.what)][0] for change in changes if change.kind == "below"]
        roots = [self._explained[digest] for digest in below_it if digest in self._explained]
        if own:
            told = explanation(name, [*own, *(below_change(root, ran=True) for root in roots)])
        elif roots:
            told = below(name, roots[0], [below_change(root, ran=True) for root in roots[1:]], ran=True)
        else:
            return None
        return replace(told, sentence=f"{told.sentence} (first build here; compared with the cache from {where})")

    def _same_key(self, name: str, step: Step, build: Build) -> Explanation | None:
        """Explain why a key that a build before made leads to nothing; None when it did not get to run."""
        if step.status in ("cancelled", "killed", "running"):
            ended = "is running it" if step.status == "running" else f"was {step.status} while it ran"
            return simple(name, "cancelled", f"it did not finish: build {build.id} {ended}", build.id)
        if step.error:
            sentence = f"it failed in build {build.id}: {clip(step.error, 120)}"
            return simple(name, "failed", sentence, build.id)
        if step.cached or step.completed is not None:
            return simple(name, "gone", f"the result of build {build.id} is not in the store any more", build.id)
        return None

    def _keep_lists(self, miss: Miss, cancel: Cancel) -> None:
        op = miss.vertex.op
        if not isinstance(op, Listing):
            return
        for number, counted in enumerate(miss.inputs):
            if counted.kind == "content":
                keep_listing(self._state, counted.value, op.listing(number, miss.results[number], cancel))

    # -- comparing

    def _lists(self, digest: str) -> tuple[Row, ...] | None:
        rows = find_listing(self._state, digest)
        return self._elsewhere.rows(digest) if rows is None and self._elsewhere is not None else rows

    def _compare(self, miss: Miss, old: Facts, past: Past, match: Match) -> Explanation:
        """Compare a miss with the record of the step it was; follow what is below it to where it began."""
        name, build = miss.vertex.name, past.build.id
        new = facts_of(name, miss.parts, canon=miss.exact)
        changes = compare(old, new, self._lists)
        own = [self._with_argument(change, past.build) for change in changes if change.kind != "below"]
        own = self._with_modes(own, past.build)
        lower = [self._below(change, miss, past) for change in changes if change.kind == "below"]
        if match.moved and not own:
            return simple(name, "moved", "the order of the steps changed", build)
        if own:
            rest = [below_change(root, ran=ran) for root, ran in lower]
            found = explanation(name, [*own, *rest], build)
        elif lower:
            (root, ran), *others = lower
            rest = [below_change(other, ran=also) for other, also in others]
            found = below(name, root, rest, ran=ran, compared=build)
        else:
            found = self._unknown(name, old, new, build)
        if past.build.project != self._project:
            where = past.build.record.get("context", "")
            sentence = f"{found.sentence} (first build here; compared with the one in {where})"
            found = replace(found, sentence=sentence)
        return found

    def _with_argument(self, change: Change, before: Build) -> Change:
        """Name the build argument that a changed path, owner or the like comes from, when one was given another value.

        The graph has values put in already; what was given to both builds tells where they came from.
        """
        given = before.record.get("build_args")
        if change.kind not in ("source", "field") or not isinstance(given, dict):
            return change
        for name, value in self._options.build_args.items():
            old = given.get(name, "")
            if old != value and value in change.new and old in change.old and not looks_secret(name):
                was = told_value(name, old) if name in given else "not given"
                sentence = f"{change.sentence} (build argument {name}: {was} -> {told_value(name, value)})"
                return replace(change, sentence=sentence)
        return change

    def _with_modes(self, changes: list[Change], before: Build) -> list[Change]:
        """Name `--exact-modes` where only one of the two builds was asked for it: then all content keys differ."""
        options = before.record.get("options")
        exact = self._options.exact_modes
        if exact == bool(isinstance(options, dict) and options.get("exact_modes")):
            return changes
        found: list[Change] = []
        for change in changes:
            found += modes_aside(change, exact=exact) if change.kind == "files" else [change]
        return list(dict.fromkeys(found))

    def _below(self, change: Change, miss: Miss, past: Past) -> tuple[Explanation, bool]:
        """Return why an input is not what it was, and whether it ran in this build."""
        digest = miss.vertex.inputs[int(change.what)][0]
        name = self._names[self._numbers[digest]]
        if (told := self._explained.get(digest)) is not None:
            return told, True
        before = [step for step in past.steps if step.canon == change.old]
        if any(step.canon == change.new for step in past.steps):
            # both stood there in the build before: steps were taken away, or stand in another order
            matched = {match.old for match in past.matches.values()}
            gone = [step for number, step in enumerate(past.steps) if step in before and number not in matched]
            if gone:
                return simple(name, "removed", f'"{clip(gone[0].name)}" below it was removed'), False
            return simple(name, "moved", f'it stands on "{clip(name)}" now: the order of the steps changed'), False
        return self._descend(name, change.old, change.new), False

    def _descend(self, name: str, old_key: str, new_key: str) -> Explanation:
        """Find where two records of the same step began to differ, both being in the store."""
        for _ in range(_MOST_DEEP):
            old, new = find_facts(self._state, old_key), find_facts(self._state, new_key)
            if old is None or new is None:
                return simple(name, "unknown", "its earlier record is gone")
            changes = compare(old, new, self._lists)
            own = [change for change in changes if change.kind != "below"]
            if own:
                return explanation(new.name, own)
            if not changes:
                return simple(new.name, "unknown", "it was made anew in between")
            old_key, new_key, name = changes[0].old, changes[0].new, changes[0].sentence
        return simple(name, "unknown", "the steps below differ")

    def _unknown(self, name: str, old: Facts, new: Facts, build: str) -> Explanation:
        """Return what to say when the keys differ but nothing that is recorded does."""
        if len(old.inputs) != len(new.inputs):
            return simple(name, "other", "it has other inputs", build)
        return simple(name, "other", "its definition changed in a way that the records do not tell", build)


_ENDED = {"failed": "failed", "cancelled": "was cancelled", "died": "was killed", "running": "has not yet come"}


def _pruned_sentence(pruned: Pruned) -> str:
    at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(pruned.at))
    return f"no record: the last one was dropped by {pruned.rule} at {at}"
