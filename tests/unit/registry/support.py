"""What the tests of this room share: a sink in memory and a client without long waits."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Any

from lamina.cancel import Cancel
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.oci.reference import Reference
from lamina.registry.client import Registry
from lamina.registry.options import RegistryOptions, Retries, Timeouts
from lamina.session import Credentials

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
FAST = Retries(attempts=4, first_s=0.001, most_s=0.002, retry_after_cap_s=0.01, budget_s=5)


class Sink:
    """A blob sink in memory that records restarts."""

    def __init__(self, start: bytes = b"") -> None:
        self.data = bytearray(start)
        self.restarts = 0
        self.most = len(start)

    @property
    def offset(self) -> int:
        return len(self.data)

    def write(self, data: bytes) -> None:
        self.data += data
        self.most = max(self.most, len(self.data))

    def restart(self) -> None:
        self.data.clear()
        self.restarts += 1


def client(
    *hosts: str,
    credentials: Credentials | Callable[[str], Credentials | None] | None = None,
    cancel: Cancel | None = None,
    notify: Callable[[str], None] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    **options: Any,
) -> Registry:
    """Return a client that speaks plain http with `hosts` and does not wait long."""
    values: dict[str, Any] = {"plain_http": frozenset(hosts), "retries": FAST, "timeouts": Timeouts(idle_s=20)}
    lookup = credentials if callable(credentials) else (lambda _host: credentials)
    return Registry(RegistryOptions(**{**values, **options}), lookup, cancel or Cancel(), progress, notify)


def descriptor(data: bytes, size: int | None = None) -> Descriptor:
    digest = Digest("sha256:" + hashlib.sha256(data).hexdigest())
    return Descriptor(LAYER, digest, len(data) if size is None else size)


def ref(host: str, name: str = "app:1") -> Reference:
    return Reference.parse(f"{host}/{name}")


def opener(data: bytes) -> Callable[[], io.BytesIO]:
    return lambda: io.BytesIO(data)
