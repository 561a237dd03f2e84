"""The Control service: what a watcher is told that comes at a bad moment."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lamina.api.pb import control_pb2
from lamina.api.services import CONTROL
from lamina.daemon import history
from lamina.daemon.builder import Settings
from lamina.daemon.control import Control
from lamina.engine.options import Environment
from lamina.progress import VertexEvent


def test_a_watcher_that_comes_while_the_build_begins_hears_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """K8: between its look at the builds and its look at the records the build begins, and its record with it."""
    control = Control(Environment(root=tmp_path / "root"), Settings())
    _, status = control.serving()[CONTROL.methods["Status"].path]
    with ExitStack() as running:

        def begins_now(_root: Path, ref: str) -> object:
            now = time.time()
            build = running.enter_context(control.builds.begin(ref))
            build.sink(VertexEvent("sha256:" + "a" * 64, "a step", (), now, now))
            build.end()
            return object()

        monkeypatch.setattr(history, "find", begins_now)
        monkeypatch.setattr(history, "replay", lambda _root, _ref: iter(()))
        call: Any = SimpleNamespace(on_end=lambda _callback: None)
        answers: Any = status(control_pb2.StatusRequest(Ref="mine"), call)
        told = list(answers)

    assert [vertex.name for answer in told for vertex in answer.vertexes] == ["a step"]
