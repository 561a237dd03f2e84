"""Pushing: nothing is reported as done that the registry did not confirm, and no byte is sent without need."""

from __future__ import annotations

import io
import json
import re
import threading

import pytest

from lamina.cancel import Cancel
from lamina.errors import CancelledError, InputError, StorageError
from lamina.oci.digest import Digest
from lamina.registry.failures import RegistryError
from lamina.registry.options import Timeouts
from lamina.session import Credentials
from unit.registry.fake_registry import PASS, FakeRegistry, Handler, digest_of, hang_up, status
from unit.registry.support import client, descriptor, opener, ref

OCI = "application/vnd.oci.image.manifest.v1+json"
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": OCI, "config": {}, "layers": []}).encode()
BLOB = bytes(range(256)) * 8000


def push(fake: FakeRegistry, mount_from=(), open_blob=None, **options) -> None:
    with client(fake.host, **options) as registry:
        registry.push_blob(ref(fake.host), descriptor(BLOB), open_blob or opener(BLOB), mount_from)


def stored(fake: FakeRegistry) -> bytes | None:
    return fake.blobs.get(("app", digest_of(BLOB)))


def test_blob_goes_in_one_post_and_one_put():
    """HEAD, POST, PUT: the body in one piece."""
    with FakeRegistry() as fake:
        push(fake)

        assert stored(fake) == BLOB
        assert [s.method for s in fake.requests] == ["HEAD", "POST", "PUT"]


def test_existing_blob_is_not_sent():
    """One HEAD finds it."""
    with FakeRegistry() as fake:
        fake.put_blob(BLOB)

        push(fake)

        assert [s.method for s in fake.requests] == ["HEAD"]


def test_blob_is_mounted_from_a_neighbour():
    """201 to a mount: no body at all."""
    with FakeRegistry() as fake:
        fake.put_blob(BLOB, "base/image")

        push(fake, [ref("elsewhere.example", "base/image"), ref(fake.host, "base/image")])

        assert stored(fake) == BLOB
        assert [s.method for s in fake.requests] == ["HEAD", "POST"]
        assert not any(s.body for s in fake.requests)


def test_refused_mount_becomes_the_upload():
    """202 to a mount opens an upload, which is used."""
    with FakeRegistry() as fake:
        push(fake, [ref(fake.host, "base/image")])

        assert stored(fake) == BLOB
        assert [s.method for s in fake.requests] == ["HEAD", "POST", "PUT"]


def test_forbidden_mount_falls_back_to_upload():
    """No right to read the neighbour is no reason to fail."""
    with FakeRegistry() as fake:
        fake.on("POST", "mount=", status(403, "DENIED"))

        push(fake, [ref(fake.host, "base/image")])

        assert stored(fake) == BLOB


def test_token_server_that_refuses_the_mount_scope():
    """The token for two repositories is refused: push with the token for one."""

    def refuse(handler: Handler) -> object:
        return handler.reply(401) if handler.path.count("scope=") > 1 else PASS

    with FakeRegistry(auth="bearer") as fake:
        fake.on("GET", "^/token", refuse)

        push(fake, [ref(fake.host, "base/image")], credentials=Credentials(fake.user, fake.password))

        assert stored(fake) == BLOB


def test_cut_upload_is_resumed_from_where_the_registry_stands():
    """After a cut the registry says how much it holds; only the rest goes over the wire again."""

    def cut(handler: Handler) -> None:
        session = re.search(r"uploads/(s\d+)", handler.path)
        assert session is not None
        handler.fake.uploads[session[1]] += handler.rfile.read(100_000)
        handler.hang_up()

    with FakeRegistry() as fake:
        fake.on("PUT", "uploads", cut, times=1)

        push(fake)

        assert stored(fake) == BLOB
        (patch,) = fake.seen("PATCH")
        assert patch.headers["content-range"] == f"100000-{len(BLOB) - 1}"
        assert len(patch.body) == len(BLOB) - 100_000


