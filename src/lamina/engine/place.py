"""One root directory, opened: the store, the state file, the locks, and a lease for the work at hand.

Opening sweeps what dead builds left. Everything that needs more than a look opens a `Place` and closes it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from types import TracebackType

from lamina.cache.spec import CacheSpec
from lamina.cancel import Cancel
from lamina.engine.options import Environment
from lamina.engine.registries import registry_options
from lamina.engine.upkeep.ballast import keep_ballast
from lamina.engine.upkeep.room import Room
from lamina.errors import StorageError
from lamina.layer.index import Index
from lamina.layer.tree import remove_tree
from lamina.oci.platform import Platform, host_platform
from lamina.registry.client import Registry
from lamina.registry.options import RegistryOptions
from lamina.session import BlobStore, Credentials
from lamina.snapshot.layers import Layers
from lamina.snapshot.rows import LayerRow, parse_origin, parse_origin_index
from lamina.solver.protocol import UnknowableError
from lamina.source.image import ImageSource
from lamina.state import leases
from lamina.state.db import State
from lamina.state.leases import Lease
from lamina.state.locks import Locks
from lamina.store.store import Store

_SYNC_AFTER_S = 60.0
_PATIENCE_S = 10.0

CredentialSource = Callable[[str], Credentials | None]
OnBytes = Callable[[str, int, int], None]


class Place:
    """The rooms below, opened on `environment.root` for one piece of work. A context manager.

    Args:
        credentials: what opens registries; None offers nothing.
        on_bytes: told of blobs that move: digest, bytes so far, bytes in all.
        on_sent: told instead of those that go to a registry.
        notify: told in one line why something waits.
        fetch: whether blobs may be pulled; without, what needs one raises `UnknowableError`.
    """

    def __init__(
        self,
        environment: Environment,
        cancel: Cancel,
        *,
        credentials: CredentialSource | None = None,
        on_bytes: OnBytes | None = None,
        on_sent: OnBytes | None = None,
        notify: Callable[[str], None] | None = None,
        platform: Platform | None = None,
        pull: bool = False,
        fetch: bool = True,
    ) -> None:
        self._may_fetch = fetch
        root = environment.root
        try:
            for name in ("work", "caches"):
                (root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"cannot use the state directory: {error.strerror}",
                where=str(root),
                hint="choose another with --root or LAMINA_ROOT",
            ) from error
        self.environment, self.cancel, self.root = environment, cancel, root
        self._credentials, self._on_bytes, self._on_sent, self._notify = credentials, on_bytes, on_sent, notify
        self._insecure: dict[str, Registry] = {}
        self.cache_specs: dict[str, CacheSpec] = {}
        self.stores: Callable[[str], BlobStore | None] | None = None
        self._beside: list[tuple[threading.Thread, threading.Event]] = []
        self.state = State(root)
        self.room = Room(self, environment.gc.max_storage)
        self.store = Store(root / "oci", space=self.room)
        self.locks = Locks(root / "locks")
        if leases.sweep(root / "work", remove_tree):
            self.store.sweep_ingest()  # whoever died may have been writing a blob
            self.state.execute("DELETE FROM usage WHERE kind = 'blobs'")  # and did not say what it added
        self.lease = Lease(root / "work")
        self.layers = Layers(
            root,
            self.state,
            self.store,
            self.locks,
            flavour="user" if environment.userns else "trusted",
            work=self.lease.directory,
            fetch=self.fetch,
            borrow=self._borrow_index,
        )
        self.images = ImageSource(
            self.store,
            self.state,
            self.layers,
            lambda: self.registry,
            platform=platform or host_platform(),
            pull=pull,
        )
        self._sync_in_background()
        keep_ballast(root)

    @cached_property
    def registry_options(self) -> RegistryOptions:
        """How registries are reached; the configuration is read when this is first asked."""
        return registry_options(self.environment)

    @cached_property
    def registry(self) -> Registry:
        """The registry client, made when first used."""
        credentials = self._credentials or (lambda _host: None)
        return Registry(
            self.registry_options, credentials, self.cancel, self._on_bytes, self._notify, sent=self._on_sent
        )

    def insecure_registry(self, host: str) -> Registry:
        """Return a client that reaches `host` by plain http or with any certificate."""
        if host not in self._insecure:
            options = replace(self.registry_options, insecure=self.registry_options.insecure | {host})
            credentials = self._credentials or (lambda _host: None)
            self._insecure[host] = Registry(
                options, credentials, self.cancel, self._on_bytes, self._notify, sent=self._on_sent
            )
        return self._insecure[host]

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close everything and give up the lease. Idempotent."""
        if "registry" in self.__dict__:
            self.registry.close()
        for registry in self._insecure.values():
            registry.close()
        for thread, stop in self._beside:
            thread.join(_PATIENCE_S)
            stop.set()
            thread.join()
        self._beside.clear()
        self.room.close()
        self.lease.release(remove_tree)
        self.state.close()

    def beside(self, thread: threading.Thread, stop: threading.Event) -> None:
        """Have a thread waited for when this is closed; `stop` is set when it takes too long."""
        self._beside.append((thread, stop))

    def fetch(self, row: LayerRow, cancel: Cancel) -> None:
        """Bring the blob of a remote layer into the store, from an image's registry or layout, or from a cache.

        Raises:
            LayerGoneError: a cache does not have it (any more).
            Error: the registry cannot be asked or does not have it.
            UnknowableError: this place was opened for a look only.
        """
        if not self._may_fetch:
            raise UnknowableError("a layer that is not here would have to be pulled", where=row.blob or "")
        if parse_origin(row.origin)[0] != "cache":
            self.images.fetch(row, cancel)
            return
        from lamina.engine.fetch_cached import fetch_layer

        fetch_layer(self, row)

    def _borrow_index(self, row: LayerRow, _cancel: Cancel) -> Index | None:
        if not row.origin or parse_origin_index(row.origin) is None:
            return None
        from lamina.engine.fetch_cached import fetch_index

        return fetch_index(self, row)

    def _sync_in_background(self) -> None:
        """Let earlier builds' trees reach the disk, so that a power cut costs only the records of the last ones."""
        row = self.state.execute(
            "SELECT max(created), (SELECT value FROM meta WHERE name = 'synced') FROM node"
        ).fetchone()
        newest, synced = row[0] or 0.0, float(row[1] or 0)
        if newest > synced and time.time() - newest > _SYNC_AFTER_S:
            threading.Thread(target=self._mark_synced, name="sync", daemon=True).start()

    def _mark_synced(self) -> None:
        own = State(self.root)
        try:
            own.mark_synced()
        finally:
            own.close()
