"""The space that writers ask for before they write; who grants it decides elsewhere."""

from __future__ import annotations

from typing import Protocol


class Space(Protocol):
    """Grants bytes on the disk. Thread-safe; not to be asked inside a transaction of the state file."""

    def take(self, size_bytes: int) -> None:
        """Claim bytes that are about to be written.

        Raises:
            DiskFullError: there is no room for them, and none can be made.
        """

    def give(self, size_bytes: int) -> None:
        """Return a claim: nothing was written, or the bytes are accounted for from now on."""


class _Unlimited:
    """Grants everything; the disk itself says when it is full."""

    def take(self, size_bytes: int) -> None:
        """Grant it."""

    def give(self, size_bytes: int) -> None:
        """Take it back."""


UNLIMITED: Space = _Unlimited()
