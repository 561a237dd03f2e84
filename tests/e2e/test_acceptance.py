"""`lamina build` as a user meets it: real Dockerfiles, a real OCI runtime, a store of its own."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import pytest

from support.bases import busybox_context
from support.command import Lamina

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for overlay mounts"),
    pytest.mark.skipif(shutil.which("crun") is None, reason="no crun here: apt-get install crun"),
]


def counted(lamina: Lamina, context: Path, *words: str) -> dict[str, bool]:
    """Build and return which steps were cached, by name."""
    done = lamina("build", "--progress=rawjson", *words, context)
    steps: dict[str, bool] = {}
    for line in done.stderr.splitlines() + done.stdout.splitlines():
        if line.startswith("{"):
            for vertex in json.loads(line).get("vertexes") or []:
                if vertex.get("completed"):
                    steps[vertex["name"]] = bool(vertex.get("cached"))
    return steps


def ran(steps: dict[str, bool], word: str) -> bool:
    """Tell whether the step with `word` in its name ran (and was not cached)."""
    (found,) = [cached for name, cached in steps.items() if word in name]
    return not found


def files(lamina: Lamina, context: Path, out: Path, *words: str) -> Path:
    """Build and export the files of the result."""
    lamina.build(context, "-o", f"type=local,dest={out}", *words)
    return out


def mounts(root: Path) -> list[str]:
    """Return what is mounted below `root`; other tests mount elsewhere at the same time."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4].startswith(str(root))]


def test_two_stages_run_at_once_and_an_unneeded_one_never(lamina: Lamina, tmp_path: Path):
    """A2.5, A2.6: each stage waits for a file that the other writes into a shared cache mount."""
    meet = "i=0; until [ -e /c/{other} ] || [ $i -gt 300 ]; do i=$((i+1)); sleep 0.1; done; [ -e /c/{other} ]"
    context = busybox_context(
        tmp_path / "ctx",
        "FROM base AS a\nRUN --mount=type=cache,target=/c touch /c/a; " + meet.format(other="b") + " && touch /a\n"
        "FROM base AS b\nRUN --mount=type=cache,target=/c touch /c/b; " + meet.format(other="a") + " && touch /b\n"
        "FROM base AS unneeded\nRUN exit 1\n"
        "FROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
    )

    out = files(lamina, context, tmp_path / "out")

    assert (out / "a").exists() and (out / "b").exists()


def test_only_what_depends_on_an_edit_runs_again(lamina: Lamina, tmp_path: Path):
    """A6.5"""

    context = busybox_context(
        tmp_path / "ctx", "FROM base\nCOPY deps /deps\nRUN cat /deps > /made\nCOPY app /app\nRUN cat /app > /final\n"
    )
    (context / "deps").write_text("deps\n")
    (context / "app").write_text("one\n")
    counted(lamina, context)

    again = counted(lamina, context)
    (context / "app").write_text("two\n")
    edited = counted(lamina, context)

    assert all(cached for name, cached in again.items() if "RUN" in name or "COPY" in name)
    assert not ran(edited, "RUN cat /deps") and ran(edited, "RUN cat /app")


def test_time_and_owner_of_context_files_do_not_count(lamina: Lamina, tmp_path: Path):
    context = busybox_context(tmp_path / "ctx", "FROM base\nCOPY f /f\nRUN cat /f\n")
    (context / "f").write_text("x")
    counted(lamina, context)
    os.utime(context / "f", (1, 1))
    os.chown(context / "f", 1234, 1234)

    assert not ran(counted(lamina, context), "RUN")


def test_equal_content_of_a_stage_keeps_what_was_copied_from_it(lamina: Lamina, tmp_path: Path):
    """The stage runs again, with the same result: what copies from it is still cached."""
    text = "FROM base AS a\nARG N\nRUN echo same > /x\nFROM base\nCOPY --from=a /x /x\nRUN cat /x\n"
    context = busybox_context(tmp_path / "ctx", text)
    counted(lamina, context, "--build-arg", "N=1")

    second = counted(lamina, context, "--build-arg", "N=2")

    assert ran(second, "echo same") and not ran(second, "RUN cat /x")


