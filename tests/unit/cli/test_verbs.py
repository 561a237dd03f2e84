"""Arguments and output of the verbs beside build."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lamina.cli.environment import load_environment, state_root
from lamina.cli.main import main


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAMINA_ROOT", str(tmp_path))
    return tmp_path


def test_an_empty_store_is_an_empty_table(root: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["images"]) == 0
    assert capsys.readouterr().out == "NAME   IMAGE ID   PLATFORM   CREATED   SIZE\n"
    assert main(["images", "--format=json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize("words", [["tag", "none", "x"], ["rmi", "none"], ["history", "none"], ["inspect", "none"]])
def test_verbs_say_that_an_image_is_missing(words: list[str], root: Path, capsys: pytest.CaptureFixture[str]):
    assert main(words) == 2
    assert "no such image: 'none'" in capsys.readouterr().err


def test_rmi_force_is_content_with_what_is_not_there(root: Path):
    assert main(["rmi", "-f", "none"]) == 0


def test_a_fresh_store_is_sound_and_a_damaged_one_is_not(root: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["store", "check"]) == 0
    assert capsys.readouterr().out == "the store is sound\n"

    blob = root / "oci" / "blobs" / "sha256" / ("0" * 64)
    blob.write_bytes(b"not what the name says")

    assert main(["store", "check", "--format=json"]) == 3
    assert any("0" * 64 in problem for problem in json.loads(capsys.readouterr().out))


def test_root_before_the_verb_chooses_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("LAMINA_ROOT", "/nowhere")
    assert main(["--root", str(tmp_path / "other"), "images"]) == 0
    assert (tmp_path / "other" / "oci" / "index.json").exists()


def test_the_environment_becomes_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name, value in {
        "LAMINA_ROOT": str(tmp_path),
        "PATH": "/a:/usr/bin",
        "HTTPS_PROXY": "http://upper",
        "https_proxy": "http://lower",
        "NO_PROXY": "localhost",
        "LAMINA_INSECURE_REGISTRIES": "a:5000, b",
        "LAMINA_REGISTRY_MIRRORS": "docker.io=m1,m2;quay.io=m3",
        "DOCKER_CONFIG": "/cfg",
    }.items():
        monkeypatch.setenv(name, value)

    found = load_environment()

    assert (found.root, found.docker_config) == (tmp_path, Path("/cfg"))
    assert found.search_path.startswith("/a:/usr/bin:/usr/local/sbin")
    assert (found.proxies["https_proxy"], found.proxies["no_proxy"]) == ("http://lower", "localhost")
    assert found.insecure_registries == ("a:5000", "b")
    assert found.registry_mirrors == {"docker.io": ("m1", "m2"), "quay.io": ("m3",)}


def test_ordinary_users_state_lies_in_their_home(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LAMINA_ROOT", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert state_root() == "/home/u/.local/share/lamina"
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert state_root() == "/data/lamina"


def test_doctor_says_what_it_found(root: Path, capsys: pytest.CaptureFixture[str]):
    code = main(["doctor", "--format=json"])
    findings = json.loads(capsys.readouterr().out)
    assert {"OCI runtime", "kernel", "cgroups", "overlay file system", "disk"} <= {f["what"] for f in findings}
    assert code == (5 if any(f["status"] == "missing" for f in findings) else 0)
    assert all(f["mend"] for f in findings if f["status"] == "missing")
