"""Registry credentials as docker keeps them: `config.json` and credential helpers. Reads a file, runs helpers.

In come the folder of `config.json` and the search path for helpers (nothing is read from the environment here
except what a helper process needs to run, which is handed on by its caller); out comes a function from the exact
`host[:port]` of a registry to its credentials. Rules: a host matches only itself, port included, so that nothing is
ever sent to `example.com.evil`; a helper that fails is told about and nothing else is tried in its place.
Formats: docker's `config.json` (`auths`, `credHelpers`, `credsStore`), docker-credential-helpers' protocol.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lamina.errors import InputError
from lamina.registry.wire import printable
from lamina.session import Credentials

HELPER_TIMEOUT_S = 30.0
MAX_CONFIG = 4 << 20
"""Most bytes of a `config.json`."""
MAX_HELPER_OUTPUT = 1 << 20
"""Most bytes that a helper may print."""
HUB_KEY = "https://index.docker.io/v1/"
"""The name under which docker keeps what opens Docker Hub."""
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}\Z")
_HUB_NAMES = frozenset(("docker.io", "index.docker.io", "registry-1.docker.io"))


def load_credentials(
    config_dir: Path,
    search_path: str,
    helper_env: Mapping[str, str] | None = None,
    helper_timeout_s: float = HELPER_TIMEOUT_S,
) -> Callable[[str], Credentials | None]:
    """Return a function from a registry's exact `host[:port]` to its credentials, or to None.

    The file is read at the first question, once; a missing file means no credentials.

    Args:
        config_dir: the folder of `config.json`, usually `~/.docker`.
        search_path: folders to find `docker-credential-…` in, in the form of `PATH`.
        helper_env: environment of helpers (they want `HOME` and the like); `PATH` is set to `search_path`.
        helper_timeout_s: how long a helper may take.

    Raises (when asked):
        InputError: the file or the helper's answer cannot be used.
    """
    config: dict[str, Any] | None = None

    def lookup(host: str) -> Credentials | None:
        nonlocal config
        if config is None:
            config = _read_config(config_dir / "config.json")
        helper = _helper_for(config, host)
        if helper:
            env = {**(helper_env or {}), "PATH": search_path}
            return run_helper(helper, HUB_KEY if host in _HUB_NAMES else host, search_path, env, helper_timeout_s)
        return _stored(config, host)

    return lookup


def _read_config(path: Path) -> dict[str, Any]:
    """Return the parsed file, {} when there is none."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CONFIG + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", where=str(path), hint="check its permissions") from error
    if len(raw) > MAX_CONFIG:
        raise InputError(f"larger than {MAX_CONFIG} bytes", where=str(path))
    try:
        config = json.loads(raw) if raw.strip() else {}
    except (ValueError, RecursionError) as error:
        where = f"{path}:{error.lineno}" if isinstance(error, json.JSONDecodeError) else str(path)
        raise InputError("not valid JSON", where=where, hint="mend the file, or log in again") from error
    if not isinstance(config, dict):
        raise InputError("not a JSON object", where=str(path))
    return config


def _helper_for(config: Mapping[str, Any], host: str) -> str:
    """Return the name of the helper responsible for `host`, "" for none."""
    helpers = config.get("credHelpers")
    for key in _keys(host):
        if isinstance(helpers, dict) and isinstance(name := helpers.get(key), str) and name:
            return name
    store = config.get("credsStore")
    if not isinstance(store, str):
        return ""
    return store


def _keys(host: str) -> list[str]:
    """Return the keys that mean exactly this host, most usual first."""
    if host in _HUB_NAMES:
        return [HUB_KEY, "index.docker.io", "docker.io", "registry-1.docker.io"]
    return [host]


def _stored(config: Mapping[str, Any], host: str) -> Credentials | None:
    """Return what `auths` holds for exactly this host."""
    auths = config.get("auths")
    if not isinstance(auths, dict):
        return None
    for key in _keys(host):
        if key in auths:
            return _parse_entry(auths[key], host)
    for key, entry in auths.items():
        # Old logins were kept under URLs such as https://reg.example/v2/.
        if isinstance(key, str) and "://" in key and host not in _HUB_NAMES and _netloc(key) == host:
            return _parse_entry(entry, host)
    return None