def test_a_failing_step_says_code_output_and_line_and_cancels_the_rest(lamina: Lamina, tmp_path: Path):
    context = busybox_context(
        tmp_path / "ctx",
        "FROM base AS slow\nRUN sleep 600\nFROM base AS bad\nRUN echo why; exit 7\n"
        "FROM base\nCOPY --from=slow / /\nCOPY --from=bad / /\n",
    )

    done = lamina.build(context, check=False)

    assert done.returncode == 1
    assert "exit code: 7" in done.stderr and "why" in done.stderr and ">>> RUN echo why; exit 7" in done.stderr


def test_secrets_reach_the_step_and_nothing_else(lamina: Lamina, tmp_path: Path):
    """A3.7"""

    canary = "canary-" + os.urandom(8).hex()
    context = busybox_context(
        tmp_path / "ctx",
        "FROM base\nRUN --mount=type=secret,id=s cp /run/secrets/s /dev/shm/x && test -s /dev/shm/x\n"
        'RUN --mount=type=secret,id=s,env=TOKEN test -n "$TOKEN"\nRUN test ! -e /run/secrets\n',
    )
    (tmp_path / "secret").write_text(canary)

    done = lamina.build(context, "-t", "s", "--secret", f"id=s,src={tmp_path / 'secret'}")

    assert canary not in done.stderr
    for path in lamina.root.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            data += gzip.decompress(data) if data.startswith(b"\x1f\x8b") else b""
            assert canary.encode() not in data, path


def test_a_missing_secret_says_which_option_gives_it(lamina: Lamina, tmp_path: Path):
    context = busybox_context(tmp_path / "ctx", "FROM base\nRUN --mount=type=secret,id=s,required=true true\n")

    done = lamina.build(context, check=False)

    assert done.returncode == 2 and "--secret id=s" in done.stderr


def test_the_step_sees_only_the_declared_environment_and_three_descriptors(lamina: Lamina, tmp_path: Path):
    context = busybox_context(
        tmp_path / "ctx", "FROM base\nARG A=1\nENV E=2\nRUN env | sort > /env; ls /proc/self/fd > /fds\n"
    )

    out = files(lamina, context, tmp_path / "out")

    names = {line.partition("=")[0] for line in (out / "env").read_text().splitlines()}
    assert names - {"PWD", "SHLVL", "OLDPWD", "HOSTNAME"} == {"A", "E", "HOME", "PATH"}
    assert (out / "fds").read_text().split() in (["0", "1", "2"], ["0", "1", "2", "3"])  # 3: ls reading the directory


def test_mount_points_and_network_files_never_stay_in_a_layer(lamina: Lamina, tmp_path: Path):
    """A3.12"""

    context = busybox_context(
        tmp_path / "ctx",
        "FROM base\nRUN --mount=type=cache,target=/var/cache/x --mount=type=tmpfs,target=/scratch "
        "--mount=type=bind,target=/src cat /etc/resolv.conf /etc/hosts > /dev/null; touch /made\n",
    )
    lamina.build(context, "-t", "m")

    lamina("save", "-o", tmp_path / "m.tar", "m")
    shutil.unpack_archive(tmp_path / "m.tar", tmp_path / "m")
    (manifest,) = json.loads((tmp_path / "m" / "manifest.json").read_text())
    listed = subprocess.run(
        ["tar", "-tf", tmp_path / "m" / manifest["Layers"][-1]], capture_output=True, text=True, check=True
    )
    assert listed.stdout.split() == ["made"]


def test_a_hundred_and_twenty_layers_can_be_run_on(lamina: Lamina, tmp_path: Path):
    copies = "".join(f"COPY f /f{n}\n" for n in range(120))
    context = busybox_context(tmp_path / "ctx", f"FROM base\n{copies}RUN ls / | grep -c '^f[0-9]' > /count\n")
    (context / "f").write_text("x")

    out = files(lamina, context, tmp_path / "out")

    assert (out / "count").read_text() == "120\n"


