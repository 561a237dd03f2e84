"""Pulling: manifests are what was asked for, blobs arrive whole however the network behaves."""

from __future__ import annotations

import gzip
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lamina.cancel import Cancel
from lamina.errors import CancelledError
from lamina.oci.digest import Digest
from lamina.oci.reference import Reference
from lamina.registry.failures import RegistryError
from lamina.registry.options import Timeouts
from unit.registry.fake_registry import PASS, FakeRegistry, Handler, cut_after, digest_of, hang_up, status
from unit.registry.support import Sink, client, descriptor, opener, ref

OCI = "application/vnd.oci.image.manifest.v1+json"
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": OCI, "config": {}, "layers": []}).encode()
BLOB = bytes(range(256)) * 5000


def fetch(fake: FakeRegistry, data: bytes = BLOB, sink: Sink | None = None, size: int | None = None, **options):
    sink = sink or Sink()
    with client(fake.host, **options) as registry:
        registry.blob(ref(fake.host), descriptor(data, size), sink)
    return sink


def test_resolve_takes_one_head():
    """A tag costs one request without a body."""
    with FakeRegistry() as fake, client(fake.host) as registry:
        digest = fake.put_manifest(MANIFEST)

        found = registry.resolve(ref(fake.host))

        assert (found.digest, found.size, found.media_type) == (digest, len(MANIFEST), OCI)
        assert [(s.method, s.path) for s in fake.requests] == [("HEAD", "/v2/app/manifests/1")]


@pytest.mark.parametrize(
    "answer",
    [
        lambda h: h.reply(404),
        lambda h: h.reply(405),
        lambda h: h.reply(403),
        lambda h: h.reply(200, Content_Type=OCI, Content_Length="10"),
        lambda h: h.reply(200, Content_Type=OCI, Docker_Content_Digest="sha256:zz", Content_Length="10"),
        lambda h: h.reply(200, Content_Type="text/html", Docker_Content_Digest=digest_of(b"x"), Content_Length="1"),
    ],
)
def test_resolve_falls_back_to_get(answer):
    """A HEAD that fails or says too little is settled by a GET."""
    with FakeRegistry() as fake, client(fake.host) as registry:
        digest = fake.put_manifest(MANIFEST)
        fake.on("HEAD", "manifests", answer)

        assert registry.resolve(ref(fake.host)).digest == digest


def test_manifest_bytes_are_kept_exactly():
    """Bytes come first: spaces and unknown fields survive."""
    raw = MANIFEST.replace(b"{", b"{ \n", 1)
    with FakeRegistry() as fake, client(fake.host) as registry:
        digest = fake.put_manifest(raw)

        found, body = registry.manifest(ref(fake.host))

        assert (body, found.digest, found.size) == (raw, digest, len(raw))


@pytest.mark.parametrize(
    ("headers", "raw", "kind"),
    [
        ({"Docker_Content_Digest": digest_of(b"other")}, MANIFEST, "digest"),
        ({"Content_Type": "application/vnd.oci.image.index.v1+json"}, MANIFEST, "protocol"),
        ({"Content_Type": "application/vnd.docker.distribution.manifest.v1+prettyjws"}, b"{}", "protocol"),
        ({}, b'{"schemaVersion": 1}', "protocol"),
        ({}, b'{"manifests": [], "layers": []}', "protocol"),
        ({}, b"<html>", "protocol"),
        ({}, b"[" * 100_000, "protocol"),
        ({}, b"x" * (4 << 20) + b"x", "protocol"),
    ],
)
def test_unusable_manifests_are_refused(headers, raw, kind):
    """Lying digests, contradicting media types, schema 1, ambiguous or huge documents."""
    with FakeRegistry() as fake, client(fake.host) as registry:
        fake.on("GET", "manifests", lambda h: h.reply(200, raw, **headers))

        with pytest.raises(RegistryError) as caught:
            registry.manifest(ref(fake.host))

        assert caught.value.kind == kind


