"""The one worker that clients see: its platforms, labels and policies."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Mapping
from typing import Any

from lamina.api.pb import worker_pb2
from lamina.engine.options import Environment
from lamina.engine.upkeep.policy import Rule
from lamina.llb.pb import ops_pb2 as pb
from lamina.oci.platform import host_platform


def worker_record(
    environment: Environment, version: worker_pb2.BuildkitVersion, labels: Mapping[str, str]
) -> worker_pb2.WorkerRecord:
    """Return what `ListWorkers` tells; the id is the same for as long as the state directory is."""
    host = host_platform()
    name = hashlib.sha256(f"{socket.gethostname()}:{environment.root}".encode()).hexdigest()[:25]
    shown = {
        "org.mobyproject.buildkit.worker.executor": "oci",
        "org.mobyproject.buildkit.worker.hostname": socket.gethostname(),
        "org.mobyproject.buildkit.worker.network": "host",
        "org.mobyproject.buildkit.worker.snapshotter": "overlayfs",
        **labels,
    }
    platform = pb.Platform(Architecture=host.architecture, OS=host.os, Variant=host.variant)
    return worker_pb2.WorkerRecord(
        ID=name,
        Labels=shown,
        GCPolicy=[_policy(rule) for rule in environment.gc.rules],
        platforms=[platform],
        BuildkitVersion=version,
    )


def _policy(rule: Rule) -> Any:
    """Return a rule as clients are told; a share of the disk is told as 0."""
    return worker_pb2.GCPolicy(
        all=rule.all,
        keepDuration=int(rule.keep_s * 10**9),
        reservedSpace=rule.reserved.bytes,
        maxUsedSpace=rule.max_used.bytes,
        minFreeSpace=rule.min_free.bytes,
    )
