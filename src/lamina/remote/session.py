"""`lamina.session.Session` of a client far away: each question becomes a call of the session's services.

What the client does not offer is not asked for. A directory of the client's is kept below `synced/`, so that the next
build fetches only what changed; it is locked while a build has it.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from lamina.api.pb import auth_pb2, secrets_pb2, ssh_pb2
from lamina.api.services import AUTH, CONTENT, FILE_SYNC, SECRETS, SSH, UPLOAD, Method
from lamina.cancel import Cancel
from lamina.errors import InputError
from lamina.layer.entry import Item
from lamina.remote import synced
from lamina.remote.content import ClientStore
from lamina.remote.packets import header_pairs
from lamina.remote.receive import Receiver
from lamina.remote.send import open_file, send_files
from lamina.remote.ssh import ForwardedAgent
from lamina.remote.upload import pull
from lamina.session import BlobStore, Credentials
from lamina.tunnel.call import RpcError
from lamina.tunnel.peer import Peer

MAX_SECRET = 500 << 10
"""Most bytes of a secret; BuildKit's limit."""
_PATIENCE_S = 60.0
_CLIENT_ID = "lamina"
_UNKNOWN, _NOT_FOUND, _UNIMPLEMENTED, _UNAVAILABLE = 2, 5, 12, 14
_ABSENT = (_NOT_FOUND, _UNIMPLEMENTED)
_PATTERNS = {
    "include-patterns": "local.includepattern",
    "exclude-patterns": "local.excludepatterns",
    "followpaths": "local.followpaths",
}
_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")

OnBytes = Callable[[str, int, bool], None]
"""Is told of a directory that is transferred: its name, bytes so far, whether that was all."""


