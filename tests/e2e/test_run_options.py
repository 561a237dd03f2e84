"""What a RUN is given beside its files: mounts, agents, secrets, names, limits. IDs are rows of the feature map."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.bases import busybox_context, debian_rootfs, link_or_copy
from support.command import Lamina

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for overlay mounts"),
    pytest.mark.skipif(shutil.which("crun") is None, reason="no crun here: apt-get install crun"),
]

TWO = "FROM base AS a\n{0}FROM base AS b\n{1}FROM scratch\nCOPY --from=a /seen /a\nCOPY --from=b /seen /b\n"
"""Two stages that run at once; each leaves `/seen`."""
MEET = "touch /meet/{0}; until test -e /meet/{1}; do sleep 0.01; done;"
"""A command that goes on when the other stage has come as far, in a shared cache mount."""


class TestCaches:
    def test_private_gives_each_of_two_steps_its_own(self, busybox):
        """A3.4: while one step has the cache, another gets an empty one; nobody waits."""
        line = (
            "RUN --mount=type=cache,target=/meet --mount=type=cache,id=p,target=/c,sharing=private {0} touch /c/{1}; "
        )
        line += "{2} ls /c > /seen\n"
        first = line.format(MEET.format("a", "b"), "a", MEET.format("a2", "b2"))
        second = line.format(MEET.format("b", "a"), "b", MEET.format("b2", "a2"))

        out = busybox(TWO.format(first, second))

        assert ((out / "a").read_text(), (out / "b").read_text()) == ("a\n", "b\n")

    def test_shared_is_one_for_both(self, busybox):
        """A3.4: without `sharing` both steps see one directory at the same time."""
        line = "RUN --mount=type=cache,id=s,target=/meet {0} ls /meet > /seen\n"

        out = busybox(TWO.format(line.format(MEET.format("a", "b")), line.format(MEET.format("b", "a"))))

        assert ((out / "a").read_text(), (out / "b").read_text()) == ("a\nb\n", "a\nb\n")

    def test_locked_lets_one_in_at_a_time(self, busybox):
        """A3.4: counting up by reading and writing loses nothing."""
        count = (
            "i=0; while [ $i -lt 200 ]; do n=$(cat /c/n 2>/dev/null || echo 0); echo $((n+1)) > /c/n; i=$((i+1)); done"
        )
        line = f"RUN --mount=type=cache,id=l,target=/c,sharing=locked {count}; cat /c/n > /seen\n"

        out = busybox(TWO.format(line, line.replace("cat /c/n >", "cat  /c/n >")))

        assert sorted([(out / "a").read_text(), (out / "b").read_text()]) == ["200\n", "400\n"]

    def test_what_a_cache_holds_and_how_it_is_shared_are_apart(self, busybox):
        """A3.4: the id names it, the target is where it is seen; it begins with a stage's files only when it is new."""
        seed = "FROM base AS seed\nRUN mkdir /s; echo {0} > /s/f\nFROM base\n"
        mount = "RUN --mount=type=cache,id=k,target=/{0},from=seed,source=/s cat /{0}/f > /seen; echo own > /{0}/f\n"

        first = busybox(seed.format("one") + mount.format("x"))
        assert (first / "seen").read_text() == "one\n"
        second = busybox(seed.format("two") + mount.format("y"))
        assert (second / "seen").read_text() == "own\n"

    def test_content_of_a_cache_is_no_part_of_the_key(self, lamina: Lamina, tmp_path: Path):
        """A3.4: a step is cached whatever the cache holds by now."""
        text = "FROM base\nRUN --mount=type=cache,id=c,target=/c echo x >> /c/log; wc -l < /c/log > /seen\n"
        text += "ARG N\nRUN --mount=type=cache,id=c,target=/c echo $N >> /c/log\n"
        context = busybox_context(tmp_path / "ctx", text)
        lamina.build(context, "--build-arg", "N=1")
        lamina.build(context, "--build-arg", "N=2", "-o", f"type=local,dest={tmp_path}/out")

        assert (tmp_path / "out" / "seen").read_text() == "1\n"

    def test_owner_and_mode_count_for_a_new_cache(self, busybox):
        """A3.4: mode, uid and gid are what it begins with; later mounts of the same id leave it as it is."""
        first = busybox(
            "FROM base\nRUN --mount=type=cache,id=o,target=/c,uid=5,gid=6,mode=0710 stat -c '%u %g %a' /c > /f\n"
        )
        assert (first / "f").read_text() == "5 6 710\n"
        again = busybox("FROM base\nRUN --mount=type=cache,id=o,target=/c stat -c '%u %g %a' /c > /f\n")
        assert (again / "f").read_text() == "5 6 710\n"

    def test_a_namespace_has_caches_of_its_own(self, busybox):
        """A3.5: BUILDKIT_CACHE_MOUNT_NS keeps equal ids apart."""
        text = "FROM base\nARG N\nRUN --mount=type=cache,id=n,target=/c echo $N >> /c/log; cp /c/log /seen\n"

        def log(number: int, *words: str) -> str:
            return (busybox(text, "--build-arg", f"N={number}", *words) / "seen").read_text()

        space = ("--build-arg", "BUILDKIT_CACHE_MOUNT_NS=one")
        assert [log(1), log(2, *space), log(3), log(4, *space)] == ["1\n", "2\n", "1\n3\n", "2\n4\n"]


