"""What the user's side offers during a build, as one protocol.

Context directories, secrets, SSH agents and registry credentials are asked of a `Session`, never of the
environment or the disk by the core. `cli/` implements it in-process, `remote/` over gRPC.
Pure: this module holds only the shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Credentials:
    """What opens a registry: a user and password, or an identity token. Never shown by `repr`."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


class Session(Protocol):
    """The user's side of one build. Methods may be called from any thread."""

    def context_dir(self, name: str, attrs: Mapping[str, str] | None = None) -> Path | None:
        """Return the live directory offered under `name` (`context`, `dockerfile`, or a named context).

        Args:
            attrs: attributes of the local source that asks (`local.followpaths`, ...), so that no more than is
                wanted has to be fetched.
        """

    def secret(self, secret_id: str) -> bytes | None:
        """Return the value of a secret, or None when it was not offered."""

    def ssh_socket(self, ssh_id: str) -> Path | None:
        """Return the path of an SSH agent's socket, or None when it was not offered."""

    def credentials(self, host: str) -> Credentials | None:
        """Return what opens the registry at exactly `host` (port included), or None."""


@runtime_checkable
class FetchingTokens(Protocol):
    """A user who may fetch a registry's tokens without giving the password away."""

    def token(self, host: str, realm: str, service: str, scopes: Sequence[str]) -> tuple[str, float] | None:
        """Return a bearer token and how many seconds it lives (0.0 when nobody says), or None: ask for credentials."""


@runtime_checkable
class Uploading(Protocol):
    """A session that may also have streams, each named by a URL and good for one reading."""

    def upload(self, host: str, path: str) -> Iterator[bytes] | None:
        """Return the stream behind a URL of that host and path, or None when none was offered."""


class BlobStore(Protocol):
    """Blobs of the user's, by their digests."""

    def has(self, digest: str) -> bool:
        """Tell whether a blob is there."""

    def read(self, digest: str) -> Iterator[bytes]:
        """Yield a blob's bytes, not verified."""

    def write(self, digest: str, size: int, pieces: Iterable[bytes]) -> None:
        """Write a blob, unless it is there."""


@runtime_checkable
class Storing(Protocol):
    """A session that may also have blobs, in stores that have names."""

    def store(self, name: str) -> BlobStore | None:
        """Return one store, or None when none were offered."""
