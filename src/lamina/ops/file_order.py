"""How the actions of one FileOp build on each other: which results become layers, and which are never needed.

In: actions that name only inputs and earlier actions (llb/check.py sees to it). Pure; linear.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Order:
    """What becomes of the results of actions, which are counted on after the inputs.

    Attributes:
        kept: become layers: outputs, what is copied from, and what two actions build on.
        read: files are copied from them.
        unused: lead to no output, and are not carried out.
    """

    kept: frozenset[int]
    read: frozenset[int]
    unused: frozenset[int]


def order_of(actions: Sequence[Any], count: int) -> Order:
    """Return the order of a FileOp's actions.

    Args:
        actions: `pb.FileAction`, checked.
        count: number of the op's inputs.
    """
    needed: set[int] = set()
    for number in range(len(actions) - 1, -1, -1):
        action = actions[number]
        if action.output >= 0 or count + number in needed:
            needed |= {count + number, action.input, *_read(action)}
    used = [(n + count, action) for n, action in enumerate(actions) if n + count in needed]
    read = frozenset(number for _index, action in used for number in _read(action) if number >= count)
    built_on = Counter(action.input for _index, action in used)
    outputs = {index for index, action in used if action.output >= 0}
    kept = outputs | read | {number for number, times in built_on.items() if times > 1 and number >= count}
    unused = frozenset(range(count, count + len(actions))) - needed
    return Order(frozenset(kept), read, frozenset(unused))


def _read(action: Any) -> set[int]:
    return {action.secondaryInput} if action.WhichOneof("action") == "copy" else set()
