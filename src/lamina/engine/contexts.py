"""Opens the live directories that `local://` sources name, with their filter rules and stat cache.

The attributes of a local source (`includepattern`, `excludepattern`, `followpaths`) are JSON lists, as BuildKit
has them. One stat cache serves a directory for the whole build and is kept in the state file.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from lamina.errors import InputError
from lamina.patterns import IgnoreRules
from lamina.session import Session
from lamina.source.context import ContextView
from lamina.source.statcache import StatCache
from lamina.state.db import State


class Contexts:
    """Live directories of one build. Thread-safe.

    Args:
        exact_modes: modes of files count in keys as they are, and not as git has them.
    """

    def __init__(self, session: Session, state: State, *, exact_modes: bool = False) -> None:
        self._session, self._state, self._exact_modes = session, state, exact_modes
        self._caches: dict[Path, StatCache] = {}
        self._views: dict[tuple[str, str], ContextView] = {}
        self._guard = threading.Lock()

    def open(self, name: str, attrs: Mapping[str, str]) -> ContextView:
        """Return the view behind `local://name`; equal attributes give the same view.

        Raises:
            InputError: the user offers no such directory.
        """
        key = (name, json.dumps(sorted(attrs.items())))
        with self._guard:
            if key not in self._views:
                directory = self._session.context_dir(name, attrs)
                if directory is None:
                    raise InputError(
                        f"no build context named {name!r} was given", hint="give a directory to build from"
                    )
                exclude = _patterns(attrs, "local.excludepatterns")
                include = _patterns(attrs, "local.includepattern")
                self._views[key] = ContextView(
                    directory,
                    IgnoreRules(exclude) if exclude else None,
                    self._caches.get(directory) or self._load(directory),
                    include=IgnoreRules(include) if include else None,
                    name="the build context" if name == "context" else f"the context {name!r}",
                    exact_modes=self._exact_modes,
                )
            return self._views[key]

    def reopen(self) -> None:
        """Forget what was seen of the directories; what was hashed stays, as far as it still holds."""
        with self._guard:
            for view in self._views.values():
                view.close()
            self._views.clear()

    def close(self) -> None:
        """Close the directories, and keep what was learned about the files for the next build."""
        with self._guard:
            for view in self._views.values():
                view.close()
            for directory, cache in self._caches.items():
                if cache.changed:
                    self._state.execute(
                        "INSERT OR REPLACE INTO statcache VALUES (?, ?, ?)", (str(directory), cache.dump(), time.time())
                    )

    def _load(self, directory: Path) -> StatCache:
        row = self._state.execute("SELECT data FROM statcache WHERE root = ?", (str(directory),)).fetchone()
        cache = self._caches[directory] = StatCache.load(row[0] if row else b"")
        return cache


def _patterns(attrs: Mapping[str, str], key: str) -> list[str]:
    """Return a JSON list of patterns, [] when the attribute is missing."""
    text = attrs.get(key)
    if not text:
        return []
    found = json.loads(text)
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise InputError(f"attribute {key} of a local source must be a list of patterns")
    return found