def test_pinned_manifest_must_have_the_digest():
    """The reference's digest decides, whatever the registry's header says."""
    wrong = MANIFEST + b" "
    with FakeRegistry() as fake, client(fake.host) as registry:
        pinned = ref(fake.host).with_digest(Digest(digest_of(MANIFEST)))
        fake.on("GET", "manifests", lambda h: h.reply(200, wrong, Docker_Content_Digest=digest_of(wrong)))

        with pytest.raises(RegistryError, match=r"expected sha256:"):
            registry.manifest(pinned)


def test_gzipped_manifest_is_decoded_within_the_cap():
    """Some proxies compress although nobody asked; a bomb stays within the cap."""
    with FakeRegistry() as fake, client(fake.host) as registry:
        fake.on("GET", "manifests/1", lambda h: h.reply(200, gzip.compress(MANIFEST), Content_Encoding="gzip"))
        bomb = gzip.compress(b" " * (64 << 20))
        fake.on("GET", "manifests/2", lambda h: h.reply(200, bomb, Content_Encoding="gzip"))

        assert registry.manifest(ref(fake.host))[1] == MANIFEST
        with pytest.raises(RegistryError, match="longer than"):
            registry.manifest(ref(fake.host, "app:2"))


def test_passing_failures_are_tried_again_and_told():
    """A7.5: 500 twice, then fine; the person watching hears why it waits."""
    told: list[str] = []
    with FakeRegistry() as fake, client(fake.host, notify=told.append) as registry:
        fake.put_manifest(MANIFEST)
        fake.on("GET", "manifests", status(503, message="try later", Retry_After="1000000000"), times=2)

        assert registry.manifest(ref(fake.host))[1] == MANIFEST

    assert len(told) == 2 and "try later" in told[0] and "trying again" in told[0]


@pytest.mark.parametrize(
    ("code", "kind", "tries"),
    [(404, "not found", 1), (403, "denied", 1), (401, "unauthorized", 1), (429, "rate limit", 4), (500, "server", 4)],
)
def test_failures_carry_the_registrys_words(code, kind, tries):
    """Lasting failures are not repeated, passing ones a bounded number of times."""
    with FakeRegistry() as fake, client(fake.host) as registry:
        fake.on("*", "manifests", status(code, "SOME_CODE", "words of the registry"))

        with pytest.raises(RegistryError, match="words of the registry") as caught:
            registry.manifest(ref(fake.host))

        assert (caught.value.kind, caught.value.status, len(fake.requests)) == (kind, code, tries)


def test_huge_error_body_is_not_read_whole():
    """An error's body is read up to 1 MiB and shown on one line."""
    with FakeRegistry() as fake, client(fake.host) as registry:
        fake.on("GET", "manifests", lambda h: h.reply(404, b"e\x1b[31m\n" * (2 << 20)))

        with pytest.raises(RegistryError) as caught:
            registry.manifest(ref(fake.host))

    assert len(str(caught.value)) < 1000 and "\x1b" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("first", [0, 1, 1000, len(BLOB) - 1])
def test_cut_download_resumes_where_it_was(first):
    """A7.5: at 0, in the middle, at the last byte: the rest is asked for with Range and If-Range."""
    with FakeRegistry() as fake:
        digest = fake.put_blob(BLOB)
        fake.on("GET", "blobs", cut_after(first), times=1)

        sink = fetch(fake)

        assert (bytes(sink.data), sink.restarts) == (BLOB, 0)
        second = fake.seen("GET", "blobs")[1].headers
        assert second.get("range") == (f"bytes={first}-" if first else None)
        assert second.get("if-range") == (f'"{digest}"' if first else None)


def test_earlier_bytes_are_not_fetched_again():
    """An ingest that holds a part from an earlier run only asks for the rest."""
    with FakeRegistry() as fake:
        fake.put_blob(BLOB)

        sink = fetch(fake, sink=Sink(BLOB[:5000]))

        assert bytes(sink.data) == BLOB
        assert fake.requests[0].headers["range"] == "bytes=5000-"


def test_server_without_ranges_restarts_cleanly():
    """200 instead of 206: what was there is dropped, not doubled."""
    with FakeRegistry() as fake:
        digest = fake.put_blob(BLOB)
        fake.on("GET", "blobs", lambda h: h.reply(200, BLOB, ETag=f'"{digest}"'))

        sink = fetch(fake, sink=Sink(b"old bytes"))

        assert (bytes(sink.data), sink.restarts) == (BLOB, 1)


