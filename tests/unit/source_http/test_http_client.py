"""Downloads against a real server that misbehaves."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lamina.cancel import Cancel
from lamina.errors import CancelledError, StorageError
from lamina.registry.options import Proxies, RegistryOptions, Retries, Timeouts
from lamina.source.http_client import Download, HttpClient
from lamina.source.http_file import Answer, Watcher
from lamina.source.http_request import HttpError
from support.web import Served, Web, cut_after, running_web

FAST = RegistryOptions(retries=Retries(4, 0.001, 0.002, 0.01, 5), timeouts=Timeouts(idle_s=20))
ASSETS = Path(__file__).parents[1] / "registry" / "assets"
BIG = bytes(range(256)) * 4096


@pytest.fixture
def web() -> Iterator[Web]:
    with running_web() as running:
        yield running


@pytest.fixture
def client() -> Iterator[HttpClient]:
    made = HttpClient(FAST, Cancel())
    yield made
    made.close()


def fetched(client: HttpClient, into: Path, data: bytes, url: str, **values: object) -> Answer:
    """Download, and check that the file is `data` and the digest its own."""
    answer = client.fetch(Download(url, **values), into)  # type: ignore[arg-type]
    assert into.read_bytes() == data
    assert (answer.digest, answer.size) == (hashlib.sha256(data).hexdigest(), len(data))
    return answer


def fails(client: HttpClient, into: Path, url: str, **values: object) -> HttpError:
    with pytest.raises(HttpError) as caught:
        client.fetch(Download(url, **values), into)  # type: ignore[arg-type]
    assert not into.exists()
    return caught.value


def test_a_file_with_what_the_server_says_of_it(web: Web, client: HttpClient, tmp_path: Path):
    date = "Sun, 06 Nov 1994 08:49:37 GMT"
    web.files["/f"] = Served(BIG, {"Last-Modified": date, "Content-Disposition": "attachment; filename=x"}, '"v1"')
    told: list[tuple[int, int]] = []

    watcher = Watcher(on_bytes=lambda now, total: told.append((now, total)))

    answer = client.fetch(Download(web.url("/f")), tmp_path / "f", watcher)

    assert (answer.etag, answer.modified, answer.disposition) == ('"v1"', date, "attachment; filename=x")
    assert told[-1] == (len(BIG), len(BIG))


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408])
def test_a_passing_failure_is_tried_again(web: Web, client: HttpClient, tmp_path: Path, status: int):
    web.files["/f"] = Served(b"data")
    web.on("/f", lambda handler: handler.answer(status, b"", {"Retry-After": "1000000000"}), times=2)

    told: list[str] = []

    answer = client.fetch(Download(web.url("/f")), tmp_path / "f", Watcher(on_wait=told.append))

    assert (answer.size, len(web.seen)) == (4, 3)
    assert len(told) == 2 and str(status) in told[0] and "trying again in 0 s" in told[0]


def test_patience_ends_and_the_error_says_where_and_how_often(web: Web, client: HttpClient, tmp_path: Path):
    web.on("/f", lambda handler: handler.answer(500, b"secret page"), times=9)

    error = fails(client, tmp_path / "f", web.url("/f?sig=deep"))
    assert (error.status, len(web.seen)) == (404, 1)

    error = fails(client, tmp_path / "f", web.url("/f"))
    assert error.status == 500
    assert str(error) == f"{web.url('/f')}: the server answered 500 Internal Server Error (tried 4 times)"


def test_errors_never_show_queries_or_credentials(web: Web, client: HttpClient, tmp_path: Path):
    error = fails(client, tmp_path / "f", web.url("/none?sig=deep"), authorization="Bearer hush")

    text = error.diagnostics()
    assert "404 Not Found" in text and "check the URL" in text
    assert "deep" not in text and "hush" not in text


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_says_how_to_give_credentials(web: Web, client: HttpClient, tmp_path: Path, status: int):
    """A4.13: the hint names the secret."""
    web.on("/f", lambda handler: handler.answer(status))

    assert "HTTP_AUTH_TOKEN_127.0.0.1" in fails(client, tmp_path / "f", web.url("/f")).hint


@pytest.mark.parametrize("count", [0, 1, 1000, len(BIG) - 1])
def test_a_cut_download_goes_on_where_it_stopped(web: Web, client: HttpClient, tmp_path: Path, count: int):
    served = web.files["/f"] = Served(BIG)
    web.on("/f", cut_after(count, served))

    fetched(client, tmp_path / "f", BIG, web.url("/f"))

    again = web.seen[1][1]
    assert again.get("range") == (f"bytes={count}-" if count else None)
    assert again.get("if-range") == (served.tag() if count else None)


def test_a_file_that_changes_between_attempts_is_never_mixed(web: Web, client: HttpClient, tmp_path: Path):
    web.files["/f"] = Served(b"new" * 1000)
    web.on("/f", cut_after(500, Served(b"old" * 1000)))

    fetched(client, tmp_path / "f", b"new" * 1000, web.url("/f"))

    assert "range" in web.seen[1][1]


@pytest.mark.parametrize("etag", [None, 'W/"weak"', "bare"])
def test_without_a_strong_name_for_the_version_all_is_asked_for_again(
    web: Web, client: HttpClient, tmp_path: Path, etag: str | None
):
    served = web.files["/f"] = Served(BIG, etag=etag)
    web.on("/f", cut_after(1000, served))

    fetched(client, tmp_path / "f", BIG, web.url("/f"))

    assert "range" not in web.seen[1][1]


def test_an_old_date_names_the_version_too(web: Web, client: HttpClient, tmp_path: Path):
    served = web.files["/f"] = Served(BIG, {"Last-Modified": "Sun, 06 Nov 1994 08:49:37 GMT"}, etag=None)
    web.on("/f", cut_after(1000, served))

    fetched(client, tmp_path / "f", BIG, web.url("/f"))

    assert web.seen[1][1]["if-range"] == "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize("given", ["bytes 0-9/10", "bytes 999-1048575/1048576", "bytes 1000-2000/9999999", "junk", ""])
def test_a_part_that_was_not_asked_for_is_not_taken(web: Web, client: HttpClient, tmp_path: Path, given: str):
    served = web.files["/f"] = Served(BIG)
    web.on("/f", cut_after(1000, served))
    web.on("/f", lambda handler: handler.answer(206, b"wrong", {"Content-Range": given, "ETag": served.tag() or ""}))

    fetched(client, tmp_path / "f", BIG, web.url("/f"))

    assert len(web.seen) == 3 and "range" not in web.seen[2][1]


def test_a_server_that_cannot_resume_is_asked_for_all(web: Web, client: HttpClient, tmp_path: Path):
    served = web.files["/f"] = Served(BIG)
    web.on("/f", cut_after(1000, served))
    web.on("/f", lambda handler: handler.answer(416))

    fetched(client, tmp_path / "f", BIG, web.url("/f"))


def test_a_length_that_never_comes_true_is_an_error(web: Web, client: HttpClient, tmp_path: Path):
    web.on("/f", lambda handler: handler.answer(200, b"short", length=10), times=9)

    assert "tried 4 times" in str(fails(client, tmp_path / "f", web.url("/f")))


def test_a_body_that_claims_to_be_larger_than_the_disk_is_refused_before_it_comes(
    web: Web, client: HttpClient, tmp_path: Path
):
    web.on("/f", lambda handler: handler.answer(200, b"x", length=1 << 62))

    with pytest.raises(StorageError, match="does not fit"):
        client.fetch(Download(web.url("/f")), tmp_path / "f")

    assert not list(tmp_path.iterdir())


def test_an_encoding_nobody_asked_for_is_undone(web: Web, client: HttpClient, tmp_path: Path):
    """As BuildKit's client does: the digest is that of the file, not of the way it was sent."""
    web.files["/f"] = Served(gzip.compress(BIG), {"Content-Encoding": "gzip"})

    fetched(client, tmp_path / "f", BIG, web.url("/f"))

    assert web.seen[0][1]["accept-encoding"] == "identity"


