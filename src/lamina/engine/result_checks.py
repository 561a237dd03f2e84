"""Checks on the result, beside a build: the solved chain and its config in, findings out as warnings.

Only what is at hand is looked at: a base image that the build did not have to fetch is not fetched for this. What was
found is kept for the chain and config, so the same result costs one look-up the next time; a build that is wholly
cached (`engine.fast`) does not come here at all. A failure in here is never the build's.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from hashlib import sha256
from typing import Any

from lamina.cancel import Cancel
from lamina.checks.pragmas import BUILD_ARG, Wishes, wishes_by_line, wishes_for_file
from lamina.checks.result import RESULT_RULES_BY_ID, check_result
from lamina.checks.result_view import ImageView, Trouble
from lamina.checks.run import refusal
from lamina.checks.values import Finding
from lamina.dockerfile import instructions as ins
from lamina.engine.options import BuildOptions
from lamina.engine.place import Place
from lamina.errors import CancelledError, Error, SourceRange
from lamina.layer.entry import Entry
from lamina.layer.program import Program
from lamina.layer.union import Union
from lamina.oci.digest import Digest
from lamina.oci.platform import Platform
from lamina.progress import Sink, WarningEvent
from lamina.snapshot.layers import Layers
from lamina.snapshot.peek import MAX_ASIDE_BYTES, Peek
from lamina.snapshot.rows import LayerRef, LayerRow

_VERSION = 1
_MAX_SCANNED = 200_000  # entries of own layers that are gone through for programs
_KINDS: dict[str, type[ins.Instruction]] = {
    "ENTRYPOINT": ins.Entrypoint,
    "CMD": ins.Cmd,
    "HEALTHCHECK": ins.Healthcheck,
    "USER": ins.User,
    "WORKDIR": ins.Workdir,
    "ENV": ins.Env,
}
_log = logging.getLogger(__name__)


def check_built(
    place: Place,
    result: LayerRef,
    config: Mapping[str, Any],
    platform: Platform,
    dockerfile: ins.Dockerfile,
    options: BuildOptions,
    sink: Sink,
) -> tuple[str, ...]:
    """Check a solved result; return the findings, one line each, after telling them to `sink`.

    Args:
        config: the image's config as JSON object, our history rows without `created`.

    Raises:
        InputError: the `check` directive is wrong, or it makes the findings an error.
        CancelledError: the build was cancelled.
    """
    wishes = wishes_for_file(dockerfile, dict(options.build_args).get(BUILD_ARG))
    if wishes.skip_all:
        return ()
    try:
        troubles = _troubles(place, result, config, platform, place.cancel)
    except CancelledError:
        raise
    except (Error, OSError) as error:
        _log.debug("the result was not checked: %s", error)
        return ()
    findings = _findings(troubles, dockerfile, options.target, wishes)
    for finding in findings:
        short = f"{finding.rule.id}: {finding.message}"
        detail = (finding.rule.description, *finding.detail)
        sink(WarningEvent("", short, detail, finding.rule.url, source=finding.source))
    if (refused := refusal(findings, wishes)) is not None:
        raise refused
    return tuple(finding.line() for finding in findings)


def _troubles(
    place: Place, result: LayerRef, config: Mapping[str, Any], platform: Platform, cancel: Cancel
) -> list[Trouble]:
    """Return what is wrong, remembered or found out now."""
    inner = config.get("config") or {}
    facts = [_VERSION, result.layer, inner, str(platform), _base_layers(config)]
    key = "result:" + sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    row = place.state.execute("SELECT value FROM memo WHERE key = ?", (key,)).fetchone()
    if row is not None and (known := _load(row[0])) is not None:
        return known
    layers = place.layers
    rows = layers.rows.chain(result.layer)
    if not all(_at_hand(layers, row) for row in rows):
        return []
    union = layers.union(result, cancel)
    with Peek(layers, place.state, rows, union, cancel) as peek:
        tree = ChainTree(union, peek, own_layers(rows, config), cancel)
        found = check_result(ImageView(tree, inner, platform))
    value = json.dumps([astuple(trouble) for trouble in found])
    place.state.execute("INSERT OR REPLACE INTO memo VALUES (?, ?, ?)", (key, value, time.time()))
    return found


def _load(text: str) -> list[Trouble] | None:
    try:
        return [Trouble(rule, message, about, tuple(detail)) for rule, message, about, detail in json.loads(text)]
    except (ValueError, TypeError):
        return None


def _at_hand(layers: Layers, row: LayerRow) -> bool:
    """Tell whether a layer's index is there or cheap to make."""
    if row.indexed or row.tree:
        return True
    return row.blob is not None and row.blob_size <= MAX_ASIDE_BYTES and layers.store.has(Digest(row.blob))