@pytest.mark.parametrize(
    "content_range",
    ["bytes 0-9/10", f"bytes 99-{len(BLOB) - 1}/{len(BLOB)}", f"bytes 100-{len(BLOB)}/{len(BLOB) + 1}", "junk", ""],
)
def test_wrong_content_range_is_never_written(content_range):
    """A part that is not the part asked for is refused; the blob is then fetched whole."""

    def lie(handler: Handler) -> object:
        if "Range" not in handler.headers:
            return PASS
        return handler.reply(206, b"x" * (len(BLOB) - 100), Content_Range=content_range)

    with FakeRegistry() as fake:
        fake.put_blob(BLOB)
        fake.on("GET", "blobs", lie)

        sink = fetch(fake, sink=Sink(BLOB[:100]))

        assert (bytes(sink.data), sink.restarts) == (BLOB, 1)


def test_unsatisfied_range_starts_over():
    """416 on a resume: once from the start, without ranges."""
    with FakeRegistry() as fake:
        fake.put_blob(BLOB)
        fake.on("GET", "blobs", lambda h: h.reply(416) if "Range" in h.headers else PASS)

        assert bytes(fetch(fake, sink=Sink(BLOB[:100])).data) == BLOB


@pytest.mark.parametrize(
    ("answer", "size"),
    [
        (lambda h: h.reply(200, BLOB), len(BLOB) - 1),
        (lambda h: h.reply(200, BLOB), len(BLOB) + 1),
        (lambda h: h.raw(b"HTTP/1.0 200 OK\r\n\r\n" + BLOB), 1000),
        (lambda h: h.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7d1\r\n" + b"x" * 2001), 2000),
    ],
)
def test_size_must_be_the_descriptors(answer, size):
    """Longer or shorter than promised is refused, and nothing beyond the promised size is written."""
    sink = Sink()
    with FakeRegistry() as fake:
        fake.on("GET", "blobs", answer)

        with pytest.raises(RegistryError) as caught:
            fetch(fake, sink=sink, size=size)

    assert caught.value.kind == "size"
    assert sink.most <= size


@pytest.mark.parametrize(
    "answer",
    [
        lambda h: h.raw(b"HTTP/1.0 200 OK\r\n\r\n" + BLOB),
        lambda h: h.raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(BLOB) + BLOB),
        lambda h: h.raw(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BLOB), BLOB)
        ),
        lambda h: h.reply(200, gzip.compress(BLOB), Content_Encoding="gzip"),
        lambda h: h.reply(200, BLOB, Content_Encoding="gzip"),
    ],
    ids=["HTTP/1.0", "close", "chunked", "compressed on the way", "mislabelled"],
)
def test_ways_to_send_a_blob(answer):
    """Old, chunked and oddly labelled answers give the same bytes."""
    with FakeRegistry() as fake:
        fake.on("GET", "blobs", answer)

        assert bytes(fetch(fake).data) == BLOB


@pytest.mark.parametrize(
    "junk",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-A: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-A: y\r\n" * 1000 + b"\r\n",
        b"garbage\r\n\r\n",
        b"",
    ],
)
def test_broken_answers_end_in_an_error(junk):
    """Broken chunks, endless headers, no HTTP at all: bounded tries, then one line."""
    with FakeRegistry() as fake:
        fake.on("GET", "blobs", lambda h: h.raw(junk))

        with pytest.raises(RegistryError) as caught:
            fetch(fake)

    assert caught.value.kind in ("cut", "protocol")


def test_server_that_always_cuts_is_given_up():
    """Small steps do not reset the count of tries, so that no server keeps us forever."""
    with FakeRegistry() as fake:
        fake.put_blob(BLOB)
        fake.on("GET", "blobs", cut_after(10))

        with pytest.raises(RegistryError, match="tried 4 times") as caught:
            fetch(fake)

    assert caught.value.kind == "cut"


def test_empty_blob_needs_no_request():
    """Zero bytes are there already."""
    with FakeRegistry() as fake:
        assert fetch(fake, data=b"").offset == 0
        assert fake.requests == []


