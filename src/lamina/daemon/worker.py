"""The one worker that clients see: its platforms, labels and policies."""

from __future__ import annotations

import hashlib
import socket

from lamina.api.pb import worker_pb2
from lamina.engine.options import Environment
from lamina.llb.pb import ops_pb2 as pb
from lamina.oci.platform import host_platform


def worker_record(environment: Environment, version: worker_pb2.BuildkitVersion) -> worker_pb2.WorkerRecord:
    """Return what `ListWorkers` tells; the id is the same for as long as the state directory is."""
    host = host_platform()
    name = hashlib.sha256(f"{socket.gethostname()}:{environment.root}".encode()).hexdigest()[:25]
    labels = {
        "org.mobyproject.buildkit.worker.executor": "oci",
        "org.mobyproject.buildkit.worker.hostname": socket.gethostname(),
        "org.mobyproject.buildkit.worker.network": "host",
        "org.mobyproject.buildkit.worker.snapshotter": "overlayfs",
    }
    platform = pb.Platform(Architecture=host.architecture, OS=host.os, Variant=host.variant)
    return worker_pb2.WorkerRecord(ID=name, Labels=labels, platforms=[platform], BuildkitVersion=version)
