"""The CDI devices of this machine: read from directories, found by the names that builds use.

In: directories in rising priority. Out: qualified names (`vendor.com/class=name`) for a request, and the `Edits` that
they bring. Reads the directories once, at the first question; touches nothing else.
As with BuildKit, a name is a device, a kind (its first device), a kind with `=*` (all of them), or else a class that
devices carry as an annotation. A device in several files counts as the file in the last directory says; two files of
the same directory that claim it make it unusable. A file that cannot be read hides its own devices only: `problems`
tells why, for the error of whoever misses them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lamina.errors import InputError
from lamina.executor.cdi import CLASS_ANNOTATION, Device, Edits, Spec, is_kind, parse_spec
from lamina.executor.cdi_text import MAX_BYTES, read_json, read_yaml

DEFAULT_DIRS = ("/etc/cdi", "/var/run/cdi", "/etc/buildkit/cdi")
_READERS = {".json": read_json, ".yaml": read_yaml}
_MAX_FILES = 1000


@dataclass(frozen=True, slots=True)
class Registered:
    """A device that steps can ask for: who offers it, in which file."""

    device: Device
    spec: Spec
    path: str


class CdiRegistry:
    """What the directories offer.

    Args:
        dirs: absolute directories, a later one counts more; those that do not exist offer nothing.
    """

    def __init__(self, dirs: Sequence[str] = DEFAULT_DIRS) -> None:
        self._dirs = tuple(dirs)

    @property
    def names(self) -> list[str]:
        """Every usable device, sorted."""
        return sorted(self._read[0])

    @property
    def problems(self) -> list[str]:
        """One line for each file that could not be used, and each device that two files claim."""
        return list(self._read[1])

    def get(self, name: str) -> Registered:
        """Return the device of a qualified name (`KeyError` when there is none)."""
        return self._read[0][name]

    def find(self, request: str) -> list[str]:
        """Return the qualified names that a request stands for; [] when nothing here is called so."""
        kind, _, name = request.partition("=")
        found: list[str] = []
        if is_kind(kind):
            of_kind = [known for known in self.names if known.startswith(f"{kind}=")]
            if name == "":
                found = of_kind[:1]
            else:
                found = of_kind if name == "*" else [known for known in of_kind if known == request]
        if not found:
            found = [
                known for known in self.names if self.get(known).device.annotations.get(CLASS_ANNOTATION) == request
            ]
        return found

    def edits(self, names: Sequence[str]) -> Edits:
        """Return what devices bring, in order; what is common to a file's devices comes once, before the first.

        Raises:
            InputError: a device is not there (any more), or brings what steps cannot be given.
        """
        total, seen = Edits(), set()
        for name in dict.fromkeys(names):
            found = self._read[0].get(name)
            if found is None:
                raise self.missing(name)
            brought = found.device.edits
            if found.path not in seen:
                seen.add(found.path)
                brought = found.spec.edits + brought
            if brought.unsupported:
                raise InputError(
                    f"device {name} brings what steps cannot be given here: {brought.unsupported}",
                    hint=f"see {found.path}",
                )
            total += brought
        return total

    def missing(self, name: str) -> InputError:
        """Return the error for a device that is not here."""
        near = [known for known in self.names if known.partition("=")[0] == name.partition("=")[0]]
        if self.problems:
            hint = f"a CDI file is not usable: {self.problems[0]}"
        elif near or self.names:
            hint = f"this machine has: {', '.join((near or self.names)[:8])}"
        else:
            hint = f"no device is described in {', '.join(self._dirs)}; --cdi-dir names another directory"
        return InputError(f"required device {name[:200]!r} is not registered on this machine", hint=hint)

    @cached_property
    def _read(self) -> tuple[dict[str, Registered], list[str]]:
        devices: dict[str, Registered] = {}
        problems: list[str] = []
        for directory in self._dirs:
            here: dict[str, Registered] = {}
            claimed: set[str] = set()
            for path in _files(directory, problems):
                try:
                    spec = read_spec(path)
                except InputError as error:
                    problems.append(f"{path}: {error.what}")
                    continue
                for device in spec.devices:
                    name = f"{spec.kind}={device.name}"
                    if name in here:
                        problems.append(f"{path}: {name} is described in {here[name].path} too")
                        claimed.add(name)
                    here[name] = Registered(device, spec, path)
            devices.update(here)
            for name in claimed:
                del devices[name]
        return devices, problems


def read_spec(path: str) -> Spec:
    """Return the specification in a file.

    A file that everybody may write is not taken: what stands in it runs with the build's rights.

    Raises:
        InputError: it cannot be read, is too large, or says what CDI does not allow.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise InputError("not a regular file")
            if status.st_mode & stat.S_IWOTH:
                raise InputError("everybody may write it, so it is not trusted (chmod o-w)")
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise InputError(f"larger than {MAX_BYTES >> 20} MiB")
    return parse_spec(_READERS[os.path.splitext(path)[1]](data))


def _files(directory: str, problems: list[str]) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries if os.path.splitext(entry.name)[1] in _READERS)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        problems.append(f"{directory}: {error.strerror}")
        return []
    if len(names) > _MAX_FILES:
        problems.append(f"{directory}: {len(names)} files, only the first {_MAX_FILES} are read")
    return [os.path.join(directory, name) for name in names[:_MAX_FILES]]
