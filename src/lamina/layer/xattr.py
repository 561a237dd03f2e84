"""Extended attributes of trees: which are the layer's, which are overlayfs's own."""

from __future__ import annotations

import errno
import logging
import os

from lamina.errors import StorageError
from lamina.layer.entry import Xattrs

OVERLAY_PREFIXES = ("trusted.overlay.", "user.overlay.")
_logger = logging.getLogger(__name__)


def list_xattrs(path: str | int) -> Xattrs:
    """Return a file's attributes sorted by name, overlayfs's own left out."""
    try:
        names = os.listxattr(path, **({} if isinstance(path, int) else {"follow_symlinks": False}))
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM):
            return ()
        raise
    if not names:
        return ()
    follow = {} if isinstance(path, int) else {"follow_symlinks": False}
    kept = (name for name in sorted(names) if not name.startswith(OVERLAY_PREFIXES))
    return tuple((name, os.getxattr(path, name, **follow)) for name in kept)


def set_xattrs(path: str | int, xattrs: Xattrs) -> None:
    """Set a file's attributes; what this file system cannot keep is skipped with one warning, but for capabilities.

    Raises:
        StorageError: capabilities cannot be kept, which would change what the program may do.
    """
    follow = {} if isinstance(path, int) else {"follow_symlinks": False}
    for name, value in xattrs:
        try:
            os.setxattr(path, name, value, **follow)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL):
                raise
            if name == "security.capability":
                raise StorageError(f"the store's file system cannot keep {name}: {error.strerror}") from error
            _logger.warning("an extended attribute %s cannot be kept here: %s", name, error.strerror)


def is_opaque(path: str, flavour: str) -> bool:
    """Tell whether overlayfs takes a directory as hiding what is below it."""
    try:
        return os.getxattr(path, f"{flavour}.overlay.opaque", follow_symlinks=False) == b"y"
    except OSError:
        return False
