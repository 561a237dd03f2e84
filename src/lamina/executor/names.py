"""The two files by which a step finds other machines: /etc/resolv.conf and /etc/hosts.

`hosts_file` is pure; `host_resolv_conf` reads the machine's own file. Both give the bytes for `Step`.
"""

from __future__ import annotations

import os

from lamina import rooted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_BYTES = 1 << 20
_STUB = b"127.0.0.53"  # systemd-resolved's own listener


def host_resolv_conf(root: str = "/") -> bytes:
    """Return the machine's resolv.conf for steps that share its network; b"" when it has none.

    With systemd-resolved the real servers stand in another file: its listener would be reachable too on the host's
    network, but what is written there is also right for a network of the step's own.

    Args:
        root: where /etc and /run are looked for.
    """
    text = _read(root, "etc/resolv.conf")
    if _STUB in text:
        return _read(root, "run/systemd/resolve/resolv.conf") or text
    return text


def hosts_file(hostname: str, extra_hosts: Sequence[tuple[str, str]] = (), gateway: str = "127.0.0.1") -> bytes:
    """Return the bytes of /etc/hosts.

    Args:
        hostname: the step's own name.
        extra_hosts: pairs of name and address; the address `host-gateway` stands for `gateway`.
        gateway: address under which the step reaches this machine; on the host's network that is loopback.
    """
    lines = [
        "127.0.0.1\tlocalhost" + (f" {hostname}" if hostname and hostname != "localhost" else ""),
        "::1\tlocalhost ip6-localhost ip6-loopback",
        *(f"{gateway if address == 'host-gateway' else address}\t{name}" for name, address in extra_hosts),
    ]
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")


def _read(root: str, path: str) -> bytes:
    try:
        return rooted.read_file(os.path.realpath(root), path, _MAX_BYTES)
    except OSError:
        return b""
