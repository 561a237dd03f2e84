"""The distribution client: what the rest of Lamina asks of a registry. Network by way of `exchange.py`.

In come references and descriptors; out come descriptors, manifests as the bytes that arrived, blobs into an
ingest. Source: distribution-spec 1.1. Must not know what is in a manifest, nor keep anything on disk.
Invariants: a manifest is returned only if its bytes have the digest that was asked for or announced; a push is
reported as done only when the registry confirmed the digest. All methods may be called from several threads.

    with Registry(RegistryOptions(), load_credentials(home / ".docker", path), cancel) as registry:
        descriptor, raw = registry.manifest(Reference.parse("alpine"))
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import BinaryIO, TypeVar

from lamina.cancel import Cancel
from lamina.errors import Error, InputError
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest, sha256_digest
from lamina.oci.manifest import parse_index
from lamina.oci.media_types import OCI_INDEX
from lamina.oci.reference import Reference
from lamina.registry.auth import CredentialSource, Scope
from lamina.registry.download import BlobSink, Download, Progress
from lamina.registry.endpoint import Endpoint, own_endpoint, pull_endpoints
from lamina.registry.exchange import Exchange
from lamina.registry.failures import RegistryError
from lamina.registry.http import Response
from lamina.registry.options import RegistryOptions
from lamina.registry.trust import origin_of
from lamina.registry.upload import Upload, has_blob
from lamina.registry.wire import (
    ACCEPT_MANIFEST,
    MAX_MANIFEST,
    blob_path,
    join_location,
    manifest_path,
    media_type_of,
    parse_next_link,
    tags_path,
    with_query,
)

MAX_PAGES = 1000
"""Most pages of a list of tags."""

T = TypeVar("T")


class Registry:
    """Talks to registries. Thread-safe; close it (it is a context manager) to close its connections.

    Args:
        options: mirrors, trust, time limits.
        credentials: returns what opens the registry of exactly that name, or None.
        cancel: stops every call, closing what it blocks on.
        progress: is told (digest, bytes so far, bytes in all) while blobs move, from the thread that moves them.
        sent: as `progress`, for blobs that go to the registry; None for the same.
        notify: is told in one line why something waits (retries, rate limits).
    """

    def __init__(
        self,
        options: RegistryOptions,
        credentials: CredentialSource,
        cancel: Cancel,
        progress: Progress | None = None,
        notify: Callable[[str], None] | None = None,
        sent: Progress | None = None,
    ) -> None:
        self._options = options
        self._progress, self._sent = progress, sent or progress
        self._exchange = Exchange(options, credentials, cancel, notify)

    def close(self) -> None:
        """Close all connections; idempotent."""
        self._exchange.close()

    def __enter__(self) -> Registry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def resolve(self, ref: Reference) -> Descriptor:
        """Return the descriptor of the manifest or index that `ref` names now.

        One HEAD where the registry answers it fully, else a GET.

        Raises:
            RegistryError: not there, not allowed, not reachable, or an answer that must not be.
        """
        return self._from_any(ref, lambda endpoint: self._resolve(endpoint, ref))

    def manifest(self, ref: Reference) -> tuple[Descriptor, bytes]:
        """Return a manifest or index, at most 4 MiB, and its descriptor; the bytes have the descriptor's digest.

        Raises:
            RegistryError: as for `resolve`; or the bytes are not what `ref` or the registry's header says.
        """
        return self._from_any(ref, lambda endpoint: self._manifest(endpoint, ref))

    def referrers(self, ref: Reference) -> tuple[Descriptor, ...]:
        """Return what says of itself that it is about the manifest that `ref` names by digest.

        Asked by the registry's list, or where it has none by the tag that stands for it.

        Raises:
            RegistryError: as for `resolve`; or the list is none. That there is none is no error.
        """
        return self._from_any(ref, lambda endpoint: self._referrers(endpoint, ref))

    def blob(self, ref: Reference, descriptor: Descriptor, ingest: BlobSink) -> None:
        """Write a blob into `ingest`, from its `offset` on; the ingest verifies the digest when it commits.

        May be called for several blobs at once; at most `connections_per_host` move at a time.

        Raises:
            RegistryError: as for `resolve`; or more or fewer bytes than the descriptor's size.
        """

        def fetch(endpoint: Endpoint) -> None:
            with self._exchange.seat(endpoint):
                try:
                    Download(self._exchange, endpoint, ref, descriptor, ingest, self._progress).run()
                except RegistryError:
                    # What a failing mirror sent was never checked, so the next place does not build on it.
                    if endpoint.mirror and ingest.offset:
                        ingest.restart()
                    raise

        self._from_any(ref, fetch)

    def blob_size(self, ref: Reference, digest: Digest) -> int:
        """Return how many bytes a blob of `ref`'s repository has, as the registry or a mirror says.

        Raises:
            RegistryError: as for `resolve`; or it does not say.
        """

        def ask(endpoint: Endpoint) -> int:
            repository = endpoint.repository(ref)
            what = f"look for blob {digest} in {_name(ref)}"
            response = self._exchange.once(endpoint, "HEAD", blob_path(repository, digest), [Scope(repository)])
            if response.status != 200:
                raise self._exchange.failure(response, endpoint, what, _name(ref))
            with response:
                size = response.content_length()
            if size is None:
                raise RegistryError("it does not say how long the blob is", kind="protocol", where=what)
            return size

        return self._from_any(ref, ask)

    def has_blob(self, ref: Reference, digest: Digest) -> bool:
        """Tell whether the registry itself (not a mirror) has a blob in `ref`'s repository."""
        endpoint = own_endpoint(ref.registry, self._options)
        scope = Scope(ref.repository)
        return self._exchange.patiently(endpoint, lambda: has_blob(self._exchange, endpoint, ref, digest, scope))

    def push_blob(
        self,
        ref: Reference,
        descriptor: Descriptor,
        open: Callable[[], BinaryIO],  # noqa: A002 - the contract's name
        mount_from: Sequence[Reference] = (),
    ) -> None:
        """Bring a blob into `ref`'s repository; does nothing when it is there.

        Args:
            ref: names registry and repository.
            descriptor: digest and size of the blob.
            open: opens the blob's bytes for reading; seekable; may be called more than once; closed here.
            mount_from: repositories that may have the blob; those on the same registry are asked to lend it.

        Raises:
            RegistryError: refused, or not confirmed by the registry.
            StorageError: the opened bytes are fewer than the descriptor says.
        """
        endpoint = own_endpoint(ref.registry, self._options)
        with self._exchange.seat(endpoint):
            Upload(self._exchange, endpoint, ref, descriptor, open, self._sent).run(mount_from)

    def push_manifest(self, ref: Reference, media_type: str, raw: bytes) -> Digest:
        """Put a manifest or index under `ref`'s tag (or under its digest when there is no tag); return its digest.

        What it names must be there before.

        Raises:
            RegistryError: refused, or the registry stored something else.
            InputError: `ref` is pinned to another digest than `raw` has.
        """
        digest = sha256_digest(raw)
        if ref.digest is not None and ref.digest != _digest_like(ref.digest, raw):
            raise InputError(f"the manifest has digest {digest}, the reference asks for {ref.digest}", where=str(ref))
        endpoint = own_endpoint(ref.registry, self._options)
        return self._exchange.patiently(endpoint, lambda: self._push_manifest(endpoint, ref, media_type, raw, digest))

    def delete_manifest(self, ref: Reference) -> bool:
        """Remove the manifest that `ref` is pinned to, with all its tags; return False where that is not offered.

        Raises:
            RegistryError: not reachable, or it failed.
        """
        assert ref.digest is not None
        endpoint = own_endpoint(ref.registry, self._options)
        path, scope = manifest_path(ref.repository, ref.digest), Scope(ref.repository, "delete,pull,push")

        def ask() -> bool:
            with self._exchange.once(endpoint, "DELETE", path, [scope]) as response:
                response.read_error(1 << 16)
                return response.status in (200, 202, 204, 404)

        return self._exchange.patiently(endpoint, ask)

    def check_login(self, registry: str) -> None:
        """Return if the registry lets in whoever has these credentials (distribution-spec, "Determining Support").

        Raises:
            RegistryError: it does not, or cannot be asked.
        """
        endpoint = own_endpoint(registry, self._options)

        def ask() -> None:
            response = self._exchange.once(endpoint, "GET", "/v2/", [])
            if response.status != 200:
                raise self._exchange.failure(response, endpoint, "cannot log in")
            with response:
                response.read_error(MAX_MANIFEST)

        self._exchange.patiently(endpoint, ask)

    def tags(self, ref: Reference, *, prefix: str = "") -> list[str]:
        """Return the tags of `ref`'s repository that begin with `prefix`, in the registry's order.

        Only the pages that can hold them are asked for, where the registry lists in order (distribution-spec,
        "Listing Tags": `last`); one that does not is read whole.

        Raises:
            RegistryError: as for `resolve`; or more than `MAX_PAGES` pages.
        """
        endpoint = own_endpoint(ref.registry, self._options)
        found: list[str] = []
        first = tags_path(ref.repository)
        target: str | None = with_query(first, last=prefix) if prefix else first
        for _ in range(MAX_PAGES):
            if target is None:
                return found
            page = target
            names, target = self._exchange.patiently(endpoint, lambda page=page: self._tags(endpoint, ref, page))  # type: ignore[misc]
            found += [name for name in names if name.startswith(prefix)]
            if prefix and names and names == sorted(names) and names[-1] > prefix and not names[-1].startswith(prefix):
                return found
        raise RegistryError(f"more than {MAX_PAGES} pages of tags", kind="protocol", where=_name(ref))

    def _from_any(self, ref: Reference, pull: Callable[[Endpoint], T]) -> T:
        """Return what the first endpoint gives that can: mirrors, then the registry; raise the last one's error."""
        endpoints = pull_endpoints(ref.registry, self._options)
        for endpoint in endpoints[:-1]:
            try:
                return self._exchange.patiently(endpoint, lambda endpoint=endpoint: pull(endpoint))  # type: ignore[misc]
            except RegistryError:
                # Whatever ails a mirror (it lacks the image, lies, is down), the next place may do better.
                continue
        return self._exchange.patiently(endpoints[-1], lambda: pull(endpoints[-1]))

    def _resolve(self, endpoint: Endpoint, ref: Reference) -> Descriptor:
        """Ask one endpoint, by HEAD; anything incomplete or odd about the answer is settled by GET."""
        repository = endpoint.repository(ref)
        path = manifest_path(repository, ref.digest or ref.tag)
        response = self._exchange.once(endpoint, "HEAD", path, [Scope(repository)], headers={"Accept": ACCEPT_MANIFEST})
        with response:
            if response.status == 200 and (descriptor := _descriptor_of_head(response, ref)) is not None:
                return descriptor
        return self._manifest(endpoint, ref)[0]

    def _manifest(self, endpoint: Endpoint, ref: Reference) -> tuple[Descriptor, bytes]:
        """Get a manifest from one endpoint and check its digest and media type."""
        repository = endpoint.repository(ref)
        path = manifest_path(repository, ref.digest or ref.tag)
        response = self._exchange.once(endpoint, "GET", path, [Scope(repository)], headers={"Accept": ACCEPT_MANIFEST})
        if response.status != 200:
            raise self._exchange.failure(response, endpoint, f"pull {ref}", _name(ref))
        with response:
            raw = response.read(MAX_MANIFEST, what="the manifest")
        expected = ref.digest or _announced_digest(response)
        digest = _digest_like(expected, raw) if expected is not None else sha256_digest(raw)
        if expected is not None and digest != expected:
            hint = "the registry, a mirror or a proxy changed it: pull again"
            what = f"the manifest has digest {digest}, expected {expected}"
            raise RegistryError(what, kind="digest", where=f"{endpoint.registry}: {ref}", hint=hint)
        media_type, fault = media_type_of(raw, response.header("Content-Type"))
        if fault:
            raise RegistryError(f"unusable manifest: {fault}", kind="protocol", where=f"{endpoint.registry}: {ref}")
        return Descriptor(media_type, digest, len(raw)), raw

    def _referrers(self, endpoint: Endpoint, ref: Reference) -> tuple[Descriptor, ...]:
        assert ref.digest is not None
        repository = endpoint.repository(ref)
        tag = f"{ref.digest.algorithm}-{ref.digest.hex}"
        for path in (f"/v2/{repository}/referrers/{ref.digest}", manifest_path(repository, tag)):
            response = self._exchange.once(endpoint, "GET", path, [Scope(repository)], headers={"Accept": OCI_INDEX})
            if response.status == 404:
                response.close()
                continue
            if response.status != 200:
                raise self._exchange.failure(response, endpoint, f"list what refers to {ref}", _name(ref))
            with response:
                raw = response.read(MAX_MANIFEST, what="the list of referrers")
            try:
                return parse_index(raw, OCI_INDEX, _name(ref)).manifests
            except InputError as error:
                what = f"its list of referrers is none: {error.what}"
                raise RegistryError(what, kind="protocol", where=_name(ref)) from error
        return ()

    def _push_manifest(self, endpoint: Endpoint, ref: Reference, media_type: str, raw: bytes, digest: Digest) -> Digest:
        """Put a manifest once and make sure that it arrived."""
        path = manifest_path(ref.repository, ref.tag or ref.digest or digest)
        scopes = [Scope(ref.repository, "pull,push")]
        headers = {"Content-Type": media_type, "Content-Length": str(len(raw))}
        response = self._exchange.once(
            endpoint,
            "PUT",
            path,
            scopes,
            headers=headers,
            body=lambda: raw,
            idle_s=self._options.timeouts.commit_s,
        )
        if response.status not in (200, 201, 202, 204):
            raise self._exchange.failure(response, endpoint, f"push {ref}", _name(ref))
        with response:
            response.read_error(1 << 16)
            stored = _announced_digest(response)
        if stored is None:
            # Not said, so asked for: what is under that name now must be what we sent.
            with self._exchange.once(endpoint, "GET", path, scopes, headers={"Accept": ACCEPT_MANIFEST}) as check:
                body = check.read(MAX_MANIFEST, what="the manifest") if check.status == 200 else b""
                stored = sha256_digest(body)
        if stored != _digest_like(stored, raw):
            what = f"the registry stored another manifest: {stored}, sent was {digest}"
            raise RegistryError(what, kind="digest", where=str(ref), hint="somebody may have pushed at the same time")
        return digest

    def _tags(self, endpoint: Endpoint, ref: Reference, target: str) -> tuple[list[str], str | None]:
        """Return one page of tags and the next page's URL; pages stay on the registry's own origin."""
        response = self._exchange.once(endpoint, "GET", target, [Scope(ref.repository)])
        if response.status != 200:
            raise self._exchange.failure(response, endpoint, f"list the tags of {_name(ref)}", _name(ref))
        with response:
            raw = response.read(MAX_MANIFEST, what="the list of tags")
        try:
            document = json.loads(raw)
            names = document.get("tags") or []
        except (ValueError, RecursionError, AttributeError) as error:
            raise RegistryError("its list of tags is not JSON", kind="protocol", where=_name(ref)) from error
        link = parse_next_link(response.header("Link"))
        target_url = join_location(response.url, link) if link else None
        if target_url is not None and origin_of(target_url) != origin_of(response.url):
            raise RegistryError("its list of tags goes on at another host", kind="protocol", where=_name(ref))
        return [name for name in names if isinstance(name, str)] if isinstance(names, list) else [], target_url


def _name(ref: Reference) -> str:
    """Return `registry/repository`."""
    return f"{ref.registry}/{ref.repository}"


def _announced_digest(response: Response) -> Digest | None:
    """Return the valid digest in `Docker-Content-Digest`, or None."""
    try:
        return Digest(response.header("Docker-Content-Digest"))
    except Error:
        return None


def _digest_like(other: Digest, raw: bytes) -> Digest:
    """Return the digest of `raw` by the same algorithm as `other`."""
    return Digest(f"{other.algorithm}:{hashlib.new(other.algorithm, raw).hexdigest()}")


def _descriptor_of_head(response: Response, ref: Reference) -> Descriptor | None:
    """Return the descriptor that a HEAD's headers make, None when they do not make one that can be relied on."""
    announced = _announced_digest(response)
    size = response.content_length()
    media_type = response.header("Content-Type").partition(";")[0].strip()
    if announced is None or not size or size > MAX_MANIFEST or (ref.digest is not None and announced != ref.digest):
        return None
    if media_type not in ACCEPT_MANIFEST:
        return None
    return Descriptor(media_type, announced, size)
