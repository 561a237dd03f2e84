"""Which module keeps caches of which type, and what it is given. Each is imported when it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lamina.cache.backend import CacheBackend
from lamina.cache.spec import CacheSpec
from lamina.errors import InputError, NotYetError

if TYPE_CHECKING:
    from lamina.engine.place import Place
    from lamina.oci.descriptor import Descriptor


def open_backend(
    spec: CacheSpec, place: Place, published: Callable[[Descriptor], None] = lambda _manifest: None
) -> CacheBackend:
    """Return the backend for a cache's place.

    Args:
        published: is told what was written where that is the user's business to name.

    Raises:
        NotYetError: none for this type.
    """
    if spec.type == "registry":
        from lamina.cache.backends.registry import RegistryCache

        registry = place.registry
        if spec.flag("registry.insecure", False):
            from lamina.oci.reference import Reference

            host = Reference.parse(spec.attributes["ref"]).registry
            registry = place.insecure_registry(host)
        return RegistryCache(spec, registry)
    if spec.type == "local" and place.stores is not None:  # a client far away: never directories here
        from lamina.cache.backends.client import ClientCache

        store = place.stores(f"local:{spec.attributes.get('dest') or spec.attributes['src']}")
        if store is None:
            raise InputError("the client offers no directory for a cache", where=spec.shown())
        return ClientCache(spec, store, place.cancel, published)
    if spec.type == "local":
        from lamina.cache.backends.local import LocalCache

        return LocalCache(spec, place.cancel)
    if spec.type == "s3":
        from lamina.cache.backends.s3 import open_s3

        return open_s3(spec, place.environment.cache_variables, place.cancel)
    if spec.type == "azblob":
        from lamina.cache.backends.azblob import open_azblob

        return open_azblob(spec, place.environment.cache_variables, place.cancel)
    if spec.type == "gha":
        from lamina.cache.backends.gha import open_gha

        return open_gha(spec, place.environment.cache_variables, place.registry_options, place.cancel)
    raise NotYetError(f"caches of type {spec.type}")
