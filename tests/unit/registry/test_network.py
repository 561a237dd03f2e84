"""TLS, plain http, proxies, names: what is allowed, what falls back, and what a person reads."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from pathlib import Path

import pytest

from lamina.cancel import Cancel
from lamina.errors import CancelledError, InputError
from lamina.registry.client import Registry
from lamina.registry.failures import RegistryError
from lamina.registry.http import Request, Transport
from lamina.registry.options import Proxies, RegistryOptions, Timeouts
from lamina.session import Credentials
from unit.registry.fake_registry import FakeRegistry, Handler
from unit.registry.support import Sink, client, descriptor, ref

ASSETS = Path(__file__).parent / "assets"
OCI = "application/vnd.oci.image.manifest.v1+json"
MANIFEST = json.dumps({"schemaVersion": 2, "mediaType": OCI, "config": {}, "layers": []}).encode()
BLOB = b"layer" * 100_000


def serving(certificate: str, client_ca: str = "") -> ssl.SSLContext:
    """Return a server's TLS context with one of the certificates of `assets/`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ASSETS / f"{certificate}.crt", ASSETS / f"{certificate}.key")
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(ASSETS / f"{client_ca}.crt")
    return context


def test_tls_with_a_given_ca():
    """A registry whose CA was given is spoken to in TLS, blobs too."""
    with FakeRegistry(tls=serving("localhost"), name="localhost") as fake:
        fake.put_manifest(MANIFEST)
        fake.put_blob(BLOB)
        sink = Sink()
        with client(ca=ASSETS / "localhost.crt") as registry:
            registry.manifest(ref(fake.host))
            registry.blob(ref(fake.host), descriptor(BLOB), sink)

        assert bytes(sink.data) == BLOB


@pytest.mark.parametrize(
    ("certificate", "ca", "words"),
    [
        ("localhost", "wrong-name", "give the CA"),
        ("wrong-name", "wrong-name", "another name"),
        ("expired", "expired", "expired"),
    ],
)
def test_bad_certificates_are_told_apart(certificate, ca, words):
    """Unknown CA, wrong name, expired: one line, one hint, and never plain http instead."""
    with FakeRegistry(tls=serving(certificate), name="localhost") as fake:
        with client(ca=ASSETS / f"{ca}.crt") as registry, pytest.raises(RegistryError) as caught:
            registry.resolve(ref(fake.host))

        assert caught.value.kind == "tls" and words in caught.value.hint
        assert fake.requests == []


@pytest.mark.parametrize("certificate", ["localhost", "wrong-name", "expired"])
def test_insecure_host_may_show_any_certificate(certificate):
    """The user named the host: TLS without checking."""
    with FakeRegistry(tls=serving(certificate), name="localhost") as fake:
        fake.put_manifest(MANIFEST)
        with client(ca=ASSETS / "localhost.crt", insecure=frozenset({fake.host})) as registry:
            assert registry.manifest(ref(fake.host))[1] == MANIFEST


def test_client_certificate():
    """A registry that wants to see a certificate gets the one configured for it."""
    with FakeRegistry(tls=serving("localhost", client_ca="wrong-name"), name="localhost") as fake:
        fake.put_manifest(MANIFEST)
        pair = (ASSETS / "wrong-name.crt", ASSETS / "wrong-name.key")
        with client(ca=ASSETS / "localhost.crt", client_certs={fake.host: (pair,)}) as registry:
            assert registry.manifest(ref(fake.host))[1] == MANIFEST


def test_missing_ca_file_is_an_input_error(tmp_path):
    """A wrong path of a CA bundle is the user's to mend, not the network's."""
    with client(ca=tmp_path / "absent.pem") as registry, pytest.raises(InputError, match="cannot set up"):
        registry.resolve(ref("r.example"))


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_this_machine_may_speak_plain_http(name):
    """As docker does: TLS first, then plain http, for this machine only."""
    with FakeRegistry(name=name) as fake, client() as registry:
        fake.put_manifest(MANIFEST)

        assert registry.manifest(ref(fake.host))[1] == MANIFEST
        assert registry.manifest(ref(fake.host))[1] == MANIFEST