def test_cut_upload_starts_over_where_it_cannot_be_resumed():
    """A registry that does not say how much it holds gets everything again."""
    with FakeRegistry() as fake:
        fake.on("PUT", "uploads", hang_up, times=1)
        fake.on("GET", "uploads", status(404))

        push(fake)

        assert stored(fake) == BLOB


def test_answer_lost_after_the_upload():
    """The registry has it, only the answer was cut off: found by HEAD, not sent again."""

    def store_then_hang_up(handler: Handler) -> None:
        handler.body()
        handler.fake.put_blob(BLOB)
        handler.hang_up()

    with FakeRegistry() as fake:
        fake.on("PUT", "uploads", store_then_hang_up)

        push(fake)

        assert len(fake.seen("PUT")) == 1


@pytest.mark.parametrize(
    ("code", "error"), [(404, "BLOB_UPLOAD_UNKNOWN"), (416, "RANGE_INVALID"), (400, "DIGEST_INVALID")]
)
def test_lost_upload_starts_over_once(code, error):
    """Session lost, or bytes damaged on the way: one more upload, not more."""
    with FakeRegistry() as fake:
        fake.on("PUT", "uploads", status(code, error), times=1)
        push(fake)
        assert stored(fake) == BLOB

    with FakeRegistry() as fake:
        fake.on("PUT", "uploads", status(code, error, "gone again"))
        with pytest.raises(RegistryError, match="gone again"):
            push(fake)
        assert len(fake.seen("PUT")) == 2


def test_upload_refused_with_words():
    """403 at the start of an upload: the registry's words and a hint."""
    with FakeRegistry() as fake:
        fake.on("POST", "uploads", status(403, "DENIED", "quota exceeded"))

        with pytest.raises(RegistryError, match="quota exceeded") as caught:
            push(fake)

    assert caught.value.kind == "denied" and f"docker login {fake.host}" in caught.value.hint


@pytest.mark.parametrize("location", ["", "file:///etc/passwd", "http://u:p@h/x", "gopher://x/"])
def test_upload_without_a_sensible_location(location):
    """202 without Location, or with one that is no http URL."""
    with FakeRegistry() as fake:
        fake.on("POST", "uploads", lambda h: (h.body(), h.reply(202, **({"Location": location} if location else {}))))

        with pytest.raises(RegistryError, match="did not say where"):
            push(fake)


def test_upload_to_another_host_carries_no_credentials():
    """Storage on another host gets the bytes and never the Authorization."""
    with FakeRegistry(auth="basic") as fake, FakeRegistry() as storage:
        storage.uploads["s9"] = bytearray()
        location = f"http://{storage.host}/v2/app/blobs/uploads/s9?sig=a%2Fb"

        def send_away(handler: Handler) -> object:
            if not handler.seen.authorization:
                return PASS
            handler.body()
            fake.put_blob(BLOB)
            return handler.reply(202, Location=location)

        fake.on("POST", "uploads", send_away)
        fake.on("HEAD", "blobs", status(404))

        push(fake, credentials=Credentials(fake.user, fake.password))

        (put,) = storage.requests
        assert put.authorization == "" and "sig=a%2Fb&digest=sha256%3A" in put.path


def test_registry_that_stops_reading_is_left():
    """An upload that nobody takes ends by the idle time, not by the (other) time to connect."""
    blocked = threading.Event()
    with FakeRegistry() as fake:
        fake.on("PUT", "uploads", lambda _handler: blocked.wait(20))
        try:
            with client(fake.host, timeouts=Timeouts(connect_s=600, idle_s=0.05)) as registry:
                data = bytes(32 << 20)
                with pytest.raises(RegistryError) as caught:
                    registry.push_blob(ref(fake.host), descriptor(data), opener(data))
        finally:
            blocked.set()

    assert caught.value.kind == "timeout", str(caught.value)


def test_unconfirmed_blob_is_not_a_success():
    """201 without the digest echoed: a HEAD must find it, or the push failed."""
    with FakeRegistry() as fake:
        fake.on("PUT", "uploads", lambda h: (h.body(), h.reply(201)))

        with pytest.raises(RegistryError, match="does not have the blob"):
            push(fake)