def _netloc(url: str) -> str:
    """Return `host[:port]` of a URL, "" when it is none."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def _parse_entry(entry: Any, host: str) -> Credentials | None:
    """Return the credentials in one entry of `auths`; an empty one is none."""
    if not isinstance(entry, dict):
        return None
    fields = {key: value for key, value in entry.items() if isinstance(value, str)}
    username, password = fields.get("username", ""), fields.get("password", "")
    if encoded := fields.get("auth", ""):
        try:
            text = base64.b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            hint = f"log in again: docker login {host}"
            raise InputError(
                f"the stored credentials of {host} cannot be read", where="config.json", hint=hint
            ) from error
        username, _, password = text.partition(":")
        password = password.strip("\0")
    identity = fields.get("identitytoken", "")
    if not (username or identity):
        return None
    return Credentials(username, password, identity)


def run_helper(
    name: str, server: str, search_path: str, env: Mapping[str, str], timeout_s: float
) -> Credentials | None:
    """Ask `docker-credential-<name>` for the credentials of `server`; None when it knows none.

    Raises:
        InputError: it is missing, hangs, fails, or answers something else than the protocol's JSON.
    """
    program = _find_helper(name, search_path)
    where = f"docker-credential-{name}"
    status, output, timed_out = _run(program, server, env, timeout_s)
    hint = f"see what it says: echo {server} | docker-credential-{name} get"
    if timed_out:
        raise InputError(f"gave no answer within {timeout_s:g} s", where=where, hint=hint)
    if len(output) > MAX_HELPER_OUTPUT:
        raise InputError(f"printed more than {MAX_HELPER_OUTPUT} bytes", where=where, hint=hint)
    if status != 0:
        text = output.decode("utf-8", "replace")
        if "credentials not found" in text.lower():
            return None
        # Its output is not shown: a broken helper may well print what it should keep.
        raise InputError(f"failed with exit code {status} when asked for {server}", where=where, hint=hint)
    try:
        answer = json.loads(output)
        username, secret = answer["Username"], answer["Secret"]
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        raise InputError("its answer is not a JSON object with Username and Secret", where=where, hint=hint) from error
    if not isinstance(username, str) or not isinstance(secret, str):
        raise InputError("its answer is not a JSON object with Username and Secret", where=where, hint=hint)
    if username == "<token>":
        return Credentials(identity_token=secret)
    return Credentials(username, secret) if username else None


def _find_helper(name: str, search_path: str) -> str:
    """Return the helper's program; only absolute folders of the path count."""
    if _HELPER_NAME.match(name):
        for folder in search_path.split(os.pathsep):
            program = os.path.join(folder, f"docker-credential-{name}")
            if os.path.isabs(folder) and os.access(program, os.X_OK) and not os.path.isdir(program):
                return program
    raise InputError(
        f"credential helper docker-credential-{printable(name, 60)} not found",
        where="config.json",
        hint="install it, or take it out of credsStore and credHelpers",
    )


def _run(program: str, server: str, env: Mapping[str, str], timeout_s: float) -> tuple[int, bytes, bool]:
    """Run a helper in its own process group; return exit code, output (capped) and whether time ran out.

    The whole group is killed at the end, so that nothing a helper started outlives it.
    """
    import signal
    import subprocess
    import threading

    with subprocess.Popen(
        [program, "get"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=dict(env),
        start_new_session=True,
    ) as process:
        late = threading.Event()

        def kill() -> None:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass

        def expire() -> None:
            late.set()
            kill()

        timer = threading.Timer(timeout_s, expire)
        timer.start()
        output = b""
        try:
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(server.encode())
                process.stdin.close()
            except BrokenPipeError:
                pass
            output = process.stdout.read(MAX_HELPER_OUTPUT + 1)
            if len(output) > MAX_HELPER_OUTPUT:
                kill()
            status = process.wait()
        finally:
            timer.cancel()
            kill()
        return status, output, late.is_set()
