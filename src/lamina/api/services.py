"""The gRPC services of BuildKit's API and of its sessions, as tables: what a server registers and a client calls.

Each table is read from the descriptors of the generated messages, so that names, request and response types have one
source: the .proto files. Pure.

    CONTROL.methods["Solve"].path == "/moby.buildkit.v1.Control/Solve"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message_factory import GetMessageClass

from lamina.api.pb import (
    auth_pb2,
    content_pb2,
    control_pb2,
    exporter_pb2,
    filesync_pb2,
    gateway_pb2,
    health_pb2,
    otlp_pb2,
    policysession_pb2,
    secrets_pb2,
    ssh_pb2,
    upload_pb2,
)


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a service.

    Attributes:
        path: as HTTP/2 has it, `/package.Service/Method`.
        request: message class of what a client sends; `response` of what comes back.
        client_streams: the client may send many; `server_streams` likewise.
    """

    path: str
    request: Any
    response: Any
    client_streams: bool
    server_streams: bool


@dataclass(frozen=True, slots=True)
class Service:
    """A service by its full name, with its methods by their short ones."""

    name: str
    methods: Mapping[str, Method]

    def __getattr__(self, name: str) -> Method:
        try:
            return self.methods[name]
        except KeyError:
            raise AttributeError(f"{self.name} has no method {name}") from None


def _service(module: Any, name: str, full_name: str = "") -> Service:
    """Return a service of a module; `full_name` is what it is called on the wire, where that is something else."""
    descriptor = module.DESCRIPTOR.services_by_name[name]
    full_name = full_name or descriptor.full_name
    methods = {
        method.name: Method(
            f"/{full_name}/{method.name}",
            GetMessageClass(method.input_type),
            GetMessageClass(method.output_type),
            method.client_streaming,
            method.server_streaming,
        )
        for method in descriptor.methods
    }
    return Service(full_name, methods)


CONTROL = _service(control_pb2, "Control")
HEALTH = _service(health_pb2, "Health")
LLB_BRIDGE = _service(gateway_pb2, "LLBBridge")
TRACE = _service(otlp_pb2, "TraceService", "opentelemetry.proto.collector.trace.v1.TraceService")

FILE_SYNC = _service(filesync_pb2, "FileSync")
FILE_SEND = _service(filesync_pb2, "FileSend")
AUTH = _service(auth_pb2, "Auth")
SECRETS = _service(secrets_pb2, "Secrets")
SSH = _service(ssh_pb2, "SSH")
UPLOAD = _service(upload_pb2, "Upload")
CONTENT = _service(content_pb2, "Content")
EXPORTER = _service(exporter_pb2, "Exporter")
POLICY_VERIFIER = _service(policysession_pb2, "PolicyVerifier")