class TestBinds:
    def test_from_an_image_a_stage_and_a_context(self, lamina: Lamina, busybox, registry: str, tmp_path: Path):
        """A3.3: `from` takes each of them; a stage named nowhere else is built for it."""
        (tmp_path / "image").mkdir()
        (tmp_path / "image" / "Dockerfile").write_text("FROM scratch\nCOPY <<E /i/f\nimage\nE\n")
        lamina.build(tmp_path / "image", "-t", f"{registry}/i:1", "--push")
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "f").write_text("context\n")
        mounts = f"--mount=from={registry}/i:1,source=/i,target=/a --mount=from=s,source=/s,target=/b "
        text = f"FROM base AS s\nRUN mkdir /s; echo stage > /s/f\nFROM base\nRUN {mounts}--mount=from=c,target=/c "

        out = busybox(text + "cat /a/f /b/f /c/f > /seen\n", "--build-context", f"c={tmp_path}/other")

        assert (out / "seen").read_text() == "image\nstage\ncontext\n"

    def test_writes_reach_neither_the_context_nor_the_stage(self, busybox, tmp_path: Path):
        """A3.3: with `rw` a step may write, and it is gone with the step."""
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "f").write_text("old\n")
        text = "FROM base AS s\nRUN echo old > /f\nFROM base\n"
        text += "RUN --mount=from=s,target=/s,rw --mount=from=c,target=/c,rw echo new | tee /s/f /c/f > /c/more\n"
        text += "RUN --mount=from=s,target=/s --mount=from=c,target=/c cat /s/f /c/f > /seen; ls /c >> /seen\n"

        out = busybox(text, "--build-context", f"c={tmp_path}/other")

        assert (out / "seen").read_text() == "old\nold\nf\n"
        assert [path.name for path in (tmp_path / "other").iterdir()] == ["f"]
        assert (tmp_path / "other" / "f").read_text() == "old\n"


class TestSecrets:
    def test_file_with_owner_and_mode(self, busybox, tmp_path: Path):
        """A3.7: `/run/secrets/ID`, 0400 and root's, unless said otherwise; a target of one's own; in no layer."""
        (tmp_path / "s").write_text("value")
        stat = "stat -c '%a %u %g %n'"
        text = f"FROM base\nRUN --mount=type=secret,id=s {stat} /run/secrets/s > /seen\n"
        text += (
            f"RUN --mount=type=secret,id=s,target=/x/y,mode=0640,uid=7,gid=8 {stat} /x/y >> /seen; cat /x/y >> /seen\n"
        )
        text += f"WORKDIR /w\nRUN --mount=type=secret,id=s,target=here {stat} /w/here >> /seen\n"
        text += "RUN ls /run /x /w /run/secrets 2>/dev/null > /left; true\n"

        out = busybox(text, "--secret", f"id=s,src={tmp_path}/s")

        assert (out / "seen").read_text() == "400 0 0 /run/secrets/s\n640 7 8 /x/y\nvalue400 0 0 /w/here\n"
        assert "s" not in (out / "left").read_text().split()

    def test_variable_and_both(self, busybox):
        """A3.7: `env` gives a variable, with a target a file as well; the secret may come from a variable, too."""
        text = "FROM base\nRUN --mount=type=secret,id=s,env=TOKEN echo $TOKEN > /seen; test ! -e /run/secrets/s\n"
        text += (
            "RUN --mount=type=secret,id=s,env=T,target=/t echo $T $(cat /t) >> /seen\nRUN echo [$T$TOKEN] >> /seen\n"
        )

        out = busybox(text, "--secret", "id=s,env=THE_SECRET", env={"THE_SECRET": "v"})

        assert (out / "seen").read_text() == "v\nv v\n[]\n"

    def test_required(self, lamina: Lamina, tmp_path: Path):
        """A3.7: one that is not given is left out, unless it is required."""
        context = busybox_context(
            tmp_path / "ctx", "FROM base\nRUN --mount=type=secret,id=s test ! -e /run/secrets/s\n"
        )
        lamina.build(context)
        text = (context / "Dockerfile").read_text().replace("id=s", "id=s,required")
        (context / "Dockerfile").write_text(text)

        done = lamina.build(context, check=False)

        assert done.returncode != 0 and "--secret id=s" in done.stderr and ">>> RUN --mount" in done.stderr

    def test_a_changed_secret_is_no_reason_to_run_again(self, lamina: Lamina, tmp_path: Path):
        """A3.7, B20: the value is in no key."""
        context = busybox_context(tmp_path / "ctx", "FROM base\nRUN --mount=type=secret,id=s cp /run/secrets/s /seen\n")
        for value in ("one", "two"):
            (tmp_path / "s").write_text(value)
            out = f"type=local,dest={tmp_path}/{value}"
            lamina.build(context, "--secret", f"id=s,src={tmp_path}/s", "-o", out)

        assert (tmp_path / "two" / "seen").read_text() == "one"


