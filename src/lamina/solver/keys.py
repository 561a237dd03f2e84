"""How cache keys are made. Pure and deterministic: two empty stores derive equal keys.

A key is H(version, op digest, for each input: how it counts). Nothing of a machine, a time or a row enters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

VERSION = "lamina.key.v2"


def make_key(op_digest: str, inputs: Iterable[Sequence[str]]) -> str:
    """Return the key of an op over its inputs' contributions (tuples of text).

    Every piece of text is prefixed with its length, so that no two lists run into each other.
    """
    state = hashlib.sha256()
    for part in ((VERSION, op_digest), *inputs):
        state.update(b"%d;" % len(part))
        for text in part:
            data = text.encode("utf-8", "surrogateescape")
            state.update(b"%d:" % len(data))
            state.update(data)
    return "sha256:" + state.hexdigest()


def contribution(kind: str, value: str, output: int, selector: str) -> tuple[str, str, str, str]:
    """Return what one input adds: `kind` is "key" for an identity, "content" for a digest of what is read."""
    return (kind, value, str(output), selector)


def fresh_canon(canon: str, run: str) -> str:
    """Return the canonical key of a result made anew although `canon` may be known: `run` makes it different."""
    return make_key(canon, [("fresh", run)])
