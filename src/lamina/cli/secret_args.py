"""The options that name what stays on the user's side: `--secret` and `--ssh`.

In: the text behind an option, and the environment. Out: where a value lies, never the value: it is read when a step
asks for it.
"""

from __future__ import annotations

import os

from lamina.cli.build_values import parse_boolean
from lamina.csvline import parse_pairs, split_csv
from lamina.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def parse_secret(text: str, environ: Mapping[str, str]) -> tuple[str, tuple[str, str]]:
    """Return (id, ("file", path) | ("env", variable)) for one `--secret`; the value itself is read when needed.

    Without a source, the variable of the id's name is taken if there is one, else the file of that name.

    Raises:
        InputError: no id, an unknown key, or a source that is not there.
    """
    pairs = parse_pairs(text, "--secret")
    unknown = set(pairs) - {"id", "src", "source", "env", "type", "fingerprint"}
    if unknown:
        raise InputError(f"--secret: unknown key {sorted(unknown)[0]!r}", hint="known: id, src, env, type, fingerprint")
    kind, source = pairs.get("type", ""), pairs.get("src") or pairs.get("source", "")
    variable = pairs.get("env", "")
    if kind not in ("", "file", "env"):
        raise InputError(f"--secret: type {kind!r} is none of file, env")
    secret_id = pairs.get("id", "") or (os.path.basename(source) if source else variable)
    if not secret_id:
        raise InputError("--secret needs an id", hint="write --secret id=NAME,src=FILE or id=NAME,env=VARIABLE")
    if source and variable:
        raise InputError(f"--secret {secret_id}: src and env exclude each other")
    if kind == "env":
        variable = variable or source or secret_id
    elif not variable and not source and kind == "" and secret_id in environ:
        variable = secret_id
    if variable:
        if variable not in environ:
            raise InputError(f"--secret {secret_id}: the environment variable {variable!r} is not set")
        return secret_id, ("env", variable)
    path = os.path.abspath(os.path.expanduser(source or secret_id))
    if not os.path.isfile(path):
        raise InputError("no such file", where=path, hint=f"for --secret id={secret_id}")
    return secret_id, ("file", path)


def counted_secrets(texts: Iterable[str], environ: Mapping[str, str]) -> list[str]:
    """Return the ids of the secrets that count in cache keys: those with `fingerprint=true`."""
    found: dict[str, bool] = {}
    for text in texts:
        value = parse_pairs(text, "--secret").get("fingerprint", "false")
        try:
            found[parse_secret(text, environ)[0]] = parse_boolean(value)
        except ValueError:
            raise InputError(f"--secret: fingerprint={value} is neither true nor false") from None
    return sorted(name for name, counts in found.items() if counts)


def parse_ssh(text: str, environ: Mapping[str, str]) -> tuple[str, str | tuple[str, ...]]:
    """Return (id, socket of an agent) or (id, private key files) for one `--ssh`.

    Raises:
        InputError: no agent is there, no such file, or an agent beside keys.
    """
    import stat

    ssh_id, _, rest = text.partition("=")
    ssh_id = ssh_id or "default"
    paths = [path for path in split_csv(rest, "--ssh") if path]
    if not paths:
        paths = [path for path in [environ.get("SSH_AUTH_SOCK", "")] if path]
        if not paths:
            raise InputError(f"--ssh {ssh_id}: SSH_AUTH_SOCK is not set", hint="start an agent or name its socket")
    found = [os.path.abspath(os.path.expanduser(path)) for path in paths]
    for path in found:
        try:
            mode = os.stat(path).st_mode
        except OSError:
            raise InputError("no such socket or key", where=path, hint=f"for --ssh {ssh_id}") from None
        if stat.S_ISSOCK(mode):
            if len(found) > 1:
                raise InputError(f"--ssh {ssh_id}: an agent stands alone", where=path, hint="give it an id of its own")
            return ssh_id, path
        if not stat.S_ISREG(mode):
            raise InputError(f"--ssh {ssh_id}: neither an agent's socket nor a key", where=path)
    return ssh_id, tuple(found)
