"""The values of options of `lamina build`: one word of the command line in, one checked value out.

In: the text behind an option, and the environment where a value may come from there. Out: plain values. Imports nothing
but what the fully cached path has anyway. `lamina.cli.secret_args` reads those that stay on the user's side.
"""

from __future__ import annotations

import os

from lamina.csvline import parse_pairs
from lamina.errors import InputError, NotYetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_ENTITLEMENTS = ("network.host", "security.insecure", "device")
_ULIMITS = {
    *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue"),
    *("nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack"),
}
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_POLICY_VARIABLE = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY"
_MAX_POLICY = 4 << 20


def parse_boolean(text: str) -> bool:
    """Return the value of `--flag=text`, as Go's flags have it."""
    if text.lower() in ("1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise ValueError(text)


def parse_allow(texts: Iterable[str]) -> list[str]:
    """Return the entitlements that `--allow` grants; the alias of a device is kept with it: `device=A,alias=B`."""
    found: list[str] = []
    for name in split_commas(texts):
        if name.startswith("alias=") and found and found[-1].startswith("device=") and "," not in found[-1]:
            found[-1] += f",{name}"
        elif name in _ENTITLEMENTS or (name.startswith("device=") and name != "device="):
            found.append(name)
        else:
            raise InputError(
                f"--allow {name!r} is no entitlement that is known",
                hint=f"one of {', '.join(_ENTITLEMENTS)}, device=NAME, device=NAME,alias=OTHER",
            )
    return sorted(set(found))


def parse_build_args(texts: Iterable[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return build arguments; one without `=` takes its value from the environment, or is left out."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise InputError(f"--build-arg {text!r} has no name", hint="write --build-arg NAME=VALUE")
        if equals:
            found[name] = value
        elif name in environ:
            found[name] = environ[name]
        else:
            found.pop(name, None)
    return found


def parse_key_values(texts: Iterable[str], option: str) -> dict[str, str]:
    """Return `KEY=VALUE` options; a key without `=` has the empty value."""
    found = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not key:
            raise InputError(f"{option} {text!r} has no key", hint=f"write {option} KEY=VALUE")
        found[key] = value
    return found


def split_commas(texts: Iterable[str]) -> list[str]:
    """Return the words between commas, of all `texts`, without blanks."""
    return [word.strip() for text in texts for word in text.split(",") if word.strip()]


def find_directory(path: str, option: str) -> str:
    """Return the absolute path of a directory that an option names."""
    if not os.path.isdir(path):
        raise InputError(f"{option} {path!r} is no directory", hint="name one with .json or .yaml files in it")
    return os.path.abspath(path)


def parse_build_contexts(texts: Iterable[str]) -> dict[str, str]:
    """Return named contexts; directories become absolute."""
    found = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if not name or not equals or not source:
            raise InputError(f"--build-context {text!r} is not NAME=SOURCE")
        if "://" not in source and not source.startswith("target:"):
            if not os.path.isdir(source):
                raise InputError("no such directory", where=source, hint=f"for --build-context {name}")
            source = os.path.abspath(source)
        elif source.startswith("oci-layout://"):
            source = "oci-layout://" + os.path.abspath(source.removeprefix("oci-layout://"))
        found[name] = source
    return found


def parse_network(text: str) -> str:
    """Return "", "host" or "none" for `--network`."""
    if text in ("", "default"):
        return ""
    if text in ("host", "none"):
        return text
    raise NotYetError(f"--network={text}", hint="default, host and none are known")


def parse_add_host(text: str) -> str:
    """Return `name=address` for `--add-host name:address` or `name=address`; an IPv6 address may be bracketed."""
    separator = "=" if "=" in text else ":"
    name, found, address = text.partition(separator)
    address = address.removeprefix("[").removesuffix("]")
    if not found or not name or not address:
        raise InputError(f"--add-host {text!r} is not HOST:IP")
    if address != "host-gateway":
        import socket

        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            socket.inet_pton(family, address)
        except OSError:
            raise InputError(f"--add-host: {address!r} is not an IP address") from None
    return f"{name}={address}"


def parse_size(text: str, option: str) -> int:
    """Return bytes for `64m`, `1g`, `512k`, `1024` (units are powers of 1024, as docker has them)."""
    number = text.strip().lower().removesuffix("ib")
    if number[-2:-1] in tuple("kmgt") and number.endswith("b"):
        number = number[:-1]
    unit = number[-1:] if number[-1:].isalpha() else ""
    digits = number.removesuffix(unit).strip()
    whole, _, part = digits.partition(".")
    if unit not in _UNITS or not whole.isascii() or not whole.isdigit() or (part and not part.isdigit()):
        raise InputError(f"{option}: {text!r} is not a size", hint="write a number with b, k, m or g")
    return int(float(digits) * _UNITS[unit]) if part else int(whole) * _UNITS[unit]


def parse_ulimit(text: str) -> str:
    """Return `name=soft:hard` for `name=soft[:hard]`; -1 means unlimited."""
    name, equals, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    hard = hard or soft
    if not equals or not _is_limit(soft) or not _is_limit(hard):
        raise InputError(f"--ulimit {text!r} is not NAME=SOFT[:HARD]")
    if name not in _ULIMITS:
        raise InputError(f"--ulimit: no such limit: {name!r}", hint="known: " + ", ".join(sorted(_ULIMITS)))
    if hard != "-1" and (soft == "-1" or int(soft) > int(hard)):
        raise InputError(f"--ulimit {text!r}: the soft limit is above the hard one")
    return f"{name}={soft}:{hard}"


def _is_limit(text: str) -> bool:
    return text == "-1" or (text.isascii() and text.isdigit())


def parse_epoch(text: str) -> int | None:
    """Return SOURCE_DATE_EPOCH as seconds, None when unset."""
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or int(text) >= 1 << 33:
        raise InputError(f"SOURCE_DATE_EPOCH={text!r} is not a number of seconds")
    return int(text)


def source_policies(path: str, environ: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return name and text of the file with the source policy: of the option, or of the variable that buildx reads.

    Raises:
        InputError: it cannot be read. Whether it is a policy is looked at when one is needed.
    """
    path = path or environ.get(_POLICY_VARIABLE, "")
    if not path:
        return []
    try:
        with open(path, "rb") as file:
            return [(path, file.read(_MAX_POLICY + 1).decode("utf-8"))]
    except OSError as error:
        raise InputError(f"the source policy cannot be read: {error.strerror}", where=path) from error
    except UnicodeDecodeError as error:
        raise InputError("the source policy is not UTF-8 text", where=path) from error


def check_output(text: str) -> str:
    """Return an `--output` in its long form (`type=local,dest=DIR` for `DIR`, `type=tar,dest=-` for `-`).

    Raises:
        InputError: no type, no destination where one is needed, or a terminal as destination.
    """
    if text == "-":
        text = "type=tar,dest=-"
    elif "=" not in text:
        text = "type=local," + _quoted(f"dest={text}")
    pairs = parse_pairs(text, "--output")
    kind = pairs.get("type", "")
    if not kind:
        raise InputError(f"--output {text!r} has no type", hint="write type=oci,dest=FILE or a directory")
    if kind in ("local", "tar", "oci") and not pairs.get("dest"):
        raise InputError(f"--output type={kind} needs dest=PATH")
    if pairs.get("dest") == "-" and os.isatty(1):
        raise InputError("not writing an archive to a terminal", hint="redirect standard output or name a file")
    return text


def _quoted(field: str) -> str:
    """Return a CSV field, quoted where it must be."""
    if "," in field or '"' in field:
        return '"' + field.replace('"', '""') + '"'
    return field
