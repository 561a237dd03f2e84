"""The frontend `gateway.v0`: a program in an image that speaks LLBBridge over its standard input and output.

The program is the client of an HTTP/2 connection: what it writes on standard output goes to a server of its own here,
and what that answers to its standard input. It sees its options in the environment (`BUILDKIT_FRONTEND_OPT_n`), runs
confined like any step, and its standard error is the log of a vertex.
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lamina.api.pb import worker_pb2
from lamina.bridge.service import bridge_service
from lamina.bridge.values import Ref, Result
from lamina.engine.job import Job
from lamina.errors import Error, InputError
from lamina.executor.attach import Attached
from lamina.executor.names import host_resolv_conf, hosts_file
from lamina.executor.step import Rootfs, Step
from lamina.layer.tree import remove_tree
from lamina.llb import state as llb
from lamina.oci.platform import host_platform
from lamina.ops.user import lookup_user
from lamina.progress import LogEvent, VertexEvent
from lamina.rpc.server import Server, table
from lamina.tunnel.streams import SocketStream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina.bridge.bridge import Bridge

_NETWORK_LABEL = "moby.buildkit.frontend.network.none"
_CAPS_LABEL = "moby.buildkit.frontend.caps"
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
Workers = Callable[[], Sequence[worker_pb2.WorkerRecord]]


class FrontendError(Error):
    """A frontend in a container ended without a result."""


@dataclass(frozen=True, slots=True)
class _Program:
    """An image to run as a frontend."""

    name: str
    ref: Ref
    config: Mapping[str, Any]


def run_gateway(bridge: Bridge, opts: Mapping[str, str], workers: Workers) -> Result:
    """Run the frontend that `opts["source"]` names, and return what it returns.

    Args:
        bridge: of its own: references that it holds are known to no other frontend.

    Raises:
        Error: what the frontend says went wrong; `FrontendError` when it says nothing.
    """
    job = bridge.job
    source = opts.get("source", "")
    if not source:
        raise InputError("gateway.v0 needs the frontend's image", hint="--opt source=IMAGE")
    program = _program(job, source)
    wanted = {cap for cap in opts.get("frontend.caps", "").split(",") if cap}
    offered = set(str((program.config.get("Labels") or {}).get(_CAPS_LABEL, "")).split(","))
    if lacking := wanted - offered:
        raise InputError(f"the frontend {source} lacks {', '.join(sorted(lacking))}")
    ours, theirs = socket.socketpair()
    server = Server(table(bridge_service(lambda _call: bridge, workers)))
    serving = threading.Thread(target=server.serve, args=(SocketStream(ours),), name="frontend", daemon=True)
    serving.start()
    try:
        with theirs:
            _run(job, program, opts, workers, theirs)
        serving.join()
        return bridge.result_now(lambda: FrontendError(f"the frontend {source} ended without a result"))
    finally:
        server.stop()


def _program(job: Job, source: str) -> _Program:
    base = job.resolve(source, host_platform())
    return _Program(source, Ref(llb.image(base.reference).marshal(), job), dict(base.config.get("config") or {}))


def _run(job: Job, program: _Program, opts: Mapping[str, str], workers: Workers, connection: socket.socket) -> None:
    """Run the program with its standard streams on the server's socket, until it ends."""
    title, started = f"[frontend] {program.name}", time.time()
    digest = f"frontend:{secrets.token_hex(8)}"
    job.sink(VertexEvent(digest, title, started=started))
    error = ""
    try:
        with _rootfs(job, program.ref) as rootfs:

            def on_output(stream: int, data: bytes) -> None:
                if stream == 1:
                    connection.sendall(data)
                else:
                    job.sink(LogEvent(digest, 2, data, time.time()))

            step = _step(job, program, opts, workers, rootfs)
            attached = Attached(connection.fileno())
            result = job.solver.worker.executor().run(step, on_output, job.cancel, attached)
        if result.exit_code:
            error = result.message or f"exit code {result.exit_code}"
    except Error as failure:
        error = str(failure)
        raise
    finally:
        job.sink(VertexEvent(digest, title, started=started, completed=time.time(), error=error))


@contextmanager
def _rootfs(job: Job, ref: Ref) -> Iterator[Rootfs]:
    """Give the program's files, with a throw-away upper."""
    layers, cancel = job.place.layers, job.cancel
    lowers = layers.trees(ref.layers, cancel)
    if not lowers:
        raise InputError("the frontend's image has no files")
    upper, work = layers.new_upper(ref.layers, cancel), layers.scratch("w")
    work.mkdir(mode=0o700)
    try:
        yield Rootfs(tuple(lowers), str(upper), str(work), userxattr=job.environment.userns)
    finally:
        remove_tree(upper)
        remove_tree(work)


def _step(job: Job, program: _Program, opts: Mapping[str, str], workers: Workers, rootfs: Rootfs) -> Step:
    config = program.config
    args = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]
    if not args:
        raise InputError(f"the frontend's image {program.name} has neither ENTRYPOINT nor CMD")
    env = list(config.get("Env") or [])
    if not any(line.startswith("PATH=") for line in env):
        env.append(_PATH)
    env += [f"BUILDKIT_FRONTEND_OPT_{number}={name}={value}" for number, (name, value) in enumerate(opts.items())]
    env += ["BUILDKIT_EXPORTEDPRODUCT=buildkit", f"BUILDKIT_WORKERS={_workers_text(workers())}"]
    view = job.place.layers.view(program.ref.layers, job.cancel)
    user = lookup_user(str(config.get("User") or "0"), view)
    alone = str((config.get("Labels") or {}).get(_NETWORK_LABEL, "")).lower() in ("1", "t", "true")
    return Step(
        args=tuple(map(str, args)),
        rootfs=rootfs,
        env=tuple(env),
        cwd=str(config.get("WorkingDir") or "/"),
        uid=user.uid,
        gid=user.gid,
        extra_gids=user.groups,
        network="none" if alone else "default",
        hosts=hosts_file("buildkitsandbox", []),
        resolv_conf=host_resolv_conf(),
    )


def _workers_text(workers: Sequence[worker_pb2.WorkerRecord]) -> str:
    found = []
    for one in workers:
        platforms = [
            {"architecture": platform.Architecture, "os": platform.OS}
            | ({"variant": platform.Variant} if platform.Variant else {})
            for platform in one.platforms
        ]
        found.append({"ID": one.ID, "Labels": dict(one.Labels), "Platforms": platforms})
    return json.dumps(found)
