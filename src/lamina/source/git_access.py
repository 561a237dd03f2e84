"""What opens a git remote: the user's secrets for http, the user's agent for ssh.

In: a source, a remote (its own or a submodule's), the session. Out: an `Access`. Secrets are looked for as
`<header id>.<host>`, `<token id>.<host>`, then without host, as BuildKit does. Those without host go only to the
source's own remote (and, for github.com, to all of that host); those with a host only to that host.

Invariant: with a secret in use git follows no redirect, so that it reaches no other host.
"""

from __future__ import annotations

import base64
import os
import shlex
from pathlib import Path

from lamina.errors import InputError, MachineError
from lamina.git_url import GitRemote
from lamina.session import Session
from lamina.source.git_program import Access
from lamina.source.git_spec import GitSpec

_WHOLE_HOST = ("github.com", "www.github.com")
_MAX_SECRET = 64 << 10


def access_for(remote: GitRemote, spec: GitSpec, session: Session, *, known_hosts: Path, scratch: Path) -> Access:
    """Return what opens `remote` on behalf of `spec`.

    Args:
        known_hosts: file for keys of ssh hosts that the graph says nothing about; kept between builds.
        scratch: an existing directory for the graph's own host keys.

    Raises:
        InputError: a secret that cannot be a header, or an agent that was not offered.
    """
    if remote.scheme == "ssh":
        return _ssh(spec, session, known_hosts, scratch)
    if remote.scheme in ("http", "https"):
        return _http(remote, spec, session)
    return Access()


def _http(remote: GitRemote, spec: GitSpec, session: Session) -> Access:
    header = _header(remote, spec, session)
    if header is None:
        return Access()
    scope = remote.address
    settings = (
        ("http.followRedirects", "false"),
        (f"http.{scope}.extraHeader", f"Authorization: {header}"),
    )
    _, _, credential = header.partition(" ")
    hidden = {header.encode(), credential.encode(), *_decoded(credential)}
    return Access(settings, hidden=tuple(sorted((text for text in hidden if len(text) > 3), key=len, reverse=True)))


def _header(remote: GitRemote, spec: GitSpec, session: Session) -> str | None:
    """Return the value of the Authorization header, None to ask without."""
    own = remote.address == spec.remote.address
    shared = own or (
        remote.scheme == "https" and remote.host in _WHOLE_HOST and _origin(remote) == _origin(spec.remote)
    )
    for suffix in (f".{remote.host}", "") if shared else (f".{remote.host}",):
        for secret_id, is_token in ((spec.header_secret, False), (spec.token_secret, True)):
            value = session.secret(secret_id + suffix) if secret_id else None
            if value is not None:
                text = _text(value, secret_id + suffix)
                return _basic("x-access-token", text) if is_token else text
    if remote.user:
        from urllib.parse import unquote

        return _basic(unquote(remote.user), unquote(remote.password))
    return None


def _text(value: bytes, name: str) -> str:
    """Return a secret as text for a header line, without the line feed files end in."""
    text = value.decode("utf-8", "replace").strip()
    if not text or len(value) > _MAX_SECRET or not text.isprintable():
        raise InputError(f"the secret {name!r} cannot be sent as a header", hint="it must be one line of text")
    return text


def _basic(user: str, password: str) -> str:
    return "basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


def _decoded(credential: str) -> list[bytes]:
    """Return the password inside basic credentials, which must not be shown either."""
    try:
        return [base64.b64decode(credential, validate=True).partition(b":")[2]]
    except ValueError:
        return []


def _origin(remote: GitRemote) -> tuple[str, str]:
    return remote.scheme, remote.host


def _ssh(spec: GitSpec, session: Session, known_hosts: Path, scratch: Path) -> Access:
    """Open ssh without the user's files: an agent that was offered, and host keys from the graph or seen before."""
    variables = {}
    if spec.ssh_id:
        socket = session.ssh_socket(spec.ssh_id)
        if socket is None:
            raise InputError(
                f"SSH agent {spec.ssh_id!r} was not given to this build",
                where=spec.remote.address,
                hint=f"add --ssh {spec.ssh_id} (and start ssh-agent)",
            )
        variables["SSH_AUTH_SOCK"] = str(socket)
    checking = "accept-new"
    if spec.known_hosts:
        known_hosts, checking = scratch / "known_hosts", "yes"
        _write(known_hosts, spec.known_hosts)
    if '"' in str(known_hosts):
        raise MachineError("the state directory's name has a quotation mark, which ssh cannot take")
    options = [
        "BatchMode=yes",
        f"StrictHostKeyChecking={checking}",
        f'UserKnownHostsFile="{known_hosts}"',
        "GlobalKnownHostsFile=/dev/null",
        "IdentityFile=none",
        "ForwardAgent=no",
        "PermitLocalCommand=no",
        "ConnectTimeout=30",
        "ServerAliveInterval=30",
    ]
    command = ["ssh", "-F", "/dev/null"]
    for option in options:
        command += ["-o", option]
    variables["GIT_SSH_COMMAND"] = " ".join(shlex.quote(word) for word in command)
    variables["GIT_SSH_VARIANT"] = "ssh"
    return Access(variables=tuple(variables.items()))


def _write(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(text if text.endswith("\n") else text + "\n")
