"""Digests: `algorithm:hex` over exact bytes (image-spec descriptor.md, "Digests").

Only sha256, sha384 and sha512 are accepted, in lower case, so that a parsed digest is safe to use as part
of a path. Imported by the fully cached path: keep it light.
"""

from __future__ import annotations

import hashlib

from lamina.errors import InputError

_HEX_LENGTH = {"sha256": 64, "sha384": 96, "sha512": 128}
_HEX_DIGITS = frozenset("0123456789abcdef")


class Digest(str):
    """A validated digest; a `str`, so that it compares, hashes and serializes as one.

    Raises:
        InputError: the text is not `algorithm:hex` with a known algorithm and the right length.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Digest:  # noqa: D102 - the class says it
        algorithm, _, encoded = text.partition(":")
        length = _HEX_LENGTH.get(algorithm)
        if length is None or len(encoded) != length or not _HEX_DIGITS.issuperset(encoded):
            raise InputError(
                f"not a valid digest: {text[:140]!r}", hint="a digest looks like sha256:<64 lower-case hex digits>"
            )
        return super().__new__(cls, text)

    @property
    def algorithm(self) -> str:
        """The part before the colon: sha256, sha384 or sha512."""
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        """The part after the colon, lower-case hex."""
        return self.partition(":")[2]

    def short(self) -> str:
        """Return the first 12 hex digits, for people."""
        return self.hex[:12]


def sha256_digest(data: bytes) -> Digest:
    """Return the sha256 digest of `data`."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())