@pytest.mark.parametrize("body", [gzip.compress(BIG)[:-20], gzip.compress(BIG)[:50] + bytes(900)])
def test_a_broken_encoding_is_no_file(web: Web, client: HttpClient, tmp_path: Path, body: bytes):
    web.files["/f"] = Served(body, {"Content-Encoding": "gzip"})

    assert "encoding is broken" in str(fails(client, tmp_path / "f", web.url("/f")))


def test_an_encoding_that_is_only_claimed_changes_nothing(web: Web, client: HttpClient, tmp_path: Path):
    web.files["/f"] = Served(b"plain", {"Content-Encoding": "gzip"})

    fetched(client, tmp_path / "f", b"plain", web.url("/f"))


def test_a_resumed_download_keeps_what_the_first_answer_said(web: Web, client: HttpClient, tmp_path: Path):
    """A partial answer may leave headers out (RFC 9110 15.3.7); the name of the file must not hang on a cut."""
    date = "Sun, 06 Nov 1994 08:49:37 GMT"
    served = web.files["/f"] = Served(BIG, {"Last-Modified": date, "Content-Disposition": "attachment; filename=x"})
    web.on("/f", cut_after(1000, served))
    rest = {"ETag": served.tag() or "", "Content-Range": f"bytes 1000-{len(BIG) - 1}/{len(BIG)}"}
    web.on("/f", lambda handler: handler.answer(206, BIG[1000:], rest))

    answer = fetched(client, tmp_path / "f", BIG, web.url("/f"))

    assert (answer.modified, answer.disposition) == (date, "attachment; filename=x")


def test_a_known_version_is_not_sent_again(web: Web, client: HttpClient, tmp_path: Path):
    served = web.files["/f"] = Served(BIG)

    answer = client.fetch(Download(web.url("/f"), known=('"other"', served.tag() or "")), tmp_path / "f")

    assert (answer.unchanged, answer.etag) == (True, served.tag())
    assert not (tmp_path / "f").exists()


