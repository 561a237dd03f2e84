"""`--load`: the result handed to docker's engine through its own client, `docker load`.

Docker reads the archive while it is written; nothing is kept on disk between the two.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from lamina.errors import CancelledError, Error, MachineError

_MESSAGE_BYTES = 4096
_GIVING_UP_S = 2.0


@contextmanager
def docker_load(search_path: str) -> Iterator[BinaryIO]:
    """Give the standard input of a `docker load`; wait for it at the end.

    Raises:
        MachineError: there is no docker client.
        Error: docker did not take the image; with its own words.
    """
    program = shutil.which("docker", path=search_path)
    if program is None:
        raise MachineError(
            "--load needs docker's client, and there is none",
            hint="the image is in lamina's store too: `lamina run` it, or write it with -o type=docker,dest=image.tar",
        )
    process = subprocess.Popen(
        [program, "load", "--quiet"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stdin is not None and process.stderr is not None
    try:
        try:
            yield cast("BinaryIO", process.stdin)
        except CancelledError:
            # either the build was cancelled, or docker stopped reading because it gave up: then it says why below
            try:
                process.wait(_GIVING_UP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        except BaseException:
            process.kill()
            raise
        finally:
            try:
                process.stdin.close()
            except BrokenPipeError:
                pass
        words = process.stderr.read(_MESSAGE_BYTES).decode("utf-8", "replace").strip()
        if process.wait() != 0:
            raise Error(f"docker did not take the image: {words}", hint="is its engine running? see `docker info`")
    finally:
        process.stderr.close()
        process.wait()
