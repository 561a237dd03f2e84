"""What goes wrong, told as docker's daemon tells it: a status code and `{"message": ...}`. Pure."""

from __future__ import annotations

from lamina.api.errors import ExistsError, NotFoundError
from lamina.errors import CancelledError, Error, InputError, NotYetError


class ApiError(Error):
    """An answer other than success.

    Args:
        status: of HTTP.
    """

    def __init__(self, status: int, what: str, hint: str = "") -> None:
        super().__init__(what, hint=hint)
        self.status = status


def status_of(error: Exception) -> int:
    """Return the HTTP status for an error. What is not an `Error` of ours is a fault of this program."""
    if isinstance(error, ApiError):
        return error.status
    if isinstance(error, NotFoundError):
        return 404
    if isinstance(error, ExistsError):
        return 409
    if isinstance(error, NotYetError):
        return 501
    return 400 if isinstance(error, InputError) else 500


def text_of(error: Exception) -> str:
    """Return what a client is told: the lines it comes from first, then what, where, and how to mend it."""
    if isinstance(error, CancelledError):
        return "context canceled"
    if not isinstance(error, Error):
        return f"internal error: {type(error).__name__}: {error}"
    text = f"{error} ({error.hint})" if error.hint else str(error)
    excerpt = error.source.excerpt() if error.source is not None else ""
    return f"{excerpt}\n{text}" if excerpt else text
