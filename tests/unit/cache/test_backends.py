"""What every place that keeps caches must do, with real directories and a real registry. D2, D3, D9, L4."""

from __future__ import annotations

import io
import json
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lamina.cache.backend import CacheBackend, CacheError
from lamina.cache.buildkit_config import BUILDKIT_MEDIA_TYPE, buildkit_summary
from lamina.cache.spec import CacheSpec
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import sha256_digest
from lamina.oci.reference import Reference
from lamina.registry.client import Registry
from support.gha import Service
from unit.cache import backends

Make = Callable[[], tuple[CacheSpec, CacheBackend]]
NOW = time.time()


@pytest.fixture(params=["local", "registry", "registry index", "s3", "azblob", "gha"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Open one and the same place, each time anew."""
    if request.param == "local":
        return lambda: backends.local(tmp_path / "cache")
    if request.param == "s3":
        url = request.getfixturevalue("s3")
        return lambda: backends.s3(url)
    if request.param == "azblob":
        url = request.getfixturevalue("azure")
        return lambda: backends.azblob(url)
    if request.param == "gha":
        service = request.getfixturevalue("gha")
        return lambda: backends.gha(service)
    address = request.getfixturevalue("registry")
    extra = ",image-manifest=false" if "index" in request.param else ""
    return lambda: backends.registry(address, extra)


def names(backend: CacheBackend) -> set[str]:
    return {record.description for record in backends.held(backend).records}


def test_nothing_is_there_at_first(make: Make) -> None:
    """Not an error."""
    assert make()[1].load() == []


def test_what_is_put_is_fetched(make: Make) -> None:
    """The same bytes, from the offset that is asked for."""
    backends.export(*make(), "one", NOW)
    _, backend = make()
    blob = backends.held(backend).layers[0].blob
    sink = Sink()
    backend.fetch(blob, sink)

    assert sha256_digest(bytes(sink.data)) == blob.digest


def test_a_blob_that_is_not_there(make: Make) -> None:
    """An error that says so, so that the step is run instead."""
    backends.export(*make(), "one", NOW)
    with pytest.raises(CacheError):
        make()[1].fetch(Descriptor("x", sha256_digest(b"none"), 4), Sink())


def test_one_after_the_other(make: Make) -> None:
    """D9: each export adds to what the others brought."""
    for name in "abcd":
        backends.export(*make(), name, NOW)

    assert names(make()[1]) == set("abcd")


def test_two_at_once_fifty_times(make: Make, request: pytest.FixtureRequest) -> None:
    """L4: two exporters at once never wipe each other, whoever reads, writes and retires first."""
    chance = random.Random(1)
    # the clients of clouds take their time to open
    rounds = 50 if "registry" in str(request.node.name) or "local" in str(request.node.name) else 12
    for number in range(rounds):
        gate = threading.Barrier(2)
        failures: list[BaseException] = []

        def run(
            name: str, wait_s: float, gate: threading.Barrier = gate, failures: list[BaseException] = failures
        ) -> None:
            try:
                spec, backend = make()
                gate.wait()
                time.sleep(wait_s)
                backends.export(spec, backend, name, NOW)
            except BaseException as error:  # shown below
                failures.append(error)

        threads = [
            threading.Thread(target=run, args=(f"{number}{side}", chance.choice([0, 0, 0.005]))) for side in "ab"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert {f"{number}a", f"{number}b"} <= names(make()[1])

    assert len(names(make()[1])) == 2 * rounds


def test_exports_of_the_same_are_written_once(make: Make) -> None:
    """Nothing new: nothing is written."""
    backends.export(*make(), "one", NOW)
    before = [found.token for found in make()[1].load()]
    backends.export(*make(), "one", NOW)

    assert [found.token for found in make()[1].load()] == before


def test_publications_are_tidied_up(registry: str) -> None:
    """The registry keeps one tag for the cache as a whole, beside the user's."""
    for name in "abcdef":
        backends.export(*backends.registry(registry), name, NOW)
    client = _client(backends.registry(registry)[1])
    tags = client.tags(Reference.parse(f"{registry}/app"))

    assert len(tags) == 2 and "cache" in tags


@pytest.mark.parametrize("form", ["", ",image-manifest=false", ",image-manifest=false,oci-mediatypes=false"])
def test_the_users_tag_is_a_cache_for_buildkit(registry: str, form: str) -> None:
    """D2: a manifest (or index) whose config is BuildKit's, with every layer that it speaks of."""
    backends.export(*backends.registry(registry, form), "one", NOW)
    client = _client(backends.registry(registry)[1])
    reference = Reference.parse(f"{registry}/app:cache")
    manifest = json.loads(client.manifest(reference)[1])
    blobs = manifest.get("layers") or manifest["manifests"]
    config = manifest.get("config") or next(blob for blob in blobs if blob["mediaType"] == BUILDKIT_MEDIA_TYPE)
    sink = Sink()
    client.blob(reference, Descriptor.from_json(config), sink)

    assert config["mediaType"] == BUILDKIT_MEDIA_TYPE
    assert buildkit_summary(bytes(sink.data)) == (1, 1)
    assert {entry["blob"] for entry in json.loads(sink.data)["layers"]} <= {blob["digest"] for blob in blobs}


def test_an_ordinary_image_is_no_cache(registry: str) -> None:
    """Its layers are not taken for something else."""
    client = _client(backends.registry(registry)[1])
    reference = Reference.parse(f"{registry}/app:cache")
    config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
    blob = Descriptor("application/vnd.oci.image.config.v1+json", sha256_digest(config), len(config))
    client.push_blob(reference, blob, lambda: io.BytesIO(config))
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}
    manifest |= {"config": blob.to_json(), "layers": []}
    client.push_manifest(reference, str(manifest["mediaType"]), json.dumps(manifest).encode())

    assert backends.registry(registry)[1].load() == []


def test_old_blobs_leave_a_directory(tmp_path: Path) -> None:
    """D3: a local cache does not grow for ever; what was brought within the hour stays, it may be another's."""
    backends.export(*backends.local(tmp_path), "old", NOW)
    for path in (tmp_path / "blobs" / "sha256").iterdir():
        os.utime(path, (1, 1))
    backends.export(*backends.local(tmp_path, ",reset=true"), "new", NOW)

    left = b"".join(path.read_bytes() for path in (tmp_path / "blobs" / "sha256").iterdir())
    assert b"blob of new" in left and b"blob of old" not in left


def test_the_service_may_ask_for_patience(gha: Service) -> None:
    """D4: 429 is waited for, with what Retry-After says."""
    gha.limit = 3
    backends.export(*backends.gha(gha), "one", NOW)

    assert names(backends.gha(gha)[1]) == {"one"}


def test_small_blobs_travel_together(gha: Service) -> None:
    """D4: requests count: one entry for all small blobs of an export, one for the index, none to ask what is there."""
    backends.export(*backends.gha(gha), "one", NOW)

    assert gha.calls.count("CreateCacheEntry") == 2
    assert gha.calls.count("GetCacheEntryDownloadURL") == 1


def test_what_was_evicted_is_an_error(gha: Service) -> None:
    """D4: the engine then runs the step."""
    backends.export(*backends.gha(gha), "one", NOW)
    gha.evict("lamina-pack")
    _, backend = backends.gha(gha)
    with pytest.raises(CacheError, match="evicted"):
        backend.fetch(backends.held(backend).layers[0].blob, Sink())


def test_large_blobs_go_in_blocks(gha: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """D4: Put Block, Put Block List; and come back in ranges."""
    monkeypatch.setattr("lamina.cache.backends.gha._BLOCK_BYTES", 1 << 20)
    data = os.urandom((5 << 20) + 77)
    blob = Descriptor("x", sha256_digest(data), len(data))
    _, backend = backends.gha(gha)
    backend.put(blob, lambda: io.BytesIO(data))
    sink = Sink()
    sink.data += data[:1000]
    backends.gha(gha)[1].fetch(blob, sink)

    assert bytes(sink.data) == data


def test_secrets_are_not_told(gha: Service) -> None:
    """D4: neither the token nor a signed URL stands in a message."""
    spec, backend = backends.gha(gha, ",token=wrong-token")
    with pytest.raises(CacheError) as caught:
        backend.load()

    assert "wrong-token" not in str(caught.value) + spec.origin() + spec.shown()
    assert "secret-signature" not in str(caught.value)


class Sink:
    """Takes a blob into memory."""

    def __init__(self) -> None:
        self.data = bytearray()

    @property
    def offset(self) -> int:
        return len(self.data)

    def write(self, data: bytes, /) -> int:
        self.data += data
        return len(data)

    def restart(self) -> None:
        self.data.clear()


def _client(backend: CacheBackend) -> Registry:
    client = backend._registry  # type: ignore[attr-defined]
    assert isinstance(client, Registry)
    return client
