"""Through which every source of a build goes before it is looked up: policies judge it, and who else was asked to.

In: policies of the build, of its builder's owner and of frontends; a client that judges (`Gate.ask`). Out: sources that
may be used, some of them others than were asked for. What was judged once in a build is not judged again.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lamina.policy.values import Policy, Source

if TYPE_CHECKING:
    from lamina.engine.options import BuildOptions
    from lamina.llb.definition import Graph
    from lamina.oci.platform import Platform

Verdict = tuple[Source, bool]
Ask = Callable[[Source, "Platform | None"], Verdict]
"""Judges a source that policies let pass: what is to be used, and whether policies shall judge that again. Raises."""
_MAX_ANSWERS = 10


class Gate:
    """Judges the sources of one build. Thread-safe.

    Attributes:
        policies: in the order in which they are asked.
        ask: is asked last; None for nobody.
    """

    def __init__(self, policies: Sequence[Policy] = ()) -> None:
        self.policies = tuple(policies)
        self.ask: Ask | None = None
        self._known: dict[tuple[Any, ...], tuple[Source, tuple[Policy, ...]]] = {}
        self._guard = threading.Lock()

    def judge(self, source: Source, platform: Platform | None = None, extra: Sequence[Policy] = ()) -> Source:
        """Return what is to be used in the place of a source.

        Args:
            extra: policies of the frontend that asks.

        Raises:
            SourceDeniedError: it may not be used; PolicyError: that cannot be judged.
        """
        from lamina.policy.normal import normal_source

        source = normal_source(source)
        if not (self.policies or extra or self.ask):
            return source
        key = (source.identifier, tuple(sorted(source.attrs.items())), str(platform), tuple(map(id, extra)))
        with self._guard:
            found = self._known.get(key)
        if found is None:
            known = self._judge(source, platform, (*self.policies, *extra))
            settled = (known.identifier, tuple(sorted(known.attrs.items())), *key[2:])
            with self._guard:
                # the policies are held, too: their ids are theirs as long as they live
                found = self._known[key] = self._known[settled] = (known, tuple(extra))
        return found[0]

    def _judge(self, source: Source, platform: Platform | None, policies: Sequence[Policy]) -> Source:
        from lamina.policy.evaluate import evaluate
        from lamina.policy.normal import normal_source
        from lamina.policy.values import PolicyError

        first = source
        for _ in range(_MAX_ANSWERS):
            source = evaluate(policies, source)
            if self.ask is None:
                return source
            source, again = self.ask(source, platform)
            if not again:
                return source
            source = normal_source(source)
        raise PolicyError(f"source {first.shown!r} is converted again and again by the client", denied=first.shown)

    @property
    def mark(self) -> str:
        """Tells results that depend on what was judged inside them from those of other policies; "" without any."""
        if self.ask is not None:
            return uuid.uuid4().hex  # nobody knows what a client will say the next time
        if not self.policies:
            return ""
        return hashlib.sha256(repr([policy.rules for policy in self.policies]).encode()).hexdigest()

    def admit(self, graph: Graph, extra: Sequence[Policy] = ()) -> Graph:
        """Return a graph with the sources that are to be used; itself where nothing is converted.

        Raises:
            SourceDeniedError: one may not be used; with the lines it comes from.
        """
        if not (self.policies or extra or self.ask):
            return graph
        from lamina.ops.source import platform_of
        from lamina.policy.rewrite import source_of, with_sources

        return with_sources(graph, lambda op: self.judge(source_of(op), platform_of(op), extra))


def open_gate(options: BuildOptions, given: Sequence[Policy] = ()) -> Gate:
    """Return the gate of a build; `given` policies are asked before those of its options.

    Raises:
        InputError: a policy of the options is none.
    """
    if not options.source_policies:
        return Gate(given)
    from lamina.policy.read import parse_policy

    return Gate([*given, *(parse_policy(text, name) for name, text in options.source_policies)])