def test_wrong_echo_is_not_a_success():
    """The registry names another digest than was sent."""
    with FakeRegistry() as fake:
        fake.on("PUT", "uploads", lambda h: (h.body(), h.reply(201, Docker_Content_Digest=digest_of(b"x"))))

        with pytest.raises(RegistryError, match="stored something else"):
            push(fake)


def test_short_file_is_our_own_fault():
    """A store whose blob is shorter than its descriptor is told as such, not as a network error."""
    with FakeRegistry() as fake, pytest.raises(StorageError, match="its descriptor says"):
        push(fake, open_blob=lambda: io.BytesIO(BLOB[:1000]))


def test_cancel_during_upload():
    """The body stops at the next piece."""
    cancel = Cancel()
    with FakeRegistry() as fake, pytest.raises(CancelledError):
        push(fake, cancel=cancel, progress=lambda _digest, _now, _all: cancel.cancel())


def test_bytes_after_the_promised_size_are_not_sent():
    """A file that grew sends what its descriptor says."""
    with FakeRegistry() as fake:
        push(fake, open_blob=opener(BLOB + b"more"))

        assert stored(fake) == BLOB


def test_forbidden_head_is_asked_again_for_its_words():
    """A 403 to HEAD has no body; the GET's words are shown."""
    with FakeRegistry() as fake:
        fake.on("GET", "blobs", status(403, "DENIED", "requested access is denied"))
        fake.on("HEAD", "blobs", lambda h: h.reply(403))

        with pytest.raises(RegistryError, match="requested access is denied"):
            push(fake)


def test_manifest_is_confirmed_by_digest():
    """The digest is echoed, or the manifest is read back; anything else is a failure."""
    with FakeRegistry() as fake, client(fake.host) as registry:
        assert registry.push_manifest(ref(fake.host), OCI, MANIFEST) == digest_of(MANIFEST)

        def silently(handler: Handler) -> None:
            fake.put_manifest(handler.body(), "quiet")
            handler.reply(201)

        fake.on("PUT", "manifests/quiet", silently)
        assert registry.push_manifest(ref(fake.host, "app:quiet"), OCI, MANIFEST) == digest_of(MANIFEST)

        fake.on("PUT", "manifests/lost", lambda h: (h.body(), h.reply(201)))
        with pytest.raises(RegistryError, match="stored another manifest"):
            registry.push_manifest(ref(fake.host, "app:lost"), OCI, MANIFEST)

        fake.on("PUT", "manifests/other", lambda h: (h.body(), h.reply(201, Docker_Content_Digest=digest_of(b"x"))))
        with pytest.raises(RegistryError, match="stored another manifest"):
            registry.push_manifest(ref(fake.host, "app:other"), OCI, MANIFEST)


def test_immutable_tag_is_told():
    """409: the tag cannot be moved."""
    with FakeRegistry() as fake, client(fake.host) as registry:
        fake.on("PUT", "manifests", status(409, "TAG_INVALID", "tag is immutable"))

        with pytest.raises(RegistryError, match="tag is immutable") as caught:
            registry.push_manifest(ref(fake.host), OCI, MANIFEST)

    assert caught.value.kind == "conflict"


def test_manifest_by_digest_only():
    """Without a tag it is put under its digest; under another's digest it is refused here."""
    with FakeRegistry() as fake, client(fake.host) as registry:
        registry.push_manifest(ref(fake.host, f"app@{digest_of(MANIFEST)}"), OCI, MANIFEST)
        assert fake.seen("PUT")[0].path.endswith(digest_of(MANIFEST))

        with pytest.raises(InputError):
            registry.push_manifest(ref(fake.host).with_digest(Digest(digest_of(b"x"))), OCI, MANIFEST)


def test_manifest_push_survives_a_restart_of_the_registry():
    """503 and cut connections are tried again."""
    with FakeRegistry() as fake, client(fake.host) as registry:
        fake.on("PUT", "manifests", status(503), times=1)
        fake.on("PUT", "manifests", hang_up, times=1)

        registry.push_manifest(ref(fake.host), OCI, MANIFEST)

        assert fake.manifests["app", "1"] == (OCI, MANIFEST)
