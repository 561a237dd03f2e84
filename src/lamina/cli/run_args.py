"""What stands on `lamina run`'s command line, as the values that run an image; docker's names and meanings.

Nothing here is silently without effect: an option of docker's that has no meaning yet raises `NotYetError`, except
those that ask for what happens anyway (`--rm`, `--publish-all` on the host's network).
"""

from __future__ import annotations

import os
import re

from lamina.errors import InputError, NotYetError, SourceRange

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Mapping

    from lamina.executor.step import StepMount, Ulimit

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")
_VARIABLE = re.compile(r"[^\s=]+")
_MAX_ENV_FILE = 8 << 20
_VOLUME_WORDS = {"ro", "rw", "z", "Z", "cached", "delegated", "consistent"}
_TMPFS_FLAGS = {"ro", "rw", "exec", "noexec", "nosuid", "nodev"}
_NOTHING_RUNS = ("nosuid", "nodev", "noexec")
_NOT_YET_FLAGS = {
    "--detach": "end the command line with & instead",
    "--privileged": "",
    "--init": "signals and exit codes work without it; orphans are not reaped",
    "--oom-kill-disable": "",
}
_NOT_YET_WORDS = """
--cap-add --cap-drop --cgroup-parent --cidfile --cpuset-cpus --cpus --cpu-shares --detach-keys --device --dns
--expose --gpus --group-add --ipc --label --link --log-driver --mac-address --memory --network-alias --pid
--pids-limit --restart --runtime --security-opt --stop-signal --sysctl --userns --volumes-from
"""
_NOT_YET_VALUES = tuple(_NOT_YET_WORDS.split())


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options of `lamina run`."""
    import argparse

    add = parser.add_argument

    def many(*names: str, metavar: str, text: str) -> None:
        add(*names, action="append", default=[], metavar=metavar, help=f"{text} (repeatable)")

    add("-i", "--interactive", action="store_true", help="connect standard input")
    add("-t", "--tty", action="store_true", help="give the command a terminal")
    add("--rm", action="store_true", help="accepted; nothing of a run is kept in any case")
    add("--name", default="", metavar="NAME", help="host name, unless --hostname says another; nothing else has a name")
    many("-e", "--env", metavar="NAME[=VALUE]", text="environment variable")
    many("--env-file", metavar="FILE", text="file with lines NAME=VALUE or NAME")
    many("-v", "--volume", metavar="HOST:PATH[:ro]", text="mount a host path")
    many("--mount", metavar="type=bind|tmpfs,...", text="mount a host path or memory")
    many("--tmpfs", metavar="PATH[:size=,mode=]", text="memory at a path")
    add("--read-only", action="store_true", help="mount the image's files read-only")
    many("-p", "--publish", metavar="[HOST:]PORT", text="a port (on the host's network, under its own number)")
    add("-P", "--publish-all", action="store_true", help="accepted; on the host's network all ports are")
    add("-u", "--user", default="", metavar="USER[:GROUP]", help="user instead of the image's")
    add("-w", "--workdir", default="", metavar="DIR", help="working directory instead of the image's")
    add("--entrypoint", default=None, metavar="PROGRAM", help="entrypoint instead of the image's ('' for none)")
    add("--network", "--net", default="host", metavar="host|none", help="network (default host)")
    add("--hostname", default="", metavar="NAME", help="host name")
    many("--add-host", metavar="HOST:IP", text="a line for /etc/hosts")
    add("--shm-size", default="", metavar="SIZE", help="size of /dev/shm (default 64m)")
    many("--ulimit", metavar="NAME=SOFT[:HARD]", text="limit of the command")
    add("--pull", choices=["missing", "always", "never"], default="missing", help="when to ask the registry")
    add("--platform", default="", metavar="OS/ARCH", help="platform to run (default: this machine's)")
    add("--stop-timeout", type=int, default=10, metavar="SECONDS", help="from SIGTERM to SIGKILL (default 10)")
    add("--cgroupns", choices=["host"], default="host", help=argparse.SUPPRESS)
    for name in _NOT_YET_FLAGS:
        add(*(["-d", name] if name == "--detach" else [name]), action="store_true", help=argparse.SUPPRESS)
    for name in _NOT_YET_VALUES:
        short = {"--memory": ["-m"], "--label": ["-l"], "--cpu-shares": ["-c"]}.get(name, [])
        add(*short, name, default=None, help=argparse.SUPPRESS)
    add("image", metavar="IMAGE", help="a name or an image ID")
    add("command", nargs=argparse.REMAINDER, metavar="CMD", help="command instead of the image's")


def refuse_not_yet(args: Namespace) -> None:
    """Raise `NotYetError` for the first option given that has no meaning yet."""
    for name in (*_NOT_YET_FLAGS, *_NOT_YET_VALUES):
        if getattr(args, name[2:].replace("-", "_")):
            raise NotYetError(f"run {name}", hint=_NOT_YET_FLAGS.get(name, ""))


def parse_env(texts: list[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return variables; one without `=` takes its value from the environment, or is left out."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise InputError(f"--env {text!r} has no name")
        if equals or name in environ:
            found[name] = value if equals else environ[name]
    return found


def load_env_file(path: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables in a file, as docker reads it: no quotes, no expansion, `#` starts a comment line.

    Raises:
        InputError: it cannot be read, is not text, or a line has no proper name.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_ENV_FILE + 1)
    except OSError as error:
        raise InputError(f"--env-file cannot be read: {error.strerror}", where=path) from error
    if len(data) > _MAX_ENV_FILE:
        raise InputError(f"--env-file is larger than {_MAX_ENV_FILE >> 20} MiB", where=path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("--env-file is not UTF-8 text", where=path) from error
    found: dict[str, str] = {}
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.removesuffix("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        name = line.partition("=")[0]
        if not _VARIABLE.fullmatch(name) or "\0" in line:
            # Without an excerpt: the lines around may hold passwords.
            raise InputError(
                "a line of --env-file is not NAME=VALUE or NAME",
                source=SourceRange(path, number),
                hint="there are no spaces around the name, and no `export` before it",
            )
        found.update(parse_env([line], environ))
    return found


def parse_volume(text: str) -> tuple[str, str, bool]:
    """Return (absolute host path, path in the container, read-only) for `-v HOST:PATH[:ro]`."""
    host, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    words = set(mode.split(",")) if mode else set()
    if not host or not target.startswith("/") or not words <= _VOLUME_WORDS:
        raise InputError(f"--volume {text!r} is not HOST:PATH[:ro]")
    if "/" not in host and host not in (".", ".."):
        raise NotYetError(f"run --volume {text} (volumes with a name)", hint=f"for a directory here write ./{text}")
    return existing(host, f"--volume {text}"), target, "ro" in words


def existing(path: str, option: str) -> str:
    """Return a host path as absolute; it must exist."""
    path = os.path.abspath(path)
    if not os.path.exists(path):
        raise InputError("no such file or directory", where=path, hint=f"for {option}")
    return path


def parse_tmpfs(text: str) -> StepMount:
    """Return the mount for `--tmpfs PATH[:size=..,mode=..,uid=..,gid=..,ro,exec]`; nothing is executed from it."""
    from lamina.cli.build_values import parse_size
    from lamina.executor.step import StepMount

    target, _, options = text.partition(":")
    if not target.startswith("/"):
        raise InputError(f"--tmpfs {text!r} is not PATH[:OPTIONS] with an absolute path")
    words = [word for word in options.split(",") if word]
    values = dict(word.split("=", 1) for word in words if "=" in word)
    flags = {word for word in words if "=" not in word}
    unknown = sorted((flags - _TMPFS_FLAGS) | (values.keys() - {"size", "mode", "uid", "gid"}))
    if unknown:
        raise InputError(f"--tmpfs: unknown option {unknown[0]!r}", hint="known: size mode uid gid ro rw exec noexec")
    return StepMount(
        target,
        "tmpfs",
        size_bytes=parse_size(values["size"], "--tmpfs") if "size" in values else 0,
        mode=_number(values["mode"], 8, text) if "mode" in values else None,
        uid=_number(values.get("uid", "0"), 10, text),
        gid=_number(values.get("gid", "0"), 10, text),
        readonly="ro" in flags,
        flags=None if "exec" in flags else _NOTHING_RUNS,
    )


def _number(text: str, base: int, option: str) -> int:
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 32 or (base == 8 and number > 0o7777):
        raise InputError(f"--tmpfs {option!r}: {text!r} is not a number that fits here")
    return number


def parse_mount(text: str) -> StepMount:
    """Return the mount for `--mount type=bind,source=,target=[,readonly]` or `type=tmpfs,target=[,tmpfs-size=]`."""
    from lamina.cli.build_values import parse_size
    from lamina.csvline import parse_pairs
    from lamina.executor.step import StepMount

    pairs = parse_pairs(text, "--mount")
    kind = pairs.pop("type", "volume")
    if kind not in ("bind", "tmpfs"):
        raise NotYetError(f"run --mount type={kind}", hint="bind and tmpfs are known")
    source = next((pairs.pop(name) for name in ("source", "src") if name in pairs), "")
    target = next((pairs.pop(name) for name in ("target", "destination", "dst") if name in pairs), "")
    if not target.startswith("/"):
        raise InputError(f"--mount {text!r} has no absolute target=")
    readonly = any(pairs.pop(name, "false").lower() in ("", "true", "1") for name in ("readonly", "ro"))
    size = parse_size(pairs.pop("tmpfs-size", "0"), "--mount tmpfs-size") if kind == "tmpfs" else 0
    mode = _number(pairs.pop("tmpfs-mode", "1777"), 8, text) if kind == "tmpfs" else None
    if pairs:
        raise InputError(f"--mount: unknown key {min(pairs)!r} for type={kind}")
    if kind == "tmpfs":
        return StepMount(target, "tmpfs", size_bytes=size, mode=mode, readonly=readonly, flags=_NOTHING_RUNS)
    if not source:
        raise InputError(f"--mount {text!r} has no source=")
    return StepMount(target, "bind", source=existing(source, f"--mount {text}"), readonly=readonly)


def mounts(args: Namespace) -> list[StepMount]:
    """Return everything that is to be mounted: `--volume`, `--mount`, `--tmpfs`."""
    from lamina.executor.step import StepMount

    volumes = [parse_volume(text) for text in args.volume]
    return [
        *(StepMount(target, "bind", source=source, readonly=readonly) for source, target, readonly in volumes),
        *(parse_mount(text) for text in args.mount),
        *(parse_tmpfs(text) for text in args.tmpfs),
    ]


def check_network(text: str) -> str:
    """Return "host" or "none"."""
    if text not in ("host", "none"):
        raise NotYetError(f"run --network={text}", hint="host and none are known")
    return text


def check_publish(text: str, network: str) -> None:
    """Check `-p`: on the host's network a port is reachable under its own number, and only so."""
    ports = text.partition("/")[0].split(":")
    if not all(port.isdigit() and 0 < int(port) < 65536 for port in ports[-2:]):
        raise InputError(f"--publish {text!r} is not [HOST:]PORT")
    if network != "host":
        raise InputError("--publish needs the host's network", hint="leave out --network")
    if len(ports) > 2 or len(set(ports)) > 1:
        raise NotYetError(f"--publish {text} (another port or address than the container's)")


def check_name(text: str) -> str:
    """Return `--name`'s value, which docker's rules (and those of host names) allow."""
    if text and not _NAME.fullmatch(text):
        raise InputError(
            f"--name {text!r} is not a name", hint="letters, digits, and . _ - after the first; 63 at most"
        )
    return text


def ulimits(texts: list[str]) -> list[Ulimit]:
    """Return the limits for `--ulimit`."""
    from lamina.cli.build_values import parse_ulimit
    from lamina.executor.step import Ulimit

    found = []
    for text in texts:
        name, _, limits = parse_ulimit(text).partition("=")
        soft, _, hard = limits.partition(":")
        found.append(Ulimit(name, int(soft), int(hard)))
    return found


def hosts(texts: list[str]) -> list[tuple[str, str]]:
    """Return (name, address) for `--add-host`."""
    from lamina.cli.build_values import parse_add_host

    pairs = [parse_add_host(text).partition("=") for text in texts]
    return [(name, address) for name, _, address in pairs]