def test_remote_host_is_never_spoken_to_in_plain_http(monkeypatch):
    """A host that answers in plain http, without being named insecure: an error, and no request reached it."""
    real = socket.getaddrinfo

    def resolve(host: str, *args: object, **options: object):
        return real("127.0.0.1" if host == "r.example" else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with FakeRegistry() as fake:
        host = f"r.example:{fake.port}"
        with client(credentials=Credentials("ann", "canary")) as registry, pytest.raises(RegistryError) as caught:
            registry.resolve(ref(host))
        assert caught.value.kind in ("tls", "cut") and fake.requests == []

        fake.put_manifest(MANIFEST)
        with client(insecure=frozenset({host})) as registry:
            assert registry.manifest(ref(host))[1] == MANIFEST


def test_unknown_host(monkeypatch):
    """DNS says no: said so, at once."""

    def fail(*_args: object, **_options: object):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with client() as registry, pytest.raises(RegistryError, match="cannot be resolved") as caught:
        registry.resolve(ref("no-such-host.example"))

    assert caught.value.kind == "dns"


def test_proxy_carries_plain_http_and_its_password():
    """Requests go through the proxy, with the proxy's own authorization; the registry's is another header."""
    with FakeRegistry() as proxy:
        proxy.put_manifest(MANIFEST)

        def strip(handler: Handler) -> None:
            assert handler.path.startswith("http://reg.example/v2/app/")
            handler.reply(200, MANIFEST, Content_Type=OCI)

        proxy.on("*", "", strip)
        settings = Proxies(http=f"http://me:p%40ss@{proxy.host}")
        with client("reg.example", proxies=settings) as registry:
            assert registry.manifest(ref("reg.example"))[1] == MANIFEST

        assert proxy.requests[0].headers["proxy-authorization"] == "Basic bWU6cEBzcw=="


def test_proxy_that_refuses_a_tunnel():
    """407 to CONNECT: the proxy is named as the cause, and its password is not shown."""
    with FakeRegistry() as proxy:
        proxy.on("CONNECT", "", lambda h: h.reply(407))
        settings = Proxies(https=f"http://me:canary@{proxy.host}")
        with client(proxies=settings) as registry, pytest.raises(RegistryError) as caught:
            registry.resolve(ref("reg.example"))

        assert caught.value.kind == "proxy" and "canary" not in caught.value.diagnostics()


def test_tunnel_through_a_proxy():
    """TLS goes through CONNECT, end to end."""

    def tunnel(handler: Handler) -> None:
        with socket.create_connection(("127.0.0.1", fake.port)) as inner:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            there = threading.Thread(target=pump, args=(handler.connection, inner))
            there.start()
            pump(inner, handler.connection)
            there.join()
        handler.close_connection = True

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    with FakeRegistry(tls=serving("wrong-name")) as fake, FakeRegistry() as proxy:
        fake.put_manifest(MANIFEST)
        proxy.on("CONNECT", "other.example", tunnel)
        settings = Proxies(https=f"http://{proxy.host}")
        with client(proxies=settings, ca=ASSETS / "wrong-name.crt") as registry:
            assert registry.manifest(ref("other.example"))[1] == MANIFEST


def test_this_machine_needs_no_proxy():
    """Loopback never goes through a proxy."""
    with FakeRegistry() as fake, client(fake.host, proxies=Proxies(http="http://192.0.2.1:9")) as registry:
        fake.put_manifest(MANIFEST)

        assert registry.resolve(ref(fake.host)).size == len(MANIFEST)


def test_cancel_wakes_a_connect_and_a_handshake():
    """A server that accepts and never shakes hands holds nobody after cancel."""
    cancel = Cancel()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        transport = Transport(RegistryOptions(timeouts=Timeouts(connect_s=600, idle_s=600)), cancel)
        timer = threading.Timer(0.05, cancel.cancel)
        timer.start()
        with pytest.raises(CancelledError):
            transport.send(Request("GET", f"https://{host}/", verify=False))
        timer.join()
        transport.close()


def test_full_backlog_is_left_on_cancel():
    """A connect that nobody answers (backlog full) is woken as well."""
    cancel = Cancel()
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
        address = silent.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(address)
            transport = Transport(RegistryOptions(timeouts=Timeouts(connect_s=600, idle_s=600)), cancel)
            timer = threading.Timer(0.05, cancel.cancel)
            timer.start()
            with pytest.raises(CancelledError):
                transport.send(Request("GET", f"http://127.0.0.1:{address[1]}/"))
            timer.join()
            transport.close()
        finally:
            for filler in fillers:
                filler.close()


def test_cancelled_before_means_no_request():
    """Nothing is sent once cancelled."""
    cancel = Cancel()
    cancel.cancel()
    with FakeRegistry() as fake, Registry(RegistryOptions(), lambda _host: None, cancel) as registry:
        with pytest.raises(CancelledError):
            registry.resolve(ref(fake.host))
        assert fake.requests == []


def test_importing_the_client_imports_no_http_library():
    """The cached path may import the client's module; urllib3 comes with the first request."""
    import subprocess
    import sys

    code = "import sys, lamina.registry.client, lamina.registry.credentials; sys.exit('urllib3' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
