"""Errors as BuildKit's clients get them: a gRPC status, and details that name the vertex and the lines.

Details are JSON in an `Any`, under type URLs that BuildKit's client library registers; a client that finds an
`errdefs.Source` shows the excerpt itself.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.status_pb2 import Status

from lamina.errors import CancelledError, Error, InputError, NetworkError, NotYetError, SourceRange, StorageError
from lamina.policy.values import PolicyError, SourceDeniedError

CANCELLED, UNKNOWN, INVALID, NOT_FOUND, EXISTS, EXHAUSTED = 1, 2, 3, 5, 6, 8
UNIMPLEMENTED, INTERNAL, UNAVAILABLE, UNAUTHENTICATED = 12, 13, 14, 16

_PREFIX = "github.com/moby/buildkit/"
_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (CancelledError, CANCELLED),
    (NotYetError, UNIMPLEMENTED),
    (PolicyError, UNKNOWN),
    (InputError, INVALID),
    (NetworkError, UNKNOWN),
    (StorageError, INTERNAL),
    (Error, UNKNOWN),
)
_log = logging.getLogger(__name__)


class NotFoundError(Error):
    """What a client asks for is not there: a build, a session, a reference."""


class ExistsError(Error):
    """What a client wants to make is there already."""


class RemoteError(Error):
    """What a frontend or client said went wrong, with its own details; handed on as it is."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.message or "the frontend failed without a word")
        self.status = status


def status_of(error: BaseException) -> Status:
    """Return the status that tells a client of an error. What is not an `Error` of ours is a fault of this program."""
    if isinstance(error, RemoteError):
        return error.status
    own = getattr(error, "code", None)
    if isinstance(own, int) and isinstance(error, Error):
        code = own
    elif isinstance(error, NotFoundError):
        code = NOT_FOUND
    elif isinstance(error, ExistsError):
        code = EXISTS
    else:
        code = next((code for kind, code in _CODES if isinstance(error, kind)), INTERNAL)
    if not isinstance(error, Error):
        _log.error("a call failed", exc_info=error)
        return Status(code=INTERNAL, message=f"internal error: {type(error).__name__}: {error}")
    # where it stands in a file is said by the excerpt, and clients print a code only when it is not UNKNOWN
    what = error.what if error.source is not None else str(error)
    code = UNKNOWN if error.source is not None and code == INVALID else code
    message = what if not error.hint else f"{what} ({error.hint})"
    status = Status(code=code, message=message)
    if error.vertex:
        status.details.append(_detail("errdefs.Vertex", {"digest": error.vertex}))
    if error.source is not None:
        status.details.append(_detail("errdefs.Source", _source(error.source)))
    if isinstance(error, SourceDeniedError) and error.messages:
        said = [{"message": message} for message in error.messages]
        status.details.append(_detail("policysession.DecisionResponse", {"action": "DENY", "denyMessages": said}))
    return status


def _detail(name: str, value: Mapping[str, Any]) -> AnyMessage:
    return AnyMessage(type_url=f"{_PREFIX}{name}+json", value=json.dumps(value).encode())


def _source(source: SourceRange) -> dict[str, Any]:
    lines = {"start": {"line": source.start}, "end": {"line": source.end}}
    data = base64.b64encode(source.text.encode("utf-8", "surrogateescape")).decode()
    return {"info": {"filename": source.file, "data": data, "language": "Dockerfile"}, "ranges": [lines]}
