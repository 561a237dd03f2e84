"""`lamina serve` as an administrator starts it: addresses, certificates, sockets of systemd's, configuration (H17)."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lamina.api.pb import control_pb2
from support.bases import BUSYBOX_STAGE, busybox_context
from support.buildkit_client import Client, Offers, new_ref
from support.daemon import Daemon, running_daemon, stopping
from support.registry import free_port

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("crun") is None, reason="needs root and crun: apt-get install crun"
)
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl: apt-get install openssl")
pytestmark = [pytest.mark.e2e, needs_root]
UID = 65534
AS_USER = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]


def serve(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a `lamina serve` that is expected to end at once."""
    environment = {**os.environ, "LAMINA_ROOT": str(tmp_path / "root")}
    command = [sys.executable, "-m", "lamina", "serve", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def certificate(folder: Path, name: str, ca: str = "") -> tuple[Path, Path]:
    """Make a key and a certificate, signed by `ca` or by itself."""
    key, cert = folder / f"{name}.key", folder / f"{name}.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    words += ["-keyout", key, "-out", cert, "-subj", f"/CN={name}", "-days", "2"]
    if ca:
        words += ["-CA", folder / f"{ca}.pem", "-CAkey", folder / f"{ca}.key"]
        words += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"]
    subprocess.run([str(word) for word in words], check=True, capture_output=True)
    return key, cert


def secure(port: int, ca: Path, pair: tuple[Path, Path] | None) -> grpc.Channel:
    key, cert = (path.read_bytes() for path in pair) if pair else (None, None)
    credentials = grpc.ssl_channel_credentials(ca.read_bytes(), key, cert)
    return grpc.secure_channel(f"127.0.0.1:{port}", credentials, options=[("grpc.use_local_subchannel_pool", 1)])


@needs_openssl
def test_clients_show_certificates_over_tcp(tmp_path: Path):
    _, ca = certificate(tmp_path, "ca")
    key, cert = certificate(tmp_path, "server", "ca")
    pair = certificate(tmp_path, "client", "ca")
    stranger = certificate(tmp_path, "stranger")
    port = free_port()
    words = ["--addr", f"tcp://0.0.0.0:{port}", "--tlscert", cert, "--tlskey", key, "--tlscacert", ca]
    with running_daemon(tmp_path / "root", *map(str, words)):
        with secure(port, ca, pair) as channel:
            client = Client.over(channel)
            assert client.control["Info"](control_pb2.InfoRequest()).buildkitVersion.package == "lamina"
            folder = tmp_path / "ctx"
            folder.mkdir()
            (folder / "Dockerfile").write_text("FROM scratch\nCOPY big /\n")
            (folder / "big").write_bytes(os.urandom(3 << 20))
            (tmp_path / "out").mkdir()
            offers = Offers(dirs={"context": folder, "dockerfile": folder}, outputs={0: tmp_path / "out"})
            with client.session(offers) as session:
                client.dockerfile(session, exporters=[("local", {})])
            assert (tmp_path / "out/big").read_bytes() == (folder / "big").read_bytes()
        for wrong in (None, stranger):
            with secure(port, ca, wrong) as channel, pytest.raises(grpc.RpcError) as failed:
                Client.over(channel).control["Info"](control_pb2.InfoRequest(), timeout=20)
            assert failed.value.code() == grpc.StatusCode.UNAVAILABLE
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while plain.recv(4096):
                pass


def test_nobody_listens_to_the_whole_world_without_certificates(tmp_path: Path):
    done = serve(tmp_path, "--addr", "tcp://0.0.0.0:0")

    assert done.returncode == 2
    assert "--tlscacert" in done.stderr


def test_sockets_that_systemd_opened_are_served(tmp_path: Path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        # what systemd does: descriptor 3 is the socket, and LISTEN_PID names the process
        script = "import os, sys; os.dup2(int(sys.argv[1]), 3)\n"
        script += "os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(sys.executable, sys.argv[2:])"
        served = [sys.executable, "-m", "lamina", "serve", "--addr", "fd://"]
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(listener.fileno()), *served],
            env={**os.environ, "LAMINA_ROOT": str(tmp_path / "root"), "LISTEN_FDS": "1"},
            pass_fds=[listener.fileno()],
            stderr=subprocess.DEVNULL,
        )
    try:
        with Client(f"unix:{path}") as client:
            assert client.control["Info"](control_pb2.InfoRequest(), wait_for_ready=True, timeout=60) is not None
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_an_inherited_socket_for_the_whole_world_is_refused(tmp_path: Path):
    with socket.create_server(("0.0.0.0", 0)) as listener:
        script = "import os, sys; os.dup2(int(sys.argv[1]), 3)\n"
        script += "os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(sys.executable, sys.argv[2:])"
        served = [sys.executable, "-m", "lamina", "serve", "--addr", "fd://"]
        done = subprocess.run(
            [sys.executable, "-c", script, str(listener.fileno()), *served],
            env={**os.environ, "LAMINA_ROOT": str(tmp_path / "root"), "LISTEN_FDS": "1"},
            pass_fds=[listener.fileno()],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert done.returncode == 2
    assert "would rule this machine" in done.stderr


def test_fd_without_sockets_is_told(tmp_path: Path):
    done = serve(tmp_path, "--addr", "fd://")

    assert (done.returncode, "systemd .socket unit" in done.stderr) == (2, True)


def test_a_second_daemon_on_an_address_is_refused_and_a_dead_ones_socket_replaced(tmp_path: Path):
    with running_daemon(tmp_path / "root") as daemon:
        done = serve(tmp_path, "--addr", f"unix://{daemon.socket}")
        assert done.returncode == 5
        assert "another daemon listens there" in done.stderr
        done = serve(tmp_path, "--addr", f"unix://{tmp_path}/free", "--docker-addr", f"unix://{daemon.socket}")
        assert done.returncode == 5
        assert not (tmp_path / "free").exists()
        daemon.kill()
        assert os.path.exists(daemon.socket)
        daemon.start()
        assert daemon.stop() == 0
        assert not os.path.exists(daemon.socket)


def test_the_configuration_is_carried_out(tmp_path: Path):
    config = tmp_path / "b.toml"
    config.write_text(
        f'root = "{tmp_path / "other"}"\n'
        'insecure-entitlements = ["network.host"]\n'
        "provenanceEnvDir = '/x'\n"
        '[worker.oci]\nmax-parallelism = 1\nreservedSpace = "1GB"\n[worker.oci.labels]\nteam = "blue"\n'
        '[frontend."gateway.v0"]\nenabled = false\n'
    )
    with running_daemon(tmp_path / "root", "--config", str(config)) as daemon, Client(daemon.address) as client:
        (worker,) = client.control["ListWorkers"](control_pb2.ListWorkersRequest()).record
        with pytest.raises(grpc.RpcError, match="switched off"):
            client.solve(Frontend="gateway.v0", FrontendAttrs={"source": "x"}, Entitlements=["network.host"])
        log = daemon.log.read_text()

    assert worker.Labels["team"] == "blue"
    assert (tmp_path / "other/state.db").exists()
    assert "provenanceEnvDir has no meaning here" in log


def test_what_is_wrong_in_the_configuration_is_told_with_its_line(tmp_path: Path):
    (tmp_path / "b.toml").write_text("[worker.oci]\nmax-paralelism = 4\n")
    done = serve(tmp_path, "--config", str(tmp_path / "b.toml"))

    assert done.returncode == 2
    assert "unknown key 'max-paralelism'" in done.stderr
    assert "b.toml:2" in done.stderr
    assert "max-parallelism" in done.stderr


def test_the_group_may_connect(tmp_path: Path):
    docker = tmp_path / "docker"
    with running_daemon(tmp_path / "root", "--group", "65533", "--docker-addr", f"unix://{docker}") as daemon:
        found = [os.stat(path) for path in (daemon.socket, docker)]

    assert [(one.st_gid, one.st_mode & 0o777) for one in found] == [(65533, 0o660)] * 2


def test_stopping_waits_for_no_idle_client(tmp_path: Path):
    with running_daemon(tmp_path / "root") as daemon, Client(daemon.address) as client, client.session(Offers()):
        assert Daemon.stop(daemon) == 0


def test_standard_streams_become_a_connection(tmp_path: Path):
    """I9: what ssh tunnels are made of."""
    with running_daemon(tmp_path / "root") as daemon:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "lamina", "dial-stdio", "--addr", f"unix://{daemon.socket}"]
        with theirs:
            process = subprocess.Popen(command, stdin=theirs, stdout=theirs)
        with ours:
            ours.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
            answer = ours.recv(9)
            ours.shutdown(socket.SHUT_WR)
            while ours.recv(4096):
                pass
        assert answer[3:5] == b"\4\0"  # settings
        assert process.wait(30) == 0


