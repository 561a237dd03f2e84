"""A frontend in a container: it speaks LLBBridge over its standard streams, as `gateway.v0` has it.

Standard output is the connection, so a frontend prints on standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from lamina.api.pb import gateway_pb2 as gw
from lamina.api.services import LLB_BRIDGE
from lamina.cancel import Cancel
from lamina.errors import Error
from lamina.frontend.interface import Frontend, Gateway, Reference, definition_of
from lamina.llb.pb import ops_pb2 as pb
from lamina.llb.state import State
from lamina.tunnel.peer import Peer
from lamina.tunnel.status import RpcError

_OPTION = "BUILDKIT_FRONTEND_OPT_"
_UNKNOWN = 2
_CHUNK_BYTES = 256 << 10


def run_in_container(frontend: Frontend, environ: Mapping[str, str]) -> int:
    """Run a frontend whose program this is: call it, hand back what it answers, and return the exit code.

    An `Error` that it raises becomes the build's error; the exit code is then 0, since the build was told.

    Args:
        environ: the program's environment, which holds the options.
    """
    opts = {}
    for name, value in environ.items():
        if name.startswith(_OPTION):
            key, _, text = value.partition("=")
            opts[key] = text
    with Peer(_Standard(), name="frontend") as peer:
        gateway = _Remote(peer, opts)
        request = gw.ReturnRequest()
        try:
            answer = frontend(gateway)
            assert isinstance(answer.reference, _RemoteReference)
            request.result.ref.id = answer.reference.name
            for key, data in answer.all_metadata().items():
                request.result.metadata[key] = data
        except Error as error:
            request.error.code, request.error.message = _UNKNOWN, str(error)
        gateway.call("Return", request)
    return 0


class _Standard:
    """Standard input and output as a stream. `tunnel.streams.ByteStream`."""

    def __init__(self) -> None:
        # what prints must not end up in the connection
        self._in, self._out = os.dup(0), os.dup(1)
        os.dup2(2, 1)
        sys.stdout = sys.stderr

    def send(self, data: bytes) -> None:
        """See `ByteStream`."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._out, view) :]

    def receive(self) -> bytes:
        """See `ByteStream`."""
        return os.read(self._in, _CHUNK_BYTES)

    def close(self) -> None:
        """Do nothing: the streams end with the program, which is about to."""


class _Remote(Gateway):
    """The build at the other end of the connection."""

    def __init__(self, peer: Peer, opts: dict[str, str]) -> None:
        self._peer, self.opts = peer, opts
        self._cancel = Cancel()

    def call(self, method: str, request: Any) -> Any:
        """Ask the build.

        Raises:
            Error: what it says went wrong.
        """
        try:
            return self._peer.unary(LLB_BRIDGE.methods[method], request, cancel=self._cancel)
        except RpcError as error:
            raise Error(error.message) from error

    def solve(self, graph: State | pb.Definition) -> Reference:
        """See `Gateway`."""
        request = gw.SolveRequest(Definition=definition_of(graph), allowResultReturn=True, allowResultArrayRef=True)
        return _RemoteReference(self, self.call("Solve", request).result.ref.id)

    def image_config(self, name: str) -> tuple[str, dict[str, Any]]:
        """See `Gateway`."""
        found = self.call("ResolveImageConfig", gw.ResolveImageConfigRequest(Ref=name))
        return found.Ref, json.loads(found.Config)

    def warn(self, text: str) -> None:
        """See `Gateway`."""
        self.call("Warn", gw.WarnRequest(level=1, short=text.encode()))


class _RemoteReference(Reference):
    """A reference that the build knows by a name."""

    def __init__(self, gateway: _Remote, name: str) -> None:
        self._gateway, self.name = gateway, name

    def read_file(self, path: str, offset: int = 0, length: int = 0) -> bytes:
        """See `Reference`."""
        part = gw.FileRange(Offset=offset, Length=length) if offset or length else None
        return bytes(self._gateway.call("ReadFile", gw.ReadFileRequest(Ref=self.name, FilePath=path, Range=part)).Data)

    def read_dir(self, path: str) -> list[str]:
        """See `Reference`."""
        found = self._gateway.call("ReadDir", gw.ReadDirRequest(Ref=self.name, DirPath=path))
        return [entry.path for entry in found.entries]
