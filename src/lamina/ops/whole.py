"""The content key of an input that counts as a whole, where it has no identity: a live directory.

Ops count such inputs by identity; the solver asks for content only of what has none (`LocalOp`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lamina.cancel import Cancel
from lamina.ops.worker import LocalRef, Worker
from lamina.solver.protocol import Result

if TYPE_CHECKING:
    from lamina.layer.recipe_listing import Row
    from lamina.layer.view import View


def whole_key(worker: Worker, result: Result, cancel: Cancel) -> str:
    """Return the digest of everything in `result`: names, kinds, modes, owners, attributes and content."""
    from lamina.layer.recipe import CopyOptions, content_digest

    return content_digest(_view(worker, result, cancel), "/", CopyOptions())


def whole_rows(worker: Worker, result: Result, cancel: Cancel) -> Iterator[Row]:
    """Iterate over what `whole_key` digests."""
    from lamina.layer.recipe import CopyOptions
    from lamina.layer.recipe_listing import content_rows

    return content_rows(_view(worker, result, cancel), "/", CopyOptions())


def _view(worker: Worker, result: Result, cancel: Cancel) -> View:
    return result.view if isinstance(result, LocalRef) else worker.layers.view(result, cancel)
