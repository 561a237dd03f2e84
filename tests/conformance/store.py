"""What every store must do, as tests over a factory.

A driver's test module derives a class from `StoreSuite` and gives it a fixture `store` that returns an empty store.
"""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from lamina.errors import StorageError
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest, sha256_digest
from lamina.oci.manifest import dump_index, dump_manifest
from lamina.oci.media_types import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST

DATA = b"some bytes of a layer\n" * 1000


def describe(data: bytes, media_type: str = OCI_LAYER, algorithm: str = "sha256") -> Descriptor:
    """Return the true descriptor of `data`."""
    return Descriptor(media_type, Digest(f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"), len(data))


def add_image(store: Any, content: bytes = DATA) -> Descriptor:
    """Put a small image whose only layer is `content` (not a tar, the store must not care) into the store."""
    layer = describe(content)
    with store.ingest(layer) as ingest:
        ingest.write(content)
        ingest.commit()
    config, _ = store.add(b'{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}')
    manifest = dump_manifest(Descriptor(OCI_CONFIG, config, store.size(config)), [layer])
    digest, size = store.add(manifest)
    return Descriptor(OCI_MANIFEST, digest, size)


class StoreSuite:
    """The contract of `lamina.store.Store`."""

    def test_what_was_committed_is_read_back_under_its_digest(self, store: Any) -> None:
        with store.ingest() as ingest:
            for start in range(0, len(DATA), 999):
                ingest.write(DATA[start : start + 999])
            committed = ingest.commit()

        assert committed == (sha256_digest(DATA), len(DATA))
        assert store.has(committed[0])
        assert store.size(committed[0]) == len(DATA)
        assert store.read(committed[0]) == DATA
        with store.open(committed[0]) as file:
            assert file.read() == DATA

    def test_nothing_is_visible_before_commit(self, store: Any) -> None:
        with store.ingest(describe(DATA)) as ingest:
            ingest.write(DATA)

            assert not store.has(sha256_digest(DATA))
            assert list(store.digests()) == []

    def test_leaving_without_commit_leaves_nothing(self, store: Any) -> None:
        with store.ingest() as ingest:
            ingest.write(DATA)

        assert not store.has(sha256_digest(DATA))
        assert store.leftovers() == []

    @pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
    def test_the_expected_algorithm_names_the_blob(self, store: Any, algorithm: str) -> None:
        expected = describe(DATA, algorithm=algorithm)

        with store.ingest(expected) as ingest:
            ingest.write(DATA)
            digest, _ = ingest.commit()

        assert digest == expected.digest
        assert store.read(digest) == DATA

    def test_a_wrong_digest_is_refused_and_nothing_kept(self, store: Any) -> None:
        expected = describe(DATA)
        with store.ingest(expected, "transfer 1") as ingest:
            ingest.write(b"x" * len(DATA))
            with pytest.raises(StorageError, match="digest"):
                ingest.commit()

        assert not store.has(expected.digest)
        assert store.leftovers() == []

    def test_a_byte_too_few_is_refused(self, store: Any) -> None:
        expected = describe(DATA)
        with store.ingest(expected) as ingest:
            ingest.write(DATA[:-1])
            with pytest.raises(StorageError, match=f"{len(DATA) - 1} bytes"):
                ingest.commit()

        assert not store.has(expected.digest)

    def test_never_more_bytes_are_taken_than_promised(self, store: Any) -> None:
        with store.ingest(describe(DATA)) as ingest:
            ingest.write(DATA)
            with pytest.raises(StorageError, match="more than"):
                ingest.write(b"!")

        assert store.leftovers() == []

    def test_restart_begins_again(self, store: Any) -> None:
        with store.ingest(describe(DATA)) as ingest:
            ingest.write(b"rubbish")
            ingest.restart()
            assert ingest.offset == 0
            ingest.write(DATA)
            ingest.commit()

        assert store.read(sha256_digest(DATA)) == DATA

    def test_an_interrupted_transfer_is_continued(self, store: Any) -> None:
        with store.ingest(describe(DATA), "host/repository") as ingest:
            ingest.write(DATA[:5000])

        with store.ingest(describe(DATA), "host/repository") as ingest:
            assert ingest.offset == 5000
            ingest.write(DATA[5000:])
            ingest.commit()

        assert store.read(sha256_digest(DATA)) == DATA
        assert store.leftovers() == []

    def test_two_writers_of_one_transfer_do_not_meet(self, store: Any) -> None:
        first, second = store.ingest(describe(DATA), "k"), store.ingest(describe(DATA), "k")
        with first, second:
            first.write(DATA[:10])
            second.write(DATA)
            first.write(DATA[10:])

            assert first.commit() == second.commit()

        assert store.read(sha256_digest(DATA)) == DATA

    def test_committing_again_heals_a_damaged_blob(self, store: Any) -> None:
        digest, _ = store.add(DATA)
        store.path(digest).write_bytes(b"x" * len(DATA))

        with store.ingest() as ingest:
            ingest.write(DATA)
            ingest.commit()

        assert store.read(digest) == DATA

    def test_reading_verifies(self, store: Any) -> None:
        digest, _ = store.add(DATA)
        store.path(digest).write_bytes(b"x" * len(DATA))

        with pytest.raises(StorageError, match="digest"):
            store.read(digest)

    def test_reading_is_capped(self, store: Any) -> None:
        digest, size = store.add(DATA)

        with pytest.raises(StorageError, match="allowed"):
            store.read(digest, max_bytes=size - 1)

    def test_a_missing_blob_is_an_error_of_its_own(self, store: Any) -> None:
        with pytest.raises(StorageError, match="no such blob"):
            store.open(sha256_digest(b"?"))
        with pytest.raises(StorageError, match="no such blob"):
            store.size(sha256_digest(b"?"))

    def test_delete_is_idempotent(self, store: Any) -> None:
        digest, _ = store.add(DATA)

        assert store.delete(digest) is True
        assert store.delete(digest) is False
        assert not store.has(digest)

    def test_names_are_set_moved_and_removed(self, store: Any) -> None:
        first, second = add_image(store, b"1"), add_image(store, b"2")

        assert store.tag("docker.io/library/app:latest", first)
        assert not store.tag("docker.io/library/app:latest", first), "nothing changed"
        assert store.tag("docker.io/library/app:latest", second)

        assert store.resolve("app").digest == second.digest
        assert [image.name for image in store.images()] == ["docker.io/library/app:latest"]
        assert store.untag("docker.io/library/app:latest") is True
        assert store.untag("docker.io/library/app:latest") is False
        assert store.resolve("app") is None

    def test_an_image_has_as_many_names_as_one_likes(self, store: Any) -> None:
        image = add_image(store)
        for name in ("docker.io/library/a:1", "reg.example/b:2"):
            store.tag(name, image)

        store.untag("docker.io/library/a:1")

        assert store.resolve("reg.example/b:2").digest == image.digest

    def test_an_image_is_found_by_digest_and_id(self, store: Any) -> None:
        image = add_image(store)
        store.tag("docker.io/library/app:latest", image)
        config = sha256_digest(b'{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}')

        assert store.resolve(f"app@{image.digest}").digest == image.digest
        assert store.resolve(f"app@{sha256_digest(b'other')}") is None
        assert [found.descriptor.digest for found in store.resolve_id(config.hex[:12])] == [image.digest]
        assert [found.descriptor.digest for found in store.resolve_id(str(image.digest))] == [image.digest]
        assert store.resolve_id("abc") == [], "too short to mean an image"

    def test_what_loses_its_name_can_be_kept_without_one(self, store: Any) -> None:
        first, second = add_image(store, b"1"), add_image(store, b"2")
        store.tag("docker.io/library/app:latest", first)
        store.tag("docker.io/library/app:latest", second, keep_dangling=True)

        assert {(i.name, i.descriptor.digest) for i in store.images()} == {
            ("", first.digest),
            ("docker.io/library/app:latest", second.digest),
        }
        store.tag("docker.io/library/old:latest", first)
        assert "" not in {image.name for image in store.images()}, "it has a name again"

    def test_an_image_of_which_something_is_missing_gets_no_name(self, store: Any) -> None:
        image = add_image(store)
        store.delete(sha256_digest(DATA))

        with pytest.raises(StorageError, match="missing"):
            store.tag("docker.io/library/app:latest", image)

        assert store.images() == []

    def test_a_sound_store_checks_clean(self, store: Any) -> None:
        image = add_image(store)
        index = dump_index([image])
        digest, size = store.add(index)
        store.tag("docker.io/library/app:latest", Descriptor(OCI_INDEX, digest, size))

        assert store.check(full=True) == []
