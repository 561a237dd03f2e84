"""Which step of an earlier build a step of this one was: by stage, text and place. Pure.

In: the names of both builds' steps, in order. Out: for each new step the old one, and whether it is new or moved.

Within a stage, equal texts in the same order are the same step (a longest common run, as in a diff). Between those,
steps of one kind (RUN, COPY, ...) are one step that was edited: in order when there are as many, else the most alike.
What is left over is the same step moved when its text is found anywhere, and new otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

_TITLE = re.compile(r"\[(?P<stage>[^\]]*?)(?: \d+/\d+)?\] (?P<text>.*)", re.DOTALL)
_ENOUGH = 0.4
_MOST = 60


@dataclass(frozen=True, slots=True)
class Match:
    """What a new step was before.

    Attributes:
        old: its number in the earlier build.
        moved: it stood elsewhere among the steps that both builds have.
    """

    old: int
    moved: bool = False


@dataclass(frozen=True, slots=True)
class _Step:
    number: int
    stage: str
    text: str

    @property
    def kind(self) -> str:
        """The instruction."""
        return self.text.partition(" ")[0]


def split_title(name: str) -> tuple[str, str]:
    """Return the stage (or other label) and the text of a step's name, without its place among the steps."""
    found = _TITLE.fullmatch(name)
    return (found["stage"], found["text"]) if found else ("", name)


def align(old: Sequence[str], new: Sequence[str]) -> dict[int, Match]:
    """Return what each step of `new` was in `old`, by number; a new step is not in it."""
    before, after = _by_stage(old), _by_stage(new)
    found: dict[int, Match] = {}
    for stage, steps in after.items():
        _align_stage(before.get(stage, []), steps, found)
    taken = {match.old for match in found.values()}
    spare: dict[str, list[int]] = {}
    for steps in before.values():
        for step in steps:
            if step.number not in taken:
                spare.setdefault(step.text, []).append(step.number)
    for stage, steps in after.items():
        for step in steps:
            if step.number not in found and spare.get(step.text):
                found[step.number] = Match(spare[step.text].pop(0), moved=stage in before)
    return found


def _by_stage(names: Sequence[str]) -> dict[str, list[_Step]]:
    stages: dict[str, list[_Step]] = {}
    for number, name in enumerate(names):
        stage, text = split_title(name)
        stages.setdefault(stage, []).append(_Step(number, stage, text))
    return stages


def _align_stage(old: list[_Step], new: list[_Step], found: dict[int, Match]) -> None:
    left = [step.text for step in old]
    right = [step.text for step in new]
    for what, a, b, c, d in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if what == "equal":
            for offset in range(b - a):
                found[new[c + offset].number] = Match(old[a + offset].number)
        elif what == "replace":
            _pair(
                [step for step in old[a:b] if step.text not in right],
                [step for step in new[c:d] if step.text not in left],
                found,
            )


def _pair(old: list[_Step], new: list[_Step], found: dict[int, Match]) -> None:
    """Pair what lies between equal steps: steps of one kind."""
    for kind in dict.fromkeys(step.kind for step in new):
        mine = [step for step in new if step.kind == kind]
        theirs = [step for step in old if step.kind == kind]
        if len(mine) == len(theirs):
            found.update((step.number, Match(before.number)) for step, before in zip(mine, theirs, strict=True))
            continue
        for step in mine[:_MOST]:
            ratios = [(SequenceMatcher(None, one.text[:300], step.text[:300]).ratio(), -one.number) for one in theirs]
            best = max(ratios[:_MOST], default=(0.0, 0))
            if best[0] >= _ENOUGH:
                found[step.number] = Match(-best[1])
                theirs = [one for one in theirs if one.number != -best[1]]
