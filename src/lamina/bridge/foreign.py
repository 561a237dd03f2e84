"""A build on this machine whose Dockerfile names a frontend of its own (`# syntax=IMAGE`, `BUILDKIT_SYNTAX`).

In: what `lamina build` was asked. Out: what it returns, the frontend having made the graph in a container, as for the
daemon's clients. The frontend is told the options as docker's client tells them, and reads the Dockerfile as the file
that was given (from standard input, too), beside the context.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lamina.attest.predicate import Invocation
from lamina.bridge.bridge import Bridge, wanted
from lamina.cancel import Cancel
from lamina.csvline import join_csv
from lamina.engine.job import Job
from lamina.engine.options import BuildOptions, BuildResult, Environment
from lamina.engine.outputs import plan_outputs
from lamina.engine.upkeep.collect import collect_garbage
from lamina.progress import Sink
from lamina.session import Credentials, Session

_NAME = "Dockerfile"


def build_by_frontend(
    image: str,
    options: BuildOptions,
    session: Session,
    environment: Environment,
    sink: Sink,
    cancel: Cancel,
    *,
    stdout: BinaryIO | None = None,
) -> BuildResult:
    """Have the frontend in `image` make the graph, and build that.

    Raises:
        Error: the frontend cannot be had, fails or says what is wrong; or as any build.
    """
    opts = {**frontend_opts(options), "source": image, "cmdline": image}
    with tempfile.TemporaryDirectory(prefix="lamina-dockerfile-") as folder:
        name = opts["filename"]
        (Path(folder) / name).write_bytes(options.dockerfile)
        if options.ignore is not None and options.ignore_name not in ("", ".dockerignore"):
            (Path(folder) / f"{name}.dockerignore").write_bytes(options.ignore)
        side = _Side(session, Path(folder))
        with Job(options, plan_outputs(options), side, environment, sink, cancel, stdout=stdout) as job:
            with job.trace.phase(f"frontend {image}"):
                found = Bridge(job, opts).solve(frontend="gateway.v0", opts=opts)
            result = job.deliver(wanted(found, Invocation("gateway.v0", opts)))
            job.recording.succeeded(result)
            collect_garbage(job.place)
            return result


def frontend_opts(options: BuildOptions) -> dict[str, str]:
    """Return options as a frontend gets them: the way back of `options_of`. Pure."""
    found = {"filename": Path(options.dockerfile_name or _NAME).name}
    found |= {f"build-arg:{name}": value for name, value in options.build_args.items()}
    found |= {f"label:{name}": value for name, value in options.labels.items()}
    found |= {f"attest:{kind}": value for kind, value in options.attests.items()}
    found |= {
        f"context:{name}": place if "://" in place else f"local:{name}"
        for name, place in options.build_contexts.items()
    }
    plain = {
        "target": options.target,
        "platform": ",".join(options.platforms),
        "add-hosts": join_csv(options.add_hosts) if options.add_hosts else "",
        "image-resolve-mode": "pull" if options.pull else "",
        "force-network-mode": options.network,
        "shm-size": str(options.shm_size) if options.shm_size else "",
        "ulimit": ",".join(options.ulimits),
        "hostname": options.hostname,
        "cgroup-parent": options.cgroup_parent,
        "no-cache": ",".join(options.no_cache_filter),
    }
    found |= {name: value for name, value in plain.items() if value}
    return found | ({"no-cache": ""} if options.no_cache else {})


@dataclass(frozen=True, slots=True)
class _Side:
    """The user's side, with the Dockerfile in a directory of its own. `Session`."""

    session: Session
    folder: Path

    def context_dir(self, name: str, attrs: Mapping[str, str] | None = None) -> Path | None:
        return self.folder if name == "dockerfile" else self.session.context_dir(name, attrs)

    def secret(self, secret_id: str) -> bytes | None:
        return self.session.secret(secret_id)

    def ssh_socket(self, ssh_id: str) -> Path | None:
        return self.session.ssh_socket(ssh_id)

    def credentials(self, host: str) -> Credentials | None:
        return self.session.credentials(host)
