"""Finds the libraries a program would load, as the loader in the image would: glibc's ld.so or musl's.

In: an `ImageView` and a program. Out: the libraries that are nowhere. Every library found is opened in its turn, up to
a limit; each name counts once, as for the loaders.

glibc (ld.so(8)): DT_RPATH of the object and of those that loaded it unless the object has DT_RUNPATH;
LD_LIBRARY_PATH; DT_RUNPATH; the cache; the directories of /etc/ld.so.conf (which the cache is made of); the built-in
directories, Debian's multiarch ones among them. musl: LD_LIBRARY_PATH; either of the paths, inherited; those of
/etc/ld-musl-ARCH.path or the built-in ones. Libraries of another processor are passed over.

Where a loader's build may differ (its built-in directories) all that are usual are taken: a library that lies
somewhere sensible is not called missing.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from lamina.checks.result_view import ImageView, Place
from lamina.elf import Elf

MAX_LIBRARIES = 400
"""Libraries opened for one program."""
MAX_LOOKUPS = 20_000
"""Paths looked up for all programs of an image; a hostile image could ask for billions. Then nothing more is called
missing."""

_TRIPLETS = {
    "amd64": "x86_64-linux-gnu",
    "386": "i386-linux-gnu",
    "arm64": "aarch64-linux-gnu",
    "arm": "arm-linux-gnueabihf",
    "riscv64": "riscv64-linux-gnu",
    "ppc64le": "powerpc64le-linux-gnu",
    "s390x": "s390x-linux-gnu",
    "loong64": "loongarch64-linux-gnu",
    "mips64le": "mips64el-linux-gnuabi64",
    "mipsle": "mipsel-linux-gnu",
}
_MAX_CONF_FILES = 100
_MAX_CONF_DEPTH = 4
_MAX_CONF_FOLDERS = 200
_MAX_CHILDREN = 10_000
_MAX_PARTS = 64  # of one RPATH or RUNPATH
_IN_MUSL = re.compile(r"lib(c|pthread|rt|m|dl|util|xnet|crypt|resolv)\.")
_INSIDE_GLIBC = re.compile(r"(linux-vdso|linux-gate|ld-linux.*|ld64|ld)\.so\.[0-9]+")


@dataclass(frozen=True, slots=True)
class Missing:
    """A library that is nowhere, and the path of what wants it."""

    name: str
    wanted_by: str


@dataclass(frozen=True, slots=True)
class _Object:
    """A program or library that is loaded: its path, and the one that had it loaded."""

    path: str
    elf: Elf
    parent: _Object | None = None

    def ancestors(self) -> Iterator[_Object]:
        """Yield it and those above it."""
        current: _Object | None = self
        while current is not None:
            yield current
            current = current.parent


class Libraries:
    """Looks libraries up in one image; remembers what it found, so that many programs cost little more than one."""

    def __init__(self, image: ImageView) -> None:
        self._image = image
        self._conf: list[str] | None = None
        self._cache: bytes | None = None
        self._places: dict[str, Place] = {}
        self._lookups = 0

    def missing(self, path: str, elf: Elf) -> list[Missing]:
        """Return what the program at `path` needs, directly or not, and the image lacks."""
        musl = self._is_musl(elf)
        lost: list[Missing] = []
        seen: set[str] = set()
        pending = [_Object(path, elf)]
        opened = 0
        while pending and opened < MAX_LIBRARIES:
            current = pending.pop(0)
            opened += 1
            for name in current.elf.needed:
                if name in seen:
                    continue
                seen.add(name)
                if musl and _IN_MUSL.match(name):
                    continue
                place = self._find(name, current, elf, musl)
                if self._lookups > MAX_LOOKUPS:
                    return []
                if place is None:
                    lost.append(Missing(name, current.path))
                    continue
                found = self._image.tree.program(place.path, aside=True) if place.is_file else None
                if found is not None and found.elf is not None:
                    pending.append(_Object(place.path, found.elf, current))
        return lost

    def _find(self, name: str, wanted_by: _Object, program: Elf, musl: bool) -> Place | None:
        if "/" in name:
            place = self._place(name if name.startswith("/") else self._image.absolute(name))
            return place if place.is_file else None
        if not musl and _INSIDE_GLIBC.fullmatch(name):
            return Place("", None)  # the loader itself, or the kernel
        for folder in self._folders(wanted_by, program, musl):
            if self._image.from_outside(folder):
                return Place("", None)  # may be in the volume
            place = self._place(posixpath.join("/", folder, name))
            if place.is_file and self._fits(place, program):
                return place
            if self._lookups > MAX_LOOKUPS:
                break
        return None if musl else self._in_cache(name)

    def _folders(self, wanted_by: _Object, program: Elf, musl: bool) -> Iterator[str]:
        environment = [part for part in self._image.env.get("LD_LIBRARY_PATH", "").split(":") if part]
        if musl:
            yield from environment
            for above in wanted_by.ancestors():
                yield from _expanded(above, above.elf.rpath + above.elf.runpath)
            yield from self._musl_folders(program)
            return
        if not wanted_by.elf.runpath:
            for above in wanted_by.ancestors():
                if not above.elf.runpath:
                    yield from _expanded(above, above.elf.rpath)
        yield from environment
        yield from _expanded(wanted_by, wanted_by.elf.runpath)
        yield from self._conf_folders()
        yield from _built_in(program)
        loader = posixpath.dirname(program.interpreter)
        yield from (loader, posixpath.join(loader, "../lib"))

    def _is_musl(self, elf: Elf) -> bool:
        name = posixpath.basename(elf.interpreter)
        if name.startswith("ld-musl-"):
            return True
        # a shim such as gcompat: glibc's loader by name, musl behind it
        folders = ("lib", "lib64", *_built_in(elf))
        has_glibc = any(self._place(posixpath.join("/", folder, "libc.so.6")).is_file for folder in folders)
        return not has_glibc and any(child.startswith("ld-musl-") for child in self._children("lib"))

    def _musl_folders(self, elf: Elf) -> list[str]:
        arch = posixpath.basename(elf.interpreter).removeprefix("ld-musl-").partition(".")[0]
        text = self._image.tree.text(f"etc/ld-musl-{arch}.path") if arch.replace("_", "").isalnum() else None
        if text:
            return [part for part in re.split(r"[:\n]", text.decode("utf-8", "replace")) if part]
        return ["/lib", "/usr/local/lib", "/usr/lib"]

    def _conf_folders(self) -> list[str]:
        if self._conf is None:
            self._conf = []
            pending = [("etc/ld.so.conf", 0)]
            for path, depth in pending:  # grows as it goes
                text = self._image.tree.text(self._place("/" + path).path) or b""
                for raw in text.decode("utf-8", "replace").splitlines():
                    word, _, rest = raw.partition("#")[0].strip().partition(" ")
                    if word == "include" and depth < _MAX_CONF_DEPTH and len(pending) < _MAX_CONF_FILES:
                        pending += [(name, depth + 1) for name in self._glob(rest)]
                    elif word.startswith("/") and len(self._conf) < _MAX_CONF_FOLDERS:
                        self._conf.append(word.partition("=")[0])
        return self._conf

    def _glob(self, pattern: str) -> list[str]:
        """Return the files that an `include` of ld.so.conf means; wildcards in the last part only."""
        folder, _, last = posixpath.join("/etc", pattern.strip()).strip("/").rpartition("/")
        found = [f"{folder}/{name}" for name in self._children(folder) if fnmatchcase(name, last)]
        return found[:_MAX_CONF_FILES]

    def _in_cache(self, name: str) -> Place | None:
        """Return a library that only the loader's cache knows of; its paths stand there as plain texts."""
        if self._cache is None:
            self._cache = self._image.tree.text("etc/ld.so.cache") or b""
        wanted = b"/" + name.encode("utf-8", "surrogateescape") + b"\0"
        end = self._cache.find(wanted)
        if end < 0:
            return None
        start = self._cache.rfind(b"\0", 0, end) + 1
        place = self._place(self._cache[start : end + len(wanted) - 1].decode("utf-8", "surrogateescape"))
        return place if place.is_file else None

    def _fits(self, place: Place, program: Elf) -> bool:
        """Tell whether a file may be loaded into a program: for the same processor. What is not known may."""
        found = self._image.tree.program(place.path, aside=True)
        if found is None or found.elf is None:
            return True
        return (found.elf.machine, found.elf.bits) == (program.machine, program.bits)

    def _place(self, path: str) -> Place:
        found = self._places.get(path)
        self._lookups += 1
        if found is None:
            found = self._places[path] = self._image.place(path)
        return found

    def _children(self, folder: str) -> list[str]:
        self._lookups += 100  # it costs as much
        return self._image.tree.children(self._place("/" + folder).path)[:_MAX_CHILDREN]


def _built_in(elf: Elf) -> list[str]:
    triplet = _TRIPLETS.get(elf.architecture)
    folders = [f"/lib/{triplet}", f"/usr/lib/{triplet}"] if triplet else []
    wide = ["/lib64", "/usr/lib64"] if elf.bits == 64 else ["/lib32", "/usr/lib32", "/libx32", "/usr/libx32"]
    return [*folders, *wide, "/lib", "/usr/lib", "/usr/local/lib", "/usr/local/lib64"]


def _expanded(of: _Object, parts: tuple[str, ...]) -> Iterator[str]:
    """Yield search directories with $ORIGIN and $LIB put in."""
    origin = "/" + posixpath.dirname(of.path.lstrip("/"))
    for part in parts[:_MAX_PARTS]:
        text = part.replace("${ORIGIN}", origin).replace("$ORIGIN", origin)
        if "$LIB" in text or "${LIB}" in text:
            for name in ("lib", "lib64", f"lib/{_TRIPLETS.get(of.elf.architecture, '')}"):
                yield text.replace("${LIB}", name).replace("$LIB", name)
        else:
            yield text
