"""Where mount points lie, and what a stub layer holds. No mounts are made here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamina.executor.stubs import SetupError, Want, build, resolve

OLD = 1_000_000_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with links of every kind."""
    base = tmp_path / "root"
    (base / "run").mkdir(parents=True)
    (base / "etc").mkdir()
    (base / "var").mkdir()
    (base / "file").write_text("")
    (base / "var" / "run").symlink_to("/run")
    (base / "etc" / "resolv.conf").symlink_to("../run/systemd/stub")
    (base / "up").symlink_to("../../../../etc")
    (base / "loop").symlink_to("loop")
    (base / "etc").chmod(0o2750)
    os.utime(base / "etc", (OLD, OLD))
    os.utime(base, (OLD, OLD))
    return base


@pytest.mark.parametrize(
    ("path", "resolved", "existing"),
    [
        ("/etc", "/etc", 1),
        ("/etc/../run", "/run", 1),
        ("/../../run", "/run", 1),
        ("/var/run/x", "/run/x", 1),
        ("/etc/resolv.conf", "/run/systemd/stub", 1),
        ("/up/new/dir", "/etc/new/dir", 1),
        ("/no/such/../thing", "/no/thing", 0),
        ("/no/../etc", "/etc", 1),
        ("//run//./x/", "/run/x", 1),
        ("/", "/", 0),
    ],
)
def test_paths_resolve_as_in_the_step(root: Path, path: str, resolved: str, existing: int) -> None:
    """Links and dots stay inside; what is missing is kept by name."""
    found = resolve(str(root), path)

    assert (found.path, found.existing) == (resolved, existing)


@pytest.mark.parametrize("path", ["/loop", "/file/x", "/loop/x"])
def test_paths_that_lead_nowhere_are_errors(root: Path, path: str) -> None:
    """A loop, and a file where a directory must be."""
    with pytest.raises(SetupError):
        resolve(str(root), path)


def wants(root: Path, *targets: str) -> list[Want]:
    """Return wants; a trailing "/" means a directory."""
    return [Want(target, resolve(str(root), target), target.endswith("/")) for target in targets]


def test_nothing_is_made_when_nothing_is_missing(root: Path, tmp_path: Path) -> None:
    """Then the step needs no stub layer at all."""
    stub = tmp_path / "stub"
    stub.mkdir()

    assert build(str(root), str(stub), wants(root, "/etc/", "/file")) is False
    assert list(stub.iterdir()) == []


def test_only_what_is_missing_is_made_with_the_parents_metadata(root: Path, tmp_path: Path) -> None:
    """A stub's parent hides the one below, so it must look the same."""
    stub = tmp_path / "stub"
    stub.mkdir()

    assert build(
        str(root), str(stub), wants(root, "/etc/hosts", "/etc/resolv.conf", "/var/run/a/b/", "/etc/", "/proc/")
    )

    made = sorted(str(path.relative_to(stub)) for path in stub.rglob("*"))
    assert made == ["etc", "etc/hosts", "proc", "run", "run/a", "run/a/b", "run/systemd", "run/systemd/stub"]
    assert (stub / "etc").stat().st_mode == (root / "etc").stat().st_mode
    assert (stub / "etc").stat().st_mtime == OLD
    assert stub.stat().st_mtime == OLD
    assert stub.stat().st_mode == root.stat().st_mode
    assert (root / "etc").stat().st_mtime == OLD


@pytest.mark.parametrize("targets", [["/file/"], ["/etc"], ["/x", "/x/"], ["/x", "/x/y"], ["/x/y", "/x"]])
def test_a_file_and_a_directory_cannot_share_a_place(root: Path, tmp_path: Path, targets: list[str]) -> None:
    """With what is there, and among the mounts themselves."""
    stub = tmp_path / "stub"
    stub.mkdir()

    with pytest.raises(SetupError):
        build(str(root), str(stub), wants(root, *targets))
