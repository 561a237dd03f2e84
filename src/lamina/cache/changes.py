"""What can be told about a miss: changes, and the explanation that they add up to. Values and their wording, pure.

A sentence has no subject ("app.py changed in the build context (content)") so that it can be put behind a step's name.
Values of variables whose name suggests a secret are never told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

SHOWN = 3
"""Files named in a sentence; all are in the explanation's changes."""
_WIDTH = 80
_LONG_DIGEST = re.compile(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}")
_SECRET_NAME = re.compile(r"pass|secret|token|credential|api_?key|private|auth|pwd", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PathChange:
    """What is different about one path.

    Attributes:
        how: "added", "removed", "content", "mode", "type", "target" (of a link), "owner or attributes".
        old, new: what it was and is; "" where that says nothing (contents).
    """

    path: str
    how: str
    old: str = ""
    new: str = ""

    def __str__(self) -> str:
        values = f" {self.old} -> {self.new}" if self.old or self.new else ""
        return f"{clip(self.path)} ({self.how}{values})"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between what a key was made of and what it is made of now.

    Attributes:
        kind: "files", "arg", "env", "command", "shell", "base", "source", "field", "mount", "secret", "below", "keys",
            "other", or a reason that needs no comparison: "no-cache", "new", "moved", "removed", "first", "pruned",
            "failed" ...
        what: which input, variable, field or step.
        old, new: values; "" for absent or not told.
        paths: for "files": every path that differs.
        sentence: how to say it; `short` is how when something else was said before, "" for the same.
    """

    kind: str
    what: str
    sentence: str
    old: str = ""
    new: str = ""
    paths: tuple[PathChange, ...] = ()
    short: str = ""

    @property
    def brief(self) -> str:
        """The shorter sentence."""
        return self.short or self.sentence


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one step was not found in the cache.

    Attributes:
        step: its name.
        sentence: the reason in one sentence, without the step's name.
        cause: kind of the change that is at the root of it (see `Change.kind`).
        root: name of the step where the cause lies; the step itself, or one below.
        origin: the reason as it is told of the root.
        changes: all differences of the step itself, the one in the sentence first.
        compared: id of the build it was compared with, "" when there was none.
    """

    step: str
    sentence: str
    cause: str
    root: str
    origin: str
    changes: tuple[Change, ...] = ()
    compared: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the explanation as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Explanation:
        """Return the explanation that `to_json` gave."""
        changes = []
        for item in value["changes"]:
            paths = tuple(PathChange(**path) for path in item["paths"])
            changes.append(Change(**{**item, "paths": paths}))
        return cls(**{**value, "changes": tuple(changes)})


def explanation(step: str, changes: Sequence[Change], compared: str = "") -> Explanation:
    """Return the explanation that changes of the step itself add up to."""
    main = changes[0]
    told = [change for change in changes if change.kind != "files" or main.kind not in ("source", "files")]
    told = [main, *(change for change in told if change is not main)]
    sentence = "; ".join(change.brief for change in told[:2])
    if len(told) > 2:
        sentence += f"; and {len(told) - 2} more {'difference' if len(told) == 3 else 'differences'}"
    return Explanation(step, sentence, main.kind, step, main.sentence, tuple(changes), compared)


def simple(step: str, kind: str, sentence: str, compared: str = "") -> Explanation:
    """Return an explanation that is one reason."""
    return Explanation(step, sentence, kind, step, sentence, (Change(kind, step, sentence),), compared)


def below_change(root: Explanation, *, ran: bool) -> Change:
    """Return the change that a step stands on something that is not what it was.

    Args:
        root: why that one is not what it was.
        ran: whether it ran again; otherwise another result was found for it.
    """
    name = f'"{clip(root.root)}" below it'
    if root.cause == "new":
        sentence = brief = f"{name} is new"
    elif root.cause in ("removed", "moved") and not ran:
        sentence = brief = root.origin
    else:
        brief = f"{name} {'ran again' if ran else 'is another one'}"
        sentence = f"{brief}: {root.origin}"
    return Change("below", root.root, sentence, short=brief)


def below(step: str, root: Explanation, others: Sequence[Change], *, ran: bool, compared: str = "") -> Explanation:
    """Return the explanation of a step that misses because of what it stands on."""
    change = below_change(root, ran=ran)
    return Explanation(step, change.sentence, root.cause, root.root, root.origin, (change, *others), compared)


def clip(text: str, width: int = _WIDTH) -> str:
    """Return text on one line, its digests shortened, cut to `width` characters."""
    text = _LONG_DIGEST.sub(r"\1", " ".join(text.split()))
    return text if len(text) <= width else text[: width - 3] + "..."


def looks_secret(name: str) -> bool:
    """Tell whether a variable's name suggests that its value is nobody's business."""
    return bool(_SECRET_NAME.search(name))


def told_value(name: str, value: str) -> str:
    """Return a variable's value for people; not where the name suggests a secret."""
    return "(hidden)" if looks_secret(name) else f'"{clip(value, 40)}"'
