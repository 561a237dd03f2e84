"""How registries are reached: mirrors, transport security, patience. Values only.

In comes what the command line or a configuration file said; out go frozen values that the client reads. The
environment is never read here (proxies, for example, are handed in). Host names are `host[:port]` as they stand
in references; matching is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Bounds on waiting for the network, in seconds.

    Attributes:
        connect_s: to open a connection, TLS handshake included.
        idle_s: between two pieces of an answer, and for the head of an answer as a whole.
        commit_s: for the answer after an upload, when a registry moves and checks what it got.
        min_bytes_per_s: an answer that stays slower than this over `idle_s` counts as stalled.
    """

    connect_s: float = 10.0
    idle_s: float = 60.0
    commit_s: float = 300.0
    min_bytes_per_s: int = 256


@dataclass(frozen=True, slots=True)
class Retries:
    """When and how often a failed request is tried again.

    Attributes:
        attempts: tries in all, at least 1; a download that made progress starts to count anew.
        first_s: wait before the second try; it doubles with each further one, minus random jitter.
        most_s: the longest such wait.
        retry_after_cap_s: the longest wait that a server may ask for by `Retry-After`.
        budget_s: seconds that one operation may spend waiting in all.
    """

    attempts: int = 5
    first_s: float = 1.0
    most_s: float = 8.0
    retry_after_cap_s: float = 60.0
    budget_s: float = 180.0


@dataclass(frozen=True, slots=True)
class Proxies:
    """Proxy settings with the meaning of `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`; "" is none.

    They may hold a password, so `repr` does not show them.
    """

    http: str = field(default="", repr=False)
    https: str = field(default="", repr=False)
    no_proxy: str = ""


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """Everything that shapes the traffic with registries.

    Attributes:
        mirrors: registry -> `[scheme://]host[:port][/prefix]` of the mirrors that pulls try first, in order.
        insecure: hosts whose certificate is not checked and that may answer plain http.
        plain_http: hosts that are spoken to in plain http only.
        ca: PEM bundle trusted in addition to the system's.
        host_ca: host -> PEM bundles trusted in addition, for this host only.
        client_certs: host -> (certificate, key) PEM files shown to it; of several, one for each kind of key.
        token_hosts: registry -> other hosts that may be shown its credentials to issue tokens; needed only where
            a token server is on another site than its registry.
        connections_per_host: blobs transferred at once with one registry.
    """

    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    insecure: frozenset[str] = frozenset()
    plain_http: frozenset[str] = frozenset()
    ca: Path | None = None
    host_ca: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    client_certs: Mapping[str, tuple[tuple[Path, Path], ...]] = field(default_factory=dict)
    token_hosts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    proxies: Proxies = field(default_factory=Proxies)
    timeouts: Timeouts = field(default_factory=Timeouts)
    retries: Retries = field(default_factory=Retries)
    connections_per_host: int = 4
    user_agent: str = "lamina"
