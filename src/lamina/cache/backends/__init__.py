"""Places that keep caches; each implements `lamina.cache.backend.CacheBackend`."""
