"""Headers of a call: what is sent with it, and what its answer's headers and trailers say.

Comes in: metadata of the caller, header lists of the far side. Goes out: header lists, metadata, `Status`. Pure.
Specification: gRPC over HTTP/2, "Requests", "Responses". Keys that end in `-bin` hold bytes, base64 on the wire.
Invariant: what the far side sent never raises anything but the status it stands for.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from lamina import __version__
from lamina.errors import InputError
from lamina.tunnel.status import MAX_MESSAGE, Code, Status, of_http

Metadata = Sequence[tuple[str, str | bytes]]
"""Pairs of a lower-case key and a value: bytes where the key ends in `-bin`, printable ASCII elsewhere."""

Headers = list[tuple[str, str]]

_KEY = re.compile(r"[0-9a-z_.-]{1,256}")
_VALUE = re.compile(r"[ -~]*")
_UNITS = (("n", 1e-9), ("u", 1e-6), ("m", 1e-3), ("S", 1.0), ("M", 60.0), ("H", 3600.0))
_MAX_DETAILS = 32 << 10  # a client takes only so much in headers
_MAX_UNITS = 99_999_999


def request_headers(
    path: str, metadata: Metadata, timeout_s: float | None, *, authority: str = "localhost", scheme: str = "http"
) -> Headers:
    """Return the headers that open a call.

    Raises:
        InputError: a key or value that cannot travel.
    """
    headers = [
        (":method", "POST"),
        (":scheme", scheme),
        (":path", path),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", f"lamina/{__version__}"),
    ]
    if timeout_s is not None:
        headers.append(("grpc-timeout", timeout(timeout_s)))
    for key, value in metadata:
        headers.append((key, _wire_value(key, value)))
    return headers


def trailer_headers(status: Any) -> Headers:
    """Return the trailers that end an answer: well for None, else with a `google.rpc.Status`."""
    if status is None:
        return [("grpc-status", "0")]
    message = quote(status.message[:MAX_MESSAGE].encode("utf-8", "replace"), safe=" !#$&'()*+,/:;<=>?@[]^_`{|}~\"")
    headers = [("grpc-status", str(status.code)), ("grpc-message", message)]
    details = status.SerializeToString()
    if len(details) <= _MAX_DETAILS:
        headers.append(("grpc-status-details-bin", base64.b64encode(details).rstrip(b"=").decode("ascii")))
    return headers


def timeout(seconds: float) -> str:
    """Return `seconds` as gRPC writes it, in the finest unit that fits eight digits, never less than asked."""
    for unit, length in _UNITS:
        count = math.ceil(seconds / length)
        if count <= _MAX_UNITS:
            return f"{max(count, 0)}{unit}"
    return f"{_MAX_UNITS}H"


def _wire_value(key: str, value: str | bytes) -> str:
    if not _KEY.fullmatch(key) or key.startswith("grpc-"):
        raise InputError(f"metadata key {key!r} cannot be sent: lower-case letters, digits and -_. are allowed")
    if key.endswith("-bin"):
        if not isinstance(value, bytes):
            raise InputError(f"metadata {key!r} takes bytes")
        return base64.b64encode(value).rstrip(b"=").decode("ascii")
    if not isinstance(value, str) or not _VALUE.fullmatch(value):
        raise InputError(f"metadata {key!r} takes printable ASCII; other values need a key that ends in -bin")
    return value


def received(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str | bytes], ...]:
    """Return the metadata among the headers of an answer; what is HTTP's or gRPC's own is left out."""
    found: list[tuple[str, str | bytes]] = []
    for key, value in headers:
        if key.startswith((":", "grpc-")) or key in ("content-type", "te", "user-agent"):
            continue
        if key.endswith("-bin"):
            found.extend((key, _unbase64(part)) for part in value.split(","))
        else:
            found.append((key, value))
    return tuple(found)


def _unbase64(text: str) -> bytes:
    text = text.strip().rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""


def check_answer(headers: Headers) -> Status | None:
    """Return why an answer's first headers are not those of a gRPC answer, or None when they are."""
    said = dict(headers)
    if said.get(":status") != "200":
        return final_status(headers) if "grpc-status" in said else of_http(said.get(":status", ""))
    kind = said.get("content-type", "")
    if not kind.startswith("application/grpc"):
        return Status(Code.UNKNOWN, f"answered with content-type {kind[:80]!r}, not application/grpc")
    encoding = said.get("grpc-encoding", "identity")
    if encoding != "identity":
        return Status(Code.INTERNAL, f"answered in encoding {encoding[:80]!r}, which was not offered")
    return None


def final_status(headers: Headers) -> Status:
    """Return the status that trailers carry; trailers without one mean that the far side broke the protocol."""
    said = dict(headers)
    code = said.get("grpc-status", "")
    if not code.isascii() or not code.isdigit() or len(code) > 9:
        return Status(Code.UNKNOWN, "the answer ended without a valid grpc-status")
    message = unquote_to_bytes(said.get("grpc-message", "")).decode("utf-8", "replace")
    details = _unbase64(said.get("grpc-status-details-bin", ""))
    return Status(int(code), message[:MAX_MESSAGE], details)
