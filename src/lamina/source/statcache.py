"""What is remembered of the files of a context, so that unchanged ones need not be read again.

One cache a context directory. In: rows found by an earlier build, as one blob of bytes that the caller keeps (in the
state database or a file). Out: the digest and xattrs of a path whose stat is still the same; the blob with what this
build learned. A damaged blob, or one of another version, is the same as none.

A row is valid while size, modification time, change time and inode are what they were. The change time cannot be
set, so that it tells of every write - but for writes within one tick of the clock that stamps it. Hence the rule: what
was read less than a tick after the file's change time is not remembered.

Imports nothing heavy: it is loaded by builds in which nothing changed. Not thread-safe; its owner holds a lock.
"""

from __future__ import annotations

import hashlib
import marshal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.layer.entry import Xattrs

    StatKey = tuple[int, int, int, int]
    """Size, modification time in ns, change time in ns, inode."""
    Row = tuple[StatKey, str, Xattrs]

_MAGIC = b"lamina stat cache 1\n"
_TICK_NS = 20_000_000  # two jiffies of a kernel with HZ=100
_COARSE_TICK_NS = 2_000_000_000  # file systems that keep whole seconds
_CLOCK_REALTIME_COARSE = 5  # linux/time.h; the time module does not name it


def file_clock_ns() -> int:
    """Return the time as the kernel stamps files with it, in ns since the epoch."""
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


def is_settled(changed_ns: int, now_ns: int) -> bool:
    """Tell whether a change after `now_ns` would show in the change time.

    Args:
        changed_ns: change time of the file.
        now_ns: the clock that stamps files (`file_clock_ns`), read before the file was.
    """
    tick = _TICK_NS if changed_ns % 1_000_000_000 else _COARSE_TICK_NS
    return changed_ns + tick < now_ns


class StatCache:
    """Rows by path.

    Attributes:
        rows: path to (stat key, sha256 hex of the content or "", xattrs).
        changed: whether `dump` would give something new.
    """

    __slots__ = ("changed", "rows")

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.changed = False

    @classmethod
    def load(cls, blob: bytes) -> StatCache:
        """Return the cache that `dump` gave; an empty one when `blob` is not one."""
        cache = cls()
        start = len(_MAGIC) + 32
        body = memoryview(blob)[start:]
        # marshal trusts its input: only bytes that carry their own digest get there.
        if blob[: len(_MAGIC)] == _MAGIC and hashlib.sha256(body).digest() == blob[len(_MAGIC) : start]:
            try:
                paths, sizes, mtimes, ctimes, inodes, digests, xattrs = marshal.loads(body)
                text = digests.hex()
                hexes = [text[at : at + 64] for at in range(0, len(text), 64)]
                keys = zip(sizes, mtimes, ctimes, inodes, strict=True)
                cache.rows = dict(zip(paths, zip(keys, hexes, ((),) * len(paths), strict=True), strict=True))
                for path, has_digest, attributes in xattrs:
                    key, digest, _ = cache.rows[path]
                    cache.rows[path] = (key, digest if has_digest else "", attributes)
            except (ValueError, TypeError, EOFError, AttributeError, KeyError):
                cache.rows = {}
        return cache

    def put(self, path: str, key: StatKey, digest: str, xattrs: Xattrs, now_ns: int) -> None:
        """Remember a path if it had settled when `now_ns` was read, before the file was."""
        if is_settled(key[2], now_ns):
            self.rows[path] = (key, digest, xattrs)
            self.changed = True

    def forget(self, is_gone: Callable[[str], bool]) -> None:
        """Drop the rows of paths that are gone."""
        gone = [path for path in self.rows if is_gone(path)]
        for path in gone:
            del self.rows[path]
        self.changed = self.changed or bool(gone)

    def dump(self) -> bytes:
        """Return the rows as one blob, about 90 bytes a file beside its path."""
        rows = self.rows
        keys = [row[0] for row in rows.values()]
        sizes, mtimes, ctimes, inodes = zip(*keys, strict=True) if keys else ((), (), (), ())
        digests = bytes.fromhex("".join(row[1] or "0" * 64 for row in rows.values()))
        # Rows without a digest (directories) or with xattrs are few beside the files.
        special = [(path, bool(row[1]), row[2]) for path, row in rows.items() if row[2] or not row[1]]
        body = marshal.dumps((list(rows), sizes, mtimes, ctimes, inodes, digests, special), 4)
        return _MAGIC + hashlib.sha256(body).digest() + body
