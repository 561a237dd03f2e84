"""H15: what the configuration file, docker's directories and the environment say, put together."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina.engine.options import Environment
from lamina.engine.registries import network_options, registry_options
from lamina.errors import InputError


def environment(tmp_path: Path, text: str | None = None, **fields: object) -> Environment:
    """Return an environment whose configuration file holds `text`."""
    path = tmp_path / "conf" / "lamina.toml"
    if text is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    fields = {"config_files": (tmp_path / "none.toml", path), **fields}
    return Environment(root=tmp_path, **fields)  # type: ignore[arg-type]


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_without_files_all_is_as_the_environment_says(tmp_path: Path):
    env = environment(tmp_path, insecure_registries=("i",), registry_mirrors={"docker.io": ("m",)})
    assert registry_options(env) == network_options(env)


def test_a_file_says_how_each_host_is_reached(tmp_path: Path):
    """Paths are taken from where the file lies."""
    env = environment(
        tmp_path,
        '[registry."docker.io"]\nmirrors = ["a", "b"]\n[registry.a]\nhttp = true\n'
        '[registry.b]\ninsecure = true\nca = ["b.pem", "/abs.pem"]\nkeypair = [{key = "k", cert = "c"}]\n',
        insecure_registries=("i",),
    )

    options = registry_options(env)

    conf = tmp_path / "conf"
    assert options.mirrors == {"docker.io": ("a", "b")}
    assert options.plain_http == {"a"} and options.insecure == {"b", "i"}
    assert options.host_ca == {"b": (conf / "b.pem", Path("/abs.pem"))}
    assert options.client_certs == {"b": ((conf / "c", conf / "k"),)}


def test_the_environment_goes_before_the_file(tmp_path: Path):
    text = '[registry."docker.io"]\nmirrors = ["a"]\n[registry.x]\nmirrors = ["y"]\n'
    env = environment(tmp_path, text, registry_mirrors={"docker.io": ("m",)})
    assert registry_options(env).mirrors == {"docker.io": ("m",), "x": ("y",)}


def test_dockers_directories_of_certificates(tmp_path: Path):
    """`*.crt` are authorities, `*.cert` with `*.key` are shown; the first directory that has a host wins."""
    own, machine = tmp_path / "own", tmp_path / "machine"
    touch(own / "h:5000/ca.crt", own / "h:5000/me.cert", own / "h:5000/me.key", own / "h:5000/README")
    touch(machine / "h:5000/other.crt", machine / "docker.io/hub.crt")

    options = registry_options(environment(tmp_path, cert_dirs=(own, tmp_path / "gone", machine)))

    assert options.host_ca == {
        "h:5000": (own / "h:5000/ca.crt",),
        "docker.io": (machine / "docker.io/hub.crt",),
        "registry-1.docker.io": (machine / "docker.io/hub.crt",),
    }
    assert options.client_certs == {"h:5000": ((own / "h:5000/me.cert", own / "h:5000/me.key"),)}


def test_the_file_goes_before_the_directories(tmp_path: Path):
    touch(tmp_path / "certs/h/ca.crt", tmp_path / "conf/tls/in.crt")
    text = '[registry.h]\ntlsconfigdir = ["tls"]\n'
    options = registry_options(environment(tmp_path, text, cert_dirs=(tmp_path / "certs",)))
    assert options.host_ca == {"h": (tmp_path / "conf/tls/in.crt",)}


def test_only_the_first_file_counts(tmp_path: Path):
    (tmp_path / "first.toml").write_text('[registry."a"]\nhttp = true\n')
    env = environment(tmp_path, "not toml", config_files=(tmp_path / "first.toml", tmp_path / "conf/lamina.toml"))
    assert registry_options(env).plain_http == {"a"}


def test_a_file_that_was_named_must_be_there(tmp_path: Path):
    with pytest.raises(InputError, match="no such configuration file"):
        registry_options(environment(tmp_path, config_is_named=True))


@pytest.mark.parametrize(
    ("content", "words"), [(b"\xff", "not UTF-8"), (b"x", "not TOML"), (b'[registry.a]\ntlsconfigdir=["no"]', "cannot")]
)
def test_a_file_that_is_not_right(tmp_path: Path, content: bytes, words: str):
    env = environment(tmp_path, "")
    env.config_files[1].write_bytes(content)
    with pytest.raises(InputError, match=words):
        registry_options(env)
