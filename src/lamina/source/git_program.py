"""Runs the `git` program, kept apart from everything around it.

In: arguments, a repository, what may open the remote. Out: what git printed, or an error in our words. Nothing of the
machine's or a user's git settings counts: no system or global configuration, no hooks, filters, templates, credential
helpers or prompts; transports are those of `git_url`, and `file` only where our own code asks for it. Secrets go by
`GIT_CONFIG_*` variables (git-config(1)), never on a command line, and are cut out of everything git prints.

Must not: run anything through a shell, pass on the environment of this process, wait without a bound (a stalled
transfer ends by git's own low-speed limit, everything ends by `Cancel`).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from lamina.cancel import Cancel
from lamina.errors import Error, MachineError, NetworkError

_MAX_OUTPUT = 64 << 20
_MAX_ERRORS = 256 << 10
_GRACE_S = 5.0
_OLDEST = (2, 31)
_GUARD = str(Path(__file__).with_name("git_guard.py"))
_PROGRESS_EVERY_S = 5.0
_OURS = re.compile(rb"From |.*-> refs/(?:lamina|remote)/")
_CONTROLS = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]")  # C0 and, as UTF-8, C1
_SETTINGS = (
    ("core.hooksPath", "/dev/null"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.symlinks", "true"),
    ("core.fileMode", "true"),
    ("core.autocrlf", "false"),
    ("core.logAllRefUpdates", "false"),
    ("core.askPass", ""),
    ("credential.helper", ""),
    ("safe.directory", "*"),
    ("init.defaultBranch", "master"),
    ("advice.detachedHead", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("fetch.writeCommitGraph", "false"),
    ("transfer.bundleURI", "false"),
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "300"),
)

Log = Callable[[bytes], None]
"""Takes one line, its line feed included; called from another thread."""


class GitError(Error):
    """git ended with an error; `text` is what it said, without secrets."""

    def __init__(self, what: str, text: str, *, where: str = "") -> None:
        super().__init__(what, where=where, log=text.strip().splitlines()[-20:])
        self.text = text


@dataclass(frozen=True, slots=True)
class Access:
    """What opens one remote.

    Attributes:
        settings: git configuration, secrets included.
        variables: environment variables.
        hidden: what must never be shown.
    """

    settings: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    variables: tuple[tuple[str, str], ...] = ()
    hidden: tuple[bytes, ...] = field(default=(), repr=False)


def unheard(_line: bytes) -> None:
    """Log to nobody."""


class GitProgram:
    """The git of this machine.

    Args:
        search_path: PATH in which git (and ssh) is looked for.
        work: an existing directory of ours outside of any repository.
        proxies: proxy settings by variable name.
        ca_file: bundle for https, "" for git's own.

    Raises:
        MachineError: there is no git.
    """

    def __init__(self, search_path: str, work: Path, proxies: Mapping[str, str], ca_file: str = "") -> None:
        self._program = _find(search_path)
        self._work = work
        self._checked = False
        self._environment = {
            "PATH": ":".join(folder for folder in search_path.split(":") if os.path.isabs(folder)),
            "LC_ALL": "C",
            "HOME": "/dev/null",
            "XDG_CONFIG_HOME": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_SYSTEM": "/dev/null",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CEILING_DIRECTORIES": str(work.parent),
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_PROTOCOL_FROM_USER": "0",
            **{name: value for name, value in proxies.items() if name.endswith("_proxy")},
        }
        if ca_file:
            self._environment["GIT_SSL_CAINFO"] = ca_file

    def run(
        self,
        arguments: Iterable[str],
        cancel: Cancel,
        *,
        git_dir: Path | None = None,
        work_tree: Path | None = None,
        index: Path | None = None,
        access: Access | None = None,
        protocols: str = "http:https:ssh:git",
        log: Log = unheard,
        max_output: int = _MAX_OUTPUT,
    ) -> bytes:
        """Run one command and return what it printed.

        Args:
            arguments: all after `git`; operands from outside stand behind a `--`.
            access: what opens the remote; given for all commands that talk to one, which may take long: those die
                with this process (see git_guard).
            protocols: which transports may be used.

        Raises:
            GitError: it failed; CancelledError; NetworkError: more output than `max_output`; MachineError: git is too
                old.
        """
        self._check_version(cancel)
        guarded = access is not None
        access = access or Access()
        environment = self._environment | dict(access.variables) | {"GIT_ALLOW_PROTOCOL": protocols}
        places = {"GIT_DIR": git_dir, "GIT_WORK_TREE": work_tree, "GIT_INDEX_FILE": index}
        environment |= {name: str(path) for name, path in places.items() if path is not None}
        environment |= _as_variables((*_SETTINGS, *access.settings))
        command = [self._program, *arguments]
        guard = [sys.executable, "-I", "-S", _GUARD] if guarded and sys.executable else []
        cancel.check()
        process = subprocess.Popen(
            [*guard, *command],
            stdin=subprocess.PIPE if guard else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=work_tree or self._work,
            start_new_session=True,
            umask=0o022,
        )
        words = _Words(log, access.hidden)
        output, whole = _communicate(process, words, cancel, max_output)
        cancel.check()
        if not whole:
            raise NetworkError(f"git {command[1]} printed more than {max_output} bytes")
        if process.returncode != 0:
            text = words.text()
            raise GitError(f"git {command[1]} failed: {_last_line(text)}", text)
        return output

    def _check_version(self, cancel: Cancel) -> None:
        """Settings by environment came with 2.31: an older git would go its own way without a word."""
        if self._checked:
            return
        self._checked = True
        said = self.run(["version"], cancel).decode("utf-8", "replace").strip()
        match = re.match(r"git version (\d+)\.(\d+)", said)
        if match is None or (int(match[1]), int(match[2])) < _OLDEST:
            self._checked = False
            raise MachineError(f"git sources need git 2.31 or newer, and here is {said[:60]!r}", where=self._program)


def _communicate(
    process: subprocess.Popen[bytes], words: _Words, cancel: Cancel, max_output: int
) -> tuple[bytes, bool]:
    """Read both streams to their ends and wait; the whole group is gone afterwards if anything went wrong."""
    assert process.stdout is not None and process.stderr is not None
    reader = threading.Thread(target=words.read, args=(process.stderr,), name="git", daemon=True)
    reader.start()
    done = threading.Event()

    def stop() -> None:
        """Ask the group to end (git removes its lock files then), and make it end if it does not."""
        _kill(process, signal.SIGTERM)
        if not done.wait(_GRACE_S):
            _kill(process, signal.SIGKILL)

    output, whole = bytearray(), True
    try:
        with cancel.closing(lambda: threading.Thread(target=stop, name="git-stop", daemon=True).start()):
            while data := os.read(process.stdout.fileno(), 1 << 16):
                if len(output) + len(data) > max_output:
                    whole = False
                    _kill(process, signal.SIGKILL)
                    break
                output += data
            reader.join()
            process.wait()
    finally:
        if process.returncode is None:
            _kill(process, signal.SIGKILL)
            process.wait()
        done.set()
        reader.join()
        if process.stdin is not None:
            process.stdin.close()
        process.stdout.close()
        process.stderr.close()
    return bytes(output), whole


class _Words:
    """What a command says on stderr: lines to the log, now and then one of progress, the last of it kept."""

    def __init__(self, log: Log, hidden: tuple[bytes, ...], clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._hidden, self._clock = log, hidden, clock
        self._kept = bytearray()
        self._shown = clock()

    def read(self, stream: IO[bytes]) -> None:
        """Read to the end. A line that never ends is taken in pieces."""
        pending = b""
        while data := os.read(stream.fileno(), 1 << 16):
            *lines, pending = re.split(rb"(?<=[\r\n])", pending + data)
            for line in lines:
                self._take(line)
            if len(pending) > 1 << 16:
                self._take(pending)
                pending = b""
        self._take(pending)

    def text(self) -> str:
        """Return the last of what was said."""
        return self._kept.decode("utf-8", "replace")

    def _take(self, line: bytes) -> None:
        for secret in self._hidden:
            line = line.replace(secret, b"***")
        clean = _CONTROLS.sub(b"", line).rstrip()
        if not clean:
            return
        if line.endswith(b"\r"):  # a line that is going to be written over
            now = self._clock()
            if now - self._shown >= _PROGRESS_EVERY_S:
                self._shown = now
                self._log(clean + b"\n")
            return
        if not _OURS.match(clean):
            self._log(clean + b"\n")
        self._kept += clean + b"\n"
        if len(self._kept) > 2 * _MAX_ERRORS:
            del self._kept[:-_MAX_ERRORS]


def _kill(process: subprocess.Popen[bytes], number: int) -> None:
    """Signal the command's group; only while its leader is not reaped, so that the id is still its own."""
    if process.returncode is None:
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            pass


def _as_variables(settings: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return configuration as the variables that git reads it from."""
    found, count = {}, 0
    for count, (key, value) in enumerate(settings, 1):
        found[f"GIT_CONFIG_KEY_{count - 1}"], found[f"GIT_CONFIG_VALUE_{count - 1}"] = key, value
    return found | {"GIT_CONFIG_COUNT": str(count)}


def _last_line(text: str) -> str:
    """Return git's own reason: its last "fatal:" or "error:", else the last line."""
    lines = [line for line in text.splitlines() if line.strip()]
    reasons = [line for line in lines if line.startswith(("fatal: ", "error: "))]
    return (reasons or lines or ["no reason given"])[-1].removeprefix("fatal: ").removeprefix("error: ")[:500]


def _find(search_path: str) -> str:
    for folder in search_path.split(":"):
        program = f"{folder}/git"
        if os.path.isabs(folder) and os.access(program, os.X_OK) and not os.path.isdir(program):
            return program
    raise MachineError("git sources need the git program, which is not here", hint="apt-get install git")
