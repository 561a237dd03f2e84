"""A bounded run of each fuzz target, with the corpus as seeds; the same runs every time."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from support.dockerfile_corpus import cases

RUNS = 20_000
TARGET = Path(__file__).with_name("target.py")
MARKS = [
    "<<", "<<-", "EOF", "\\\\\\x0a", "--mount=", "--from=", "[\\\"a\\\"]", "${a:-", "${a//", "${a##", "}", "!", "**/",
    "[^", "\\x00", "# escape=`", "FROM a", "RUN ", "COPY ", "ENV ", "HEALTHCHECK ", "ONBUILD ", "type=secret,id=",
]  # fmt: skip
SEEDS = {
    "parser": [case.text for case in cases() if len(case.text) < 2000],
    "words": ["$a", "${a}", "${a:-b}", "${b/x/y}", "${b//?/z}", "${long##*a}", "'a' \"$b\" \\$", "${a:?no}", "<<E a"],
    "patterns": ["*.a\n!b\0x/b.a", "**/a\n!x/**/b\0x/a/b", "[a-c]?\n\\*\0b1", "# c\n/a/../b/\0b", "a**b\0axb"],
}


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python or machine"
)
@pytest.mark.parametrize("name", SEEDS)
def test_nothing_but_input_errors(name, tmp_path):
    """A1, A6.1: no other exception, no place outside the text, whatever libFuzzer thinks of."""
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    for number, seed in enumerate(SEEDS[name]):
        (seeds / str(number)).write_text(seed, newline="")
    (tmp_path / "marks").write_text("".join(f'"{mark}"\n' for mark in MARKS))

    command = [
        sys.executable,
        str(TARGET),
        name,
        f"-runs={RUNS}",
        "-seed=1",
        "-max_len=2048",
        f"-dict={tmp_path}/marks",
    ]
    done = subprocess.run([*command, str(seeds)], capture_output=True, text=True, check=False, cwd=tmp_path)

    assert done.returncode == 0, done.stderr[-4000:]
