"""Azure's blob storage on a free loopback port (Azurite), for tests of caches in object stores."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.bases import CHECKOUT
from support.registry import free_port

ACCOUNT = "devstoreaccount1"
# the account and key that Azurite is documented to have, for everybody to use
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@contextmanager
def running_azurite(folder: Path) -> Iterator[str]:
    """Run the server; yield the URL of its account."""
    program = CHECKOUT / ".cache" / "azurite" / "node_modules" / ".bin" / "azurite-blob"
    if not program.exists() or shutil.which("node") is None:
        pytest.skip("no azurite here: npm install --prefix .cache/azurite azurite")
    port = free_port()
    command = [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", folder / "data"]
    command += ["--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    with (
        open(folder / "azurite.log", "wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL) as process,
    ):
        try:
            _wait(port, process)
            yield f"http://127.0.0.1:{port}/{ACCOUNT}"
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def spec(url: str, name: str = "app") -> str:
    """Return the cache option for the server."""
    return f"type=azblob,account_url={url},account_name={ACCOUNT},secret_access_key={KEY},name={name}"


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise AssertionError(f"azurite ended with exit code {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        try:
            process.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError("azurite does not answer")
