"""What an op is, apart from its inputs: the part of a cache key that the op itself contributes."""

from __future__ import annotations

import hashlib
from typing import Any


def op_digest(*parts: str) -> str:
    """Return a digest over parts of text, each length-prefixed."""
    state = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogateescape")
        state.update(b"%d:" % len(data) + data)
    return "sha256:" + state.hexdigest()


def message_digest(kind: str, message: Any) -> str:
    """Return a digest over a protobuf message, serialized deterministically."""
    state = hashlib.sha256(kind.encode() + b"\0")
    state.update(message.SerializeToString(deterministic=True))
    return "sha256:" + state.hexdigest()
