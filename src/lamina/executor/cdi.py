"""A CDI specification: what a vendor's file says must be done to a container that gets one of its devices.

In: the file's values as plain dicts, lists, strings and integers (`cdi_text.py` reads them). Out: a `Spec`, every
field checked. Pure. Spec: Container Device Interface 1.1, SPEC.md. As there, unknown fields are errors, and so is a
field that is newer than the version the file claims. Field names are matched without regard to case, as Go does.

What steps cannot be given (`intelRdt`, `netDevices`, a device to be read but not written) is refused when a step
asks for such a device (`Edits.unsupported`), not when the file is read: its other devices stay usable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from lamina.errors import InputError

NEWEST = (1, 1, 0)
CLASS_ANNOTATION = "org.mobyproject.buildkit.device.class"
AUTO_ALLOW_ANNOTATION = "org.mobyproject.buildkit.device.autoallow"
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")

_VERSION = re.compile(r"v?([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,4})\Z")
_KIND = re.compile(
    r"(?P<vendor>[A-Za-z](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?)/"
    r"(?P<class>[A-Za-z](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)\Z"
)
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:-]{0,251}[A-Za-z0-9])?\Z")
_NODE_TYPES = ("", "b", "c", "u", "p")
_MAX_TEXT = 32 << 10
_MAX_ITEMS = 4096
_TRUE = ("1", "t", "T", "TRUE", "true", "True")


class Plain(str):
    """An unquoted YAML scalar: text, or the number or nothing that it spells, as its field asks."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A device file in the step.

    Attributes:
        path: where the step sees it; absolute.
        host_path: where this machine has it; absolute.
        type: "b", "c", "u" (as "c"), "p", or "" for what the machine's file is.
        major: device number; 0 with `minor` 0 for the machine's.
        mode: permission bits, None for those of the machine's file.
        permissions: of "rwm", "" for all, "none" for none at all.
        uid: owner, None for the step's user.
        gid: group, None for the step's group.
    """

    path: str
    host_path: str
    type: str = ""
    major: int = 0
    minor: int = 0
    mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class HostMount:
    """Something of this machine, or a new file system, mounted in the step."""

    host_path: str
    container_path: str
    type: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hook:
    """A program of this machine that the OCI runtime starts at a moment of the step's life.

    Attributes:
        name: the moment, one of `HOOKS`.
        path: absolute path on this machine (`startContainer`: in the step).
        timeout_s: None for no limit.
    """

    name: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout_s: int | None = None


@dataclass(frozen=True, slots=True)
class Edits:
    """What is done to a container.

    Attributes:
        env: `NAME=value`; takes the place of a variable that the step has.
        gids: supplementary groups.
        unsupported: what is asked for that steps cannot be given, "" when nothing.
    """

    env: tuple[str, ...] = ()
    nodes: tuple[DeviceNode, ...] = ()
    mounts: tuple[HostMount, ...] = ()
    hooks: tuple[Hook, ...] = ()
    gids: tuple[int, ...] = ()
    unsupported: str = ""

    def __add__(self, other: Edits) -> Edits:
        return Edits(
            self.env + other.env,
            self.nodes + other.nodes,
            self.mounts + other.mounts,
            self.hooks + other.hooks,
            self.gids + other.gids,
            self.unsupported or other.unsupported,
        )


@dataclass(frozen=True, slots=True)
class Device:
    """One device of a file; `annotations` are the file's and its own."""

    name: str
    edits: Edits
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def auto_allowed(self) -> bool:
        """Whether steps may have it without `--allow`: so says who wrote the file."""
        return self.annotations.get(AUTO_ALLOW_ANNOTATION, "") in _TRUE


@dataclass(frozen=True, slots=True)
class Spec:
    """One file: devices of one kind, and what every user of any of them gets."""

    kind: str
    devices: tuple[Device, ...]
    edits: Edits


def is_kind(text: str) -> bool:
    """Tell whether `text` is `vendor.com/class`."""
    return _KIND.match(text) is not None


def parse_spec(value: object) -> Spec:
    """Return the specification that a file's values are.

    Raises:
        InputError: what is wrong, with the field's path; the caller adds which file.
    """
    top = _Fields(value, "", (0, 0, 0))
    version = top.text("cdiVersion", required=True)
    match = _VERSION.match(version)
    if match is None:
        raise InputError(f"cdiVersion {_short(version)} is no version", hint="such as 0.6.0")
    top.version = (int(match[1]), int(match[2]), int(match[3]))
    if top.version > NEWEST:
        raise InputError(
            f"cdiVersion {version} is newer than {'.'.join(map(str, NEWEST))}, the newest that is known here",
            hint="have the file made for an older version, if its generator can",
        )
    kind = top.text("kind", required=True)
    matched = _KIND.match(kind)
    if matched is None:
        raise InputError(f"kind {_short(kind)} is not of the form vendor.com/class")
    if "." in matched["class"]:
        top.need((0, 6, 0), "a kind with a dot in its class")
    common = _annotations(top)
    edits = _edits(top)
    devices = tuple(_device(fields, common) for fields in top.objects("devices"))
    top.finish()
    if not devices:
        raise InputError("the file has no devices")
    names = [device.name for device in devices]
    if len(set(names)) < len(names):
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise InputError(f"device {twice!r} is there twice")
    return Spec(kind, devices, edits)


