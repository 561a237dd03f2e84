"""An S3 server on a free loopback port (moto), for tests of caches in object stores."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.registry import free_port

KEYS = "access_key_id=AKIDEXAMPLE,secret_access_key=not-a-secret"
BUCKET = "caches"


@contextmanager
def running_s3(folder: Path) -> Iterator[str]:
    """Run the server with one empty bucket; yield its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (
        open(folder / "s3.log", "wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL) as process,
    ):
        try:
            _make_bucket(url, process)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def spec(url: str, name: str = "app") -> str:
    """Return the cache option for the server."""
    where = f"region=us-east-1,bucket={BUCKET},name={name},endpoint_url={url},use_path_style=true"
    return f"type=s3,{where},{KEYS}"


def _make_bucket(url: str, process: subprocess.Popen[bytes]) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(f"{url}/{BUCKET}", method="PUT", data=b"")
    for _ in range(600):
        if process.poll() is not None:
            raise AssertionError(f"the S3 server ended with exit code {process.returncode}")
        try:
            with opener.open(request, timeout=5):
                return
        except OSError:
            try:
                process.wait(timeout=0.05)
            except subprocess.TimeoutExpired:
                continue
    raise AssertionError("the S3 server does not answer")
