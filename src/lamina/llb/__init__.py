"""LLB graphs: BuildKit's messages, definitions checked and loaded, and `State` to make graphs in Python.

    from lamina import llb

    base = llb.image("docker.io/library/debian:12")
    made = base.run("apt-get update && apt-get install -y gcc", mounts=[llb.cache("/var/cache/apt")])
    final = base.copy(made, "/usr/bin/gcc", "/usr/bin/")
    lamina.solve(final.marshal(), tags=["tools"])

The builder imports protobuf only when a state is marshalled.
"""

from __future__ import annotations

from lamina.llb.state import (
    Mount,
    State,
    bind,
    cache,
    diff,
    git,
    http,
    image,
    local,
    merge,
    scratch,
    secret,
    ssh,
    tmpfs,
)

__all__ = [
    "Mount",
    "State",
    "bind",
    "cache",
    "diff",
    "git",
    "http",
    "image",
    "local",
    "merge",
    "scratch",
    "secret",
    "ssh",
    "tmpfs",
]