class _Fields:
    """The fields of one object: each is taken once, and none may be left."""

    def __init__(self, value: object, path: str, version: tuple[int, int, int]) -> None:
        self.path, self.version = path, version
        if not isinstance(value, dict):
            self.refuse("", "must be an object")
        self._values: dict[str, object] = {}
        for name, item in value.items():
            if name.lower() in self._values:
                self.refuse(name, "is there twice")
            self._values[name.lower()] = item

    def refuse(self, name: str, what: str) -> NoReturn:
        """Raise the error for a field."""
        where = ".".join(part for part in (self.path, _printable(name)) if part) or "the file"
        raise InputError(f"{where} {what}")

    def need(self, version: tuple[int, int, int], what: str) -> None:
        """Refuse what is newer than the file says it is."""
        if self.version < version:
            claimed, needed = (".".join(map(str, numbers)) for numbers in (self.version, version))
            raise InputError(
                f"{self.path + ': ' if self.path else ''}{what} needs cdiVersion {needed}, but the file says {claimed}"
            )

    def take(self, name: str) -> object:
        """Return a field's value, None when it is not there or null."""
        value = self._values.pop(name.lower(), None)
        return None if isinstance(value, Plain) and value in ("", "~", "null", "Null", "NULL") else value

    def has(self, name: str) -> bool:
        """Tell whether a field is there and says something."""
        value = self._values.get(name.lower())
        return not (value is None or (isinstance(value, Plain) and value in ("", "~", "null", "Null", "NULL")))

    def text(self, name: str, *, required: bool = False) -> str:
        """Return a text, "" when it is not there."""
        value = self.take(name)
        if value is None:
            value = ""
        if not isinstance(value, str):
            self.refuse(name, "must be a text")
        if required and not value:
            self.refuse(name, "is missing")
        return self._checked(name, value)

    def absolute(self, name: str, *, required: bool = True) -> str:
        """Return an absolute path without `..`."""
        value = self.text(name, required=required)
        if value and (not value.startswith("/") or ".." in value.split("/") or "\n" in value):
            self.refuse(name, f"must be an absolute path without '..', got {_short(value)}")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts."""
        found = []
        for item in self._list(name):
            if not isinstance(item, str):
                self.refuse(name, "must be a list of texts")
            found.append(self._checked(name, item))
        return tuple(found)

    def variables(self, name: str) -> tuple[str, ...]:
        """Return a list of `NAME=value`."""
        found = self.texts(name)
        for item in found:
            if item.find("=") < 1:
                self.refuse(name, f"must hold NAME=value, got {_short(item)}")
        return found

    def number(self, name: str, lowest: int, highest: int) -> int | None:
        """Return an integer, None when it is not there."""
        value = self.take(name)
        if isinstance(value, Plain):
            value = _plain_number(value)
            if value is None:
                self.refuse(name, "must be a whole number")
        return None if value is None else self._bounded(name, value, lowest, highest)

    def numbers(self, name: str, highest: int) -> tuple[int, ...]:
        """Return a list of integers."""
        found = []
        for item in self._list(name):
            value = _plain_number(item) if isinstance(item, Plain) else item
            found.append(self._bounded(name, value, 0, highest))
        return tuple(found)

    def objects(self, name: str) -> list[_Fields]:
        """Return a list of objects."""
        path = ".".join(part for part in (self.path, name) if part)
        return [_Fields(item, f"{path}[{number}]", self.version) for number, item in enumerate(self._list(name))]

    def child(self, name: str) -> _Fields | None:
        """Return an object, None when it is not there."""
        value = self.take(name)
        path = ".".join(part for part in (self.path, name) if part)
        return None if value is None else _Fields(value, path, self.version)

    def pairs(self, name: str) -> dict[str, str]:
        """Return an object whose values are texts."""
        value = self.take(name)
        if value is None:
            return {}
        if not isinstance(value, dict) or len(value) > _MAX_ITEMS:
            self.refuse(name, "must be an object of texts")
        for key, item in value.items():
            if not isinstance(item, str):
                self.refuse(f"{name}.{key}", "must be a text")
        return {str(key): self._checked(f"{name}.{key}", str(item)) for key, item in value.items()}

    def finish(self) -> None:
        """Refuse fields that nobody took."""
        for name in self._values:
            self.refuse(name, "is no field that CDI knows")

    def _list(self, name: str) -> list[object]:
        value = self.take(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self.refuse(name, "must be a list")
        if len(value) > _MAX_ITEMS:
            self.refuse(name, f"has {len(value)} items, more than {_MAX_ITEMS}")
        return value

    def _checked(self, name: str, value: str) -> str:
        if len(value) > _MAX_TEXT:
            self.refuse(name, f"is longer than {_MAX_TEXT} characters")
        if "\0" in value:
            self.refuse(name, "holds a NUL byte")
        return str(value)

    def _bounded(self, name: str, value: object, lowest: int, highest: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            self.refuse(name, "must be a whole number")
        if not lowest <= value <= highest:
            self.refuse(name, f"must be between {lowest} and {highest}")
        return value


def _device(fields: _Fields, common: Mapping[str, str]) -> Device:
    name = fields.text("name", required=True)
    if _NAME.match(name) is None:
        fields.refuse("name", f"must be letters, digits and inner '_-.:', got {_short(name)}")
    fields.path = f"device {name}"
    if name[0].isdigit():
        fields.need((0, 5, 0), "a name that starts with a digit")
    annotations = {**common, **_annotations(fields)}
    edits = _edits(fields)
    fields.finish()
    return Device(name, edits, annotations)


def _annotations(fields: _Fields) -> dict[str, str]:
    found = fields.pairs("annotations")
    if found:
        fields.need((0, 6, 0), "annotations")
    return found


def _edits(parent: _Fields) -> Edits:
    fields = parent.child("containerEdits")
    if fields is None:
        return Edits()
    unsupported = ""
    for name, version in (("intelRdt", (0, 7, 0)), ("netDevices", (1, 1, 0))):
        if fields.has(name):
            fields.need(version, name)
            unsupported = name
        fields.take(name)
    nodes = tuple(_node(item) for item in fields.objects("deviceNodes"))
    weak = next((node.path for node in nodes if node.permissions and not {"r", "w"} <= set(node.permissions)), "")
    gids = fields.numbers("additionalGids", (1 << 32) - 2)
    if gids:
        fields.need((0, 7, 0), "additionalGids")
    found = Edits(
        env=fields.variables("env"),
        nodes=nodes,
        mounts=tuple(_mount(item) for item in fields.objects("mounts")),
        hooks=tuple(_hook(item) for item in fields.objects("hooks")),
        gids=tuple(gid for gid in gids if gid),
        unsupported=unsupported or (f"{weak} with less than read and write permission" if weak else ""),
    )
    fields.finish()
    return found


def _node(fields: _Fields) -> DeviceNode:
    path = fields.absolute("path")
    if fields.has("hostPath"):
        fields.need((0, 5, 0), "hostPath")
    kind, permissions = fields.text("type"), fields.text("permissions")
    if kind not in _NODE_TYPES:
        fields.refuse("type", f"must be b, c, u or p, got {_short(kind)}")
    if permissions != "none" and permissions.strip("rwm"):
        fields.refuse("permissions", f"must be of the letters rwm, or none, got {_short(permissions)}")
    node = DeviceNode(
        path=path,
        host_path=fields.absolute("hostPath", required=False) or path,
        type=kind,
        major=fields.number("major", 0, (1 << 32) - 1) or 0,
        minor=fields.number("minor", 0, (1 << 32) - 1) or 0,
        mode=fields.number("fileMode", 0, 0o7777),
        permissions=permissions,
        uid=fields.number("uid", 0, (1 << 32) - 2),
        gid=fields.number("gid", 0, (1 << 32) - 2),
    )
    fields.finish()
    return node


def _mount(fields: _Fields) -> HostMount:
    if fields.has("type"):
        fields.need((0, 4, 0), "type")
    kind = fields.text("type")
    # The source of a memory file system is a word and not a path.
    host = fields.text("hostPath", required=True) if kind == "tmpfs" else fields.absolute("hostPath")
    mount = HostMount(host, fields.absolute("containerPath"), kind, fields.texts("options"))
    fields.finish()
    return mount


def _hook(fields: _Fields) -> Hook:
    name = fields.text("hookName", required=True)
    if name not in HOOKS:
        fields.refuse("hookName", f"must be one of {', '.join(HOOKS)}, got {_short(name)}")
    hook = Hook(
        name=name,
        path=fields.absolute("path"),
        args=fields.texts("args"),
        env=fields.variables("env"),
        timeout_s=fields.number("timeout", 1, 1 << 31),
    )
    fields.finish()
    return hook


def _plain_number(text: str) -> int | None:
    """Return the integer that a YAML 1.1 scalar spells, None for anything else."""
    digits = text.replace("_", "")
    if len(digits) > 24:
        return None
    if re.fullmatch(r"0o?[0-7]+", digits):
        return int(digits.removeprefix("0o"), 8)
    if re.fullmatch(r"[-+]?(0|[1-9][0-9]*)", digits):
        return int(digits)
    return int(digits, 16) if re.fullmatch(r"0x[0-9a-fA-F]+", digits) else None


def _printable(text: str) -> str:
    return text if text.isprintable() and len(text) <= 80 else _short(text)


def _short(text: str) -> str:
    return repr(text[:80])