class RemoteSession:
    """A client's side of one build. Thread-safe. To be closed.

    Args:
        peer: the client.
        methods: what it serves.
        shared_key: tells this client's directories from those of others.
        root: the state directory.
    """

    def __init__(
        self,
        peer: Peer,
        methods: frozenset[str],
        *,
        name: str,
        shared_key: str,
        root: Path,
        cancel: Cancel,
        on_bytes: OnBytes = lambda _name, _size, _done: None,
    ) -> None:
        self._peer, self._cancel, self._on_bytes = peer, cancel, on_bytes
        # a client writes the names of methods as its library does: with small letters, or as they are declared
        self._methods = frozenset(method.lower() for method in methods)
        self._name, self._shared_key, self._root = name, shared_key, root
        self._locks: list[int] = []
        self._agents: dict[str, ForwardedAgent | None] = {}
        self._guard = threading.Lock()

    def close(self) -> None:
        """Let the directories go, and end what was forwarded."""
        with self._guard:
            for lock in self._locks:
                os.close(lock)
            self._locks.clear()
            for agent in self._agents.values():
                if agent is not None:
                    agent.close()
            self._agents.clear()

    def offers(self, method: Method) -> bool:
        """Tell whether the client serves a method."""
        return method.path.lower() in self._methods

    def context_dir(self, name: str, attrs: Mapping[str, str] | None = None) -> Path | None:
        """Fetch what changed of a directory, and return ours; None when the client offers none of that name.

        Raises:
            NetworkError: the client went away, or sent what it must not.
        """
        if not self.offers(FILE_SYNC.DiffCopy):
            return None
        attrs = attrs or {}
        metadata = header_pairs("dir-name", [name])
        for header, attr in _PATTERNS.items():
            if text := attrs.get(attr):
                metadata += header_pairs(header, _list(text, attr))
        directory = self._take_directory(name, attrs)
        call = self._peer.open(FILE_SYNC.DiffCopy, metadata=metadata, cancel=self._cancel)
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            receiver = Receiver(root, call, self._cancel, lambda size, done: self._on_bytes(name, size, done))
            receiver.run()
            receiver.set_folder_times()
        except RpcError as error:
            if error.code == _NOT_FOUND:
                return None
            raise
        finally:
            call.close()
            os.close(root)
        return directory

    def _take_directory(self, name: str, attrs: Mapping[str, str]) -> Path:
        """Return the directory for one of the client's, locked; another one where a build has it."""
        hint = attrs.get("local.sharedkeyhint", "")
        unique = "" if self._shared_key else attrs.get("local.unique", "") or self._name
        parts = json.dumps([self._shared_key, unique, name, hint])
        key = hashlib.sha256(parts.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        directory, lock = synced.take(self._root, key, name)
        with self._guard:
            self._locks.append(lock)
        return directory

    def secret(self, secret_id: str) -> bytes | None:
        """Return a secret's value, None when the client has none of that id.

        Raises:
            InputError: it is larger than `MAX_SECRET`.
        """
        answer = self.ask(SECRETS.GetSecret, secrets_pb2.GetSecretRequest(ID=secret_id))
        if answer is None:
            return None
        if len(answer.data) > MAX_SECRET:
            raise InputError(f"secret {secret_id!r} is larger than {MAX_SECRET >> 10} KiB")
        return bytes(answer.data)

    def ssh_socket(self, ssh_id: str) -> Path | None:
        """Return the path of a socket that leads to the client's agent, None when it has none of that id."""
        with self._guard:
            if ssh_id not in self._agents:
                # a client that knows agents, but not this one, says so with no code of its own
                request = ssh_pb2.CheckAgentRequest(ID=ssh_id)
                there = self.ask(SSH.CheckAgent, request, absent=(_UNKNOWN, *_ABSENT)) is not None
                self._agents[ssh_id] = ForwardedAgent(self._peer, ssh_id, self._cancel) if there else None
            agent = self._agents[ssh_id]
        return agent.socket if agent is not None else None

    def credentials(self, host: str) -> Credentials | None:
        """Return what opens the registry at `host`, None when the client has nothing for it."""
        name = "registry-1.docker.io" if host in _HUB else host
        answer = self.ask(AUTH.Credentials, auth_pb2.CredentialsRequest(Host=name))
        if answer is None or not (answer.Username or answer.Secret):
            return None
        if not answer.Username:
            return Credentials(identity_token=answer.Secret)
        return Credentials(answer.Username, answer.Secret)

    def token(self, host: str, realm: str, service: str, scopes: Sequence[str]) -> tuple[str, float] | None:
        """Have the client fetch a token, so that its password stays there; None when it does not do that.

        Raises:
            NetworkError: the token server refused it.
        """
        name = "registry-1.docker.io" if host in _HUB else host
        request = auth_pb2.FetchTokenRequest(
            ClientID=_CLIENT_ID, Host=name, Realm=realm, Service=service, Scopes=list(scopes)
        )
        answer = self.ask(AUTH.FetchToken, request, absent=(*_ABSENT, _UNAVAILABLE))
        return (answer.Token, float(answer.ExpiresIn)) if answer is not None and answer.Token else None

    def upload(self, host: str, path: str) -> Iterator[bytes] | None:
        """Return the client's stream behind a URL, None when it offers no streams."""
        return pull(self._peer, host, path, self._cancel) if self.offers(UPLOAD.Pull) else None

    def store(self, name: str) -> BlobStore | None:
        """Return one of the client's stores, None when it offers none."""
        return ClientStore(self._peer, name, self._cancel) if self.offers(CONTENT.Read) else None

    def send_stream(self, number: int) -> BinaryIO:
        """Return the client's file for the output of that number."""
        return cast(BinaryIO, open_file(self._peer, number, self._cancel))

    def send_tree(self, number: int) -> Callable[[str, Iterable[Item]], None]:
        """Return what sends files to the client's directory for the output of that number."""
        return lambda folder, items: send_files(self._peer, number, folder, items, self._cancel)

    def ask(self, method: Method, request: Any, absent: tuple[int, ...] = _ABSENT) -> Any:
        """Call, and return the answer; None when the client does not have what is asked for.

        Args:
            absent: gRPC codes that say so.

        Raises:
            NetworkError: it fails in another way, or went away.
        """
        if not self.offers(method):
            return None
        try:
            return self._peer.unary(method, request, cancel=self._cancel, timeout_s=_PATIENCE_S)
        except RpcError as error:
            if error.code in absent:
                return None
            raise


def _list(text: str, attr: str) -> list[str]:
    """Return a JSON list of patterns."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(f"attribute {attr} of a local source must be a list of patterns") from error
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise InputError(f"attribute {attr} of a local source must be a list of patterns")
    return found
