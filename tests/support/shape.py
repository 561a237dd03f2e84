"""The shape of a JSON document: which fields it has, whatever they hold."""

from __future__ import annotations

import re
from typing import Any

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_STEP = re.compile(r"step[0-9]+")


def shape(value: Any, path: str = "") -> set[str]:
    """Return the path of every leaf; places in lists, digests and numbers of steps are left out."""
    if isinstance(value, dict) and value:
        return {
            leaf
            for key, item in value.items()
            for leaf in shape(item, f"{path}/{_STEP.sub('step', _DIGEST.sub('digest', key))}")
        }
    if isinstance(value, list) and value:
        return {leaf for item in value for leaf in shape(item, f"{path}[]")}
    return {path}