def own_layers(rows: list[LayerRow], config: Mapping[str, Any]) -> list[int]:
    """Return the numbers of the layers that this build made, the topmost first.

    Those of the base have a creation time in the history of the config; pulled ones also know where they come from.
    """
    return [number for number in range(len(rows) - 1, _base_layers(config) - 1, -1) if not rows[number].origin]


def _base_layers(config: Mapping[str, Any]) -> int:
    history = config.get("history") or ()
    return sum(1 for row in history if row.get("created") and not row.get("empty_layer"))


@dataclass(frozen=True, slots=True)
class ChainTree:
    """A chain as `checks.result_view.FinalTree`; `own` numbers the layers of this build, the topmost first."""

    union: Union
    peek: Peek
    own: list[int]
    cancel: Cancel

    def lookup(self, path: str) -> Entry | None:
        """Return what is at a path."""
        return self.union.lookup(path)

    def children(self, path: str) -> list[str]:
        """Return the names in a directory."""
        return self.union.children(path)

    def resolve(self, path: str, follow_last: bool = True) -> str:
        """Return a path without links."""
        return self.union.resolve(path, follow_last)

    def program(self, path: str, *, deep: bool = False, aside: bool = False) -> Program | None:
        """Return what a file is."""
        self.cancel.check()
        return self.peek.program(path, deep=deep, aside=aside)

    def text(self, path: str) -> bytes | None:
        """Return a small text."""
        return self.peek.text(path)

    def own_programs(self, folders: frozenset[str]) -> Iterator[str]:
        """Yield executables of this build's own layers."""
        left = _MAX_SCANNED
        for number in self.own:
            for path, entry in self.union.indexes[number].entries.items():
                left -= 1
                if left < 0:
                    return
                if entry.kind not in "fh" or (entry.kind == "f" and not entry.mode & 0o111):
                    continue
                if path.rpartition("/")[0] not in folders and path.count("/") > 1:
                    continue
                seen = self.union.find(path)
                if seen is not None and seen.layer == number and seen.entry.mode & 0o111:
                    yield path


def _findings(troubles: list[Trouble], dockerfile: ins.Dockerfile, target: str, wishes: Wishes) -> tuple[Finding, ...]:
    """Return troubles as findings at their lines, without those the author asked to leave out."""
    by_line = wishes_by_line(dockerfile)
    found = []
    for trouble in troubles:
        rule = RESULT_RULES_BY_ID.get(trouble.rule)
        if rule is None:
            continue
        source = source_of(dockerfile, target, trouble.about)
        if wishes.joined(by_line.get(source.start, Wishes())).wants(rule):
            found.append(Finding(rule, trouble.message, source, trouble.detail))
    return tuple(found)


def source_of(dockerfile: ins.Dockerfile, target: str, about: str) -> SourceRange:
    """Return the lines of the instruction that a trouble is about.

    That is the last of its kind in the target and the stages it is based on, else the target's FROM.
    """
    stage = (dockerfile.stage(target) if target else None) or dockerfile.stages[-1]
    kind = _KINDS.get(about)
    current: ins.Stage | None = stage
    while current is not None and kind is not None:
        for item in reversed(current.instructions):
            if isinstance(item, kind) and (
                not isinstance(item, ins.Env) or any(name == "TZ" for name, _ in item.pairs)
            ):
                return item.source
        below = dockerfile.stage(current.base.image)
        current = below if below is not None and below.number < current.number else None
    return stage.base.source
