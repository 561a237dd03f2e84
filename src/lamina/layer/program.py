"""What a file would be if it were run: an ELF program, a script, or neither; told from a few of its bytes.

In: a function that reads a file's bytes. Out: a `Program`, small enough to keep for every executable of a layer, and
its form as JSON. A file that claims to be ELF and is not sound gives a `Program` with `damaged`, no exception: images
hold all kinds of files, and nothing here decides whether one of them matters.
"""

from __future__ import annotations

import re
from dataclasses import astuple, dataclass
from typing import Any

from lamina.elf import Elf, ElfError, ReadAt, is_elf, read_elf

HEAD_BYTES = 256
"""How much of a file is kept: the kernel reads as much for the line of a script's interpreter (BINPRM_BUF_SIZE)."""
MAX_SEARCH_BYTES = 64 << 20
"""How much of a static program is searched for the places of certificates."""

TRUST_SYMBOLS = (
    "SSL_CTX_set_default_verify_paths",
    "SSL_CTX_set_default_verify_file",
    "SSL_CTX_set_default_verify_dir",
    "X509_STORE_set_default_paths",
    "gnutls_certificate_set_x509_system_trust",
    "gnutls_x509_trust_list_add_system_trust",
    "curl_easy_perform",
    "curl_multi_perform",
)
"""Functions that programs call to trust what the system trusts; who only shows a certificate of his own does not."""
TRUST_PATH = b"/etc/ssl/certs/ca-certificates.crt"
"""Where Go's crypto/x509 and Rust's openssl-probe look first; it is in every static program that has them."""

_CHUNK = 1 << 20
_C_LIBRARY = re.compile(r"(lib(c|m|dl|rt|pthread|resolv|gcc_s)|ld-[a-z0-9-]+)\.")


@dataclass(frozen=True, slots=True)
class Program:
    """One file.

    Attributes:
        head: its first 256 bytes.
        elf: what it needs, when it is ELF.
        damaged: why it could not be read although it claims to be ELF, else "".
        wants_trust: it looks for the system's certificates; None when that was not found out.
    """

    head: bytes
    elf: Elf | None = None
    damaged: str = ""
    wants_trust: bool | None = None

    @property
    def is_script(self) -> bool:
        """It begins with `#!`."""
        return self.head.startswith(b"#!")

    @property
    def shebang(self) -> tuple[str, str]:
        """Interpreter and its argument of a script's first line, as the kernel takes them; ("", "") for others.

        A carriage return at the line's end belongs to what it follows, for the kernel too.
        """
        line, _, _ = self.head[2:].partition(b"\n") if self.is_script else (b"", b"", b"")
        words = line.strip(b" \t").split(None, 1) if b"\r" not in line else line.strip(b" \t").split(b" ", 1)
        texts = [word.strip(b" \t").decode("utf-8", "surrogateescape") for word in words]
        return (texts[0] if texts else "", texts[1] if len(texts) > 1 else "")


def look_at(read_at: ReadAt, size: int, *, deep: bool) -> Program:
    """Look at a file of `size` bytes.

    Args:
        deep: search a program with TLS built in for where it expects certificates, up to 64 MiB of it; otherwise
            a few KiB are read.
    """
    head = read_at(0, min(size, HEAD_BYTES))
    if not is_elf(head):
        return Program(head)
    try:
        elf = read_elf(read_at, size, symbols=TRUST_SYMBOLS)
    except ElfError as error:
        return Program(head[:64], damaged=error.what)
    wants: bool | None = bool(elf.symbols)
    if not elf.symbols and _may_carry_trust(elf, size):
        wants = _searched(read_at, size) if deep else None
    return Program(head[:64], elf, wants_trust=wants)


def dump_program(program: Program) -> list[Any]:
    """Return a value for JSON."""
    elf = list(astuple(program.elf)) if program.elf is not None else None
    return [program.head.decode("latin-1"), elf, program.damaged, program.wants_trust]


def load_program(value: list[Any]) -> Program:
    """Return what `dump_program` was given.

    Raises:
        ValueError, TypeError: it is no such value.
    """
    head, elf, damaged, wants = value
    fields: list[Any] = [tuple(field) if isinstance(field, list) else field for field in elf or ()]
    return Program(head.encode("latin-1"), Elf(*fields) if fields else None, damaged, wants)


def _may_carry_trust(elf: Elf, size: int) -> bool:
    """Tell a program that may have TLS built in: static, or large and linked to nothing but the C library (cgo)."""
    if elf.static:
        return True
    return bool(elf.interpreter) and size >= _CHUNK and all(_C_LIBRARY.match(name) for name in elf.needed)


def _searched(read_at: ReadAt, size: int) -> bool:
    end = min(size, MAX_SEARCH_BYTES)
    overlap = len(TRUST_PATH) - 1
    return any(TRUST_PATH in read_at(start, min(_CHUNK + overlap, end - start)) for start in range(0, end, _CHUNK))
