"""Extended attributes of files in trees: which belong to a layer, and how they are read and set.

In and out: `Xattrs`, pairs sorted by name. Attributes of overlayfs are the snapshotter's and never come from or go to
a layer; `security.selinux` belongs to the machine. A capability that cannot be set is an error, since a program would
lack it; any other attribute that the file system refuses is only told (tar archives are full of them).
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from lamina.errors import StorageError
from lamina.layer.errors import LayerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.layer.entry import Xattrs

MAX_NAME = 255
MAX_VALUE = 65536
CAPABILITY = "security.capability"
_PRIVATE = ("trusted.overlay.", "user.overlay.")
_OF_MACHINE = frozenset({"security.selinux"})
_NONE = frozenset({errno.ENOTSUP, errno.ENODATA, errno.EPERM, errno.EACCES})


def is_private(name: str) -> bool:
    """Tell whether an attribute is the snapshotter's or the machine's and must not cross a layer's border."""
    return name.startswith(_PRIVATE) or name in _OF_MACHINE


def read_xattrs(path: str) -> tuple[Xattrs, tuple[str, ...]]:
    """Return the attributes of `path` (a link is not followed) that belong to a layer, and the names of the others.

    Raises:
        StorageError: they cannot be read.
    """
    try:
        names = os.listxattr(path, follow_symlinks=False)
        if not names:
            return (), ()
        private = tuple(name for name in names if is_private(name))
        found = []
        for name in sorted(names):
            if name not in private and (value := _get(path, name)) is not None:
                found.append((name, value))
        return tuple(found), private
    except OSError as error:
        if error.errno in _NONE:
            return (), ()
        raise StorageError(f"cannot read extended attributes: {error.strerror}", where=path) from error


def _get(path: str, name: str) -> bytes | None:
    """Return one value; None for one that may not be read, which says nothing about the others."""
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NONE:
            return None
        raise


def set_xattrs(target: int | str, xattrs: Xattrs, shown: str, warn: Callable[[str], None]) -> None:
    """Set attributes; to be called after owner and mode are set, since both take capabilities away.

    Args:
        target: descriptor, or a path whose last part is not followed.
        xattrs: what to set; private ones are left out.
        shown: the entry's path, for messages.
        warn: is told about an attribute that the file system refuses.

    Raises:
        LayerError: a capability is malformed.
        StorageError: a capability was refused, or the disk failed.
    """
    follow = isinstance(target, int)
    for name, value in xattrs:
        if is_private(name):
            continue
        try:
            os.setxattr(target, name, value, follow_symlinks=follow)
        except OSError as error:
            if name == CAPABILITY and error.errno == errno.EINVAL:
                raise LayerError(f"the attribute {name} is not one a kernel takes", where=shown) from error
            if name == CAPABILITY or error.errno in (errno.EIO, errno.EDQUOT, errno.EROFS):
                raise StorageError(f"cannot set the attribute {name}: {error.strerror}", where=shown) from error
            warn(f"extended attribute {name[:100]} was left out ({error.strerror}), first at {shown}")
