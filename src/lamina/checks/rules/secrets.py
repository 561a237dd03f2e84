"""Rules about what must not get into an image."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lamina.checks.values import Hit, rule
from lamina.checks.view import View
from lamina.dockerfile.instructions import Arg, Env

_WORDS = ("apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token")
_HARMLESS = ("public", "file", "version")


def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    """Return a pattern for one of `words` as a whole word of a name whose words are joined by underscores."""
    return re.compile(f"(?:_|^)(?:{'|'.join(words)})(?:_|$)", re.IGNORECASE)


_SECRET, _NO_SECRET = _pattern(_WORDS), _pattern(_HARMLESS)


@rule("SecretsUsedInArgOrEnv", "Secrets should not be given by ARG or ENV", buildkit=True)
def secrets_used_in_arg_or_env(view: View) -> Iterator[Hit]:
    """Both end up in the image's config or history, where everybody who can pull the image can read them.

    Judged by the name: one of its words means a secret, and none says that it is only a file, a version or public.
    """
    for step in view.steps(Arg, Env):
        names = step.values if isinstance(step.item, Arg) else step.values[::2]
        for name in names:
            if _SECRET.search(name) and not _NO_SECRET.search(name):
                yield Hit(
                    f"{step.item.keyword} '{name}' would show the secret to all who have the image: "
                    f"use RUN --mount=type=secret,id={name.lower()}",
                    step.item.source,
                )
