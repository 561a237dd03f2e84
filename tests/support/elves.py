"""Small ELF files made from scratch: foreign processors, missing loaders, what no compiler here makes."""

from __future__ import annotations

import struct
from pathlib import Path

AMD64, I386, ARM, ARM64, S390X = 62, 3, 40, 183, 22


def make_elf(
    *,
    bits: int = 64,
    little: bool = True,
    machine: int = AMD64,
    kind: int = 3,
    interpreter: str = "",
    needed: tuple[str, ...] = (),
    rpath: str = "",
    runpath: str = "",
    soname: str = "",
    symbols: tuple[str, ...] = (),
    payload: bytes = b"",
) -> bytes:
    """Return an ELF file with one loaded segment, and with a loader and a dynamic section as asked for."""
    order, word = ("<" if little else ">"), ("Q" if bits == 64 else "I")
    strings = b"\0" + b"".join(symbol.encode() + b"\0" for symbol in symbols)
    dynamic: list[tuple[int, int]] = []
    for tag, names in ((1, needed), (14, (soname,)), (15, (rpath,)), (29, (runpath,))):
        for name in filter(None, names):
            dynamic.append((tag, len(strings)))
            strings += name.encode() + b"\0"
    loader = interpreter.encode() + b"\0" if interpreter else b""
    has_dynamic = bool(dynamic or symbols)
    count = 1 + bool(loader) + has_dynamic
    start = 64 if bits == 64 else 52
    loader_at = start + count * (56 if bits == 64 else 32)
    strings_at = loader_at + len(loader)
    table_at = strings_at + len(strings)
    base = 0x10000  # addresses are not offsets
    rows = [*dynamic, (5, base + strings_at), (10, len(strings)), (0, 0)] if has_dynamic else []
    table = b"".join(struct.pack(order + 2 * word, *row) for row in rows)
    total = table_at + len(table) + len(payload)
    segments = [(1, 0, base, total)]
    if loader:
        segments.append((3, loader_at, base + loader_at, len(loader)))
    if has_dynamic:
        segments.append((2, table_at, base + table_at, len(table)))
    ident = b"\x7fELF" + bytes([bits // 32, 1 if little else 2, 1]) + bytes(9)
    header = struct.pack(order + "HHI" + 3 * word + "I6H", kind, machine, 1, base, start, 0, 0, start,
                         56 if bits == 64 else 32, count, 0, 0, 0)  # fmt: skip
    programs = b"".join(_segment(order, bits, *segment) for segment in segments)
    return ident + header + programs + loader + strings + table + payload


def _segment(order: str, bits: int, kind: int, offset: int, address: int, length: int) -> bytes:
    if bits == 64:
        return struct.pack(order + "IIQQQQQQ", kind, 5, offset, address, address, length, length, 1)
    return struct.pack(order + "8I", kind, offset, address, address, length, length, 5, 1)


def write_elf(path: Path, **features: object) -> Path:
    """Write such a file, executable, with the directories it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(make_elf(**features))  # type: ignore[arg-type]
    path.chmod(0o755)
    return path
