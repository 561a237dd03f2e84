"""L9: what an ELF file needs to run is read from its headers alone, whoever wrote them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.elf import Elf, ElfError, is_elf, read_elf
from support.bases import find_busybox
from support.elves import AMD64, ARM, ARM64, I386, S390X, make_elf

LOADER = "/lib64/ld-linux-x86-64.so.2"


def read_bytes(data: bytes, **options: object) -> Elf:
    return read_elf(lambda offset, length: data[offset : offset + length], len(data), **options)  # type: ignore[arg-type]


def read_path(path: str | Path) -> Elf:
    return read_bytes(Path(path).read_bytes())


def test_a_dynamic_program_of_this_machine_is_read_as_readelf_does():
    if shutil.which("readelf") is None:
        pytest.skip("no readelf here: apt-get install binutils")
    program = os.path.realpath(shutil.which("ls") or "/bin/ls")
    said = subprocess.run(["readelf", "-ldW", program], capture_output=True, text=True, check=True).stdout

    elf = read_path(program)

    assert f"interpreter: {elf.interpreter}]" in said
    assert list(elf.needed) == [line.split("[")[1].rstrip("]") for line in said.splitlines() if "(NEEDED)" in line]
    assert elf.dynamic and not elf.static


def test_the_python_that_runs_this_is_a_program_of_this_machine():
    elf = read_path(os.path.realpath(sys.executable))

    assert elf.type in (2, 3) and elf.bits == 64
    assert elf.architecture in ("amd64", "arm64", "riscv64", "ppc64le", "s390x", "loong64")


def test_a_static_program_has_no_loader_and_needs_nothing():
    elf = read_path(find_busybox())

    assert elf.static and elf.interpreter == "" and elf.needed == ()


@pytest.mark.parametrize(
    ("features", "name"),
    [
        ({"machine": AMD64}, "amd64"),
        ({"machine": I386, "bits": 32}, "386"),
        ({"machine": ARM, "bits": 32}, "arm"),
        ({"machine": ARM64}, "arm64"),
        ({"machine": S390X, "little": False}, "s390x"),
        ({"machine": 21}, "ppc64le"),
        ({"machine": 21, "little": False}, "ppc64"),
        ({"machine": 243}, "riscv64"),
        ({"machine": 9999}, "machine 9999"),
    ],
)
def test_processors_have_the_names_images_use(features: dict[str, int], name: str):
    assert read_bytes(make_elf(**features)).architecture == name  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("little", [True, False])
def test_all_four_layouts_tell_loader_libraries_and_paths(bits: int, little: bool):
    data = make_elf(
        bits=bits, little=little, interpreter=LOADER, needed=("liba.so", "libc.so.6"), rpath="/a:$ORIGIN/b",
        runpath="/c", soname="me.so", symbols=("SSL_connect",),
    )  # fmt: skip

    elf = read_bytes(data, symbols=("SSL_connect", "SSL_con"))

    assert (elf.interpreter, elf.needed, elf.soname) == (LOADER, ("liba.so", "libc.so.6"), "me.so")
    assert (elf.rpath, elf.runpath, elf.symbols) == (("/a", "$ORIGIN/b"), ("/c",), ("SSL_connect",))


def test_only_headers_are_read_however_large_the_file():
    data = make_elf(interpreter=LOADER, needed=("libc.so.6",), payload=bytes(8 << 20))
    read: list[int] = []

    def read_at(offset: int, length: int) -> bytes:
        read.append(length)
        return data[offset : offset + length]

    read_elf(read_at, len(data))

    assert sum(read) < 16384


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends before its header"),
        (b"#!/bin/sh\n" + bytes(100), "not an ELF"),
        (b"\x7fELF\x03\x01\x01" + bytes(100), "unknown class"),
        (make_elf(interpreter=LOADER)[:80], "ends before its program headers"),
        (make_elf(interpreter="x" * 5000), "5001 bytes"),
        (make_elf(needed=("lib.so",) * 1025), "needs 1025 libraries"),
        (make_elf(needed=("x" * 5000,)), "more than 4095 bytes"),
    ],
)
def test_what_is_unsound_is_refused_by_our_error(data: bytes, message: str):
    with pytest.raises(ElfError, match=message):
        read_bytes(data)


@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_give_an_answer_or_our_error(data: bytes, marked: bool):
    data = b"\x7fELF" + bytes([2, 1, 1]) + data if marked else data
    try:
        elf = read_bytes(data, symbols=("a",))
    except ElfError:
        return
    assert is_elf(data) and elf.bits in (32, 64)


@given(
    bits=st.sampled_from([32, 64]),
    little=st.booleans(),
    changes=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=12),
    cut=st.integers(0, 600),
)
def test_a_damaged_file_gives_an_answer_or_our_error(bits: int, little: bool, changes: list[tuple[int, int]], cut: int):
    data = bytearray(make_elf(bits=bits, little=little, interpreter=LOADER, needed=("a", "b"), runpath="/x:/y"))
    for position, value in changes:
        data[position % len(data)] = value
    data = data[: max(cut, 1)] if cut < 500 else data

    try:
        elf = read_bytes(bytes(data), symbols=("a",))
    except ElfError:
        return
    assert len(elf.needed) <= 1024 and len(elf.interpreter) <= 4096
