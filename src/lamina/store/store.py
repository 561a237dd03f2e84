"""The store of blobs and images: an OCI image layout on disk (image-spec image-layout.md).

What comes in: bytes, through `ingest`, checked against digest and size. What goes out: blobs by digest, images by
name. It does not know what layers mean, and never changes a blob.

Invariants: a file below `blobs/` has the content its name says, from the moment it appears; `index.json` names only
what is here whole, and what it names was synced before it was named. Any number of processes may work on one store.

    store = Store(root)
    with store.ingest(descriptor) as ingest:
        ingest.write(data)
        ingest.commit()
    store.tag("docker.io/library/app:latest", manifest_descriptor)
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lamina.errors import InputError
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.oci.reference import Reference
from lamina.oci.strict_json import MAX_BYTES
from lamina.store.errors import CorruptError, MissingBlobError, storage_error
from lamina.store.files import open_regular, read_capped, replace_file, sync_directory
from lamina.store.index import IndexFile
from lamina.store.ingest import RESUME_PREFIX, Ingest
from lamina.store.names import MAX_INDEX_BYTES, save_names
from lamina.store.reach import missing_blobs, reachable
from lamina.store.space import UNLIMITED, Space

if TYPE_CHECKING:
    from lamina.store.check import Problem

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_ALGORITHMS = ("sha256", "sha384", "sha512")
RESUMABLE_AGE_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class StoredImage:
    """What `index.json` says about one image: its full reference ("" for one without a name) and its manifest."""

    name: str
    descriptor: Descriptor


class Store:
    """An OCI image layout at `root`, made when it is not there. Thread-safe; holds nothing open.

    Args:
        root: the layout's directory.
        durable: whether what is named survives a power cut; False only for stores that are thrown away.
        create: whether to make the layout; a store that is only read may be somebody else's.
        space: asked before anything is written.
    """

    def __init__(self, root: Path, *, durable: bool = True, create: bool = True, space: Space = UNLIMITED) -> None:
        self.root = root
        self.space = space
        self.durable = durable
        self._base = os.fspath(root)
        self._held = threading.local()
        if create:
            self._create()

    # -- blobs -----------------------------------------------------------------------------------------------

    def has(self, digest: Digest) -> bool:
        """Tell whether the blob is here."""
        try:
            self.size(digest)
        except (MissingBlobError, CorruptError):
            return False
        return True

    def path(self, digest: Digest) -> Path:
        """Return where the blob lies or would lie. For passing on to mounts and other programs: read it only."""
        return self.root / "blobs" / digest.algorithm / digest.hex

    def size(self, digest: Digest) -> int:
        """Return the blob's size in bytes. Raises `MissingBlobError`, `CorruptError`."""
        import stat

        path = self._blob(digest)
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            raise MissingBlobError("no such blob in the store", where=str(digest)) from None
        except OSError as exc:
            raise storage_error(exc, path) from exc
        if not stat.S_ISREG(found.st_mode):
            raise CorruptError("not a regular file", where=path)
        return found.st_size

    def open(self, digest: Digest) -> BinaryIO:
        """Open the blob for reading, unbuffered; the caller closes it. Its content is not verified here.

        Raises:
            MissingBlobError: it is not here.
            CorruptError: something else than a regular file has its name.
        """
        return os.fdopen(open_regular(self._blob(digest)), "rb", buffering=0)

    def read(self, digest: Digest, max_bytes: int = MAX_BYTES) -> bytes:
        """Return the blob's content, verified.

        Raises:
            MissingBlobError: it is not here.
            CorruptError: it is larger than `max_bytes`, or its content does not have the digest.
        """
        data = read_capped(self._blob(digest), max_bytes)
        if hashlib.new(digest.algorithm, data).hexdigest() != digest.hex:
            raise CorruptError(
                "the content of this blob has another digest",
                where=self._blob(digest),
                hint="the disk or another program damaged it: delete the file, then pull or build again",
            )
        return data

    def ingest(self, expected: Descriptor | None = None, resume_key: str = "", *, durable: bool = False) -> Ingest:
        """Start writing a blob.

        Args:
            expected: digest and size the bytes must have, None when they are not known yet.
            resume_key: names a transfer that may be continued after an interruption, "" for none.
            durable: sync at once. What gets a name by `tag` is synced then; other blobs need it rarely.

        Returns:
            The ingest, a context manager that aborts unless committed.
        """
        return Ingest(self._base, expected, resume_key, durable=durable and self.durable, space=self.space)

    def add(self, data: bytes, *, durable: bool = False) -> tuple[Digest, int]:
        """Store `data` as a blob unless it is here, and return its digest and size."""
        digest = Digest("sha256:" + hashlib.sha256(data).hexdigest())
        if self.has(digest) and self.size(digest) == len(data) and self.touch(digest):
            return digest, len(data)
        with self.ingest(durable=durable) as ingest:
            ingest.write(data)
            return ingest.commit()

    def touch(self, digest: Digest) -> bool:
        """Mark the blob as used now, which keeps it from a running garbage collection; False if it is gone."""
        with self.lock():
            try:
                os.utime(self._blob(digest))
            except FileNotFoundError:
                return False
            except OSError as exc:
                raise storage_error(exc, self._blob(digest)) from exc
        return True

    def delete(self, digest: Digest, *, unused_since: float | None = None) -> bool:
        """Remove a blob; idempotent. Whether something still needs it is the caller's to know.

        Args:
            digest: the blob.
            unused_since: seconds since the epoch; a blob touched or written later stays.

        Returns:
            Whether it was removed.
        """
        path = self._blob(digest)
        with self.lock():
            try:
                if unused_since is not None and os.lstat(path).st_mtime > unused_since:
                    return False
                os.unlink(path)
            except FileNotFoundError:
                return False
            except OSError as exc:
                raise storage_error(exc, path) from exc
        return True

    def digests(self) -> Iterator[Digest]:
        """Iterate over all blobs, in no order; files with other names are passed over."""
        for algorithm in _ALGORITHMS:
            try:
                names = os.listdir(os.path.join(self._base, "blobs", algorithm))
            except FileNotFoundError:
                continue
            for name in names:
                try:
                    yield Digest(f"{algorithm}:{name}")
                except InputError:
                    continue

    def sync_blobs(self, digests: Iterable[Digest]) -> None:
        """Return once these blobs would survive a power cut. Cheap for clean ones.

        Raises:
            MissingBlobError: one is not here.
            StorageError: the disk failed; it is not known what survived.
        """
        if not self.durable:
            return
        folders: set[str] = set()
        for digest in digests:
            fd = open_regular(self._blob(digest))
            try:
                os.fsync(fd)
            except OSError as exc:
                raise storage_error(exc, self._blob(digest)) from exc
            finally:
                os.close(fd)
            folders.add(os.path.dirname(self._blob(digest)))
        for folder in folders:
            sync_directory(folder)

    # -- images ----------------------------------------------------------------------------------------------

    def images(self) -> list[StoredImage]:
        """Return all images, in the order of `index.json`, those without a name too."""
        return [StoredImage(entry.name, entry.descriptor) for entry in self._read_index().entries]

    def resolve(self, name: str) -> Descriptor | None:
        """Return what a name stands for; None when the store has no such image.

        Args:
            name: a reference in any form docker takes (`app`, `host/app:1`, `app@sha256:...`), or a name that
                stands in `index.json` as it is.

        Raises:
            InputError: it is neither.
        """
        entries = self._read_index().entries
        exact = next((entry for entry in entries if entry.name == name and name), None)
        if exact is not None:
            return exact.descriptor
        ref = Reference.parse(name)
        if ref.digest is None:
            return next((entry.descriptor for entry in entries if entry.name == str(ref)), None)
        # a digest says all: any entry with it will do, one of the same repository first
        same = [entry for entry in entries if entry.descriptor.digest == ref.digest]
        same.sort(key=lambda entry: not entry.name.startswith(f"{ref.registry}/{ref.repository}:"))
        return same[0].descriptor if same else None

    def resolve_id(self, prefix: str) -> list[StoredImage]:
        """Return the images whose ID or manifest digest begins so (`sha256:` optional, at least 4 hex digits)."""
        prefix = prefix.removeprefix("sha256:").lower()
        if len(prefix) < 4 or len(prefix) > 64 or not set(prefix) <= set("0123456789abcdef"):
            return []
        return [image for image in self.images() if any(d.hex.startswith(prefix) for d in self._ids(image.descriptor))]

    def tag(self, name: str, descriptor: Descriptor, *, keep_dangling: bool = False) -> bool:
        """Let `name` stand for an image that is here whole; atomic, idempotent, synced.

        Args:
            name: full reference, "" to keep the image without a name.
            descriptor: its manifest or index.
            keep_dangling: keep what the name stood for before, without a name.

        Returns:
            Whether anything changed.

        Raises:
            MissingBlobError: something the image is made of is not here.
        """
        missing = missing_blobs(self, [descriptor])
        if missing:
            raise MissingBlobError(
                f"cannot name an image of which {len(missing)} blobs are missing, first {missing[0]}",
                where=name or str(descriptor.digest),
            )
        self.sync_blobs(reachable(self, [descriptor]))
        with self.lock():
            index = self._read_index()
            if not index.put(name, descriptor, keep_dangling=keep_dangling):
                return False
            self._write_index(index)
        return True

    def untag(self, name: str, *, keep_dangling: bool = False) -> bool:
        """Take a name away; atomic, idempotent. The blobs stay until a garbage collection. Return if it was there."""
        with self.lock():
            index = self._read_index()
            if not index.remove(name, keep_dangling=keep_dangling):
                return False
            self._write_index(index)
        return True

    def untag_digest(self, digest: Digest) -> list[str]:
        """Remove every entry for this manifest, named or not, and return the names that went."""
        with self.lock():
            index = self._read_index()
            gone = [entry for entry in index.entries if entry.descriptor.digest == digest]
            if gone:
                index.entries = [entry for entry in index.entries if entry.descriptor.digest != digest]
                self._write_index(index)
        return [entry.name for entry in gone if entry.name]

    # -- upkeep ----------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the store's lock: no other process changes `index.json` or deletes a blob. Re-entrant in a thread."""
        depth = getattr(self._held, "depth", 0)
        fd = -1
        if depth == 0:
            try:
                fd = os.open(os.path.join(self._base, "index.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                fcntl.flock(fd, fcntl.LOCK_EX)
            except OSError as exc:
                if fd >= 0:
                    os.close(fd)
                raise storage_error(exc, os.path.join(self._base, "index.lock")) from exc
        self._held.depth = depth + 1
        try:
            yield
        finally:
            self._held.depth = depth
            if fd >= 0:
                os.close(fd)

    def leftovers(self) -> list[Path]:
        """Return the partial files whose writer is gone, those of resumable transfers too."""
        return [path for path, _ in self._unlocked(remove=lambda _path, _age: False)]

    def sweep_ingest(self, *, resumable_age_s: float = RESUMABLE_AGE_S) -> int:
        """Remove partial files whose writer is gone; those that can be resumed only from that age on.

        Returns:
            How many files were removed. Safe at any time: files that are being written are locked.
        """
        import time

        now = time.time()

        def old(path: str, mtime: float) -> bool:
            return not os.path.basename(path).startswith(RESUME_PREFIX) or now - mtime >= resumable_age_s

        return sum(removed for _, removed in self._unlocked(remove=old))

    def check(self, full: bool = False) -> list[Problem]:
        """Return everything that is wrong with the store; see `lamina.store.check`."""
        from lamina.store.check import check_store

        return check_store(self, full=full)

    # -- inside ----------------------------------------------------------------------------------------------

    def _blob(self, digest: Digest) -> str:
        """Return the blob's path as text; a digest was validated when it was made."""
        return f"{self._base}/blobs/{digest.algorithm}/{digest.hex}"

    def _create(self) -> None:
        """Make the layout; idempotent, and safe when several processes do it at once."""
        try:
            os.makedirs(os.path.join(self._base, "blobs", "sha256"), exist_ok=True)
            os.makedirs(os.path.join(self._base, "ingest"), exist_ok=True)
            if self.durable and not os.path.lexists(os.path.join(self._base, "oci-layout")):
                sync_directory(os.path.join(self._base, "blobs"))
        except OSError as exc:
            raise storage_error(exc, self._base) from exc
        for name, content in (("oci-layout", _LAYOUT), ("index.json", IndexFile.parse(b"", "").dump())):
            path = os.path.join(self._base, name)
            if not os.path.lexists(path):
                with self.lock():
                    if not os.path.lexists(path):
                        self._replace(path, content)

    def _replace(self, path: str, content: bytes) -> None:
        """Replace a file of the layout."""
        replace_file(path, content, durable=self.durable, spool=os.path.join(self._base, "ingest"))

    def _read_index(self) -> IndexFile:
        """Read `index.json`; a missing one is an empty one only where nothing was ever named."""
        path = os.path.join(self._base, "index.json")
        try:
            raw = read_capped(path, MAX_INDEX_BYTES)
        except MissingBlobError:
            raise CorruptError(
                "index.json is missing", where=path, hint="the names of the images are lost; the blobs may be whole"
            ) from None
        return IndexFile.parse(raw, path)

    def _write_index(self, index: IndexFile) -> None:
        """Write `index.json` and what is derived from it; the caller holds the lock."""
        self._replace(os.path.join(self._base, "index.json"), index.dump())
        save_names(self._base, {entry.name: str(entry.descriptor.digest) for entry in index.entries if entry.name})

    def _ids(self, descriptor: Descriptor) -> Sequence[Digest]:
        """Return the digest of the manifest and, for single images, of the config: the image ID."""
        from lamina.oci.manifest import Manifest, parse_any

        found = [descriptor.digest]
        try:
            parsed = parse_any(self.read(descriptor.digest), descriptor.media_type)
        except (InputError, CorruptError, MissingBlobError):
            return found
        if isinstance(parsed, Manifest):
            found.append(parsed.config.digest)
        return found

    def _unlocked(self, remove: Callable[[str, float], bool]) -> list[tuple[Path, bool]]:
        """Go through the partial files that nobody writes; remove those that `remove(path, mtime)` names."""
        folder = os.path.join(self._base, "ingest")
        found: list[tuple[Path, bool]] = []
        try:
            names = sorted(os.listdir(folder))
        except FileNotFoundError:
            return found
        for name in names:
            path = os.path.join(folder, name)
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                gone = remove(path, os.fstat(fd).st_mtime)
                if gone:
                    os.unlink(path)
                found.append((Path(path), gone))
            except OSError:
                continue  # being written
            finally:
                os.close(fd)
        return found
