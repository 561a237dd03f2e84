"""Which builds may be answered from memory alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina import llb
from lamina.engine.memo import observe
from lamina.llb.definition import load_definition

COMMIT = "ab" * 20
SHA = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("state", "memoizable"),
    [
        (llb.image("debian"), True),
        (llb.http("http://h/f", checksum=SHA), True),
        (llb.http("http://h/f"), False),
        (llb.git(f"https://h/r.git#{COMMIT}:sub"), True),
        (llb.git("https://h/r.git#main"), False),
        (llb.git("https://h/r.git", checksum=COMMIT), False),
        (llb.local("other"), False),
    ],
)
def test_a_build_is_remembered_only_if_all_its_sources_can_be_checked_without_asking(
    tmp_path: Path, state: llb.State, memoizable: bool
):
    """A4.9: a URL without checksum is asked in every build."""
    graph = load_definition(llb.scratch().copy(state, "/f", "/f").marshal())

    assert (observe(str(tmp_path), graph) is not None) == memoizable