ASK = """\
import socket, sys
with socket.socket(socket.AF_UNIX) as agent:
    agent.connect(sys.argv[1])
    agent.sendall(bytes([0, 0, 0, 1, 11]))  # SSH_AGENTC_REQUEST_IDENTITIES; the answer ends with the key's comment
    answer = b""
    while len(answer) < 4 or len(answer) < 4 + int.from_bytes(answer[:4], "big"):
        answer += agent.recv(1000)
print(answer[answer.rindex(b"key of"):].decode())
"""


@contextmanager
def real_agent(folder: Path, name: str) -> Iterator[Path]:
    """Start an ssh-agent with one key, whose comment is `key of NAME`; return its socket."""
    if shutil.which("ssh-agent") is None:
        pytest.skip("no ssh-agent here: apt-get install openssh-client")
    path, key = folder / f"agent-{name}", folder / f"key-{name}"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key, "-C", f"key of {name}"]
    subprocess.run(command, check=True)
    with subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        agent.stdout.readline()  # it listens before it says so
        try:
            subprocess.run(["ssh-add", "-q", key], env={**os.environ, "SSH_AUTH_SOCK": str(path)}, check=True)
            yield path
        finally:
            agent.terminate()


@contextmanager
def listening(*paths: Path) -> Iterator[None]:
    """Have sockets at `paths`, where nobody answers."""
    with ExitStack() as stack:
        for path in paths:
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(os.fspath(path))
        yield


