"""Finding a runtime, names files, id ranges, versions: decisions about the machine, on made-up machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina.errors import InputError, MachineError
from lamina.executor import runtime as runtime_module
from lamina.executor.names import host_resolv_conf, hosts_file
from lamina.executor.probe import parse_version, probe_machine
from lamina.executor.runtime import find_runtime, read_version
from lamina.executor.userns import map_arguments, parse_ranges


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose only programs are those put into the returned directory."""
    monkeypatch.setattr(runtime_module, "_SYSTEM_PATH", str(tmp_path))
    return tmp_path


def program(directory: Path, name: str, text: str) -> Path:
    """Make a shell script."""
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_crun_comes_before_runc(bare: Path) -> None:
    """It starts in a quarter of the time."""
    program(bare, "runc", "")
    assert find_runtime("").name == "runc"

    path = program(bare, "crun", "")
    assert (find_runtime("").name, find_runtime("").path) == ("crun", str(path))


def test_the_wanted_runtime_is_taken_by_name_or_path(bare: Path) -> None:
    """And no other in its place."""
    program(bare, "crun", "")
    path = program(bare, "runc", "echo 'runc version 1.2.3'")

    assert find_runtime("", "runc").path == str(path)
    assert find_runtime("", str(path), with_version=True).version == "1.2.3"
    with pytest.raises(InputError, match="unknown OCI runtime"):
        find_runtime("", "runsc")


def test_a_missing_runtime_comes_with_the_line_that_mends_it(bare: Path) -> None:
    """One line to type."""
    with pytest.raises(MachineError) as caught:
        find_runtime(str(bare))

    assert caught.value.hint == "apt-get install crun"
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("script", ["exit 1", "echo", "echo nonsense", "echo a b"])
def test_a_runtime_that_does_not_say_its_version(bare: Path, script: str) -> None:
    """Is no reason to fail."""
    assert read_version(str(program(bare, "crun", script))) == ""


def test_hosts_has_loopback_own_name_and_extra_hosts() -> None:
    """The gateway is what reaches this machine."""
    text = hosts_file("box", [("db", "10.0.0.1"), ("me", "host-gateway")], gateway="192.0.2.9").decode()

    assert text.splitlines()[0] == "127.0.0.1\tlocalhost box"
    assert text.splitlines()[-2:] == ["10.0.0.1\tdb", "192.0.2.9\tme"]


def test_resolv_conf_looks_behind_the_systemd_stub(tmp_path: Path) -> None:
    """127.0.0.53 is not everywhere what it is here."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "run/systemd/resolve").mkdir(parents=True)
    (tmp_path / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    (tmp_path / "run/systemd/resolve/stub-resolv.conf").write_text("nameserver 127.0.0.53\n")
    assert host_resolv_conf(str(tmp_path)) == b"nameserver 127.0.0.53\n"

    (tmp_path / "run/systemd/resolve/resolv.conf").write_text("nameserver 192.0.2.1\n")
    assert host_resolv_conf(str(tmp_path)) == b"nameserver 192.0.2.1\n"


def test_a_machine_without_resolv_conf_gives_an_empty_one(tmp_path: Path) -> None:
    """No network, no names; not a failure."""
    assert host_resolv_conf(str(tmp_path)) == b""


def test_ranges_are_read_by_name_and_number_and_bad_lines_passed() -> None:
    """The file is root's, but it is text that people edit."""
    text = "# comment\nalice:100000:65536\nbob:1:1\n1000:500:10\nalice:x:y\nalice:1:0\nalice:1\n"

    assert parse_ranges(text, "alice", 1000) == [(100000, 65536), (500, 10)]
    assert parse_ranges(text, "carol", 7) == []


def test_ids_inside_are_contiguous() -> None:
    """The user is 0, his ranges follow one after the other."""
    arguments = map_arguments(1000, [(100000, 65536), (500, 10)])

    assert " ".join(arguments) == "0 1000 1 1 100000 65536 65537 500 10"


@pytest.mark.parametrize(
    ("text", "version"),
    [("6.18.44-fc", (6, 18, 44)), ("5.10.0-28-amd64", (5, 10, 0)), ("1.1.5+ds1", (1, 1, 5)), ("x", ()), ("6", (6,))],
)
def test_versions_are_their_leading_numbers(text: str, version: tuple[int, ...]) -> None:
    """Distributions add words."""
    assert parse_version(text) == version


def test_probes_name_a_cure_for_everything_that_is_not_right(tmp_path: Path) -> None:
    """On whatever machine the tests run."""
    probes = probe_machine("", str(tmp_path))

    assert {"kernel", "OCI runtime", "user namespaces", "control groups"} <= {probe.name for probe in probes}
    assert all(probe.detail for probe in probes)
    assert all(probe.ok or probe.fix or probe.name == "seccomp" for probe in probes)
    assert list(tmp_path.iterdir()) == []
