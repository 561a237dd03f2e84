"""Authorization: the right credentials to the right host, as rarely as possible, and never anywhere else."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from lamina.errors import NetworkError
from lamina.registry.failures import RegistryError
from lamina.session import Credentials
from unit.registry.fake_registry import PASS, FakeRegistry, Handler, digest_of, status
from unit.registry.support import Sink, client, descriptor, opener, ref

OCI = "application/vnd.oci.image.manifest.v1+json"
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": OCI, "config": {}, "layers": []}).encode()
BLOB = b"layer" * 1000
CANARY = "canary-password"


def ann(host: str):
    """Credentials for exactly this host."""
    return lambda asked: Credentials("ann", CANARY) if asked == host else None


def test_basic():
    """One refusal, then every request carries the password."""
    with FakeRegistry(auth="basic") as fake, client(fake.host, credentials=ann(fake.host)) as registry:
        fake.put_manifest(MANIFEST)
        registry.resolve(ref(fake.host))
        registry.manifest(ref(fake.host))

        assert [bool(s.authorization) for s in fake.requests] == [False, True, True]


def test_bearer_token_is_kept_per_scope():
    """One token for all pulls of a repository, another one for pushes."""
    with FakeRegistry(auth="bearer") as fake, client(fake.host, credentials=ann(fake.host)) as registry:
        fake.put_manifest(MANIFEST)
        fake.put_blob(BLOB)
        for _ in range(3):
            registry.manifest(ref(fake.host))
        registry.blob(ref(fake.host), descriptor(BLOB), Sink())
        registry.push_blob(ref(fake.host), descriptor(b"new"), opener(b"new"))

        assert fake.scopes_asked == [("repository:app:pull",), ("repository:app:pull,push",)]


def test_password_goes_to_the_token_server_only():
    """The registry itself sees tokens, never the password behind them."""
    with FakeRegistry(auth="bearer") as fake, client(fake.host, credentials=ann(fake.host)) as registry:
        fake.put_manifest(MANIFEST)
        registry.manifest(ref(fake.host))

        kinds = {s.path.split("?")[0]: s.authorization.split(" ")[0] for s in fake.requests}
        assert kinds == {"/v2/app/manifests/1": "Bearer", "/token": "Basic"}


class Fetching:
    """A user who fetches tokens, or says what goes wrong."""

    def __init__(self, token: object = ("theirs", 300.0), *, opens: bool = True) -> None:
        self.asked: list[tuple[str, str, str, tuple[str, ...]]] = []
        self._token, self._opens = token, opens

    def __call__(self, host: str) -> Credentials | None:
        self.asked.append((host, "credentials", "", ()))
        return Credentials("ann", CANARY) if self._opens else None

    def token(self, host, realm, service, scopes):
        self.asked.append((host, realm, service, tuple(scopes)))
        if isinstance(self._token, Exception):
            raise self._token
        return self._token


def test_a_user_who_fetches_tokens_gives_no_password_away():
    """E2: the registry sees the user's token; nobody is asked for credentials."""
    user = Fetching()
    with FakeRegistry(auth="bearer") as fake, client(fake.host, credentials=user) as registry:
        fake.tokens.add("theirs")
        fake.put_manifest(MANIFEST)
        registry.manifest(ref(fake.host))

        assert user.asked == [(fake.host, f"http://{fake.host}/token", "fake", ("repository:app:pull",))]
        assert {s.path for s in fake.requests} == {"/v2/app/manifests/1"}


def test_a_user_who_leaves_that_to_us_is_asked_for_credentials():
    user = Fetching(None)
    with FakeRegistry(auth="bearer") as fake, client(fake.host, credentials=user) as registry:
        fake.put_manifest(MANIFEST)
        registry.manifest(ref(fake.host))

        assert [what for _, what, _, _ in user.asked][-1] == "credentials"


def test_a_user_is_not_sent_to_a_realm_that_may_see_no_password():
    user = Fetching(opens=False)
    with FakeRegistry(auth="bearer") as fake, client(fake.host, credentials=user) as registry:
        fake.realm = "http://tokens.example/token"
        fake.put_manifest(MANIFEST)
        with pytest.raises(RegistryError):
            registry.manifest(ref(fake.host))

        assert all(what == "credentials" for _, what, _, _ in user.asked)


@pytest.mark.parametrize("token", [("has space", 0.0), ("", 0.0), ("caf\u00e9", 1.0), NetworkError("401 from there")])
def test_a_users_token_that_is_none_is_told(token):
    with FakeRegistry(auth="bearer") as fake, client(fake.host, credentials=Fetching(token)) as registry:
        fake.put_manifest(MANIFEST)
        with pytest.raises(RegistryError) as failed:
            registry.manifest(ref(fake.host))

    assert failed.value.kind in ("protocol", "unauthorized")


