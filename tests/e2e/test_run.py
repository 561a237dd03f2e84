"""`lamina run` as docker users expect it: signals, input, terminals, exit codes; real runtimes, nothing left over."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.bases import busybox_context
from support.command import Lamina

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for overlay mounts"),
]

LOOP = "echo ready; while :; do sleep 0.01; done"
RUNTIMES = ("crun", "runc")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lamina]:
    """A store with the image `b`; afterwards nothing of any run may be left in it."""
    base = tmp_path_factory.mktemp("run")
    lamina = Lamina(base / "root")
    dockerfile = 'FROM base\nENV KIND=image\nWORKDIR /tmp\nENTRYPOINT ["/bin/sh", "-c"]\nCMD ["pwd"]\n'
    lamina.build(busybox_context(base / "context", dockerfile), "-t", "b")
    yield lamina
    assert str(base) not in Path("/proc/self/mountinfo").read_text()
    assert list((lamina.root / "work").iterdir()) == []


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """Every runtime that we know has to agree."""
    if shutil.which(request.param, path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip(f"no {request.param} here: apt-get install {request.param}")
    return str(request.param)


@contextmanager
def started(lamina: Lamina, *words: str, runtime: str = "", **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run `lamina run WORDS`, not waiting for its end; whatever happens, it ends with the block."""
    env = {**os.environ, "LAMINA_ROOT": str(lamina.root), "LAMINA_RUNTIME": runtime}
    whole: dict[str, object] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    command = [sys.executable, "-m", "lamina", "run", *words]
    process = subprocess.Popen(command, env=env, **{**whole, **options})  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.kill()
        for stream in (process.stdout, process.stderr, process.stdin):
            if stream is not None:
                stream.close()
        process.wait(60)


def until(process: subprocess.Popen[bytes], line: bytes = b"ready\n") -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == line, process.stderr and process.stderr.read()


# Signals


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2"])
def test_signals_reach_the_program(image: Lamina, runtime: str, name: str):
    """What the program does about them decides the exit code; its clean-up runs."""
    script = f"trap 'echo cleaned; exit 7' {name}; {LOOP}"
    with started(image, "b", script, runtime=runtime) as process:
        until(process)
        process.send_signal(getattr(signal, f"SIG{name}"))
        out, _ = process.communicate(timeout=60)

    assert (out, process.returncode) == (b"cleaned\n", 7)


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2"])
def test_a_program_that_does_not_care_is_ended(image: Lamina, runtime: str, name: str):
    """Although it is the first process of its pid namespace, which the kernel would spare: 128 + n, as in a shell."""
    with started(image, "--entrypoint", "tail", "b", "-f", "/etc/passwd", runtime=runtime) as process:
        until(process, b"root:x:0:0:root:/root:/bin/sh\n")
        number = getattr(signal, f"SIG{name}")
        process.send_signal(number)
        assert process.wait(60) == 128 + number


def test_a_signal_that_is_ignored_stays_ignored(image: Lamina):
    with started(image, "b", f"trap '' HUP; trap 'exit 5' USR1; {LOOP}") as process:
        until(process)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(60) == 5


