"""What makes a build context larger or more talkative than it should be, told from names and sizes. Pure.

In: a `Survey`. Out: `Hint`s, the weightiest first. Names are judged only where the build can see them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from lamina.engine.context_survey import Survey
from lamina.source.listing import Listed

_BLOAT = {
    ".git": "history",
    ".hg": "history",
    ".svn": "history",
    "node_modules": "installed packages",
    "bower_components": "installed packages",
    ".venv": "an environment of this machine",
    "venv": "an environment of this machine",
    "__pycache__": "compiled files",
    ".pytest_cache": "a tool's cache",
    ".mypy_cache": "a tool's cache",
    ".ruff_cache": "a tool's cache",
    ".tox": "environments of this machine",
    ".nox": "environments of this machine",
    ".cache": "a tool's cache",
    ".gradle": "a tool's cache",
    ".terraform": "installed providers",
    ".idea": "an editor's files",
    ".vscode": "an editor's files",
    ".DS_Store": "a desktop's file",
}
_SECRET = re.compile(
    r"\.env(\.(?!example|sample|template|dist)[^.]+)?|\.netrc|\.pypirc|\.npmrc|\.git-credentials|id_(rsa|dsa|ecdsa|ed25519)"
    r"|.*\.(pem|key|p12|pfx|kdbx)|.*\.tfstate(\.backup)?|\.aws|\.ssh|\.kube"
)
_LOG = re.compile(r".*\.log")
_LARGE = 1_000_000
_MOST_UNREAD = 3
_MOST_IDLE = 10


@dataclass(frozen=True, slots=True)
class Hint:
    """One thing to do about a context.

    Attributes:
        message: what is there, one line.
        add: the line that the ignore file lacks, "" when something else helps.
        size: bytes that it is about.
    """

    message: str
    add: str = ""
    size: int = 0


def hints(survey: Survey) -> list[Hint]:
    """Return what could be better about a context."""
    kept = [item for item in survey.listing.entries if item.kept]
    found = sorted(_bloat(survey, kept), key=lambda hint: -hint.size)
    named = tuple(hint.add.removeprefix("**/") for hint in found)
    found += sorted(_unread(survey, kept, named), key=lambda hint: -hint.size)[:_MOST_UNREAD]
    found += islice(_idle_rules(survey), _MOST_IDLE)
    if not survey.ignore_name and found:
        found.insert(0, Hint("there is no ignore file, so the build can see everything"))
    return found


def _bloat(survey: Survey, kept: list[Listed]) -> Iterator[Hint]:
    """Yield a hint for each usual name that is there: it takes one rule to leave out all of them."""
    sizes: dict[str, int] = {}
    places: dict[str, list[str]] = {}
    inside: dict[str, str] = {}  # directories below one that was told of
    for item in kept:
        parent, _, name = item.path.rpartition("/")
        if parent in inside:
            rule = inside[parent]
        else:
            meant = item.rule >= 0 and survey.rules[item.rule].keeps  # an exception brings it back: no accident
            rule = "" if meant else _rule_for(name, item.kind)
            if rule:
                places.setdefault(rule, []).append(item.path)
        if rule:
            sizes[rule] = sizes.get(rule, 0) + item.size
            if item.kind == "d":
                inside[item.path] = rule
    for rule, paths in places.items():
        first = next((path for path in paths if path in survey.read), "")
        what = "may hold secrets" if _is_secret(rule) else "is " + _BLOAT.get(rule, "what programs have logged")
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        copied = f"; line {survey.read[first]} copies {first}" if first and survey.read[first] else ""
        deep = any("/" in path for path in paths)
        yield Hint(f"{paths[0]}{more} {what}{copied}", f"**/{rule}" if deep else rule, sizes[rule])


def _rule_for(name: str, kind: str) -> str:
    """Return the rule that would leave out such a name, "" when it is none of the usual."""
    if name in _BLOAT or _SECRET.fullmatch(name):
        return _literal(name)
    return "*.log" if kind == "f" and _LOG.fullmatch(name) else ""


def _is_secret(rule: str) -> bool:
    return bool(_SECRET.fullmatch(rule))


def _unread(survey: Survey, kept: list[Listed], named: tuple[str, ...]) -> Iterator[Hint]:
    """Yield the large names at the top of which no instruction reads anything."""
    if not survey.known:
        return
    read = {path.partition("/")[0] for path in survey.read}
    sizes: dict[str, int] = {}
    for item in kept:
        top = item.path.partition("/")[0]
        if top not in read and top not in named:
            sizes[top] = sizes.get(top, 0) + item.size
    for top, size in sizes.items():
        if size >= _LARGE:
            yield Hint(f"nothing of {top} is read by the Dockerfile", _literal(top), size)


def _idle_rules(survey: Survey) -> Iterator[Hint]:
    """Yield the rules that decide about nothing that is there."""
    deciding = {item.rule for item in survey.listing.entries}
    for number, rule in enumerate(survey.rules):
        if number not in deciding and rule.keeps:
            yield Hint(f"{survey.ignore_name}:{rule.line} {rule.pattern} brings nothing back")


def _literal(name: str) -> str:
    """Return the rule that means exactly this name."""
    return re.sub(r"([*?\[\\])", r"\\\1", name)