def test_anonymous_token():
    """Without credentials a token is asked for without any."""
    with FakeRegistry(auth="bearer") as fake, client(fake.host) as registry:
        fake.put_manifest(MANIFEST)

        assert registry.manifest(ref(fake.host))[1] == MANIFEST
        assert fake.seen("GET", "^/token")[0].authorization == ""


@pytest.mark.parametrize("credentials", [Credentials(identity_token="id-1"), Credentials("<token>", "id-1")])
def test_identity_token_is_exchanged_by_post(credentials):
    """Identity tokens go into the body of a POST, never into a URL."""
    with FakeRegistry(auth="bearer", identity="id-1") as fake, client(fake.host, credentials=credentials) as registry:
        fake.put_manifest(MANIFEST)

        registry.manifest(ref(fake.host))

        (post,) = fake.seen("POST", "^/token")
        assert b"grant_type=refresh_token" in post.body and "id-1" not in post.path


def test_expired_token_is_renewed_once():
    """A token that ends in the middle of a pull is renewed, and the pull goes on."""
    with FakeRegistry(auth="bearer") as fake, client(fake.host, credentials=ann(fake.host)) as registry:
        fake.put_manifest(MANIFEST)
        registry.manifest(ref(fake.host))
        fake.tokens.clear()

        registry.manifest(ref(fake.host))

        assert len(fake.scopes_asked) == 2


def test_token_past_its_time_is_not_sent():
    """`expires_in` is believed: no refusal is needed to renew."""
    now = [0.0]
    with FakeRegistry(auth="bearer", expires_in=100) as fake:
        registry = client(fake.host, credentials=ann(fake.host))
        registry._exchange._authorizer._clock = lambda: now[0]
        with registry:
            fake.put_manifest(MANIFEST)
            registry.manifest(ref(fake.host))
            now[0] = 95.0
            registry.manifest(ref(fake.host))

        assert len(fake.scopes_asked) == 2
        assert [s.authorization for s in fake.seen("GET", "manifests")] == ["", "Bearer token-1", "Bearer token-2"]


def test_401_forever_ends():
    """A registry that refuses its own server's tokens: one renewal, then an error."""
    with FakeRegistry(auth="bearer") as fake, client(fake.host, credentials=ann(fake.host)) as registry:
        challenge = f'Bearer realm="http://{fake.host}/token",service="fake"'
        fake.on("GET", "manifests", status(401, "UNAUTHORIZED", "no", WWW_Authenticate=challenge))

        with pytest.raises(RegistryError) as caught:
            registry.manifest(ref(fake.host))

        assert caught.value.kind == "unauthorized"
        assert len(fake.seen("GET", "manifests")) == 2 and len(fake.scopes_asked) == 1


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_wrong_password(auth):
    """Says that it was refused and how to log in; the password stands nowhere."""
    wrong = Credentials("ann", "wrong-canary")
    with FakeRegistry(auth=auth) as fake, client(fake.host, credentials=wrong) as registry:
        with pytest.raises(RegistryError) as caught:
            registry.manifest(ref(fake.host))

        assert caught.value.kind == "unauthorized" and f"docker login {fake.host}" in caught.value.hint
        assert "canary" not in caught.value.diagnostics()
        assert len(fake.requests) <= 3


def test_threads_share_one_token_fetch():
    """Eight blobs at once cost one token."""
    blobs = [bytes([n]) * 100 for n in range(8)]
    with FakeRegistry(auth="bearer") as fake, client(fake.host) as registry:
        for data in blobs:
            fake.put_blob(data)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda data: registry.blob(ref(fake.host), descriptor(data), Sink()), blobs))

        assert len(fake.scopes_asked) == 1


def test_token_server_hiccup_is_tried_again():
    """503 from the token server is passing."""
    with FakeRegistry(auth="bearer") as fake, client(fake.host) as registry:
        fake.put_manifest(MANIFEST)
        fake.on("GET", "^/token", status(503), times=1)

        assert registry.manifest(ref(fake.host))[1] == MANIFEST


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"token": 5}', b'{"token": "a b"}', b'{"token": "a\\r\\nX: y"}', b"x" * (2 << 20)]
)
def test_junk_from_the_token_server(body):
    """Anything but a short JSON object with a plain token is refused."""
    with FakeRegistry(auth="bearer") as fake, client(fake.host) as registry:
        fake.on("GET", "^/token", lambda h: h.reply(200, body))

        with pytest.raises(RegistryError):
            registry.manifest(ref(fake.host))


