"""Fixes applied: findings to a mended text, in rounds, each proved before it counts.

In: the bytes of a Dockerfile; a function that finds what can be mended in such bytes; one that tells whether two
versions mean the same. Out: the new bytes, what was mended, a unified diff. Pure.

Fixes that touch the same line wait for the next round, where they are found anew in the new text. A set of fixes
after which the file does not mean the same is taken apart; a single one that does so is left out. So the functions
that propose fixes need not be trusted.

Invariants: lines that no fix names stay byte for byte as they are, with their line ends, a byte order mark, and whether
the last line has an end; what comes out has nothing left that `fix_all` would do (until `MAX_ROUNDS`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from lamina.checks.values import Edit, Finding, Fix

MAX_ROUNDS = 50
"""Most passes over a file; each mends every line at most once."""
_MAX_ALONE = 20
"""Most fixes that are tried on their own, because those of their rule did not pass together; more are left out."""
_BOM = b"\xef\xbb\xbf"
_CONTEXT = 3

Find = Callable[[bytes], Sequence[Finding]]
"""Answers with what is found in a version of the file."""
Same = Callable[[bytes, bytes, bool], bool]
"""Tells whether two versions make the same image; with True, author, labels and commands may differ."""
_Chosen = tuple[Finding, Fix]


@dataclass(frozen=True, slots=True)
class Fixed:
    """What came of fixing.

    Attributes:
        data: the new file.
        done: the findings that were mended, in the order in which that happened.
        lines: the new file's lines, each with the number of the old line in whose place it stands.
    """

    data: bytes
    done: tuple[Finding, ...]
    lines: tuple[tuple[int, str], ...]


def fix_all(data: bytes, find: Find, same: Same) -> Fixed:
    """Mend all that can be mended; equal bytes come back when there is nothing."""
    draft = _Draft.of(data)
    done: list[Finding] = []
    trial = _Trial(same)
    for _ in range(MAX_ROUNDS):
        chosen = list(_apart(find(draft.data()), trial.refused, draft))
        if not chosen:
            break
        good = trial.good(draft, chosen)
        done += [finding for finding, _ in good]
        draft = draft.after(fix for _, fix in good)
    return Fixed(draft.data(), tuple(done), tuple(draft.lines))


class _Trial:
    """Finds out which fixes may be taken; `refused` are those that may not, whatever else happens."""

    def __init__(self, same: Same) -> None:
        self._same = same
        self._left = _MAX_ALONE
        self.refused: set[tuple[str, tuple[Edit, ...]]] = set()

    def good(self, draft: _Draft, chosen: list[_Chosen]) -> list[_Chosen]:
        """Return those of `chosen` that leave the file the same together; tried so, by rule, then alone."""
        if self._passes(draft, chosen):
            return chosen
        good: list[_Chosen] = []
        for _, rule in groupby(sorted(chosen, key=_rule), key=_rule):
            group = list(rule)
            good += group if self._passes(draft, group) else self._alone(draft, group)
        if not good or self._passes(draft, good):
            return good
        return good[:1]  # each is right, but not together

    def _alone(self, draft: _Draft, group: list[_Chosen]) -> list[_Chosen]:
        good = []
        for finding, fix in group:
            self._left -= 1
            if self._left >= 0 and self._passes(draft, [(finding, fix)]):
                good.append((finding, fix))
            else:
                self.refused.add(_key(finding, fix))
        return good

    def _passes(self, draft: _Draft, chosen: list[_Chosen]) -> bool:
        fixes = [fix for _, fix in chosen]
        return self._same(draft.data(), draft.after(fixes).data(), any(fix.config for fix in fixes))


def _rule(chosen: _Chosen) -> str:
    return chosen[0].rule.id


def unified_diff(name: str, old: bytes, fixed: Fixed) -> str:
    """Return the change in the form that `patch` takes; "" when there is none.

    Lines are compared by where they come from, so the time is linear in the file.
    """
    before = _Draft.of(old)
    rows = list(_rows([text for _, text in before.lines], fixed.lines))
    return "".join([f"--- {name}\n+++ {name}\n", *hunks]) if (hunks := list(_hunks(rows))) else ""


@dataclass(frozen=True, slots=True)
class _Draft:
    """A version of the file: what stands between its line feeds, with the old line that it stands for."""

    bom: bytes
    lines: list[tuple[int, str]]

    @classmethod
    def of(cls, data: bytes) -> _Draft:
        bom = _BOM if data.startswith(_BOM) else b""
        text = data[len(bom) :].decode("utf-8", "surrogateescape")
        return cls(bom, list(enumerate(text.split("\n"), 1)))

    def data(self) -> bytes:
        return self.bom + "\n".join(text for _, text in self.lines).encode("utf-8", "surrogateescape")

    def after(self, fixes: Iterable[Fix]) -> _Draft:
        """Return the version after fixes that do not touch each other."""
        lines: list[tuple[int, str]] = []
        position = 0
        for edit in sorted((edit for fix in fixes for edit in fix.edits), key=lambda edit: edit.start):
            lines += self.lines[position : edit.start - 1]
            origins = [origin for origin, _ in self.lines[edit.start - 1 : edit.end]]
            new = edit.text.split("\n") if edit.text else []
            lines += [(origins[min(number, len(origins) - 1)], text) for number, text in enumerate(new)]
            position = edit.end
        return _Draft(self.bom, lines + self.lines[position:])

    def takes(self, edit: Edit) -> bool:
        """Tell whether an edit is about lines that are there, and hold what a person can have typed."""
        found = self.lines[edit.start - 1 : edit.end]
        whole = 1 <= edit.start <= edit.end <= len(self.lines)
        return whole and not any("\0" in text or any("\udc80" <= ch <= "\udcff" for ch in text) for _, text in found)


def _key(finding: Finding, fix: Fix) -> tuple[str, tuple[Edit, ...]]:
    return finding.rule.id, fix.edits


def _apart(findings: Sequence[Finding], refused: set[tuple[str, tuple[Edit, ...]]], draft: _Draft) -> Iterator[_Chosen]:
    """Yield fixes that do not touch each other's lines, first come first served."""
    taken: set[int] = set()
    for finding in findings:
        fix = finding.fix
        if fix is None or not fix.edits or _key(finding, fix) in refused:
            continue
        lines = {number for edit in fix.edits for number in range(edit.start, edit.end + 1)}
        if taken.isdisjoint(lines) and all(draft.takes(edit) for edit in fix.edits):
            taken |= lines
            yield finding, fix


