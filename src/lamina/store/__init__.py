"""The store: blobs by digest and images by name, as an OCI image layout that other tools read in place.

Layout below the store's root (image-spec image-layout.md):

    oci-layout          marker
    index.json          what is named (and what is kept without a name), replaced by rename under `index.lock`
    blobs/<alg>/<hex>   each appears by rename after its digest and size were checked
    ingest/             partial writes; each is locked by who writes it, an unlocked one is a leftover
    names               derived from index.json for `names.py`; worthless when it does not fit

Importing this package imports nothing: the fully cached build needs `lamina.store.names` only.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.store.store import Store, StoredImage

__all__ = ["Store", "StoredImage"]


def __getattr__(name: str) -> object:
    """Import the classes when they are asked for."""
    if name in __all__:
        from lamina.store import store

        return getattr(store, name)
    raise AttributeError(name)
