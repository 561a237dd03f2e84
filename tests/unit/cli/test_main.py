"""The command as people meet it: verbs, exit codes, messages without tracebacks, a light start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lamina.cli import main as main_module
from lamina.cli.main import VERBS, main
from lamina.errors import Error, InputError, NetworkError, StorageError

HEAVY = {
    "asyncio",
    "dataclasses",
    "google",
    "isal",
    "logging",
    "rich",
    "subprocess",
    "tempfile",
    "typing",
    "urllib3",
    "zstandard",
}


def lamina(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "lamina", *words], capture_output=True, text=True, check=False)


def test_help_lists_every_verb_with_one_line(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for verb, text in VERBS.items():
        assert f"  {verb} " in out and text in out


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]):
    assert main([verb, "--help"]) == 0
    assert f"usage: lamina {verb}" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("lamina ")


def test_a_mistyped_verb_gets_the_nearest_one(capsys: pytest.CaptureFixture[str]):
    assert main(["biuld", "."]) == 2
    assert "did you mean 'build'?" in capsys.readouterr().err


def test_no_verb_is_a_usage_error(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [(Error("x"), 1), (InputError("x"), 2), (StorageError("x"), 3), (NetworkError("x"), 4), (OSError(28, "full"), 3)],
)
def test_the_class_of_an_error_is_the_exit_code(error: Exception, code: int, capsys: pytest.CaptureFixture[str]):
    assert main_module.report(error) == code
    err = capsys.readouterr().err
    assert err.startswith("error: ") and "Traceback" not in err


def test_messages_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]):
    main_module.report(InputError("no such stage: \x1b[2J\x9bevil"))
    err = capsys.readouterr().err
    assert "\x1b" not in err and "\\x1b[2J\\x9bevil" in err


def test_an_internal_fault_shows_a_traceback_only_on_request(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("LAMINA_DEBUG", raising=False)
    assert main_module.report(KeyError("x")) == 70
    assert "Traceback" not in capsys.readouterr().err

    monkeypatch.setenv("LAMINA_DEBUG", "1")
    main_module.report(KeyError("x"))
    assert "KeyError" in capsys.readouterr().err


def test_build_errors_reach_the_user(tmp_path: Path):
    done = lamina("build", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path}/Dockerfile: no such Dockerfile\nhint: name it with -f FILE\n"


def test_a_reader_that_goes_away_is_no_error():
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "lamina", "--help"], stdout=closed, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 141
    assert done.stderr == b""


def test_what_comes_before_the_cached_answer_imports_nothing_heavy(tmp_path: Path):
    """DESIGN: the cached path imports next to nothing; this holds the command line's share of it."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    script = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "import argparse, lamina.cli.main, lamina.cli.verbs.build as build\n"
        "from lamina.cli.build_args import Request, parser_of\n"
        f"request = Request(parser_of()(['-t', 'x', '--secret', 'id=PATH', {str(tmp_path)!r}]), {{'PATH': ''}})\n"
        "build.find_inputs(request.context, request.file)\n"
        "build.state_root()\n"
        "import lamina.cli.progress.cached\n"
        f"print(sorted(({HEAVY!r} & set(sys.modules)) - before))\n"
    )
    script = f"import sys; sys.path.insert(0, {_src()!r})\n{script}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def _src() -> str:
    return str(Path(main_module.__file__).parents[2])
