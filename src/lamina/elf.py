"""What an ELF file needs to run: processor, loader, libraries. Read strictly and sparsely.

In: a function that reads bytes at an offset, and the file's length. Out: an `Elf`. Only the header, the program
headers, the dynamic section and the strings it names are read (a few KiB, wherever they lie), never the whole file;
section headers are not looked at, so stripped files are fine.

Files come from images and are hostile: every count and length has a cap, every offset is checked against the file's
length, no loop depends on a number from the file alone. Whatever is wrong is an `ElfError`.

Sources: System V ABI, chapters 4 "Object Files" and 5 "Program Loading and Dynamic Linking"; elf(5); for the order
in which loaders use what is told here, see `checks/libraries.py`. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass

from lamina.errors import InputError

ReadAt = Callable[[int, int], bytes]
"""Returns the bytes at (offset, length); fewer only at the end of the file."""

MAGIC = b"\x7fELF"
EXECUTABLE, SHARED = 2, 3  # e_type; programs of today are SHARED too (position independent)

MAX_HEADERS = 512  # program headers; real files have about a dozen
MAX_DYNAMIC = 8192  # entries of the dynamic section; real files have about thirty
MAX_NEEDED = 1024
MAX_TEXT = 4096  # of one path or name (PATH_MAX)
MAX_STRINGS = 4 << 20  # how much of the table of strings is searched for symbols

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 10, 14, 15, 29

_ARCHITECTURES = {
    (3, 32): "386",
    (62, 64): "amd64",
    (62, 32): "amd64",  # x32: the same processor
    (40, 32): "arm",
    (183, 64): "arm64",
    (183, 32): "arm64",
    (243, 64): "riscv64",
    (258, 64): "loong64",
    (22, 64): "s390x",
    (22, 32): "s390",
    (20, 32): "ppc",
    (21, 64): "ppc64",
    (8, 32): "mips",
    (8, 64): "mips64",
    (2, 32): "sparc",
    (43, 64): "sparc64",
}
_LITTLE_NAMES = {"ppc64": "ppc64le", "mips": "mipsle", "mips64": "mips64le"}


class ElfError(InputError):
    """A file is no ELF file, or one that breaks the format's rules or our limits."""


@dataclass(frozen=True, slots=True)
class Elf:
    """What was read.

    Attributes:
        bits: 32 or 64.
        little: little-endian.
        machine: number of the processor, `e_machine`.
        type: `e_type`: 2 executable, 3 shared object or position-independent program, others cannot be run.
        interpreter: path of the loader (PT_INTERP), "" when there is none.
        dynamic: it has a dynamic section.
        needed: names of the libraries it wants loaded, in order.
        rpath: search path by DT_RPATH, its parts as written ("$ORIGIN" not replaced).
        runpath: the same by DT_RUNPATH; a loader that sees it ignores `rpath`.
        soname: its own name as a library, "" when it has none.
        symbols: those of the names asked for that are in its table of dynamic strings.
    """

    bits: int
    little: bool
    machine: int
    type: int
    interpreter: str = ""
    dynamic: bool = False
    needed: tuple[str, ...] = ()
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()
    soname: str = ""
    symbols: tuple[str, ...] = ()

    @property
    def static(self) -> bool:
        """It runs without a loader and without libraries, as a static program does."""
        return not self.interpreter and not self.needed

    @property
    def architecture(self) -> str:
        """The processor as images name it (`amd64`), or `machine 123` for one without a name there."""
        name = _ARCHITECTURES.get((self.machine, self.bits))
        if name is None:
            return f"machine {self.machine}"
        return _LITTLE_NAMES.get(name, name) if self.little else name


@dataclass(frozen=True, slots=True)
class _Segment:
    kind: int
    offset: int
    address: int
    length: int  # in the file


@dataclass(frozen=True, slots=True)
class _Form:
    """How numbers are laid out in one file."""

    bits: int
    order: str

    def unpack(self, narrow: str, wide: str, data: bytes, offset: int = 0) -> tuple[int, ...]:
        return struct.unpack_from(self.order + (wide if self.bits == 64 else narrow), data, offset)

    @property
    def word(self) -> int:
        return self.bits // 8


def is_elf(head: bytes) -> bool:
    """Tell whether a file that begins with `head` claims to be ELF."""
    return head.startswith(MAGIC)


def read_elf(read_at: ReadAt, size: int, *, symbols: Collection[str] = ()) -> Elf:
    """Read what matters of an ELF file.

    Args:
        read_at: gives bytes of the file.
        size: the file's length.
        symbols: names to look for among the dynamic strings (imported and exported symbols).

    Raises:
        ElfError: it is not one, or not a sound one.
    """
    return _Reader(read_at, size).read(symbols)