def test_dialling_where_nobody_listens_is_told(tmp_path: Path):
    command = [sys.executable, "-m", "lamina", "dial-stdio", "--addr", f"unix://{tmp_path / 'none'}"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, "no daemon answers" in done.stderr) == (4, True)


def test_a_connection_that_breaks_is_told(tmp_path: Path):
    """I9: not with a traceback, and not as if all had been well."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        command = [sys.executable, "-m", "lamina", "dial-stdio", "--addr", f"unix://{path}"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdin is not None and process.stderr is not None
            accepted, _ = listener.accept()
            process.stdin.write(b"unread")
            process.stdin.flush()
            while not accepted.recv(6, socket.MSG_PEEK):
                pass
            accepted.close()  # with bytes that nobody read: a reset
            said = process.stderr.read().decode()

    assert process.returncode == 4
    assert "the daemon's connection broke" in said
    assert "Traceback" not in said


def test_two_daemons_share_one_state_directory(tmp_path: Path):
    """What one of them has built, the other finds, also when both build it at once."""
    out = [tmp_path / "a", tmp_path / "b"]
    folder = busybox_context(tmp_path / "ctx", "FROM base\nRUN cat /proc/sys/kernel/random/uuid > /once\n")
    with running_daemon(tmp_path / "root") as one, running_daemon(tmp_path / "root") as other:

        def build(daemon: Daemon, target: Path) -> str:
            target.mkdir()
            offers = Offers(dirs={"context": folder, "dockerfile": folder}, outputs={0: target})
            with Client(daemon.address) as client, client.session(offers) as session:
                client.dockerfile(session, exporters=[("local", {})])
            return (target / "once").read_text()

        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(build, (one, other), out)
        one.kill()
        third = build(other, tmp_path / "c")

    assert first == second == third


@pytest.fixture
def reachable(tmp_path: Path) -> Path:
    """A directory that an ordinary user owns and gets to."""
    for parent in tmp_path.parents:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    os.chown(tmp_path, UID, UID)
    tmp_path.chmod(0o755)
    if subprocess.run([*AS_USER, sys.executable, "-c", "import lamina"], check=False, capture_output=True).returncode:
        pytest.skip("another user cannot read this interpreter or checkout")
    return tmp_path


@pytest.mark.skipif(shutil.which("newuidmap") is None, reason="needs newuidmap: apt-get install uidmap")
def test_an_ordinary_user_serves(reachable: Path):
    """H10: rootless, at an address of the user's own that dial-stdio finds, with nothing left in the end."""
    runtime, root = reachable / "run", reachable / "root"
    runtime.mkdir(mode=0o700)
    os.chown(runtime, UID, UID)
    root.mkdir()
    os.chown(root, UID, UID)
    folder = busybox_context(reachable / "ctx", "FROM base\nRUN id -u > /uid && cat /proc/self/uid_map > /map\n")
    out = reachable / "out"
    out.mkdir()
    environ = {"XDG_RUNTIME_DIR": str(runtime), "HOME": str(reachable), "LAMINA_HOST": "", "XDG_CONFIG_HOME": ""}
    (reachable / ".config" / "lamina").mkdir(parents=True)
    (reachable / ".config" / "lamina" / "buildkitd.toml").write_text("[worker.oci.labels]\nmine = 'yes'\n")
    path = runtime / "lamina" / "lamina.sock"
    daemon = Daemon(root, str(path), prefix=AS_USER, environ=environ, addressed=False)
    with stopping(daemon):
        offers = Offers(dirs={"context": folder, "dockerfile": folder}, outputs={0: out})
        with Client(daemon.address) as client, client.session(offers) as session:
            client.dockerfile(session, exporters=[("local", {}), ("image", {"name": "app"})])
            (worker,) = client.control["ListWorkers"](control_pb2.ListWorkersRequest()).record
        found = path.stat()
        dial = [*AS_USER, sys.executable, "-m", "lamina", "dial-stdio"]
        dialled = subprocess.run(
            dial,
            env={**os.environ, **environ},
            input=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
            capture_output=True,
            timeout=60,
            check=True,
        )
        assert daemon.stop() == 0

    assert worker.Labels["mine"] == "yes"
    assert (out / "uid").read_text() == "0\n"
    assert (out / "map").read_text().split()[1] != "4294967295"
    assert (found.st_uid, found.st_mode & 0o777) == (UID, 0o660)
    assert dialled.stdout[3:5] == b"\4\0"
    assert list((runtime / "lamina").iterdir()) == []
    assert list((root / "work").iterdir()) == []
    prune = [*AS_USER, sys.executable, "-m", "lamina", "prune", "--all", "--force"]
    # what belongs to subordinate ids goes by the user's own hand
    subprocess.run(prune, env={**os.environ, **environ, "LAMINA_ROOT": str(root)}, check=True, capture_output=True)