@pytest.mark.parametrize(
    "realm",
    [
        "http://169.254.169.254/latest/",
        "http://auth.example.com/token",
        "https://auth.example.com/token",
        "file:///etc/passwd",
        "https://user:pw@127.0.0.1/",
        "",
    ],
)
def test_realm_elsewhere_is_refused(realm):
    """A registry cannot make us send its credentials to another site, nor reach inside addresses."""
    with FakeRegistry(auth="bearer", realm=realm or " ") as fake:
        with client(fake.host, credentials=ann(fake.host)) as registry, pytest.raises(RegistryError) as caught:
            registry.manifest(ref(fake.host))

        assert caught.value.kind == "unauthorized"


def test_redirecting_token_server_is_not_followed():
    """A redirect of the token server reaches nobody (TestTokenServerRedirectSSRF)."""
    with FakeRegistry(auth="bearer") as fake, FakeRegistry() as inside:
        fake.on("GET", "^/token", lambda h: h.reply(302, Location=f"http://{inside.host}/secret"))
        with client(fake.host, credentials=ann(fake.host)) as registry, pytest.raises(RegistryError):
            registry.manifest(ref(fake.host))

        assert inside.requests == []


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_redirected_blob_loses_the_authorization(auth):
    """Object storage on another origin gets the request without credentials."""
    with FakeRegistry(auth=auth) as fake, FakeRegistry() as storage:
        storage.put_blob(BLOB, "bucket")
        target = f"http://{storage.host}/v2/bucket/blobs/{digest_of(BLOB)}"
        fake.on("GET", "blobs", lambda h: h.reply(307, Location=target) if h.seen.authorization else PASS)
        sink = Sink()
        with client(fake.host, credentials=ann(fake.host)) as registry:
            registry.blob(ref(fake.host), descriptor(BLOB), sink)

        assert bytes(sink.data) == BLOB
        assert [s.authorization for s in storage.requests] == [""]


def test_challenge_of_redirected_host_is_not_answered():
    """A 401 from elsewhere gets nothing (TestBearerTokenNotLeakedOnCrossHostChallenge)."""
    with FakeRegistry() as fake, FakeRegistry(auth="basic") as storage:
        fake.on("GET", "blobs", lambda h: h.reply(307, Location=f"http://{storage.host}{h.path}"))
        lookup = lambda _host: Credentials("ann", CANARY)  # noqa: E731
        with client(fake.host, credentials=lookup) as registry, pytest.raises(RegistryError):
            registry.blob(ref(fake.host), descriptor(BLOB), Sink())

        assert [s.authorization for s in storage.requests] == [""]


@pytest.mark.parametrize(
    ("location", "words"),
    [("/v2/loop/blobs/x", "more than 10 times"), ("file:///etc/passwd", "nowhere sensible"), ("", "nowhere sensible")],
)
def test_bad_redirects_end(location, words):
    """Loops and other schemes."""
    with FakeRegistry() as fake, client(fake.host) as registry:
        fake.on("GET", "blobs", lambda h: h.reply(302, **({"Location": location} if location else {})))

        with pytest.raises(RegistryError, match=words):
            registry.blob(ref(fake.host), descriptor(BLOB), Sink())


def test_mirror_gets_its_own_credentials_only():
    """The registry's password is not for its mirrors."""
    with FakeRegistry(auth="basic") as origin, FakeRegistry(auth="basic") as mirror:
        origin.put_manifest(MANIFEST)
        mirrors = {origin.host: (mirror.host,)}
        options = {"credentials": ann(origin.host), "mirrors": mirrors}
        with client(origin.host, mirror.host, **options) as registry:
            registry.manifest(ref(origin.host))

        assert {s.authorization for s in mirror.requests} == {""}


def test_registry_that_names_its_own_scope():
    """A challenge's scope is asked for beside ours: some registries know the repository by another name."""

    def challenge(handler: Handler) -> object:
        if handler.seen.authorization:
            return PASS
        realm = f'Bearer realm="http://{handler.fake.host}/token",scope="repository:library/app:pull"'
        return handler.reply(401, WWW_Authenticate=realm)

    with FakeRegistry() as fake, client(fake.host) as registry:
        fake.put_manifest(MANIFEST)
        fake.on("GET", "manifests", challenge)
        registry.manifest(ref(fake.host))

        assert fake.scopes_asked == [("repository:app:pull", "repository:library/app:pull")]
