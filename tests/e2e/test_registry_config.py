"""H15: registries behind TLS, client certificates and mirrors, by configuration; with real registries."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from support.bases import busybox_context
from support.command import Lamina
from support.registry import free_port, running_registry

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for overlay mounts"),
]

ASSETS = Path(__file__).parents[1] / "unit" / "registry" / "assets"
GOOD, OTHER = ASSETS / "localhost", ASSETS / "wrong-name"

Configure = Callable[[str], dict[str, str]]


@pytest.fixture
def image(lamina: Lamina, tmp_path: Path) -> Lamina:
    """A store with the image `b`."""
    lamina.build(busybox_context(tmp_path / "context", "FROM scratch\nCOPY rootfs/etc /etc\n"), "-t", "b")
    return lamina


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """Write a lamina.toml and return the environment that names it."""

    def write(text: str) -> dict[str, str]:
        (tmp_path / "lamina.toml").write_text(text)
        return {"LAMINA_CONFIG": str(tmp_path / "lamina.toml")}

    return write


def folder(tmp_path: Path, name: str = "registry") -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


def push(lamina: Lamina, name: str, env: dict[str, str]) -> int:
    lamina("tag", "b", name)
    return lamina("push", "-q", name, env=env, check=False).returncode


def test_an_authority_for_one_registry(image: Lamina, tmp_path: Path, configure: Configure):
    with running_registry(folder(tmp_path), pair=GOOD) as host:
        assert push(image, f"{host}/b", configure(f'[registry."{host}"]\nca = ["{GOOD}.crt"]\n')) == 0

        image("tag", "b", f"{host}/c")
        refused = image("push", f"{host}/c", env=configure(f'[registry."{host}"]\nca = ["{OTHER}.crt"]\n'), check=False)

        assert refused.returncode == 4 and "certificate" in refused.stderr.lower()
        assert push(image, f"{host}/c", configure(f'[registry."{host}"]\ninsecure = true\n')) == 0


@pytest.mark.parametrize("way", ["keypair", "tlsconfigdir", "certs.d"])
def test_client_certificates(image: Lamina, tmp_path: Path, configure: Configure, way: str):
    """As buildkitd.toml names them, or where docker keeps them."""
    with running_registry(folder(tmp_path), pair=GOOD, client_ca=GOOD.with_suffix(".crt")) as host:
        certs = tmp_path / "docker" / "certs.d" / host
        if way != "keypair":
            certs.mkdir(parents=True)
            shutil.copy(f"{GOOD}.crt", certs / "ca.crt")
            shutil.copy(f"{GOOD}.crt", certs / "client.cert")
            shutil.copy(f"{GOOD}.key", certs / "client.key")
        table = f'[registry."{host}"]\n'
        text = {
            "keypair": f'{table}ca = ["{GOOD}.crt"]\nkeypair = [{{ key = "{GOOD}.key", cert = "{GOOD}.crt" }}]\n',
            "tlsconfigdir": f'{table}tlsconfigdir = ["docker/certs.d/{host}"]\n',
            "certs.d": "",
        }[way]
        bare = configure(f'{table}ca = ["{GOOD}.crt"]\n') | {"DOCKER_CONFIG": str(tmp_path / "none")}

        assert push(image, f"{host}/b", bare) == 4
        assert push(image, f"{host}/b", configure(text) | {"DOCKER_CONFIG": str(tmp_path / "docker")}) == 0


def test_a_certificate_that_is_not_there_is_named(image: Lamina, configure: Configure):
    env = configure('[registry."localhost:9"]\nca = ["gone.pem"]\n')
    image("tag", "b", "localhost:9/b")
    done = image("push", "localhost:9/b", env=env, check=False)
    assert done.returncode == 2 and "gone.pem: No such file or directory" in done.stderr


def test_mirrors_are_tried_in_order_and_fail_over(image: Lamina, tmp_path: Path, configure: Configure):
    """The first is dead, the second does not have it, the third has it below a prefix, and speaks TLS."""
    with (
        running_registry(folder(tmp_path, "empty")) as empty,
        running_registry(folder(tmp_path, "full"), pair=GOOD) as full,
    ):
        trust = f'[registry."{full}"]\nca = ["{GOOD}.crt"]\n'
        assert push(image, f"{full}/proxy/library/b", configure(trust)) == 0
        image("rmi", "b", f"{full}/proxy/library/b")
        mirrors = f'mirrors = ["127.0.0.1:{free_port()}", "{empty}", "{full}/proxy"]'

        done = image("pull", "b", env=configure(f'[registry."docker.io"]\n{mirrors}\n{trust}'))

        assert "b:latest@sha256:" in done.stdout


def test_the_registry_itself_is_asked_when_its_mirrors_fail(image: Lamina, tmp_path: Path, configure: Configure):
    with running_registry(folder(tmp_path)) as host:
        assert push(image, f"{host}/b", {}) == 0
        image("rmi", "b", f"{host}/b")
        env = configure(f'[registry."{host}"]\nmirrors = ["127.0.0.1:{free_port()}"]\nhttp = true\n')
        assert f"{host}/b:latest@sha256:" in image("pull", f"{host}/b", env=env).stdout


def test_the_file_is_read_only_when_a_registry_is_needed(image: Lamina, tmp_path: Path, configure: Configure):
    """A build that is whole here does not fail for it; a pull says what is wrong, and where."""
    env = configure('[registry."docker.io"]\nmirror = ["a"]\n')

    image.build(tmp_path / "context", "-t", "b", env=env)
    done = image("pull", "no-such-image", env=env, check=False)

    assert done.returncode == 2
    assert "unknown key 'mirror'" in done.stderr and f"{tmp_path}/lamina.toml:2" in done.stderr
    assert "did you mean 'mirrors'?" in done.stderr
