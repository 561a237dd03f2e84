"""The distribution client against Debian's docker-registry, with skopeo as the other client."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import shutil
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lamina.cancel import Cancel
from lamina.errors import NetworkError
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.oci.reference import Reference
from lamina.registry.client import Registry
from lamina.registry.options import RegistryOptions
from lamina.session import Credentials

pytestmark = [
    pytest.mark.compat,
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="docker-registry is not installed"),
]
needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")

HTPASSWD = "ann:$2b$04$niRr60hXSwPpHX14Pc87auQVR1VA8lRl7HuQmreWm9w/eE75bd3zO\n"  # password: canary-password
OCI = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


class Sink:
    def __init__(self) -> None:
        self.data = bytearray()

    @property
    def offset(self) -> int:
        return len(self.data)

    def write(self, data: bytes) -> None:
        self.data += data

    def restart(self) -> None:
        self.data.clear()


@contextmanager
def docker_registry(folder: Path, *, auth: bool = False) -> Iterator[str]:
    """Run docker-registry on loopback with its storage in `folder`; yields `127.0.0.1:port`."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "for-this-test"},
    }
    if auth:
        (folder / "htpasswd").write_text(HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    (folder / "config.yml").write_text(json.dumps(config))
    env = {"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"}
    with (folder / "registry.log").open("wb") as log:
        command = ["docker-registry", "serve", str(folder / "config.yml")]
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        try:
            wait_for_port(port, process)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server listens; its start has no other sign."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError("docker-registry did not start")


def client(credentials: Credentials | None = None) -> Registry:
    return Registry(RegistryOptions(), lambda _host: credentials, Cancel())


def sha256(data: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def image() -> tuple[bytes, dict[str, bytes]]:
    """Return a small image: its manifest and its blobs by media type."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        entry = tarfile.TarInfo("hello")
        entry.size = 300_000
        archive.addfile(entry, io.BytesIO(random.Random(7).randbytes(300_000)))
    layer = gzip.compress(tar.getvalue(), mtime=0)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/hello"]},
            "rootfs": {"type": "layers", "diff_ids": [sha256(tar.getvalue())]},
            "history": [{"created_by": "test"}],
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI,
        "config": Descriptor(CONFIG, sha256(config), len(config)).to_json(),
        "layers": [Descriptor(LAYER, sha256(layer), len(layer)).to_json()],
    }
    return json.dumps(manifest).encode(), {CONFIG: config, LAYER: layer}


def push(registry: Registry, target: Reference) -> bytes:
    manifest, blobs = image()
    for media_type, data in blobs.items():
        registry.push_blob(target, Descriptor(media_type, sha256(data), len(data)), lambda data=data: io.BytesIO(data))
    registry.push_manifest(target, OCI, manifest)
    return manifest


def pull(registry: Registry, source: Reference) -> dict[str, bytes]:
    """Return config and layers by digest, each checked."""
    _, raw = registry.manifest(source)
    document = json.loads(raw)
    found = {}
    for item in [document["config"], *document["layers"]]:
        sink = Sink()
        descriptor = Descriptor.from_json(item)
        registry.blob(source, descriptor, sink)
        assert sha256(bytes(sink.data)) == descriptor.digest
        found[str(descriptor.digest)] = bytes(sink.data)
    return found


def skopeo(*arguments: str, home: Path) -> str:
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home)}
    policy = home / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    command = ["skopeo", "--policy", str(policy), *arguments]
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout


def test_round_trip(tmp_path):
    """Push, resolve, pull, list tags, mount, with a real registry in plain http on this machine."""
    with docker_registry(tmp_path) as host, client() as registry:
        target = Reference.parse(f"{host}/team/app:1")
        manifest = push(registry, target)

        assert registry.resolve(target) == Descriptor(OCI, sha256(manifest), len(manifest))
        assert registry.manifest(target)[1] == manifest
        assert sorted(pull(registry, target).values()) == sorted(image()[1].values())
        assert registry.tags(target) == ["1"]

        layer = image()[1][LAYER]
        descriptor = Descriptor(LAYER, sha256(layer), len(layer))
        neighbour = Reference.parse(f"{host}/other:1")

        def never() -> io.BytesIO:
            raise AssertionError("mounted, so not opened")

        registry.push_blob(neighbour, descriptor, never, [target])
        assert registry.has_blob(neighbour, descriptor.digest)


def test_resume_with_a_real_registry(tmp_path):
    """Half a blob is there already: the rest comes by Range."""
    with docker_registry(tmp_path) as host, client() as registry:
        target = Reference.parse(f"{host}/app:1")
        push(registry, target)
        layer = image()[1][LAYER]
        sink = Sink()
        sink.write(layer[:100_000])

        registry.blob(target, Descriptor(LAYER, sha256(layer), len(layer)), sink)

        assert bytes(sink.data) == layer


@contextmanager
def cutting_proxy(port: int, after: int) -> Iterator[str]:
    """Forward TCP to `port`; the first connection that sends `after` bytes is cut. Yields `127.0.0.1:port`."""
    left = [after]
    with socket.create_server(("127.0.0.1", 0)) as server:

        def pump(source: socket.socket, target: socket.socket, counted: bool) -> None:
            try:
                while data := source.recv(65536):
                    if counted and left[0] > 0:
                        left[0] -= len(data)
                        if left[0] <= 0:
                            break
                    target.sendall(data)
            except OSError:
                pass
            for end in (source, target):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
                end.close()

        def serve() -> None:
            while True:
                try:
                    outer, _ = server.accept()
                except OSError:
                    return
                inner = socket.create_connection(("127.0.0.1", port))
                pair = [threading.Thread(target=pump, args=(outer, inner, True))]
                pair.append(threading.Thread(target=pump, args=(inner, outer, False)))
                open_sockets.extend((outer, inner))
                threads.extend(pair)
                for thread in pair:
                    thread.start()

        open_sockets: list[socket.socket] = []
        threads = [threading.Thread(target=serve)]
        threads[0].start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()
            for sock in open_sockets:
                sock.close()


def test_cut_upload_is_resumed_with_a_real_registry(tmp_path):
    """The connection breaks off in the middle of a blob; the registry has it in the end."""
    data = random.Random(3).randbytes(20 << 20)
    told: list[str] = []
    with docker_registry(tmp_path) as host, cutting_proxy(int(host.rpartition(":")[2]), 8 << 20) as through:
        options = RegistryOptions(plain_http=frozenset({through}))
        with Registry(options, lambda _host: None, Cancel(), notify=told.append) as registry:
            target = Reference.parse(f"{through}/app:1")
            descriptor = Descriptor(LAYER, sha256(data), len(data))
            registry.push_blob(target, descriptor, lambda: io.BytesIO(data))
            sink = Sink()
            registry.blob(target, descriptor, sink)

    assert bytes(sink.data) == data


def test_basic_auth_with_htpasswd(tmp_path):
    """The right password opens, a wrong one and none are told with what to do."""
    with docker_registry(tmp_path, auth=True) as host:
        target = Reference.parse(f"{host}/app:1")
        with client(Credentials("ann", "canary-password")) as registry:
            push(registry, target)
            pull(registry, target)
        for credentials in (None, Credentials("ann", "wrong")):
            with client(credentials) as registry, pytest.raises(NetworkError) as caught:
                registry.manifest(target)
            assert f"docker login {host}" in caught.value.hint


def test_words_for_what_is_not_there(tmp_path):
    """An unknown tag and an unknown repository read as not found."""
    with docker_registry(tmp_path) as host, client() as registry:
        push(registry, Reference.parse(f"{host}/app:1"))
        for name in ("app:2", "nothing:1"):
            with pytest.raises(NetworkError, match="not found"):
                registry.resolve(Reference.parse(f"{host}/{name}"))


@needs_skopeo
def test_skopeo_pulls_what_we_pushed(tmp_path):
    """Another client accepts our push byte for byte."""
    with docker_registry(tmp_path) as host, client() as registry:
        manifest = push(registry, Reference.parse(f"{host}/app:1"))

        source = f"docker://{host}/app:1"
        inspected = json.loads(skopeo("inspect", "--tls-verify=false", source, home=tmp_path))
        skopeo("copy", "--src-tls-verify=false", source, f"oci:{tmp_path}/out:1", home=tmp_path)

    assert inspected["Digest"] == sha256(manifest)
    for data in (manifest, *image()[1].values()):
        assert (tmp_path / "out/blobs/sha256" / sha256(data).hex).read_bytes() == data


@needs_skopeo
@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_we_pull_what_skopeo_pushed(tmp_path, form):
    """OCI and docker schema 2 manifests of another client."""
    manifest, blobs = image()
    layout = tmp_path / "in"
    (layout / "blobs/sha256").mkdir(parents=True)
    for data in (manifest, *blobs.values()):
        (layout / "blobs/sha256" / sha256(data).hex).write_bytes(data)
    entry = Descriptor(OCI, sha256(manifest), len(manifest), {"org.opencontainers.image.ref.name": "1"})
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry.to_json()]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    with docker_registry(tmp_path) as host, client() as registry:
        target = f"docker://{host}/app:1"
        skopeo("copy", f"--format={form}", "--dest-tls-verify=false", f"oci:{layout}:1", target, home=tmp_path)

        assert blobs[LAYER] in pull(registry, Reference.parse(f"{host}/app:1")).values()
