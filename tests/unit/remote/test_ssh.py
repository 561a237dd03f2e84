"""Sockets of forwarded agents: those of daemons that died go, those of the living stay."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import cast

import pytest

from lamina.cancel import Cancel
from lamina.remote.ssh import ForwardedAgent, sweep_agents
from lamina.tunnel.peer import Peer


def test_what_a_dead_daemon_left_is_swept_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    living = ForwardedAgent(cast("Peer", None), "default", Cancel())
    for name, has_socket in (("lamina-agent-dead", True), ("lamina-agent-new", False), ("lamina-agent-old", False)):
        (tmp_path / name).mkdir()
        if has_socket:
            (tmp_path / name / "s").touch()
    os.utime(tmp_path / "lamina-agent-old", (1, 1))
    (tmp_path / "other").mkdir()
    (tmp_path / "lamina-agent-link").symlink_to("other")
    try:
        assert sweep_agents() == 2
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {living.socket.parent.name, "lamina-agent-new", "lamina-agent-link", "other"}
    finally:
        living.close()
    assert not living.socket.parent.exists()