def test_language_of_the_first_cut(lamina: Lamina, tmp_path: Path):
    """Heredocs, expansion, exec form, SHELL, USER, WORKDIR, globs, chown, chmod, link, ADD of an archive."""
    context = busybox_context(
        tmp_path / "ctx",
        "ARG GLOBAL=g\n"
        "FROM base AS lang\nARG GLOBAL\nENV A=${GLOBAL:-none} B=$A\n"
        "WORKDIR /w\nRUN <<EOF\necho one > one\necho $A > two\nEOF\n"
        "RUN <<EOF\n#!/bin/ash\necho $0 > script\nEOF\n"
        "COPY <<EOF /inline\nvalue $A\nEOF\n"
        'RUN ["/bin/sh", "-c", "echo exec > exec"]\n'
        "COPY --chown=65534:1 --chmod=0640 *.txt texts/\n"
        "COPY --link a.txt /linked/\n"
        "ADD archive.tar.gz /unpacked/\n"
        "USER nobody\nRUN id -u > /tmp/uid; id -g >> /tmp/uid\n"
        "USER root\n",
    )
    context.joinpath("Dockerfile").write_text(
        "ARG GLOBAL=g\n" + context.joinpath("Dockerfile").read_text().replace("ARG GLOBAL=g\n", "", 1)
    )
    for name in ("a.txt", "b.txt"):
        (context / name).write_text(name)
    (context / "in").mkdir()
    (context / "in" / "file").write_text("packed")
    subprocess.run(["tar", "-czf", context / "archive.tar.gz", "-C", context, "in"], check=True)

    out = files(lamina, context, tmp_path / "out")

    assert (out / "w" / "one").read_text() == "one\n" and (out / "w" / "two").read_text() == "g\n"
    assert (out / "w" / "script").exists()
    assert (out / "inline").read_text() == "value g\n"
    assert (out / "w" / "exec").read_text() == "exec\n"
    lamina.build(context, "-o", f"type=tar,dest={tmp_path / 'out.tar'}")
    with tarfile.open(tmp_path / "out.tar") as archive:
        texts = archive.getmember("w/texts/a.txt")
    assert (texts.uid, texts.gid, texts.mode) == (65534, 1, 0o640)
    assert (out / "linked" / "a.txt").exists() and (out / "unpacked" / "in" / "file").read_text() == "packed"
    assert (out / "tmp" / "uid").read_text() == "65534\n65534\n"


def test_the_config_holds_what_the_instructions_say(lamina: Lamina, tmp_path: Path):
    context = busybox_context(
        tmp_path / "ctx",
        "FROM base\nLABEL a=b\nEXPOSE 80 53/udp\nVOLUME /data\nSTOPSIGNAL SIGINT\nUSER nobody\nWORKDIR /w\n"
        'HEALTHCHECK --interval=5s CMD true\nENTRYPOINT ["/bin/echo"]\nCMD ["hi"]\n',
    )
    lamina.build(context, "-t", "c", "--label", "x=y")

    (found,) = json.loads(lamina("inspect", "c").stdout)

    config = found["Config"]
    assert config["Labels"] == {"a": "b", "x": "y"} and set(config["ExposedPorts"]) == {"80/tcp", "53/udp"}
    assert config["Volumes"] == {"/data": {}} and config["StopSignal"] == "SIGINT" and config["User"] == "nobody"
    assert config["WorkingDir"] == "/w" and config["Entrypoint"] == ["/bin/echo"] and config["Cmd"] == ["hi"]
    assert config["Healthcheck"]["Interval"] == 5_000_000_000
    assert lamina("run", "c").stdout == "hi\n"


def test_cache_mounts_survive_builds_and_stay_out_of_the_image(lamina: Lamina, tmp_path: Path):
    """A3.4"""

    context = busybox_context(
        tmp_path / "ctx",
        "FROM base\nARG N\nRUN --mount=type=cache,target=/c echo $N >> /c/log; cp /c/log /seen\n",
    )
    lamina.build(context, "--build-arg", "N=1")

    out = files(lamina, context, tmp_path / "out", "--build-arg", "N=2")

    assert (out / "seen").read_text() == "1\n2\n" and not (out / "c").exists()


def test_the_ignore_file_keeps_files_out(lamina: Lamina, tmp_path: Path):
    context = busybox_context(tmp_path / "ctx", "FROM scratch\nCOPY . /\n")
    (context / ".dockerignore").write_text("rootfs\n*.log\n!keep.log\n")
    for name in ("a.log", "keep.log", "b.txt"):
        (context / name).write_text(name)

    out = files(lamina, context, tmp_path / "out")

    assert sorted(path.name for path in out.iterdir()) == [".dockerignore", "Dockerfile", "b.txt", "keep.log"]