def test_root_of_a_user_namespace_looks_where_it_would_serve(tmp_path: Path):
    """I9: uid 0 there is an ordinary user, for both commands."""
    inside = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*inside, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine gives no user namespaces")
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "LAMINA_HOST": "", "BUILDKIT_HOST": ""}
    done = subprocess.run(
        [*inside, sys.executable, "-m", "lamina", "dial-stdio"],
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert f"{tmp_path}/lamina/lamina.sock" in done.stderr


def test_prometheus_is_told_how_builds_went(tmp_path: Path):
    """K4: counts of builds and steps, their time, what they moved, and what runs now; by Prometheus' own parser."""
    port = free_port()
    folder = busybox_context(tmp_path / "ctx", "FROM base\nRUN true\n")
    offers = Offers(dirs={"context": folder, "dockerfile": folder})
    with running_daemon(tmp_path / "root", "--metrics-addr", f"127.0.0.1:{port}") as daemon:
        with Client(daemon.address) as client, client.session(offers) as session:
            client.dockerfile(session)
            client.dockerfile(session)
            with pytest.raises(grpc.RpcError):
                client.dockerfile(session, opts={"target": "nowhere"})
            (folder / "Dockerfile").write_text(f"{BUSYBOX_STAGE}RUN exit 1\n")
            with pytest.raises(grpc.RpcError):
                client.dockerfile(session)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [one for family in families for one in family.samples]
    figures = {(one.name, *(value for _, value in sorted(one.labels.items()))): one.value for one in samples}

    assert figures["lamina_builds_total", "completed"] == 2 and figures["lamina_builds_total", "failed"] == 2
    assert figures["lamina_builds_running",] == 0
    assert figures["lamina_build_duration_seconds_count",] == 4
    assert figures["lamina_build_steps_total", "run"] == 2
    assert figures["lamina_build_steps_total", "cached"] == 2 + 1
    assert figures["lamina_build_steps_total", "failed"] == 1
    assert figures["lamina_transferred_bytes_total", "received"] > 100_000
    assert figures["buildkit_builds_total", "", "success"] == 2
    assert figures["buildkit_builds_steps_total", "total"] == 2 + 2 + 2
    assert figures["process_open_fds",] > 0


def test_clients_are_shown_as_much_of_a_steps_output_as_the_owner_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """K2: buildkitd's variable; the record has everything."""
    monkeypatch.setenv("BUILDKIT_STEP_LOG_MAX_SIZE", "1000")
    folder = busybox_context(tmp_path / "ctx", "FROM base\nRUN seq 1 5000\n")
    offers = Offers(dirs={"context": folder, "dockerfile": folder})
    with running_daemon(tmp_path / "root") as daemon:
        with Client(daemon.address) as client, client.session(offers) as session:
            ref = new_ref()
            client.dockerfile(session, ref)
            shown = b"".join(log.msg for message in client.status(ref) for log in message.logs).decode()
        kept = subprocess.run(
            [sys.executable, "-m", "lamina", "--root", str(tmp_path / "root"), "history", "logs"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

    assert shown.endswith("[output clipped, log limit 1000B reached]\n") and len(shown) < 1100
    assert "\n5000\n" in kept
