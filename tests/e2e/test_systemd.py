"""The units in examples/systemd: systemd understands them, and what they start is served at their sockets (H17)."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina.api.pb import control_pb2
from support.buildkit_client import Client

UNITS = Path(__file__).parents[2] / "examples" / "systemd"
KINDS = ("system", "user")
UID = 65534
AS_USER = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
pytestmark = pytest.mark.e2e


def setting(kind: str, unit: str, name: str) -> str:
    """Return the value of one line of a unit."""
    (found,) = re.findall(rf"^{name}=(.*)$", (UNITS / kind / unit).read_text(), re.MULTILINE)
    return found


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze: apt-get install systemd")
@pytest.mark.parametrize("kind", KINDS)
def test_systemd_finds_nothing_wrong(tmp_path: Path, kind: str):
    for path in (UNITS / kind).iterdir():
        # the program is not installed here
        text = re.sub(r"^ExecStart=\S+", f"ExecStart={sys.executable}", path.read_text(), flags=re.MULTILINE)
        (tmp_path / path.name).write_text(text)
    command = ["systemd-analyze", "verify", f"--{kind}", "--man=no", *sorted(tmp_path.iterdir())]
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert setting(kind, "lamina.service", "Type") == "notify"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path (a socket's must be) that an ordinary user gets to."""
    with tempfile.TemporaryDirectory(prefix="ls-", dir="/tmp") as found:
        path = Path(found)
        os.chown(path, UID, UID)
        yield path


@pytest.mark.skipif(
    shutil.which("systemd-socket-activate") is None or os.geteuid() != 0,
    reason="needs root and systemd-socket-activate: apt-get install systemd",
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_unit_starts_serves_its_socket(folder: Path, kind: str):
    """The first client starts it; it says when it is ready, and ends in good order."""
    prefix = AS_USER if kind == "user" else []
    if subprocess.run([*prefix, sys.executable, "-c", "import lamina"], check=False, capture_output=True).returncode:
        pytest.skip("another user cannot read this interpreter or checkout")
    words = shlex.split(setting(kind, "lamina.service", "ExecStart"))[1:]
    variables = {"LAMINA_ROOT": f"{folder}/root", "NOTIFY_SOCKET": f"{folder}/n", "HOME": str(folder)}
    passed = [f"--setenv={name}={value}" for name, value in {**variables, "PATH": os.environ["PATH"]}.items()]
    passed += [f"--setenv=PYTHONPATH={os.environ['PYTHONPATH']}"] if "PYTHONPATH" in os.environ else []
    command = ["systemd-socket-activate", "-l", f"{folder}/s", *passed, sys.executable, "-m", "lamina", *words]
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified,
        subprocess.Popen([*prefix, *command], stderr=subprocess.PIPE) as process,
    ):
        notified.bind(f"{folder}/n")
        os.chmod(f"{folder}/n", 0o666)
        notified.settimeout(60)
        assert process.stderr is not None
        process.stderr.readline()  # it listens
        try:
            with Client(f"unix:{folder}/s") as client:
                info = client.control["Info"](control_pb2.InfoRequest(), wait_for_ready=True, timeout=60)
            ready = notified.recv(100)
        finally:
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
        assert process.wait(30) == 0
        stopping = notified.recv(100)

    assert info.buildkitVersion.package == "lamina"
    assert (ready, stopping) == (b"READY=1", b"STOPPING=1")
    shutil.rmtree(folder / "root")
