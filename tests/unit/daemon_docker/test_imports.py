"""The Dockerfile that an import stands for."""

from __future__ import annotations

import pytest

from lamina.daemon.docker.failures import ApiError
from lamina.daemon.docker.imports import dockerfile


def test_changes_follow_the_archive():
    assert dockerfile(["CMD a", "label x=y"]) == "FROM scratch\nADD archive.tar /\nCMD a\nlabel x=y\n"


@pytest.mark.parametrize(
    "change",
    [
        "",
        "RUN true",
        "FROM x",
        "COPY a b",
        "ADD http://x /",
        "ENV A=b\nRUN true",
        "ENV A=b\rRUN x",
        "ENV A=b \\",
        "# x",
    ],
)
def test_a_change_is_one_instruction_that_runs_nothing(change: str):
    with pytest.raises(ApiError, match="not a valid change"):
        dockerfile([change])
