"""Secrets that the user lets count in cache keys: a session that tells their fingerprints.

BuildKit's rule is that a secret never counts: a changed one runs nothing again. Who asks otherwise for a secret gets
a fingerprint of it (see `state.secret_key`) into the keys of the steps that mount it. A secret that counts is read once
a build, so that a step never gets another value than the one in its key. Values stay in memory.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from lamina.session import Credentials, Session
from lamina.state.secret_key import own_key, shared_key

ABSENT = "absent"
"""The fingerprint of a secret that nobody gave."""


class CountedSecrets:
    """A session like the one it is over, with fingerprints for some secrets. Thread-safe.

    Args:
        session: the user's side.
        ids: the secrets that count.
        root: the state directory, which has a key of its own.
        key_file: file with the key to use instead, "" for none.
    """

    def __init__(self, session: Session, ids: Iterable[str], root: Path, key_file: str = "") -> None:
        self._session, self._ids = session, frozenset(ids)
        self._root, self._key_file = root, key_file
        self._key = b""
        self._values: dict[str, bytes | None] = {}
        self._guard = threading.Lock()

    def version(self, secret_id: str) -> str:
        """Return what stands for a secret in keys, "" when it does not count.

        Raises:
            InputError: the secret or the user's key file cannot be read; StorageError: the key of the store cannot.
        """
        if secret_id not in self._ids:
            return ""
        value = self.secret(secret_id)
        if value is None:
            return ABSENT
        with self._guard:
            if not self._key:
                self._key = shared_key(self._key_file) if self._key_file else own_key(self._root)
            key = self._key
        name = secret_id.encode("utf-8", "surrogateescape")
        return hmac.digest(key, b"lamina secret 1\n%d:%s%s" % (len(name), name, value), "sha256").hex()

    def context_dir(self, name: str, attrs: Mapping[str, str] | None = None) -> Path | None:
        """Return what the session says."""
        return self._session.context_dir(name, attrs)

    def secret(self, secret_id: str) -> bytes | None:
        """Return a secret's value; of one that counts, always the same."""
        if secret_id not in self._ids:
            return self._session.secret(secret_id)
        with self._guard:
            if secret_id not in self._values:
                self._values[secret_id] = self._session.secret(secret_id)
            return self._values[secret_id]

    def ssh_socket(self, ssh_id: str) -> Path | None:
        """Return what the session says."""
        return self._session.ssh_socket(ssh_id)

    def credentials(self, host: str) -> Credentials | None:
        """Return what the session says."""
        return self._session.credentials(host)
