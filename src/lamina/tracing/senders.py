"""One message to a collector: OTLP over HTTP, as protobuf or JSON. Touches the network; used by one thread.

A sender says whether it is worth trying again and what is wrong; it raises nothing but `CancelledError`.
Specification: OTLP 1.x, "OTLP/HTTP".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from lamina.api.pb import otlp_pb2 as pb
from lamina.cancel import Cancel
from lamina.errors import CancelledError, Error
from lamina.registry.failures import TransportError
from lamina.registry.http import Request, Transport
from lamina.registry.options import Proxies, RegistryOptions, Timeouts
from lamina.tracing.messages import as_json
from lamina.tracing.settings import GRPC, JSON, TraceSettings

_MAX_ANSWER = 64 << 10
_AGAIN = (429, 502, 503, 504)


class Sender(Protocol):
    """Sends messages."""

    def send(self, data: bytes) -> tuple[bool, str]:
        """Send an `ExportTraceServiceRequest`; return whether to try again, and what is wrong ("" for nothing).

        Raises:
            CancelledError: there is no time left.
        """

    def close(self) -> None:
        """Close connections."""


def open_sender(settings: TraceSettings, proxies: Proxies, cancel: Cancel) -> Sender:
    """Return what sends in the protocol that the settings name. Connects to nothing yet."""
    if settings.protocol == GRPC:
        from lamina.tracing.grpc_sender import GrpcSender

        return GrpcSender(settings, cancel)
    return HttpSender(settings, proxies, cancel)


class HttpSender:
    """OTLP over HTTP."""

    def __init__(self, settings: TraceSettings, proxies: Proxies, cancel: Cancel) -> None:
        self._settings = settings
        self._transport = Transport(options_of(settings, proxies), cancel)

    def send(self, data: bytes) -> tuple[bool, str]:
        """See `Sender`."""
        try:
            return self._post(data)
        except CancelledError:
            raise
        except TransportError as error:
            return error.retryable, str(error)
        except Error as error:
            return False, str(error)

    def _post(self, data: bytes) -> tuple[bool, str]:
        kind = "application/x-protobuf"
        if self._settings.protocol == JSON:
            kind = "application/json"
            data = json.dumps(as_json(pb.ExportTraceServiceRequest.FromString(data))).encode()
        headers = {**self._settings.headers, "Content-Type": kind}
        if self._settings.gzip:
            import gzip

            data = gzip.compress(data, 1, mtime=0)
            headers["Content-Encoding"] = "gzip"
        with self._transport.send(Request("POST", self._settings.url, headers, data)) as answer:
            if answer.status // 100 != 2:
                answer.read_error(_MAX_ANSWER)
                return answer.status in _AGAIN, f"HTTP {answer.status}"
            body = answer.read(_MAX_ANSWER)
        if self._settings.protocol == JSON:
            return False, ""
        try:
            return False, refused(pb.ExportTraceServiceResponse.FromString(body))
        except Exception:  # protobuf's implementations raise different things
            return False, ""  # it said 200: a proxy's words in the body change nothing

    def close(self) -> None:
        """See `Sender`."""
        self._transport.close()


def options_of(settings: TraceSettings, proxies: Proxies) -> RegistryOptions:
    """Return how the collector is reached."""
    netloc, limit = urlsplit(settings.url).netloc, settings.timeout_s
    pair = (Path(settings.client_certificate), Path(settings.client_key or settings.client_certificate))
    return RegistryOptions(
        host_ca={netloc: (Path(settings.certificate),)} if settings.certificate else {},
        client_certs={netloc: (pair,)} if settings.client_certificate else {},
        proxies=proxies,
        timeouts=Timeouts(connect_s=limit, idle_s=limit),
    )


def refused(response: pb.ExportTraceServiceResponse) -> str:
    """Return what a collector says it did not take, "" for nothing."""
    partial = response.partial_success
    if not partial.rejected_spans:
        return ""
    reason = "".join(char for char in partial.error_message[:200] if char.isprintable())
    return f"{partial.rejected_spans} spans were refused: {reason}"
