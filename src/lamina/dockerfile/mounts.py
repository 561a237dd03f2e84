"""The value of `RUN --mount`: comma-separated keys, checked into a `Mount`.

In: the flag's text, and a function that expands one value. Out: `instructions.Mount`. Reference: Dockerfile reference,
"RUN --mount"; keys and their limits are BuildKit's. Pure.

Order as in BuildKit: the text is split at commas first, then each value is expanded, so a variable cannot add keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from lamina.dockerfile.flag_fields import parse_boolean, split_fields
from lamina.dockerfile.instructions import Mount
from lamina.dockerfile.suggest import did_you_mean
from lamina.errors import InputError, SourceRange

_TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARING = ("shared", "private", "locked")
_ALIASES = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "ro": "readonly",
    "rw": "readwrite",
}
_KEYS = (
    *("type", "from", "source", "target", "readonly", "readwrite"),
    *("id", "sharing", "required", "size", "mode", "uid", "gid", "env"),
)
_BARE = ("readonly", "readwrite", "required")
_SIZE = re.compile(r"([0-9]+)(\.[0-9]*)?[ ]?([kmgtp]?)i?b?\Z", re.IGNORECASE)
_UNITS = " kmgtp"
_MAX_ID = (1 << 32) - 1


def parse_mount(text: str, source: SourceRange | None = None, expand: Callable[[str], str] = str) -> Mount:
    """Return the mount that `text` asks for.

    Args:
        text: value of the flag, as in `Run.mounts`.
        source: the RUN's lines, for errors.
        expand: puts variables into one value (`Words.word(...).text`).

    Raises:
        InputError: unknown key, type or value; a key that does not go with the type; what `expand` raises.
    """
    try:
        draft = _Draft()
        for name in split_fields("--mount", text):
            key, equals, value = name.partition("=")
            draft.take(key.lower(), expand(value) if equals else None)
        return draft.finish()
    except InputError as error:
        if source is not None:
            error.source = error.source or source
            error.where = error.where or f"{source.file}:{source.start}"
        raise


def check_mount(text: str) -> None:
    """Check what can be checked before variables have values: everything when there are none.

    Raises:
        InputError: as `parse_mount`; or `from` holds a variable.
    """
    for name in split_fields("--mount", text):
        key, _, value = name.partition("=")
        if key.lower() == "from" and "$" in value[:-1]:
            raise InputError(
                "--mount: from takes no variables",
                hint=f"write FROM {value[:80]} AS name further up, and here from=name",
            )
    if "$" not in text and "\\" not in text and "'" not in text and '"' not in text:
        parse_mount(text)


def mount_origin(text: str) -> str:
    """Return what the last `from` of a mount names, "" when there is none: known before variables have values.

    Raises:
        InputError: the text is no comma-separated list; `check_mount` has told so before.
    """
    found = ""
    for name in split_fields("--mount", text):
        key, _, value = name.partition("=")
        if key.lower() == "from":
            found = value
    return found


@dataclass(slots=True)
class _Draft:
    """A mount while its keys are read, in their order: `required` and `size` look at the type so far."""

    type: str = "bind"
    texts: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    readonly: bool | None = None
    required: bool = False

    def take(self, written: str, value: str | None) -> None:
        """Take one key, `value` None when it stands alone."""
        key = _ALIASES.get(written, written)
        if value is None and key not in _BARE:
            if key in _KEYS:
                raise InputError(f"--mount: {written} needs a value", hint=f"write {written}=VALUE")
            raise InputError(f"--mount: no key {written!r}", hint=_advice(written))
        text = "true" if value is None else value
        if key == "type":
            self.type = _one_of("type", text.lower(), _TYPES)
        elif key == "sharing":
            self.texts[key] = _one_of("sharing", text.lower(), _SHARING)
        elif key in ("from", "source", "target", "id", "env"):
            self.texts[key] = text
        elif key in ("readonly", "readwrite"):
            self.readonly = parse_boolean("--mount", written, text) is (key == "readonly")
        elif key == "required":
            self.only_for(key, "secret", "ssh")
            self.required = parse_boolean("--mount", written, text)
        elif key == "size":
            self.only_for(key, "tmpfs")
            self.numbers[key] = _size(text)
        elif key in ("mode", "uid", "gid"):
            self.numbers[key] = _number(key, text)
        else:
            raise InputError(f"--mount: no key {written!r}", hint=_advice(written))

    def only_for(self, key: str, *types: str) -> None:
        """Refuse `key` for other types."""
        if self.type not in types:
            raise InputError(
                f"--mount: {key} does not go with type={self.type}",
                hint=f"{key} is for type={', type='.join(types)}; write the type first",
            )

    def finish(self) -> Mount:
        """Return the mount, its keys checked against its type."""
        for key in ("mode", "uid", "gid"):
            if key in self.numbers:
                self.only_for(key, "cache", "secret", "ssh")
        if "sharing" in self.texts:
            self.only_for("sharing", "cache")
        texts = self.texts
        if self.type == "secret":
            if texts.get("from"):
                raise InputError("--mount: from does not go with type=secret", hint="a secret comes from --secret")
            if not (texts.get("source") or texts.get("target") or texts.get("id")):
                raise InputError("--mount: a secret needs an id", hint="write type=secret,id=NAME")
            if texts.get("source") and texts.get("id"):
                raise InputError("--mount: a secret has id or source, not both", hint="keep id")
        readonly = self.type not in ("cache", "tmpfs") if self.readonly is None else self.readonly
        return Mount(
            type=self.type,
            target=texts.get("target", ""),
            source=texts.get("source", ""),
            from_=texts.get("from", ""),
            readonly=readonly,
            id=texts.get("id", ""),
            sharing=texts.get("sharing", ""),
            required=self.required,
            env=texts.get("env"),
            size_bytes=self.numbers.get("size", 0),
            mode=self.numbers.get("mode"),
            uid=self.numbers.get("uid"),
            gid=self.numbers.get("gid"),
        )


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> str:
    """Return `value`, which must be among `allowed`."""
    if value not in allowed:
        hint = did_you_mean(value, allowed, otherwise=f"write {key}={allowed[0]}, or leave it out")
        raise InputError(f"--mount: {key} is one of {', '.join(allowed)}; got {value[:80]!r}", hint=hint)
    return value


def _number(key: str, value: str) -> int:
    """Return an octal mode or a decimal id."""
    base, digits, what = (8, "01234567", "an octal number") if key == "mode" else (10, "0123456789", "a number")
    if value and len(value) <= 16 and not value.strip(digits) and int(value, base) <= _MAX_ID:
        return int(value, base)
    example = "0755" if key == "mode" else "1000"
    raise InputError(f"--mount: {key} takes {what}, got {value!r}", hint=f"for example {key}={example}")


def _size(value: str) -> int:
    """Return the bytes of a size such as `64m`; units are powers of 1024."""
    match = _SIZE.match(value)
    if match is None or len(value) > 20:
        raise InputError(f"--mount: size takes a number with a unit, got {value!r}", hint="for example size=64m")
    unit = 1 << 10 * _UNITS.index(match[3].lower() or " ")
    whole, fraction = int(match[1]), (match[2] or ".")[1:]
    size: int = whole * unit + int(fraction or "0") * unit // 10 ** len(fraction)
    if size >= 1 << 63:
        raise InputError(f"--mount: size is too large: {value!r}", hint="for example size=64m")
    return size


def _advice(key: str) -> str:
    """Return what to write instead of an unknown key."""
    if key in _TYPES:
        return f"write type={key}"
    return did_you_mean(key, (*_KEYS, *_ALIASES), otherwise="keys: " + ", ".join(_KEYS))
