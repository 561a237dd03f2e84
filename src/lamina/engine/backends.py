"""Which module keeps caches of which type, and what it is given. Each is imported when it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamina.cache.backend import CacheBackend
from lamina.cache.spec import CacheSpec
from lamina.errors import NotYetError

if TYPE_CHECKING:
    from lamina.engine.place import Place


def open_backend(spec: CacheSpec, place: Place) -> CacheBackend:
    """Return the backend for a cache's place.

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
