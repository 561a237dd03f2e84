"""Fixtures of the end-to-end tests: a Dockerfile over files, or on busybox, carried out by the command."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.bases import busybox_context
from support.command import Lamina


@pytest.fixture
def build(lamina: Lamina, tmp_path: Path):
    """Build a Dockerfile over context files; return the directory with the result's files."""

    def run(dockerfile: str, *words: str, env: dict[str, str] | None = None, **files: str) -> Path:
        context = tmp_path / "ctx"
        for name, text in {**files, "Dockerfile": dockerfile}.items():
            path = context / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        lamina.build(context, "-o", f"type=local,dest={out}", *words, env=env or {})
        return out

    return run


@pytest.fixture
def busybox(lamina: Lamina, tmp_path: Path):
    """Build a Dockerfile on a busybox stage called `base`; return the directory with the result's files."""

    def run(dockerfile: str, *words: str, **options) -> Path:
        context = tmp_path / "ctx"
        if not context.exists():
            busybox_context(context)
        prefix = "FROM scratch AS base\nCOPY rootfs /\nENV PATH=/bin:/usr/bin\n"
        (context / "Dockerfile").write_text(prefix + dockerfile)
        out = tmp_path / "out"
        shutil.rmtree(out, ignore_errors=True)
        lamina.build(context, "-o", f"type=local,dest={out}", *words, **options)
        return out

    return run