@pytest.mark.parametrize(
    ("dockerfile", "code", "words"),
    [
        ("FROM scratch\nCOPY nothere /\n", 2, ["/nothere: not found in the build context", ">>> COPY nothere /"]),
        ("FROM scratch\nCPOY a b\n", 2, ["unknown instruction", "did you mean COPY?"]),
        ("FROM scratch AS a\nCOPY --from=b / /\nFROM scratch AS b\nCOPY --from=a / /\n", 2, ["in a circle"]),
        ("FROM 127.0.0.1:1/none\n", 4, ["127.0.0.1:1", "connection refused"]),
        ("FROM scratch\nRUN true\n", 1, ["RUN true"]),
        ("", 2, ["Dockerfile"]),
    ],
)
def test_bad_input_says_what_where_and_how(
    lamina: Lamina, tmp_path: Path, dockerfile: str, code: int, words: list[str]
):
    (tmp_path / "ctx").mkdir()
    (tmp_path / "ctx" / "Dockerfile").write_text(dockerfile)

    done = lamina.build(tmp_path / "ctx", check=False)

    assert done.returncode == code, done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr
    assert lamina("store", "check").returncode == 0


def test_an_unknown_target_lists_the_stages(lamina: Lamina, tmp_path: Path):
    """A2.8"""

    context = busybox_context(tmp_path / "ctx", "FROM base AS final\n")

    done = lamina.build(context, "--target", "finall", check=False)

    assert done.returncode == 2 and "did you mean final?" in done.stderr


def test_a_full_disk_is_said_and_the_store_stays_sound(lamina: Lamina, tmp_path: Path):
    lamina.root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", lamina.root], check=True)
    try:
        context = tmp_path / "ctx"
        context.mkdir()
        (context / "big").write_bytes(os.urandom(12 << 20))
        (context / "Dockerfile").write_text("FROM scratch\nCOPY big /big\n")

        done = lamina.build(context, check=False)

        assert done.returncode == 3 and "no space left" in done.stderr, done.stderr
        assert lamina("store", "check").returncode == 0
        (context / "big").write_bytes(b"small")
        lamina.build(context)
    finally:
        subprocess.run(["umount", lamina.root], check=True)


