"""Where a span belongs: the ids that travel from program to program (W3C Trace Context, `traceparent`).

Pure but for the ids of new spans, which are random.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace

SERVICE = "lamina"
"""What this program is called in traces, unless somebody says otherwise."""
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_MAX_HEADER = 512
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span as others refer to it.

    Attributes:
        trace_id: 16 bytes, not all zero; `span_id` 8 bytes likewise.
        sampled: whether whoever began the trace wants its spans to be kept.
        state: `tracestate`, handed on as it came.
    """

    trace_id: bytes
    span_id: bytes
    sampled: bool = True
    state: str = ""

    def traceparent(self) -> str:
        """Return the header that hands this on."""
        return f"00-{self.trace_id.hex()}-{self.span_id.hex()}-{int(self.sampled):02x}"

    def child(self) -> TraceContext:
        """Return a new span of the same trace."""
        return replace(self, span_id=new_span_id())


def new_trace() -> TraceContext:
    """Return the first span of a trace."""
    return TraceContext(secrets.token_bytes(16), new_span_id())


def new_span_id() -> bytes:
    """Return an id for a span."""
    return secrets.token_bytes(8)


def parse_traceparent(text: str, state: str = "") -> TraceContext | None:
    """Return what a `traceparent` and its `tracestate` say; None for what is none, which the standard passes over."""
    found = _TRACEPARENT.fullmatch(text.strip()) if len(text) <= _MAX_HEADER else None
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5] is not None):
        return None
    trace_id, span_id = bytes.fromhex(found[2]), bytes.fromhex(found[3])
    if not any(trace_id) or not any(span_id):
        return None
    kept = state.strip() if len(state) <= _MAX_HEADER and state.isascii() and state.isprintable() else ""
    return TraceContext(trace_id, span_id, bool(int(found[4], 16) & _SAMPLED), kept)


def context_of(headers: Iterable[tuple[str, str | bytes]]) -> TraceContext | None:
    """Return the span that a call was made from, of its headers or metadata (lower-case names)."""
    found = {name: value for name, value in headers if name in ("traceparent", "tracestate") and isinstance(value, str)}
    return parse_traceparent(found["traceparent"], found.get("tracestate", "")) if "traceparent" in found else None
