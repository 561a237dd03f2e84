"""Frontends that run in this process: `frontend.Gateway` over a bridge."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lamina.bridge.values import Ref, Result
from lamina.errors import InputError
from lamina.frontend.interface import Frontend, Gateway, Reference, definition_of
from lamina.llb.pb import ops_pb2 as pb
from lamina.llb.state import State
from lamina.progress import WarningEvent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamina.bridge.bridge import Bridge


def load_frontends(texts: Sequence[str]) -> dict[str, Frontend]:
    """Return frontends by name, of `NAME=MODULE:FUNCTION`.

    Raises:
        InputError: another shape, or there is no such function.
    """
    found = {}
    for text in texts:
        name, equals, place = text.partition("=")
        module, colon, function = place.partition(":")
        if not (name and equals and module and colon and function):
            raise InputError(f"not a frontend: {text!r}", hint="NAME=MODULE:FUNCTION")
        try:
            found[name] = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise InputError(f"the frontend {name!r} cannot be loaded: {error}") from error
    return found


def run_in_process(frontend: Frontend, bridge: Bridge, opts: Mapping[str, str]) -> Result:
    """Call a frontend, and return its answer as a result."""
    answer = frontend(_Local(bridge, opts))
    if not isinstance(answer.reference, _LocalReference):
        raise InputError("the frontend answers with a reference that is not of this build")
    return Result(ref=answer.reference.ref, metadata=answer.all_metadata())


class _Local(Gateway):
    def __init__(self, bridge: Bridge, opts: Mapping[str, str]) -> None:
        self._bridge, self.opts = bridge, dict(opts)

    def solve(self, graph: State | pb.Definition) -> Reference:
        """See `Gateway`."""
        result = self._bridge.solve(definition=definition_of(graph))
        if result.ref is None:
            raise InputError("the graph is empty")
        return _LocalReference(self._bridge, result.ref)

    def image_config(self, name: str) -> tuple[str, dict[str, Any]]:
        """See `Gateway`."""
        reference, _, config = self._bridge.image_config(name, None)
        return reference, json.loads(config)

    def warn(self, text: str) -> None:
        """See `Gateway`."""
        self._bridge.job.sink(WarningEvent("", text))


class _LocalReference(Reference):
    def __init__(self, bridge: Bridge, ref: Ref) -> None:
        self._bridge, self.ref = bridge, ref

    def read_file(self, path: str, offset: int = 0, length: int = 0) -> bytes:
        """See `Reference`."""
        return self._bridge.read_file(self.ref, path, offset, length)

    def read_dir(self, path: str) -> list[str]:
        """See `Reference`."""
        return [entry.path.rpartition("/")[2] for entry in self._bridge.read_dir(self.ref, path)]
