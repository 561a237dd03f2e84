"""Ignore files against a real BuildKit (dockerd's): the same random tree and rules, the same files left over."""

import io
import os
import random
import subprocess
import tarfile
from pathlib import Path

import pytest

from compat.dockerd import CLIENT, Docker, dockerd  # noqa: F401 - a module-scoped fixture
from lamina.patterns import IgnoreRules, parse_ignore

pytestmark = pytest.mark.compat

ROUNDS = 50
NAMES = ["a", "b", "c", "ab", "a.txt", "b.txt", ".git", "x y", "é"]
PIECES = ["a", "b", "c", "ab", "/", "/", "*", "**", "**/", "?", "[ab]", ".txt", ".git", "x y"]


def grow(folder: Path, dice: random.Random) -> None:
    """Some fifty files, up to four levels deep."""
    for _ in range(50):
        path = folder.joinpath(*(dice.choice(NAMES) for _ in range(dice.randint(1, 4))))
        if not any(above.is_file() for above in path.parents) and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(path.name)


def rules_text(dice: random.Random) -> str:
    """One to five rules, some of them exceptions."""
    lines = []
    for _ in range(dice.randint(1, 5)):
        pattern = "".join(dice.choice(PIECES) for _ in range(dice.randint(1, 5)))
        lines.append(dice.choice(["", "", "/", "!", "!"]) + pattern)
    return "\n".join(lines) + "\n"


def kept(folder: Path, rules: IgnoreRules) -> set[str]:
    """The files that our rules keep, without what only BuildKit's own needs bring in."""
    files = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return {path for path in files if not rules.ignored(path)}


def built(docker: Docker, folder: Path) -> set[str]:
    """The files of `FROM scratch, COPY . /`, as the daemon exports them."""
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(docker.root), "DOCKER_BUILDKIT": "1",
        "DOCKER_HOST": f"unix://{docker.socket}",
    }  # fmt: skip
    done = subprocess.run(
        [CLIENT, "build", "-q", "--no-cache", "-o", "type=tar,dest=-", "-f", "-", os.fspath(folder)],
        input=b"FROM scratch\nCOPY . /\n", capture_output=True, check=False, timeout=120, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        return {member.name.removeprefix("./") for member in tar if member.isfile()}


def test_the_same_files_are_left(dockerd: Docker, tmp_path: Path) -> None:  # noqa: F811
    """A6.1: random rules over random trees."""
    for seed in range(ROUNDS):
        dice = random.Random(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        grow(folder, dice)
        text = rules_text(dice)
        (folder / ".dockerignore").write_text(text)

        expected = built(dockerd, folder) - {".dockerignore"}

        rules = IgnoreRules(parse_ignore(text.encode()))
        assert kept(folder, rules) - {".dockerignore"} == expected, f"seed {seed}: {text!r}"
