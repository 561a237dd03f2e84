"""The `[registry."HOST"]` tables that buildkitd.toml and lamina.toml share. Pure: tables in, values out.

    [registry."docker.io"]
      mirrors = ["mirror.example:5000", "hub.example/proxy"]   # tried first, in order, by what only reads
    [registry."mirror.example:5000"]
      http = true                     # plain http
      insecure = true                 # any certificate, or plain http
      ca = ["ca.pem"]                 # trusted besides the system's
      tlsconfigdir = ["/etc/certs"]   # holds *.crt, and *.cert with *.key, as docker's certs.d
      [[registry."mirror.example:5000".keypair]]
        key = "key.pem"
        cert = "cert.pem"

Paths come out as they stand there; whoever reads the file knows where it lies. BuildKit's documentation:
docs/buildkitd.toml.md. An unknown key is an error and never silently without effect.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lamina.config.document import Table, parse_document

GC_KEYS = (
    "gc",
    "reservedSpace",
    "maxUsedSpace",
    "minFreeSpace",
    "gckeepstorage",
    "keepBytes",
    "gcpolicy",
    "maxStorage",
)
"""Keys of a worker's table that are about disk space."""
POLICY_KEYS = ("all", "filters", "keepDuration", "reservedSpace", "maxUsedSpace", "minFreeSpace", "keepBytes")
KEYS = ("mirrors", "http", "insecure", "ca", "keypair", "tlsconfigdir")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_MIRROR = re.compile(rf"(?:https?://)?{_HOST.pattern}(?:/[A-Za-z0-9._/-]*)?")


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """What a file says about one registry or mirror.

    Attributes:
        mirrors: `[scheme://]host[:port][/prefix]`, in order.
        http: it speaks plain http.
        insecure: its certificate is not checked, and it may speak plain http.
        ca: paths of bundles with authorities.
        keypairs: (certificate, key): paths.
        tls_dirs: directories with authorities (`*.crt`) and pairs (`*.cert`, `*.key`).
    """

    mirrors: tuple[str, ...] = ()
    http: bool = False
    insecure: bool = False
    ca: tuple[str, ...] = ()
    keypairs: tuple[tuple[str, str], ...] = ()
    tls_dirs: tuple[str, ...] = ()


def parse_registries(root: Table) -> dict[str, RegistryConfig]:
    """Return the registries of a document by `host[:port]`.

    Raises:
        InputError: an unknown key, a value of another type, not a host, a key pair that lacks a half.
    """
    return {host: _parse_registry(host, table) for host, table in root.tables("registry")}


def parse_lamina_config(text: str, name: str) -> Mapping[str, RegistryConfig]:
    """Return what a lamina.toml says.

    Args:
        name: how errors call the file.

    Raises:
        InputError: not TOML, or see `parse_registries`.
    """
    document = parse_document(text, name)
    document.root.check_known("registry", "gc")
    return parse_registries(document.root)


def parse_gc(text: str, name: str) -> Mapping[str, Any]:
    """Return the table `[gc]` of a lamina.toml: BuildKit's keys about disk space, as plain values.

    Raises:
        InputError: not TOML, or a key that is not known.
    """
    document = parse_document(text, name)
    table = document.root.table("gc")
    table.check_known("enabled", *(key for key in GC_KEYS if key != "gc"))
    for policy in table.list_of_tables("gcpolicy"):
        policy.check_known(*POLICY_KEYS)
    found = dict(table.values)
    if "enabled" in found:
        found["gc"] = found.pop("enabled")
    return found


def _parse_registry(host: str, table: Table) -> RegistryConfig:
    table.check_known(*KEYS)
    if not _HOST.fullmatch(host):
        hint = 'in quotes, without https:// and path: [registry."example.org:5000"]'
        raise table.fault(f"{host!r} is not a registry's host[:port]", hint=hint)
    mirrors = table.texts("mirrors")
    for mirror in mirrors:
        if not _MIRROR.fullmatch(mirror):
            raise table.fault(f"not a mirror: {mirror!r}", "mirrors", hint="write host[:port][/prefix]")
    return RegistryConfig(
        mirrors=mirrors,
        http=table.boolean("http"),
        insecure=table.boolean("insecure"),
        ca=table.texts("ca"),
        keypairs=tuple(_parse_pair(pair) for pair in table.list_of_tables("keypair")),
        tls_dirs=table.texts("tlsconfigdir"),
    )


def _parse_pair(table: Table) -> tuple[str, str]:
    table.check_known("key", "cert")
    certificate, key = table.text("cert"), table.text("key")
    if not certificate or not key:
        raise table.fault("a key pair has both key and cert")
    return certificate, key