def test_a_server_that_ignores_conditions_is_understood_by_its_etag(web: Web, client: HttpClient, tmp_path: Path):
    web.on("/f", lambda handler: handler.answer(200, BIG, {"ETag": 'W/"v1"'}))

    assert client.fetch(Download(web.url("/f"), known=('"v1"',)), tmp_path / "f").unchanged


def test_not_modified_without_an_etag_means_the_one_asked_about(web: Web, client: HttpClient, tmp_path: Path):
    web.on("/f", lambda handler: handler.answer(304), times=2)

    assert client.fetch(Download(web.url("/f"), known=('"v1"',)), tmp_path / "f").etag == '"v1"'
    fails(client, tmp_path / "f", web.url("/f"))


def test_a_known_date_serves_where_there_are_no_etags(web: Web, client: HttpClient, tmp_path: Path):
    date = "Sun, 06 Nov 1994 08:49:37 GMT"
    web.files["/f"] = Served(BIG, {"Last-Modified": date}, etag=None)

    assert client.fetch(Download(web.url("/f"), known_date=date), tmp_path / "f").unchanged


def test_redirects_are_followed_and_authorization_stays_at_home(web: Web, client: HttpClient, tmp_path: Path):
    """A4.13: another host never sees the header, not even on the way back."""
    with running_web() as other:
        other.files["/f"] = Served(b"data")
        web.on("/f", lambda handler: handler.answer(302, b"", {"Location": "/here"}))
        web.on("/here", lambda handler: handler.answer(307, b"", {"Location": other.url("/there")}))
        other.on("/there", lambda handler: handler.answer(301, b"", {"Location": web.url("/back")}))
        web.files["/back"] = Served(b"data")

        fetched(client, tmp_path / "f", b"data", web.url("/f"), authorization="Bearer x", headers={"User-Agent": "me"})

        seen = dict(web.seen + other.seen)
    assert seen["/f"]["authorization"] == seen["/here"]["authorization"] == "Bearer x"
    assert "authorization" not in seen["/there"] and "authorization" not in seen["/back"]
    assert {headers["user-agent"] for headers in seen.values()} == {"me"}


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://h/f", "http://u:p@127.0.0.1/", "", "http://[::1/"])
def test_redirects_that_lead_nowhere(web: Web, client: HttpClient, tmp_path: Path, location: str):
    web.on("/f", lambda handler: handler.answer(302, b"", {"Location": location}))

    assert "redirected" in str(fails(client, tmp_path / "f", web.url("/f")))


def test_a_redirect_loop_ends(web: Web, client: HttpClient, tmp_path: Path):
    web.on("/f", lambda handler: handler.answer(302, b"", {"Location": "/f"}), times=99)

    assert "more than 10" in str(fails(client, tmp_path / "f", web.url("/f")))
    assert len(web.seen) == 11


def test_tls_needs_a_certificate_that_somebody_vouches_for(tmp_path: Path):
    with running_web("localhost", tls=ASSETS / "localhost") as web:
        web.files["/f"] = Served(b"data")
        trusting = HttpClient(replace(FAST, ca=ASSETS / "localhost.crt"), Cancel())
        doubting = HttpClient(FAST, Cancel())

        fetched(trusting, tmp_path / "f", b"data", web.url("/f"))
        error = fails(doubting, tmp_path / "g", web.url("/f"))
        trusting.close()
        doubting.close()

    assert "TLS failed" in str(error) and "LAMINA_CA_FILE" in error.hint


def test_https_never_becomes_http(tmp_path: Path):
    with running_web("localhost", tls=ASSETS / "localhost") as web:
        web.on("/f", lambda handler: handler.answer(302, b"", {"Location": "http://127.0.0.1:1/f"}))
        client = HttpClient(replace(FAST, ca=ASSETS / "localhost.crt"), Cancel())

        error = fails(client, tmp_path / "f", web.url("/f"))
        client.close()

    assert "from https to plain http" in str(error) and "http://127.0.0.1:1/f" in error.hint


def test_a_proxy_is_asked_where_one_is_set(web: Web, tmp_path: Path):
    web.files["http://files.example/f"] = Served(b"data")
    client = HttpClient(replace(FAST, proxies=Proxies(http=f"http://{web.address}")), Cancel())

    fetched(client, tmp_path / "f", b"data", "http://files.example/f")
    client.close()


def test_nobody_there(client: HttpClient, tmp_path: Path):
    error = fails(client, tmp_path / "f", "http://127.0.0.1:1/f")

    assert "refused" in str(error) and error.hint


def test_cancelling_ends_a_download_that_hangs(web: Web, tmp_path: Path):
    """Nothing waits without a bound, and the file is gone."""
    begun, done = threading.Event(), threading.Event()

    def hang(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b"x")
        begun.set()
        done.wait(20)
        handler.close_connection = True

    web.on("/f", hang)
    cancel = Cancel()
    client = HttpClient(FAST, cancel)
    caught: list[BaseException] = []

    def download() -> None:
        try:
            client.fetch(Download(web.url("/f")), tmp_path / "f")
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=download)
    thread.start()
    assert begun.wait(20)
    cancel.cancel()
    thread.join(20)
    done.set()
    client.close()

    assert isinstance(caught[0], CancelledError)
    assert not (tmp_path / "f").exists()