class _Reader:
    """One pass over one file; holds what later parts need of earlier ones."""

    def __init__(self, read_at: ReadAt, size: int) -> None:
        self._read_at, self._size = read_at, size
        self._form = _Form(64, "<")
        self._segments: list[_Segment] = []

    def read(self, symbols: Collection[str]) -> Elf:
        ident = self._bytes(0, 16, "header")
        if not is_elf(ident):
            raise ElfError("not an ELF file")
        if ident[4] not in (1, 2) or ident[5] not in (1, 2) or ident[6] != 1:
            raise ElfError("an ELF file of an unknown class, byte order or version")
        self._form = _Form(32 * ident[4], "<" if ident[5] == 1 else ">")
        kind, machine = self._headers()
        elf = Elf(self._form.bits, ident[5] == 1, machine, kind, interpreter=self._interpreter())
        table = next((segment for segment in self._segments if segment.kind == _PT_DYNAMIC), None)
        return elf if table is None else self._with_dynamic(elf, table, symbols)

    def _headers(self) -> tuple[int, int]:
        """Read file header and program headers; return type and machine."""
        form = self._form
        length = 64 if form.bits == 64 else 52
        header = self._bytes(0, length, "header")
        kind, machine, _version, _entry, start = form.unpack("HHIII", "HHIQQ", header, 16)
        each, count = form.unpack("HH", "HH", header, length - 10)
        if not count:
            return kind, machine
        if count > MAX_HEADERS:
            raise ElfError(f"an ELF file with {count} program headers; at most {MAX_HEADERS} are read")
        if each != (56 if form.bits == 64 else 32):
            raise ElfError(f"an ELF file whose program headers have {each} bytes each")
        data = self._bytes(start, count * each, "program headers")
        for number in range(count):
            self._segments.append(self._segment(data, number * each))
        return kind, machine

    def _segment(self, data: bytes, start: int) -> _Segment:
        if self._form.bits == 64:
            kind, _flags, offset, address, _physical, length = struct.unpack_from(
                self._form.order + "IIQQQQ", data, start
            )
        else:
            kind, offset, address, _physical, length = struct.unpack_from(self._form.order + "IIIII", data, start)
        return _Segment(kind, offset, address, length)

    def _interpreter(self) -> str:
        segment = next((segment for segment in self._segments if segment.kind == _PT_INTERP), None)
        if segment is None:
            return ""
        if not 2 <= segment.length <= MAX_TEXT:
            raise ElfError(f"an ELF file whose loader's name has {segment.length} bytes")
        data = self._bytes(segment.offset, segment.length, "loader's name")
        name, end, _ = data.partition(b"\0")
        if not end or not name:
            raise ElfError("an ELF file whose loader's name does not end")
        return _text(name)

    def _with_dynamic(self, elf: Elf, table: _Segment, symbols: Collection[str]) -> Elf:
        each = 2 * self._form.word
        length = min(table.length, MAX_DYNAMIC * each)
        data = self._bytes(table.offset, length - length % each, "dynamic section")
        found: dict[int, list[int]] = {}
        for start in range(0, len(data), each):
            tag, value = self._form.unpack("II", "QQ", data, start)
            if tag == _DT_NULL:
                break
            found.setdefault(tag, []).append(value)
        else:
            if table.length > length:
                raise ElfError(f"an ELF file whose dynamic section has more than {MAX_DYNAMIC} entries")
        needed = found.get(_DT_NEEDED, [])
        if len(needed) > MAX_NEEDED:
            raise ElfError(f"an ELF file that needs {len(needed)} libraries; at most {MAX_NEEDED} are read")
        wanted = [*needed, *(found[tag][-1] for tag in (_DT_SONAME, _DT_RPATH, _DT_RUNPATH) if tag in found)]
        strings = self._strings(found) if wanted or symbols else None

        def last(tag: int) -> str:
            return strings.at(found[tag][-1]) if strings is not None and tag in found else ""

        return Elf(
            elf.bits,
            elf.little,
            elf.machine,
            elf.type,
            elf.interpreter,
            dynamic=True,
            needed=tuple(strings.at(offset) for offset in needed) if strings is not None else (),
            rpath=_parts(last(_DT_RPATH)),
            runpath=_parts(last(_DT_RUNPATH)),
            soname=last(_DT_SONAME),
            symbols=strings.holding(symbols) if strings is not None else (),
        )

    def _strings(self, found: dict[int, list[int]]) -> _Strings:
        if _DT_STRTAB not in found:
            raise ElfError("an ELF file whose dynamic section has no table of strings")
        address = found[_DT_STRTAB][-1]
        for segment in self._segments:
            if segment.kind == _PT_LOAD and segment.address <= address < segment.address + segment.length:
                offset = segment.offset + address - segment.address
                room = min(segment.address + segment.length - address, self._size - offset)
                length = found[_DT_STRSZ][-1] if _DT_STRSZ in found else room
                return _Strings(self, offset, max(0, min(length, room)))
        raise ElfError("an ELF file whose table of strings lies in no loaded segment")

    def _bytes(self, offset: int, length: int, what: str) -> bytes:
        """Return exactly these bytes."""
        if offset + length > self._size:
            raise ElfError(f"an ELF file that ends before its {what}")
        data = self._read_at(offset, length)
        if len(data) != length:
            raise ElfError(f"an ELF file that ends in its {what}")
        return data

    def some(self, offset: int, length: int) -> bytes:
        """Return up to these bytes."""
        return self._bytes(offset, min(length, self._size - offset), "table of strings")


class _Strings:
    """The table of dynamic strings: looked up one by one, or searched as a whole."""

    def __init__(self, reader: _Reader, start: int, length: int) -> None:
        self._reader, self._start, self._length = reader, start, length

    def at(self, offset: int) -> str:
        if offset >= self._length:
            raise ElfError("an ELF file with a name beyond its table of strings")
        data = self._reader.some(self._start + offset, min(MAX_TEXT, self._length - offset))
        name, end, _ = data.partition(b"\0")
        if not end:
            raise ElfError(f"an ELF file with a name of more than {MAX_TEXT - 1} bytes or without end")
        return _text(name)

    def holding(self, names: Collection[str]) -> tuple[str, ...]:
        if not names:
            return ()
        data = self._reader.some(self._start, min(MAX_STRINGS, self._length))
        return tuple(name for name in names if b"\0" + name.encode() + b"\0" in data)


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in path.split(":") if part)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