def _rows(old: Sequence[str], new: Sequence[tuple[int, str]]) -> Iterator[tuple[str, str, bool]]:
    """Yield `(mark, text, last)` for every line of both versions: " " in both, "-" in the old, "+" in the new."""
    at = 0
    for position, (origin, text) in enumerate(new):
        ends = position == len(new) - 1
        while at < origin - 1:
            yield "-", old[at], False
            at += 1
        if at == origin - 1 and old[at] == text and (ends is (at == len(old) - 1)):
            yield " ", text, ends
            at += 1
            continue
        if at == origin - 1:
            yield "-", old[at], at == len(old) - 1
            at += 1
        yield "+", text, ends
    for number in range(at, len(old)):
        yield "-", old[number], number == len(old) - 1


def _hunks(rows: Sequence[tuple[str, str, bool]]) -> Iterator[str]:
    """Yield the hunks of a unified diff; the last piece of a text without a line end at its end is marked."""
    changed = [number for number, (mark, _, _) in enumerate(rows) if mark != " "]
    position, old, new = 0, 1, 1
    while changed:
        start = max(position, changed[0] - _CONTEXT)
        end = changed[0]
        while changed and changed[0] <= end + 2 * _CONTEXT:
            end = changed.pop(0)
        stop = min(len(rows), end + _CONTEXT + 1)
        skipped = rows[position:start]
        old += sum(mark != "+" for mark, _, _ in skipped)
        new += sum(mark != "-" for mark, _, _ in skipped)
        body = [row for row in rows[start:stop] if not _is_end(row)]
        minus, plus = sum(mark != "+" for mark, _, _ in body), sum(mark != "-" for mark, _, _ in body)
        yield f"@@ -{_span(old, minus)} +{_span(new, plus)} @@\n" + "".join(map(_line, _minus_first(body)))
        old, new, position = old + minus, new + plus, stop


def _minus_first(rows: Sequence[tuple[str, str, bool]]) -> Iterator[tuple[str, str, bool]]:
    """Yield rows with the old lines of each change before its new ones."""
    for _, group in groupby(rows, key=lambda row: row[0] == " "):
        yield from sorted(group, key=lambda row: row[0] == "+")


def _is_end(row: tuple[str, str, bool]) -> bool:
    """Tell whether this is the nothing behind the last line feed."""
    return row[2] and not row[1]


def _span(start: int, count: int) -> str:
    return f"{start if count else start - 1},{count}"


def _line(row: tuple[str, str, bool]) -> str:
    mark, text, last = row
    return f"{mark}{text}\n" + ("\\ No newline at end of file\n" if last else "")