class TestAgents:
    def test_sockets_have_their_place_owner_and_mode(self, busybox, tmp_path: Path):
        """A3.8: `/run/buildkit/ssh_agent.N`, 0600; target, mode, uid and gid as asked; SSH_AUTH_SOCK is the first."""
        stat = "stat -c '%F %a %u %g'"
        text = (
            f"FROM base\nRUN --mount=type=ssh {stat} /run/buildkit/ssh_agent.0 > /seen; echo $SSH_AUTH_SOCK >> /seen\n"
        )
        text += (
            f"RUN --mount=type=ssh,target=/a,mode=0666,uid=3,gid=4 {stat} /a >> /seen; echo $SSH_AUTH_SOCK >> /seen\n"
        )
        text += "RUN --mount=type=ssh --mount=type=ssh,id=two ls /run/buildkit >> /seen; echo $SSH_AUTH_SOCK >> /seen\n"
        text += "ENV SSH_AUTH_SOCK=/own\nRUN --mount=type=ssh echo $SSH_AUTH_SOCK >> /seen; ls /run >> /seen; true\n"
        with listening(tmp_path / "1", tmp_path / "2"):
            out = busybox(text, "--ssh", f"default={tmp_path}/1", "--ssh", f"two={tmp_path}/2")

        assert (out / "seen").read_text().splitlines() == [
            *("socket 600 0 0", "/run/buildkit/ssh_agent.0", "socket 666 3 4", "/a"),
            *("ssh_agent.0", "ssh_agent.1", "/run/buildkit/ssh_agent.0", "/own", "buildkit"),
        ]
        assert not (out / "run").exists()

    def test_each_id_reaches_its_own_agent(self, lamina: Lamina, tmp_path: Path):
        """A3.8, A7.1: the one of SSH_AUTH_SOCK, of a socket, or one that holds the keys named; it lists its keys."""
        context = tmp_path / "ctx"
        context.mkdir()
        link_or_copy(debian_rootfs(), context / "debian.tar")
        (context / "ask.py").write_text(ASK)
        (context / "Dockerfile").write_text(
            "FROM scratch\nADD debian.tar /\nRUN --mount=target=/c --mount=type=ssh,required --mount=type=ssh,id=two "
            "for n in 0 1; do python3 /c/ask.py /run/buildkit/ssh_agent.$n >> /seen; done\n"
            "FROM scratch\nCOPY --from=0 /seen /\n"
        )
        with real_agent(tmp_path, "one") as one, real_agent(tmp_path, "two") as two:
            options = ("--ssh", "default", "--ssh", f"two={two}", "-o", f"type=local,dest={tmp_path}/out")
            lamina.build(context, *options, env={"SSH_AUTH_SOCK": str(one)})
        assert (tmp_path / "out" / "seen").read_text() == "key of one\nkey of two\n"

        keys = ("--ssh", f"default={tmp_path}/key-two", "--ssh", f"two={tmp_path}/key-one")
        lamina.build(
            context, *keys, "--no-cache", "-o", f"type=local,dest={tmp_path}/out", env={"TMPDIR": str(tmp_path)}
        )
        assert (tmp_path / "out" / "seen").read_text() == "key of two\nkey of one\n"
        assert list(tmp_path.glob("lamina-ssh-*")) == []

    def test_a_key_that_cannot_be_loaded(self, lamina: Lamina, tmp_path: Path):
        """A7.1: one with a passphrase, or that is none: nobody is asked, the error says what to do."""
        if shutil.which("ssh-agent") is None:
            pytest.skip("no ssh-agent here: apt-get install openssh-client")
        key = tmp_path / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", key], check=True)
        (tmp_path / "none").write_text("no key\n")
        (tmp_path / "none").chmod(0o600)
        context = busybox_context(tmp_path / "ctx", "FROM base\nRUN --mount=type=ssh true\n")
        for path in (key, tmp_path / "none"):
            done = lamina.build(context, "--ssh", f"default={path}", check=False, env={"TMPDIR": str(tmp_path)})
            assert done.returncode == 2 and "a key cannot be loaded" in done.stderr and "ssh-add FILE" in done.stderr
        assert list(tmp_path.glob("lamina-ssh-*")) == []

    def test_required(self, lamina: Lamina, tmp_path: Path):
        """A3.8: an agent that is not given is left out, unless it is required."""
        context = busybox_context(tmp_path / "ctx", "FROM base\nRUN --mount=type=ssh test ! -e /run/buildkit\n")
        lamina.build(context)
        text = (context / "Dockerfile").read_text().replace("type=ssh", "type=ssh,id=x,required=true")
        (context / "Dockerfile").write_text(text)

        done = lamina.build(context, check=False)

        assert done.returncode != 0 and "SSH agent" in done.stderr and ">>> RUN --mount=type=ssh" in done.stderr


class TestSurroundings:
    def test_hosts_host_name_limits_and_shared_memory(self, busybox):
        """A3.13: each option of the command line is seen by every step."""
        text = "FROM base\nRUN cat /etc/hosts > /hosts; hostname > /name; ulimit -n > /files; ulimit -Hn >> /files; "
        text += "df -k /dev/shm | awk 'END { print $2 }' > /shm\nRUN hostname >> /name\n"

        options = ["--add-host", "db:10.1.2.3", "--add-host", "six=[fe80::1]", "--hostname", "box"]
        out = busybox(text, *options, "--ulimit", "nofile=77:99", "--shm-size", "3m")

        hosts = [line.split() for line in (out / "hosts").read_text().splitlines()]
        assert ["10.1.2.3", "db"] in hosts and ["fe80::1", "six"] in hosts
        assert (out / "name").read_text() == "box\nbox\n"
        assert (out / "files").read_text() == "77\n99\n"
        assert (out / "shm").read_text() == "3072\n"

    def test_the_hosts_gateway(self, busybox):
        """A3.13: `host-gateway` becomes an address of this machine."""
        out = busybox("FROM base\nRUN grep up /etc/hosts > /seen\n", "--add-host", "up:host-gateway")

        address, name = (out / "seen").read_text().split()
        assert name == "up" and socket.inet_aton(address)

    def test_host_name_by_build_argument(self, busybox):
        """A3.13, A5.5: BUILDKIT_SANDBOX_HOSTNAME; without either it is BuildKit's."""
        text = "FROM base\nRUN hostname > /seen\n"

        assert (busybox(text) / "seen").read_text() == "buildkitsandbox\n"
        given = ("--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=other")
        assert (busybox(text, *given) / "seen").read_text() == "other\n"