def test_the_second_control_c_kills(image: Lamina):
    """A program that catches and goes on does not hold the terminal for ever."""
    with started(image, "b", f"trap 'echo no' INT; {LOOP}") as process:
        until(process)
        process.send_signal(signal.SIGINT)
        until(process, b"no\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 137


def test_sigterm_kills_after_a_while(image: Lamina):
    """As `docker stop`: the program had its chance."""
    with started(image, "--stop-timeout=0", "b", f"trap '' TERM; {LOOP}") as process:
        until(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 137


def test_a_stalled_reader_does_not_keep_signals_from_the_program(image: Lamina):
    """Nobody reads our output, so we are stuck in a write; Ctrl-C still ends the program."""
    with started(image, "b", "exec cat /dev/zero") as process:
        assert process.stdout is not None and process.stdout.read(1 << 17)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130


def test_a_reader_that_leaves_ends_the_run(image: Lamina):
    """`lamina run ... | head`."""
    with started(image, "b", "yes") as process:
        assert process.stdout is not None and process.stdout.read(10)
        process.stdout.close()
        assert process.wait(60) == 141


# Standard input


def test_input_is_connected_only_on_request(image: Lamina, runtime: str):
    def run(*words: str, data: bytes) -> bytes:
        with started(image, *words, runtime=runtime, stdin=subprocess.PIPE) as process:
            out, _ = process.communicate(data, timeout=60)
        assert process.returncode == 0
        return out

    assert run("-i", "b", "tr a-z A-Z", data=b"hello\n") == b"HELLO\n"
    assert run("b", "cat", data=b"hello\n") == b""


def test_much_input_comes_out_again(image: Lamina):
    data = os.urandom(3 << 20)
    with started(image, "-i", "b", "cat", stdin=subprocess.PIPE) as process:
        out, _ = process.communicate(data, timeout=60)
    assert out == data


def test_a_program_need_not_read_all_its_input(image: Lamina):
    with started(image, "-i", "b", "head -c 3; exec <&-; echo; echo done", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"abc" + b"x" * 100_000)
        process.stdin.flush()
        out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == (b"abc\ndone\n", 0)


def test_input_that_never_ends_does_not_keep_a_run_alive(image: Lamina):
    with started(image, "-i", "b", "exit 3", stdin=subprocess.PIPE) as process:
        assert process.wait(60) == 3


def test_input_from_a_file_leaves_the_file_alone(image: Lamina, tmp_path: Path):
    """Neither its owner nor its mode change, whoever the program runs as."""
    (tmp_path / "in").write_text("content")
    before = (tmp_path / "in").stat()
    with (
        open(tmp_path / "in", "rb") as file,
        started(image, "-i", "-u", "65534:65534", "b", "cat", stdin=file) as process,
    ):
        out, _ = process.communicate(timeout=60)
    after = (tmp_path / "in").stat()
    assert out == b"content" and (before.st_uid, before.st_mode) == (after.st_uid, after.st_mode)


# Terminals


class Screen:
    """A terminal with a user in front: `process` has its other end as all three streams."""

    def __init__(self, lamina: Lamina, *words: str, runtime: str = "", size: tuple[int, int] = (40, 90)) -> None:
        self.ours, self.theirs = os.openpty()
        termios.tcsetwinsize(self.theirs, size)
        self.before = termios.tcgetattr(self.theirs)
        streams = {"stdin": self.theirs, "stdout": self.theirs, "stderr": self.theirs}
        self._context = started(lamina, *words, runtime=runtime, start_new_session=True, **streams)
        self.process = self._context.__enter__()
        self.seen = b""

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(None, None, None)
        os.close(self.ours)
        os.close(self.theirs)

    def until(self, text: bytes) -> None:
        """Read until `text` was shown."""
        while text not in self.seen:
            self.seen += os.read(self.ours, 4096)

    def type(self, text: bytes) -> None:
        os.write(self.ours, text)

    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.theirs)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def is_as_before(self) -> bool:
        return termios.tcgetattr(self.theirs) == self.before


def test_a_terminal_of_its_own(image: Lamina, runtime: str):
    """All three streams are one terminal, named in the container, as large as the user's window."""
    script = "test -t 0 && test -t 1 && test -t 2 && tty && stty size && echo $TERM && ls /dev/console; exit 4"
    with Screen(image, "-it", "b", script, runtime=runtime) as screen:
        screen.until(b"/dev/console\r\n")
        assert screen.process.wait(60) == 4

        assert screen.seen == b"/dev/pts/0\r\n40 90\r\nxterm\r\n/dev/console\r\n"
        assert screen.is_as_before()


def test_keys_go_to_the_program(image: Lamina, runtime: str):
    """Our terminal is raw meanwhile: Control-C is a key that the inner terminal makes a signal of."""
    with Screen(image, "-it", "b", f"trap 'echo got it; exit 3' INT; {LOOP}", runtime=runtime) as screen:
        screen.until(b"ready")
        assert screen.is_raw()
        screen.type(b"\x03")
        screen.until(b"got it")
        assert screen.process.wait(60) == 3
        assert screen.is_as_before()


def test_a_shell_with_job_control(image: Lamina, runtime: str):
    """What `lamina run -it IMAGE sh` is typed for; Control-D ends it."""
    with Screen(image, "-it", "--entrypoint", "/bin/sh", "b", runtime=runtime) as screen:
        screen.until(b"# ")
        screen.type(b"sh -c 'echo begu''n; exec sleep 600'\r")
        screen.until(b"begun\r\n")
        screen.seen = screen.seen.partition(b"begun\r\n")[2]
        screen.type(b"\x03")
        screen.until(b"# ")
        screen.type(b"echo so$((6*7))far\r")
        screen.until(b"so42far\r\n")
        screen.seen = screen.seen.partition(b"so42far\r\n")[2]
        screen.until(b"# ")  # before it, the shell is not at the keys
        screen.type(b"\x04")
        assert screen.process.wait(60) in (0, 130)
        assert b"job control turned off" not in screen.seen and b"can't access tty" not in screen.seen


def test_a_window_that_changes_its_size(image: Lamina, runtime: str):
    script = f"trap 'stty size; exit 0' WINCH; {LOOP}"
    with Screen(image, "-it", "b", script, runtime=runtime) as screen:
        screen.until(b"ready")
        termios.tcsetwinsize(screen.theirs, (11, 22))
        screen.process.send_signal(signal.SIGWINCH)
        screen.until(b"11 22")
        assert screen.process.wait(60) == 0


@pytest.mark.parametrize("times", [2, 3])
def test_the_terminal_comes_back_when_all_else_fails(image: Lamina, times: int):
    """Signals from outside, to a program that takes none of them: killed, and the modes are put back."""
    with Screen(image, "-it", "b", f"trap 'echo no' TERM; {LOOP}") as screen:
        screen.until(b"ready")
        for _ in range(times):
            screen.process.send_signal(signal.SIGTERM)
            if screen.process.poll() is None and times == 2 and b"no" not in screen.seen:
                screen.until(b"no")
        assert screen.process.wait(60) in (137, 143)
        assert screen.is_as_before()


def test_a_terminal_without_input(image: Lamina):
    """`-t` alone colours output in a pipeline; keys stay ours."""
    with started(image, "-t", "b", "test -t 1 && echo tty") as process:
        out, _ = process.communicate(timeout=60)
    assert (out, process.returncode) == (b"tty\r\n", 0)


def test_a_program_that_is_not_there_with_a_terminal(image: Lamina, runtime: str):
    with Screen(image, "-it", "--entrypoint", "/no/such", "b", runtime=runtime) as screen:
        assert screen.process.wait(60) == 127
        assert screen.is_as_before()


# Options


def test_what_the_image_says_and_what_the_user_says(image: Lamina, tmp_path: Path):
    (tmp_path / "env").write_text("A=file\nB=file\n")
    (tmp_path / "data").write_text("data")
    run: Callable[..., str] = lambda *words: image("run", *words).stdout  # noqa: E731

    assert run("b") == "/tmp\n"
    assert run("-w", "/root", "b") == "/root\n"
    assert run("-u", "nobody", "b", "id -u; id -g") == "65534\n65534\n"
    assert run("--entrypoint", "echo", "b", "x") == "x\n"
    assert run("--entrypoint", "", "b", "echo", "y") == "y\n"
    assert run("--env-file", str(tmp_path / "env"), "-e", "B=word", "b", "echo $A $B $KIND") == "file word image\n"
    assert run("--name", "web", "b", "hostname") == "web\n"
    assert run("--name", "web", "--hostname", "h", "b", "hostname; grep -c web /etc/hosts || true") == "h\n0\n"
    assert run("--network", "none", "b", "ls /sys/class/net") == "lo\n"
    assert run("--add-host", "there:10.1.2.3", "b", "grep there /etc/hosts") == "10.1.2.3\tthere\n"
    assert run("-v", f"{tmp_path}/data:/d:ro", "b", "cat /d; echo x 2>/dev/null >/d || echo no") == "datano\n"
    assert run("--mount", f"type=bind,src={tmp_path},dst=/d", "b", "cat /d/data") == "data"
    assert run("--ulimit", "nofile=99:100", "b", "ulimit -n; ulimit -Hn") == "99\n100\n"
    assert run("--shm-size", "1m", "b", "df -k /dev/shm | tail -n1 | awk '{print $2}'") == "1024\n"


def test_read_only_with_memory_where_it_is_wanted(image: Lamina):
    script = "touch /x 2>/dev/null || echo no; touch /tmp/x && echo yes; stat -c %a /tmp; cp /bin/busybox /tmp/echo"
    done = image("run", "--read-only", "--tmpfs", "/tmp:size=8m,mode=700", "b", f"{script}; /tmp/echo 2>&1 || echo $?")
    assert done.stdout.splitlines()[:3] == ["no", "yes", "700"] and done.stdout.endswith("126\n")


def test_pull_never_asks_nobody(image: Lamina):
    done = image("run", "--pull=never", "no-such-image", check=False)
    assert done.returncode == 2 and "no image no-such-image in the store" in done.stderr


def test_nothing_is_kept(image: Lamina):
    image("run", "--rm", "b", "echo x > /kept")
    assert image("run", "b", "ls /kept 2>/dev/null || echo gone").stdout == "gone\n"