def test_stall_ends_by_time_limit():
    """A server that accepts and says nothing, or trickles, is left after the idle time."""
    blocked = threading.Event()
    limits = Timeouts(connect_s=5, idle_s=0.05, min_bytes_per_s=1_000_000)

    def trickle(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BLOB))
        while not blocked.wait(0.005):
            handler.wfile.write(b"x")

    with FakeRegistry() as fake:
        fake.on("GET", "blobs", lambda h: blocked.wait(20), times=1)
        fake.on("GET", "blobs", trickle)
        try:
            with pytest.raises(RegistryError) as caught:
                fetch(fake, timeouts=limits)
        finally:
            blocked.set()

    assert caught.value.kind == "timeout"


def test_trickled_head_ends_by_time_limit():
    """One header byte at a time keeps every single read short; the head as a whole is limited."""
    blocked = threading.Event()

    def trickle(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not blocked.wait(0.005):
            handler.wfile.write(b"x")

    with FakeRegistry() as fake:
        fake.on("GET", "blobs", trickle)
        try:
            with pytest.raises(RegistryError) as caught:
                fetch(fake, timeouts=Timeouts(connect_s=5, idle_s=0.05))
        finally:
            blocked.set()

    assert caught.value.kind == "timeout"


@pytest.mark.parametrize("when", ["before the head", "in the body"])
def test_cancel_wakes_a_blocked_read(when):
    """Cancelling closes what blocks; no time limit has to pass."""
    cancel, blocked = Cancel(), threading.Event()

    def stall(handler: Handler) -> None:
        if when == "in the body":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\nx" % len(BLOB))
        threading.Timer(0.05, cancel.cancel).start()
        blocked.wait(30)

    with FakeRegistry() as fake:
        fake.on("GET", "blobs", stall)
        try:
            with pytest.raises(CancelledError):
                fetch(fake, cancel=cancel, timeouts=Timeouts(idle_s=600))
        finally:
            blocked.set()


def test_cancel_ends_a_wait_for_another_try():
    """Back-off does not outlive the build."""
    from lamina.registry.options import Retries

    cancel = Cancel()
    slow = Retries(first_s=1000, most_s=1000, budget_s=100_000)
    with FakeRegistry() as fake:
        fake.on("GET", "blobs", status(503))
        with pytest.raises(CancelledError):
            fetch(fake, cancel=cancel, retries=slow, notify=lambda _line: cancel.cancel())


def test_blobs_in_parallel_share_the_places():
    """Many blobs from many threads: all whole, and never more at once than allowed."""
    blobs = [bytes([n]) * 100_000 for n in range(12)]
    now, most, lock = [0], [0], threading.Lock()

    def count(handler: Handler) -> object:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        return PASS

    def written(_digest: str, current: int, total: int) -> None:
        if current == total:
            with lock:
                now[0] -= 1

    with FakeRegistry() as fake, client(fake.host, connections_per_host=3, progress=written) as registry:
        for data in blobs:
            fake.put_blob(data)
        fake.on("GET", "blobs", count)
        sinks = [Sink() for _ in blobs]
        with ThreadPoolExecutor(12) as pool:
            list(
                pool.map(
                    lambda pair: registry.blob(ref(fake.host), descriptor(pair[0]), pair[1]),
                    zip(blobs, sinks, strict=True),
                )
            )

    assert [bytes(sink.data) for sink in sinks] == blobs
    assert most[0] <= 3


def test_connection_is_used_again():
    """Small requests one after another share one connection."""
    ports: set[int] = set()
    with FakeRegistry() as fake, client(fake.host) as registry:
        fake.put_manifest(MANIFEST)
        fake.on("*", "", lambda h: (ports.add(h.client_address[1]), PASS)[1])

        for _ in range(3):
            registry.resolve(ref(fake.host))
            registry.manifest(ref(fake.host))

    assert len(ports) == 1


def test_dropped_keep_alive_is_survived():
    """A connection that the server closed meanwhile does not fail the next request."""
    with FakeRegistry() as fake, client(fake.host) as registry:
        fake.put_manifest(MANIFEST)
        registry.resolve(ref(fake.host))
        fake.on("HEAD", "manifests", hang_up, times=1)

        assert registry.resolve(ref(fake.host)).size == len(MANIFEST)


def test_tags_follow_pages():
    """All pages, in order."""
    with FakeRegistry() as fake, client(fake.host) as registry:
        for tag in "abcde":
            fake.put_manifest(MANIFEST, tag)

        assert registry.tags(ref(fake.host)) == list("abcde")


def test_tags_stay_on_their_host():
    """A next page on another host is refused."""
    with FakeRegistry() as fake, client(fake.host) as registry:
        link = '<https://evil.example/v2/app/tags/list>; rel="next"'
        fake.on("GET", "tags", lambda h: h.reply(200, b'{"tags": ["a"]}', Link=link))

        with pytest.raises(RegistryError, match="another host"):
            registry.tags(ref(fake.host))


def test_mirror_is_asked_first_and_origin_when_it_fails():
    """What a mirror has comes from there; what it lacks comes from the registry itself."""
    with FakeRegistry() as origin, FakeRegistry() as mirror:
        for fake, repository in ((origin, "app"), (mirror, "proxy/app")):
            fake.put_manifest(MANIFEST, repository=repository)
        origin.put_blob(BLOB)
        mirrors = {origin.host: (f"http://{mirror.host}/proxy",)}
        sink = Sink()
        with client(origin.host, mirrors=mirrors) as registry:
            registry.manifest(ref(origin.host))
            registry.blob(ref(origin.host), descriptor(BLOB), sink)

        assert bytes(sink.data) == BLOB
        assert [s.path.split("/")[-2] for s in mirror.requests] == ["manifests", "blobs"]
        assert [s.path.split("/")[-2] for s in origin.requests] == ["blobs"]


def test_lying_mirror_is_passed_over():
    """The digest decides: a mirror's wrong bytes of the right size never stay."""
    with FakeRegistry() as origin, FakeRegistry() as mirror:
        origin.put_blob(BLOB)
        mirror.on("GET", "blobs", lambda h: h.reply(200, b"x" * len(BLOB)))
        sink = Sink()
        with client(origin.host, mirror.host, mirrors={origin.host: (mirror.host,)}) as registry:
            registry.blob(ref(origin.host), descriptor(BLOB), sink)

    assert bytes(sink.data) == BLOB


def test_cut_mirror_leaves_nothing_behind():
    """Unchecked bytes of a mirror that failed in the middle are not built upon."""
    with FakeRegistry() as origin, FakeRegistry() as mirror:
        digest = origin.put_blob(BLOB)
        mirror.blobs["app", digest] = b"x" * len(BLOB)
        mirror.on("GET", "blobs", cut_after(1000))
        sink = Sink()
        with client(origin.host, mirror.host, mirrors={origin.host: (mirror.host,)}) as registry:
            registry.blob(ref(origin.host), descriptor(BLOB), sink)

    assert bytes(sink.data) == BLOB


def test_unresolvable_error_names_host_and_hint():
    """Nobody there: fails at once and says what to look at."""
    with FakeRegistry() as fake:
        host = fake.host
    with client(host) as registry, pytest.raises(RegistryError) as caught:
        registry.resolve(ref(host))

    assert caught.value.kind == "refused"
    assert re.search(r"connection refused[\s\S]*is it running", caught.value.diagnostics())


def test_push_then_pull_round_trip():
    """What we push is what we pull."""
    with FakeRegistry() as fake, client(fake.host) as registry:
        target = ref(fake.host, "new/app:2")
        registry.push_blob(target, descriptor(BLOB), opener(BLOB))
        digest = registry.push_manifest(target, OCI, MANIFEST)
        sink = Sink()
        registry.blob(target, descriptor(BLOB), sink)

        assert registry.resolve(target).digest == digest == digest_of(MANIFEST)
        assert bytes(sink.data) == BLOB
        assert registry.has_blob(target, descriptor(BLOB).digest)
        assert not registry.has_blob(target, Digest(digest_of(b"no")))
        assert isinstance(target, Reference)
