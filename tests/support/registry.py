"""Debian's docker-registry on a free loopback port, for tests that push and pull for real."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_CONFIG = """\
version: 0.1
log: {{level: {level}, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"{tls}}}
{auth}"""
_AUTH = "auth: {{htpasswd: {{realm: test, path: {path}}}}}\n"
_HASHES = {"open sesame": "$2y$04$78knf60fy7Q2PN0TEVi7QOZKYLu6EIEzWrs9H573ckjDMn2PEHqf2"}
"""Passwords of users, as htpasswd keeps them (bcrypt)."""
_TLS = ", tls: {{certificate: {pair}.crt, key: {pair}.key{client}}}"


@contextmanager
def running_registry(
    folder: Path,
    *,
    pair: Path | None = None,
    client_ca: Path | None = None,
    user: tuple[str, str] | None = None,
    log_level: str = "error",
) -> Iterator[str]:
    """Run a registry that keeps its blobs in `folder`; yield its `127.0.0.1:port`.

    Args:
        pair: speak TLS with `PAIR.crt` and `PAIR.key`.
        client_ca: demand a certificate that this authority signed.
        user: who alone may come in, with a password out of `_HASHES`.
        log_level: of `registry.log`; "info" has a line for each answer, see `bytes_sent`.
    """
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("no docker-registry here: apt-get install docker-registry")
    port = free_port()
    config = folder / "registry.yml"
    client = f", clientcas: [{client_ca}]" if client_ca else ""
    tls = _TLS.format(pair=pair, client=client) if pair else ""
    auth = ""
    if user is not None:
        (folder / "htpasswd").write_text(f"{user[0]}:{_HASHES[user[1]]}\n")
        auth = _AUTH.format(path=folder / "htpasswd")
    config.write_text(_CONFIG.format(root=folder / "blobs", port=port, tls=tls, auth=auth, level=log_level))
    with (
        open(folder / "registry.log", "wb") as log,
        subprocess.Popen([program, "serve", config], stdout=log, stderr=log, stdin=subprocess.DEVNULL) as process,
    ):
        try:
            _wait(port, process, "https" if pair else "http")
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def bytes_sent(folder: Path) -> int:
    """Return how many bytes of answers the registry in `folder` has sent so far; it must log at "info"."""
    text = (folder / "registry.log").read_text("utf-8", "replace")
    return sum(map(int, re.findall(r"http\.response\.written=(\d+)", text)))


def bytes_kept(folder: Path) -> int:
    """Return how many bytes of blobs the registry in `folder` has."""
    return sum(path.stat().st_size for path in (folder / "blobs").rglob("data"))


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(port: int, process: subprocess.Popen[bytes], scheme: str) -> None:
    """Return when the registry answers; that it does not like our lack of a certificate is an answer."""
    handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=ssl._create_unverified_context())]
    opener = urllib.request.build_opener(*handlers)
    for _ in range(600):
        if process.poll() is not None:
            raise AssertionError(f"docker-registry ended with exit code {process.returncode}")
        try:
            with opener.open(f"{scheme}://127.0.0.1:{port}/v2/", timeout=5):
                return
        except urllib.error.HTTPError as refusal:
            refusal.close()
            return  # a registry that wants to know who asks
        except OSError as error:
            if any(isinstance(fault, ssl.SSLError) for fault in (error, getattr(error, "reason", None))):
                return
            try:
                process.wait(timeout=0.05)
            except subprocess.TimeoutExpired:
                continue
    raise AssertionError("docker-registry does not answer")
