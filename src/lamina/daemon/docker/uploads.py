"""What a build is given in the bodies and headers of requests: contexts as archives, and credentials.

An archive is unpacked below the state directory, under a lease, so that nothing of it outlives the build or the daemon.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from lamina.cancel import Cancel
from lamina.daemon.docker.exchange import Exchange, GoneError
from lamina.daemon.docker.failures import ApiError
from lamina.engine.unpack import unpack_context
from lamina.errors import NetworkError
from lamina.layer.magic import is_archive
from lamina.layer.tree import remove_tree
from lamina.session import BlobStore, Credentials, FetchingTokens, Session, Storing, Uploading
from lamina.state.leases import Lease

_SOON_S = 10.0
_MOST_WAITING = 64
_CHUNK_BYTES, _HEAD_BYTES = 1 << 20, 512
HUB = ("docker.io", "index.docker.io", "registry-1.docker.io", "https://index.docker.io/v1/")

Read = Callable[[int], bytes]


class Unpacked:
    """A session with a context that came as an archive, and credentials that came in a header. `Session`.

    Args:
        session: is asked for everything else.
        directory: the context, None where it is the session's.
        credentials: by the registry's name.
    """

    def __init__(self, session: Session, directory: Path | None, credentials: Mapping[str, Credentials]) -> None:
        self._session, self._directory, self._credentials = session, directory, dict(credentials)

    def context_dir(self, name: str, attrs: Mapping[str, str] | None = None) -> Path | None:
        """Return the archive's directory for the context and the Dockerfile."""
        if self._directory is not None and name in ("context", "dockerfile"):
            return self._directory
        return self._session.context_dir(name, attrs)

    def secret(self, secret_id: str) -> bytes | None:
        """Ask the session."""
        return self._session.secret(secret_id)

    def ssh_socket(self, ssh_id: str) -> Path | None:
        """Ask the session."""
        return self._session.ssh_socket(ssh_id)

    def upload(self, host: str, path: str) -> Iterator[bytes] | None:
        """Ask the session."""
        return self._session.upload(host, path) if isinstance(self._session, Uploading) else None

    def store(self, name: str) -> BlobStore | None:
        """Ask the session."""
        return self._session.store(name) if isinstance(self._session, Storing) else None

    def token(self, host: str, realm: str, service: str, scopes: Sequence[str]) -> tuple[str, float] | None:
        """Ask the session, unless the header has what opens the registry."""
        if self._given(host) is not None or not isinstance(self._session, FetchingTokens):
            return None
        return self._session.token(host, realm, service, scopes)

    def credentials(self, host: str) -> Credentials | None:
        """Return what the header holds, else what the session has."""
        return self._given(host) or self._session.credentials(host)

    def _given(self, host: str) -> Credentials | None:
        names = HUB if host in HUB else (host, f"https://{host}", f"http://{host}")
        return next((self._credentials[name] for name in names if name in self._credentials), None)


class Uploads:
    """Contexts that come in a request of their own, by the ID of the build they are for. Thread-safe."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Upload] = {}
        self._changed = threading.Condition()

    def bring(self, build_id: str, exchange: Exchange) -> None:
        """Offer the body of a request; return when the build has read it, or is over.

        Raises:
            ApiError: no build wants it.
        """
        upload = _Upload(exchange.read)
        with self._changed:
            if build_id in self._waiting or len(self._waiting) >= _MOST_WAITING:
                raise ApiError(409, "there is an upload for this build already")
            self._waiting[build_id] = upload
            self._changed.notify_all()
            self._changed.wait_for(lambda: upload.is_taken, _SOON_S)
            if not upload.is_taken:
                del self._waiting[build_id]
                raise ApiError(404, "no build wants this context")
        upload.done.wait()

    @contextmanager
    def taken(self, build_id: str, root: Path, cancel: Cancel) -> Iterator[Path]:
        """Wait for the context of a build, and give the directory with its files.

        Raises:
            ApiError: it does not come; Error: it is no archive.
        """
        with self._changed, cancel.closing(self._wake):
            self._changed.wait_for(lambda: build_id in self._waiting or cancel.is_cancelled(), _SOON_S)
            cancel.check()
            upload = self._waiting.pop(build_id, None)
            if upload is None:
                raise ApiError(400, "the context was to be uploaded, and did not come")
            upload.is_taken = True
            self._changed.notify_all()
        with _directory(root) as directory:
            try:
                _unpack(upload.read, directory)
            finally:
                upload.done.set()
            yield directory

    @contextmanager
    def unpacked(self, exchange: Exchange, root: Path) -> Iterator[Path]:
        """Give the directory with the files of the archive that is a request's body.

        Raises:
            Error: it is no archive.
        """
        with _directory(root) as directory:
            _unpack(exchange.read, directory)
            yield directory

    def _wake(self) -> None:
        threading.Thread(target=self._notify, daemon=True).start()  # who cancels may hold the lock

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()


class _Upload:
    """A context that is on offer."""

    def __init__(self, read: Read) -> None:
        self.read = read
        self.is_taken = False
        self.done = threading.Event()


class _Body:
    """A request's body as a file to be read."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes.

        Raises:
            NetworkError: the client stopped sending.
        """
        try:
            return self._read(size)
        except GoneError as error:
            raise NetworkError("the client stopped sending the context") from error


@contextmanager
def _directory(root: Path) -> Iterator[Path]:
    lease = Lease(root / "work")
    try:
        yield lease.directory / "context"
    finally:
        lease.release(remove_tree)


@contextmanager
def spooled(exchange: Exchange, root: Path, name: str) -> Iterator[Path]:
    """Give a directory with the archive that is a request's body in a file of that name, as it came.

    Raises:
        ApiError: it is no archive; NetworkError: the client stopped sending.
    """
    body = _Body(exchange.read)
    with _directory(root) as directory:
        directory.mkdir()
        with open(directory / name, "wb") as file:
            while data := body.read(_CHUNK_BYTES):
                file.write(data)
        with open(directory / name, "rb") as file:
            if not is_archive(file.read(_HEAD_BYTES)):
                raise ApiError(400, "not an archive of files")
        yield directory


def _unpack(read: Read, directory: Path) -> None:
    unpack_context(b"", cast("BinaryIO", _Body(read)), str(directory), fill_up=True)


def credentials_of(header: str) -> dict[str, Credentials]:
    """Return what `X-Registry-Config` holds, by registry; nothing where it is not understood, as docker has it."""
    found = decoded(header)
    return {name: one for name, fields in found.items() if (one := credentials(fields)) is not None}


def decoded(header: str) -> dict[str, Any]:
    """Return the object that a header holds as JSON in base64, {} where it does not."""
    try:
        found = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))) if header else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def credentials(fields: Any) -> Credentials | None:
    """Return one of docker's `AuthConfig` objects, None for one that opens nothing."""
    if not isinstance(fields, dict):
        return None
    name, password, token = (fields.get(key) or "" for key in ("username", "password", "identitytoken"))
    if not (name or password) and isinstance(fields.get("auth"), str):
        try:
            name, _, password = base64.b64decode(fields["auth"]).decode().partition(":")
        except ValueError:
            return None
    if not all(isinstance(text, str) for text in (name, password, token)):
        return None
    if token:
        return Credentials(identity_token=token)
    return Credentials(name, password) if name else None
