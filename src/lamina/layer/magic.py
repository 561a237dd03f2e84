"""Tells archives by their first bytes. Pure; imports nothing."""

from __future__ import annotations

_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")


def is_archive(head: bytes) -> bool:
    """Tell whether these first 512 bytes begin a tar archive, compressed or not, and not a text."""
    return head.startswith(_MAGIC) or head[257:262] == b"ustar"