def test_kill_9_at_any_moment_leaves_a_sound_store_and_no_mount(lamina: Lamina, tmp_path: Path):
    context = busybox_context(
        tmp_path / "ctx",
        "FROM base AS a\nARG N\nCOPY data /data\nRUN echo $N > /n; cat /data/* > /all\n"
        "FROM base\nCOPY --from=a /all /n /\nRUN --mount=type=cache,target=/c cp /all /c/; rm /all\n",
    )
    (context / "data").mkdir()
    for n in range(50):
        (context / "data" / str(n)).write_bytes(os.urandom(20_000))
    dice = random.Random(1)

    for n in range(50):
        process = subprocess.Popen(
            [sys.executable, "-m", "lamina", "build", "-q", "-t", "k", "--build-arg", f"N={n}", str(context)],
            env={**os.environ, "LAMINA_ROOT": str(lamina.root)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(dice.uniform(0.05, 0.6))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert lamina("store", "check", check=False).returncode == 0

    lamina.build(context, "-t", "k", "--build-arg", "N=last")
    assert mounts(lamina.root) == []
    assert os.listdir(lamina.root / "work") == [] and os.listdir(lamina.root / "oci" / "ingest") == []


def test_two_processes_do_equal_work_once(lamina: Lamina, tmp_path: Path):
    """A2.7: the step appends a line to a cache mount each time that it runs."""
    context = busybox_context(
        tmp_path / "ctx",
        "FROM base\nRUN --mount=type=cache,target=/c,id=count echo ran >> /c/log; sleep 1\n"
        "FROM base AS show\nARG N\nRUN --mount=type=cache,target=/c,id=count cp /c/log /log; echo $N\n",
    )
    codes: list[int] = []
    threads = [
        threading.Thread(target=lambda: codes.append(lamina.build(context, "--target", "1", check=False).returncode))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    out = files(lamina, context, tmp_path / "out", "--target", "show")
    assert codes == [0, 0, 0]
    assert (out / "log").read_text() == "ran\n"


def test_a_file_edited_during_the_build_never_poisons_the_cache(lamina: Lamina, tmp_path: Path):
    context = tmp_path / "ctx"
    (context / "d").mkdir(parents=True)
    for n in range(300):
        (context / "d" / str(n)).write_bytes(os.urandom(60_000))
    (context / "Dockerfile").write_text("FROM scratch\nCOPY d /d\n")

    for round_number in range(4):
        process = subprocess.Popen(
            [sys.executable, "-m", "lamina", "build", "-q", str(context)],
            env={**os.environ, "LAMINA_ROOT": str(lamina.root)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        edits = 0
        while process.poll() is None and edits < 2000:
            path = context / "d" / str((edits * 7) % 300)
            path.write_bytes(path.read_bytes()[:-1] + bytes([round_number + edits % 200]))
            edits += 1
        process.wait()
        out = files(lamina, context, tmp_path / f"out{round_number}")
        assert all((out / "d" / str(n)).read_bytes() == (context / "d" / str(n)).read_bytes() for n in range(300))


def test_pruning_during_a_build_takes_nothing_from_it(lamina: Lamina, tmp_path: Path):
    context = busybox_context(
        tmp_path / "ctx",
        "FROM base\nRUN --mount=type=cache,target=/c touch /one /c/started; sleep 2\nRUN test -e /one && touch /two\n",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "lamina", "build", "-q", "-t", "p", str(context)],
        env={**os.environ, "LAMINA_ROOT": str(lamina.root)},
    )
    while process.poll() is None:
        lamina("prune", "--all", "--force")

    assert process.returncode == 0
    assert lamina("run", "p", "ls", "/one", "/two").stdout == "/one\n/two\n"
    assert lamina("store", "check").returncode == 0


def test_ctrl_c_leaves_no_process_mount_or_file(lamina: Lamina, tmp_path: Path):
    context = busybox_context(tmp_path / "ctx", "FROM base\nRUN echo started; sleep 987\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "lamina", "build", "--progress=plain", str(context)],
        env={**os.environ, "LAMINA_ROOT": str(lamina.root)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while "started" not in (line := process.stderr.readline()) or "RUN" in line:
        assert line, "the build ended before the step ran"
    process.send_signal(signal.SIGINT)
    process.stderr.read()
    process.stderr.close()

    assert process.wait() == 130
    assert subprocess.run(["pgrep", "-f", "sleep 987"], check=False, capture_output=True).returncode == 1
    assert mounts(lamina.root) == [] and os.listdir(lamina.root / "work") == []


def test_an_ordinary_user_builds_and_runs(tmp_path: Path):
    """In a user namespace, entered by the command itself."""
    user = "nobody"
    if not Path("/etc/subuid").exists() or shutil.which("newuidmap") is None:
        pytest.skip("no newuidmap here: apt-get install uidmap")
    home = tmp_path
    for parent in [home, *home.parents]:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable]
    if subprocess.run([*as_nobody, "-c", "import lamina"], check=False, capture_output=True).returncode:
        pytest.skip("another user cannot read this interpreter or checkout")
    context = busybox_context(tmp_path / "ctx", "FROM base\nRUN id -u > /uid; chown 1:1 /uid || true\n")
    root = tmp_path / "root"
    root.mkdir()
    shutil.chown(root, user)
    command = [*as_nobody, "-m", "lamina"]
    env = {**os.environ, "LAMINA_ROOT": str(root), "HOME": str(root)}

    built = subprocess.run(
        [*command, "build", "-t", "u", context], env=env, capture_output=True, text=True, check=False
    )
    shown = subprocess.run([*command, "run", "u", "cat", "/uid"], env=env, capture_output=True, text=True, check=False)

    on_terminal = [*command, "run", "-t", "u", "sh", "-c", "tty"]
    terminal = subprocess.run(on_terminal, env=env, capture_output=True, text=True, check=False)

    assert built.returncode == 0, built.stderr
    assert shown.stdout == "0\n", shown.stderr
    assert terminal.stdout == "/dev/pts/0\n", terminal.stderr
    subprocess.run([*command, "prune", "--all", "--force"], env=env, capture_output=True, check=False)


def test_a_fully_cached_build_imports_nothing_heavy(lamina: Lamina, tmp_path: Path):
    context = busybox_context(tmp_path / "ctx", "FROM base\nRUN true\n")
    for path in context.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000), follow_symlinks=False)
    lamina.build(context, "-t", "f")
    lamina.build(context, "-t", "f")

    code = (
        "import sys; from lamina.cli.main import main; main(sys.argv[1:]);"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "build", "-q", "-t", "f", str(context)],
        env={**os.environ, "LAMINA_ROOT": str(lamina.root)},
        capture_output=True,
        text=True,
        check=True,
    )

    heavy = {"dataclasses", "google.protobuf", "rich", "urllib3", "asyncio", "inspect", "subprocess", "typing", "email"}
    assert done.stdout.startswith("sha256:")
    assert heavy.isdisjoint(done.stderr.splitlines())
    assert "lamina.engine.build" not in done.stderr
