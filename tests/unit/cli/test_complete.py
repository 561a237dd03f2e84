"""What a TAB offers: by the answer itself, and in real shells with the scripts that `lamina completion` prints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.store import add_image
from lamina.cli.complete import DIRS, FILES, complete
from lamina.cli.complete import main as answer
from lamina.cli.main import VERBS
from lamina.cli.verbs.completion import SCRIPTS
from lamina.store.store import Store

DOCKERFILE = "ARG X\nFROM scratch AS base\nRUN <<EOF\nFROM x AS not-this\nEOF\nFROM base as test-it\nFROM base\n"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a Dockerfile, and a store with two names."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "Dockerfile").write_text(DOCKERFILE)
    store = Store(tmp_path / "root" / "oci")
    image = add_image(store)
    for name in ("docker.io/library/debian:12", "example.org:5000/app:1"):
        store.tag(name, image)
    monkeypatch.setenv("LAMINA_ROOT", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def offered(*words: str) -> list[str]:
    return [text for text, _ in complete(words)[0]]


def test_verbs_with_what_they_do():
    found, files = complete([""])
    assert dict(found) == VERBS and files == ""
    assert offered("rm") == ["rmi"]
    assert offered("--root", "/x", "bui") == ["build"]
    assert offered("help", "bui") == ["build"]
    assert offered("--ro") == ["--root"]
    assert complete(["--root", "/x"])[1] == DIRS


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_offers_its_options(verb: str):
    """From the parser that reads them; those that have no meaning yet are not offered."""
    found = offered(verb, "-")
    assert "--help" in found and "--detach" not in found
    assert all(name.startswith("-") for name in found)


def test_options_begin_as_typed():
    assert offered("build", "--no-c") == ["--no-cache", "--no-cache-filter"]
    assert offered("run", "b", "--he") == []


@pytest.mark.parametrize(
    "words", [["rmi"], ["rmi", "x"], ["tag"], ["tag", "a"], ["run", "-it", "-e", "A=1"], ["push"], ["inspect"]]
)
def test_images_of_the_store(words: list[str]):
    assert offered(*words, "") == ["debian:12", "example.org:5000/app:1"]
    assert offered(*words, "debian:") == ["debian:12"]


def test_values_are_told_from_names():
    """`-e` takes a value, `-i` takes none, `--` ends options."""
    assert offered("run", "-e", "") == []
    assert offered("run", "-ie", "") == []
    assert offered("run", "-i", "deb") == ["debian:12"]
    assert offered("run", "-eA", "deb") == ["debian:12"]
    assert offered("rmi", "--", "-f") == []
    assert complete(["run", "debian:12", ""]) == ([], FILES)
    assert complete(["run", "--env-file", ""])[1] == FILES
    assert complete(["build", ""])[1] == DIRS


def test_no_store_no_images(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LAMINA_ROOT", str(place / "none"))
    assert offered("rmi", "") == [] and not (place / "none").exists()


def test_stages_of_the_dockerfile(place: Path):
    """Parsed, not guessed: what stands in a heredoc is no stage."""
    assert offered("build", "--target", "") == ["base", "test-it"]
    assert offered("build", "--target=te") == ["--target=test-it"]
    (place / "other").mkdir()
    (place / "other" / "Dockerfile").write_text("FROM scratch AS far\n")
    assert offered("build", str(place / "other"), "--target", "") == ["far"]
    assert offered("build", "-f", str(place / "other" / "Dockerfile"), "--no-cache-filter", "") == ["far"]
    (place / "work" / "Dockerfile").write_text("FROMM x\n")
    assert offered("build", "--target", "") == []


def test_choices_and_verbs_below_verbs():
    assert offered("build", "--progress", "p") == ["plain"]
    assert offered("run", "--network=") == ["--network=host", "--network=none"]
    assert offered("completion", "") == ["bash", "zsh", "fish"]
    assert offered("cache", "mount", "")[:1] == ["ls"]
    assert "--format" in offered("images", "--f")


def test_names_that_a_shell_could_obey_are_not_offered(place: Path):
    """Names come from images that others made; what is offered is inserted as it is."""
    store = Store(place / "root" / "oci")
    index = place / "root" / "oci" / "index.json"
    index.write_text(index.read_text().replace("debian:12", "debian:$(reboot)"))
    assert store.images()
    assert offered("rmi", "") == ["example.org:5000/app:1"]


def test_it_never_fails(capsys: pytest.CaptureFixture[str], place: Path):
    (place / "root" / "oci" / "index.json").write_text("broken")
    for words in ([], ["--"], ["--", "rmi", ""], ["--", "nope", "-"], ["--", "build", "--target", "x", "\0"]):
        assert answer(words) == 0
    assert capsys.readouterr().err == ""


def test_it_imports_nothing_heavy():
    """It runs at every key press."""
    code = (
        "import sys, io; from lamina.cli.main import main\n"
        "main(['__complete', '--', 'run', '-'])\n"
        "heavy = {'subprocess', 'urllib3', 'google', 'asyncio', 'rich', 'dataclasses', 'tomllib', 'sqlite3'}\n"
        "print(heavy & set(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "set()\n"


# In shells


@pytest.fixture
def shell_env(place: Path) -> dict[str, str]:
    """A PATH on which there is a `lamina`."""
    program = place / "bin" / "lamina"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lamina "$@"\n')
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "HOME": str(place)}


def run_shell(shell: str, script: str, env: dict[str, str], *options: str) -> str:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here: apt-get install {shell}")
    done = subprocess.run([program, *options, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout


LINES = [
    ("lamina rm", ["rmi"]),
    ("lamina build --targ", ["--target"]),
    ("lamina build --target ", ["base", "test-it"]),
    ("lamina build --target te", ["test-it"]),
    ("lamina rmi exam", ["example.org:5000/app:1"]),
    ("lamina run nothing-like-this", []),
]


@pytest.mark.parametrize(("line", "expected"), [*LINES, ("lamina build . ", [])])
def test_bash(shell_env: dict[str, str], line: str, expected: list[str]):
    script = (
        'source <(lamina completion bash)\n[[ $(complete -p lamina) == *"-F _lamina lamina" ]] || exit 9\n'
        f"COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; _lamina\n"
        'for word in "${COMPREPLY[@]}"; do echo "$word"; done'
    )
    assert run_shell("bash", script, shell_env, "--norc").split() == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [("rmi debian:1", ["12"]), ("rmi example.org:5000/a", ["5000/app:1"]), ("build --target=b", ["base"])],
)
def test_bash_inserts_after_its_word_breaks(shell_env: dict[str, str], line: str, expected: list[str]):
    """bash cuts words at `:` and `=`, and puts what we offer in the place of the last piece only."""
    script = (
        f"source <(lamina completion bash); COMP_LINE='lamina {line}'; COMP_POINT=${{#COMP_LINE}}; _lamina\n"
        'for word in "${COMPREPLY[@]}"; do echo "$word"; done'
    )
    assert run_shell("bash", script, shell_env, "--norc").split() == expected


def test_bash_inserts_what_is_offered(shell_env: dict[str, str], place: Path):
    """In an interactive shell, with a key press."""
    ours, theirs = os.openpty()
    env = {**shell_env, "PS1": "$ ", "TERM": "dumb", "HISTFILE": ""}
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    shell = subprocess.Popen(["bash", "--norc", "--noprofile", "-i"], env=env, start_new_session=True, **streams)
    try:
        os.close(theirs)
        os.write(ours, b"source <(lamina completion bash); echo re''ady\r")
        seen = b""
        while b"ready" not in seen:
            seen += os.read(ours, 4096)
        os.write(ours, b"lamina inspect debian:\t")
        while b"debian:12" not in seen:
            seen += os.read(ours, 4096)
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)


@pytest.mark.parametrize(("line", "expected"), LINES)
def test_fish(shell_env: dict[str, str], line: str, expected: list[str]):
    out = run_shell("fish", f"lamina completion fish | source; complete -C '{line}'", shell_env, "--no-config")
    assert [found.split("\t")[0] for found in out.splitlines()] == expected


@pytest.mark.parametrize(("line", "expected"), LINES)
def test_zsh(shell_env: dict[str, str], line: str, expected: list[str]):
    """With the editor's own functions stood in for: it shows `found` through them."""
    words = " ".join(f"'{word}'" for word in line.split(" "))
    script = (
        "compdef() { registered=$* }\n_files() { : }\n_describe() { print -rl -- ${(P)2} }\n"
        "source <(lamina completion zsh)\n[[ $registered == '_lamina lamina' ]] || exit 9\n"
        f"words=({words}); CURRENT=${{#words}}; _lamina"
    )
    out = run_shell("zsh", script, shell_env, "-f")
    assert [found.replace("\\:", "\0").split(":")[0].replace("\0", ":") for found in out.splitlines()] == expected


@pytest.mark.parametrize("shell", list(SCRIPTS))
def test_scripts_are_right_for_their_shell(shell: str, tmp_path: Path):
    (tmp_path / "script").write_text(SCRIPTS[shell])
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here: apt-get install {shell}")
    subprocess.run([program, "-n", tmp_path / "script"], check=True)
