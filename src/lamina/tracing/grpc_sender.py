"""One message to a collector: OTLP over gRPC, through the client that sessions use. Touches the network.

Specification: OTLP 1.x, "OTLP/gRPC". No proxies, no compression of messages.
"""

from __future__ import annotations

import socket
import ssl
from urllib.parse import urlsplit

from lamina.api.pb import otlp_pb2 as pb
from lamina.api.services import TRACE
from lamina.cancel import Cancel
from lamina.errors import CancelledError, Error
from lamina.registry.options import Proxies
from lamina.rpc.tls import TlsStream
from lamina.tracing.senders import options_of, refused
from lamina.tracing.settings import UNIX, TraceSettings
from lamina.tunnel.peer import Peer
from lamina.tunnel.status import Code, RpcError
from lamina.tunnel.streams import ByteStream, SocketStream

_AGAIN = (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.ABORTED, Code.OUT_OF_RANGE, Code.DATA_LOSS)


class GrpcSender:
    """OTLP over gRPC; the connection is opened with the first message, and again when it is gone."""

    def __init__(self, settings: TraceSettings, cancel: Cancel) -> None:
        self._settings, self._cancel = settings, cancel
        self._peer: Peer | None = None

    def send(self, data: bytes) -> tuple[bool, str]:
        """See `Sender`."""
        try:
            peer = self._connected()
        except OSError as error:  # ssl.SSLError is one
            return False, error.strerror or str(error) or type(error).__name__
        except ValueError as error:
            return False, str(error)
        request = pb.ExportTraceServiceRequest.FromString(data)
        metadata = tuple(self._settings.headers.items())
        try:
            answer = peer.unary(
                TRACE.Export, request, metadata=metadata, cancel=self._cancel, timeout_s=self._settings.timeout_s
            )
        except CancelledError:
            raise
        except RpcError as error:
            return error.code in _AGAIN, f"gRPC: {error.message or error}"
        except Error as error:
            return False, str(error)
        return False, refused(answer)

    def _connected(self) -> Peer:
        """Return a connection that lives.

        Raises:
            OSError: there is none to be had; ValueError: a certificate that cannot be used.
        """
        if self._peer is not None and not self._peer.closed:
            return self._peer
        self.close()
        if self._settings.url.startswith(UNIX):
            self._peer = Peer(SocketStream(self._unix(self._settings.url.removeprefix(UNIX))), name="traces")
            return self._peer
        parts = urlsplit(self._settings.url)
        host = parts.hostname or "localhost"
        is_tls = parts.scheme == "https"
        address = (host, parts.port or (443 if is_tls else 80))
        connected = socket.create_connection(address, timeout=self._settings.timeout_s)
        try:
            stream: ByteStream = TlsStream(connected, self._tls(), host) if is_tls else SocketStream(connected)
        except BaseException:
            connected.close()
            raise
        authority = parts.netloc.rpartition("@")[2]
        self._peer = Peer(stream, name="traces", authority=authority, scheme=parts.scheme)
        return self._peer

    def _unix(self, path: str) -> socket.socket:
        connected = socket.socket(socket.AF_UNIX)
        try:
            connected.settimeout(self._settings.timeout_s)
            connected.connect(path)
        except BaseException:
            connected.close()
            raise
        return connected

    def _tls(self) -> ssl.SSLContext:
        from lamina.registry.connections import make_tls_context

        netloc = urlsplit(self._settings.url).netloc
        context = make_tls_context(options_of(self._settings, Proxies()), netloc, verify=True)
        context.set_alpn_protocols(["h2"])
        return context

    def close(self) -> None:
        """See `Sender`."""
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.close()
