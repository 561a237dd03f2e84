"""ChainIDs: the name of an ordered stack of layers (image-spec config.md, "Layer ChainID"). Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from lamina.oci.digest import Digest


def chain_ids(diff_ids: Iterable[Digest]) -> list[Digest]:
    """Return the chainID after each layer, bottom first: ChainID(L0), ChainID(L0|L1), ..."""
    found: list[Digest] = []
    for diff_id in diff_ids:
        found.append(extend_chain(found[-1] if found else None, diff_id))
    return found


def chain_id(diff_ids: Iterable[Digest]) -> Digest | None:
    """Return the chainID of the whole stack; None for an empty one."""
    found = chain_ids(diff_ids)
    return found[-1] if found else None


def extend_chain(parent: Digest | None, diff_id: Digest) -> Digest:
    """Return the chainID of `diff_id` on top of the stack named `parent` (None: on nothing)."""
    if parent is None:
        return diff_id
    return Digest("sha256:" + hashlib.sha256(f"{parent} {diff_id}".encode()).hexdigest())
