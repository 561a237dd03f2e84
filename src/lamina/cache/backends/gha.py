"""`type=gha`: a cache in GitHub's Actions cache service, version 2.

Entries of the service are written once and never change; a key that somebody has taken is refused. That is the compare
and swap: the index is a row of entries `...#N`, whoever wants to write the next one must have read the one before.
Small blobs travel together in one entry, since the service counts requests; where each lies stands in the index, so
that nobody asks blob by blob. What the service has evicted shows when it is fetched, and its step runs again.

Sources: the service's protocol (Twirp over JSON, package `github.actions.results.api.v1`); Azure's Put Block and Put
Block List for what its signed URLs take. Signed URLs and the token stand in no message.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from lamina.cache.backend import CacheError, Found, Publication
from lamina.cache.checked import Checked
from lamina.cache.document import MAX_BYTES
from lamina.cache.spec import CacheSpec
from lamina.cancel import Cancel
from lamina.errors import InputError
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.registry.failures import TransportError
from lamina.registry.http import Request, Response, Transport
from lamina.registry.options import RegistryOptions

if TYPE_CHECKING:
    from lamina.registry.download import BlobSink

_SERVICE = "/twirp/github.actions.results.api.v1.CacheService/"
_VERSION = hashlib.sha256(b"lamina.cache.v1").hexdigest()
_SMALL_BYTES = 1 << 20
_BLOCK_BYTES = 32 << 20
_ANSWER_BYTES = 64 << 10
_ATTEMPTS, _UNREACHED = 6, 4
_LONGEST_WAIT_S = 60.0
_POLL_S = 0.5
_WRITER_S = 5.0
"""A key that is taken and does not appear for so long belongs to a writer that died: the next one is tried. One that
was only slow notices, and writes again."""
_DEAD_WRITERS = 20


def open_gha(spec: CacheSpec, variables: Mapping[str, str], options: RegistryOptions, cancel: Cancel) -> GhaCache:
    """Return the cache of the workflow that runs.

    Raises:
        InputError: no token or address: not in a workflow, or its variables were not handed on.
    """
    wanted = spec.attributes
    url = wanted.get("url_v2") or variables.get("ACTIONS_RESULTS_URL", "")
    token = wanted.get("token") or variables.get("ACTIONS_RUNTIME_TOKEN", "")
    if not token or not url:
        old = wanted.get("url") or variables.get("ACTIONS_CACHE_URL", "")
        raise InputError(
            "cache type=gha: only version 2 of the service is spoken" if old else "cache type=gha: no address or token",
            hint="hand ACTIONS_RESULTS_URL and ACTIONS_RUNTIME_TOKEN of the job to the step, as docs/cache.md shows",
        )
    return GhaCache(url.rstrip("/"), token, wanted.get("scope") or "buildkit", Transport(options, cancel), cancel)


class GhaCache:
    """Reads and writes the index of one scope and its blobs."""

    def __init__(self, url: str, token: str, scope: str, transport: Transport, cancel: Cancel) -> None:
        self._url, self._token, self._transport, self._cancel = url, token, transport, cancel
        self._index = f"lamina-index-1-{scope}#"
        self._where: dict[str, tuple[str, int]] = {}
        self._pack: dict[str, bytes] = {}
        self._next = 1
        self._guard = threading.Lock()

    def load(self) -> list[Found]:
        """Return the newest index."""
        found = self._find(self._index)
        if found is None:
            return []
        key, url = found
        head, _, document = self._read(key, url, 0, MAX_BYTES).partition(b"\n")
        try:
            where = _parse_where(json.loads(head))
        except (ValueError, RecursionError) as error:
            raise CacheError("the index of the cache is damaged", where=key) from error
        with self._guard:
            self._where.update(where)
            self._next = max(self._next, _number(key) + 1)
        return [Found(document, key, frozenset(map(Digest, where)))]

    def missing(self, blobs: Sequence[Descriptor]) -> list[Descriptor]:
        """Return what no index has told of."""
        return [blob for blob in blobs if blob.digest not in self._where and blob.digest not in self._pack]

    def put(self, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        """Save one blob; a small one waits for the others."""
        with open_blob() as source:
            if blob.size < _SMALL_BYTES:
                data = source.read(blob.size + 1)
                with self._guard:
                    self._pack[blob.digest] = data
                return
            key = f"lamina-blob-1-{blob.digest}"
            self._save(key, source, blob.size)  # refused: somebody has brought it
        with self._guard:
            self._where[blob.digest] = (key, 0)

    def fetch(self, blob: Descriptor, sink: BlobSink) -> None:
        """Download one blob, or its part of a pack."""
        if not self._where:
            self.load()
        key, start = self._where.get(blob.digest, (f"lamina-blob-1-{blob.digest}", 0))
        found = self._find(key, exact=True)
        if found is None:
            raise CacheError("the service has evicted a layer", where=key)
        self._download(key, found[1], start + sink.offset, blob.size - sink.offset, sink.write)

    def publish(self, publication: Publication, seen: Sequence[Found]) -> bool:
        """Save the small blobs together, then the next index; False when somebody took its key."""
        self._save_pack()
        where = {blob.digest: self._where[blob.digest] for blob in publication.blobs if blob.digest in self._where}
        data = json.dumps(where, sort_keys=True).encode() + b"\n" + publication.document
        for number in range(self._next, self._next + _DEAD_WRITERS):
            began = time.monotonic()
            if self._save_bytes(f"{self._index}{number:06d}", data):
                # who took us for dead may have written a later one without what is ours
                return time.monotonic() - began < _WRITER_S or self._newest() <= number
            if self._appears(number):
                return False
        raise CacheError("too many writers of the cache died", where=self._index)

    def _appears(self, number: int) -> bool:
        """Wait for the index of that number, which somebody began to write; False when it does not come."""
        waited = 0.0
        while self._newest() < number:
            if waited >= _WRITER_S:
                return False
            self._cancel.wait(_POLL_S)
            self._cancel.check()
            waited += _POLL_S
        return True

    def _newest(self) -> int:
        found = self._find(self._index)
        return _number(found[0]) if found is not None else 0

    def close(self) -> None:
        """Give up connections."""
        self._transport.close()

    def _save_pack(self) -> None:
        with self._guard:
            pack, self._pack = self._pack, {}
        if not pack:
            return
        data = b"".join(pack.values())
        key = f"lamina-pack-1-{hashlib.sha256(data).hexdigest()}"
        self._save_bytes(key, data)
        offset = 0
        for digest, piece in pack.items():
            self._where[digest] = (key, offset)
            offset += len(piece)

    # -- entries

    def _find(self, key: str, *, exact: bool = False) -> tuple[str, str] | None:
        """Return key and address of an entry: the one of that key, or the newest whose key begins so."""
        ask = {"key": key, "restore_keys": [] if exact else [key], "version": _VERSION}
        answer = self._call("GetCacheEntryDownloadURL", ask)
        url, matched = answer.get("signed_download_url"), answer.get("matched_key") or key
        if not answer.get("ok") or not isinstance(url, str) or not isinstance(matched, str):
            return None
        return None if exact and matched != key else (matched, url)

    def _save_bytes(self, key: str, data: bytes) -> bool:
        import io

        return self._save(key, io.BytesIO(data), len(data))

    def _save(self, key: str, source: BinaryIO, size: int) -> bool:
        """Write an entry; return False when its key is taken."""
        answer = self._call("CreateCacheEntry", {"key": key, "version": _VERSION}, taken_is_none=True)
        url = answer.get("signed_upload_url")
        if not answer.get("ok") or not isinstance(url, str):
            return False
        self._upload(key, url, source, size)
        done = self._call("FinalizeCacheEntryUpload", {"key": key, "version": _VERSION, "size_bytes": str(size)})
        if not done.get("ok"):
            raise CacheError("the service did not take an upload", where=key)
        return True

    def _upload(self, key: str, url: str, source: BinaryIO, size: int) -> None:
        """Put the bytes where a signed URL says, in blocks when they are many."""
        if size <= _BLOCK_BYTES:
            self._send(key, Request("PUT", url, {"x-ms-blob-type": "BlockBlob"}, source.read(size)), (200, 201))
            return
        names: list[str] = []
        while block := source.read(_BLOCK_BYTES):
            names.append(base64.b64encode(b"%016d" % len(names)).decode())
            self._send(key, Request("PUT", f"{url}&comp=block&blockid={names[-1]}", {}, block), (200, 201))
        items = "".join(f"<Latest>{name}</Latest>" for name in names)
        body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{items}</BlockList>'.encode()
        self._send(key, Request("PUT", f"{url}&comp=blocklist", {"Content-Type": "application/xml"}, body), (200, 201))

    def _read(self, key: str, url: str, offset: int, most: int) -> bytes:
        data = bytearray()

        def take(piece: bytes) -> None:
            data.extend(piece)
            if len(data) > most:
                raise CacheError(f"an entry of more than {most} bytes", where=key)

        self._download(key, url, offset, -1, take)
        return bytes(data)

    def _download(self, key: str, url: str, offset: int, size: int, take: Callable[[bytes], object]) -> None:
        """Hand on `size` bytes from `offset` on, all of them when it is negative; goes on where it was cut."""
        done = 0
        for attempt in range(_UNREACHED):
            try:
                for piece in self._pieces(key, url, offset + done, size - done if size >= 0 else -1):
                    self._cancel.check()
                    take(piece)
                    done += len(piece)
                return
            except TransportError as fault:
                if not fault.retryable or attempt == _UNREACHED - 1:
                    raise CacheError(f"GitHub's cache cannot be reached: {fault.kind}", where=key) from None
            self._cancel.wait(float(attempt))

    def _pieces(self, key: str, url: str, offset: int, size: int) -> Iterator[bytes]:
        if size == 0:
            return
        end = str(offset + size - 1) if size > 0 else ""
        headers = {"Range": f"bytes={offset}-{end}"} if offset or size > 0 else {}
        with self._answer(key, Request("GET", url, headers), (200, 206)) as response:
            left = size
            skip = offset if response.status == 200 else 0
            while left and (piece := response.read_piece()):
                if skip:
                    piece, skip = piece[skip:], max(0, skip - len(piece))
                if size > 0:
                    piece = piece[:left]
                    left -= len(piece)
                if piece:
                    yield piece

    # -- requests

    def _call(self, method: str, ask: dict[str, Any], *, taken_is_none: bool = False) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        request = Request("POST", f"{self._url}{_SERVICE}{method}", headers, json.dumps(ask).encode())
        with self._answer(method, request, (200, 404, 409)) as response:
            if response.status != 200:
                if response.status == 409 and not taken_is_none:
                    raise CacheError(f"the service refused {method}: 409", where=str(ask["key"]))
                return {}
            raw = response.read(_ANSWER_BYTES)
        try:
            return Checked(method).table(json.loads(raw))
        except (ValueError, RecursionError) as error:
            raise CacheError(f"the service's answer to {method} is no JSON") from error

    def _send(self, key: str, request: Request, good: tuple[int, ...]) -> None:
        with self._answer(key, request, good) as response:
            response.read_error(_ANSWER_BYTES)

    def _answer(self, what: str, request: Request, good: tuple[int, ...]) -> Response:
        """Return the answer, asked for again while the service wants to be left alone for a while."""
        wait = 1.0
        for attempt in range(_ATTEMPTS):
            self._cancel.check()
            try:
                response = self._transport.send(request)
            except TransportError as fault:
                if not fault.retryable or attempt == _UNREACHED - 1:
                    raise CacheError(f"GitHub's cache cannot be reached: {fault.kind}", where=what) from None
                after = wait
            else:
                if response.status in good:
                    return response
                status, told = response.status, response.header("Retry-After")
                response.close()
                if (status != 429 and status < 500) or attempt == _ATTEMPTS - 1:
                    raise CacheError(f"GitHub's cache answered {status}", where=what)
                after = float(told) if told.isdecimal() and told.isascii() else wait
            self._cancel.wait(min(after, _LONGEST_WAIT_S))
            wait *= 2
        raise AssertionError("unreachable")


def _number(key: str) -> int:
    """Return the number of an index."""
    number = key.rpartition("#")[2]
    return int(number) if number.isdecimal() and len(number) < 19 else 0


def _parse_where(value: Any) -> dict[str, tuple[str, int]]:
    """Return where each blob lies, out of an index that somebody wrote."""
    checked = Checked("the index of the cache")
    found = {}
    for digest, place in checked.table(value).items():
        key, offset = checked.items(place, 2)
        found[str(checked.digest(digest))] = (checked.text(key, 512), checked.whole(offset, 0, 1 << 40))
    return found
