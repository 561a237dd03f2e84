"""L15: modes of a live directory count as git has them where a checkout explains them, and else as they are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from lamina.layer.recipe import CopyOptions, content_digest
from lamina.source.context import ContextView

UMASKS = (0o022, 0o002, 0o077, 0o027, 0o000, 0o007)
NAMES = {"plain": 0o666, "program": 0o777, "d/": 0o777, "d/plain": 0o666, "d/e/": 0o777, "d/e/program": 0o777}
WHOLE = CopyOptions(dir_copy_contents=True)


def checkout(root: Path, umask: int, changed: Mapping[str, int] | None = None) -> Path:
    """Make the files as git does with a umask, then set the modes in `changed` ("" is the root)."""
    before = os.umask(umask)
    try:
        root.mkdir()
        for name, mode in NAMES.items():
            if name.endswith("/"):
                os.mkdir(root / name, mode)
            else:
                os.close(os.open(root / name, os.O_CREAT | os.O_WRONLY, mode))
    finally:
        os.umask(before)
    for name, mode in (changed or {}).items():
        (root / name).chmod(mode)
    return root


def modes(root: Path, *, exact: bool = False) -> dict[str, str]:
    found = {}
    with ContextView(root, exact_modes=exact) as view:
        for name in ("", *NAMES):
            entry = view.lookup(name.rstrip("/"))
            assert entry is not None
            found[name] = f"{view.counted_mode(entry):o}"
    return found


def key(root: Path, src: str = "/", options: CopyOptions = WHOLE, *, exact: bool = False) -> str:
    with ContextView(root, exact_modes=exact) as view:
        return content_digest(view, src, options)


GIT = {"": "755", "plain": "644", "program": "755", "d/": "755", "d/plain": "644", "d/e/": "755", "d/e/program": "755"}


@pytest.mark.parametrize("umask", UMASKS, ids=oct)
def test_what_a_umask_did_does_not_count(tmp_path: Path, umask: int):
    """L15: whatever the umask of the checkout, modes count as git has them, and keys are equal."""
    root = checkout(tmp_path / "ctx", umask)

    assert modes(root) == GIT
    assert key(root) == key(checkout(tmp_path / "other", 0o022))


@pytest.mark.parametrize("root_mode", [0o700, 0o750, 0o777, 0o1777, 0o2775, 0o711])
def test_the_mode_of_the_context_directory_itself_never_counts(tmp_path: Path, root_mode: int):
    """L15: a checkout into a directory made by mkdtemp, or one that all may write to."""
    root = checkout(tmp_path / "ctx", 0o022, {"": root_mode})

    assert modes(root) == GIT
    mount = CopyOptions()  # as a bind mount reads it: the root is part of what it sees
    assert key(root, options=mount) == key(checkout(tmp_path / "other", 0o002), options=mount)


def test_the_group_of_a_shared_directory_is_inherited_and_does_not_count(tmp_path: Path):
    """L15: below a directory with setgid, new directories have it too."""
    shared = {"": 0o2775, "d/": 0o2775, "d/e/": 0o2775}
    assert modes(checkout(tmp_path / "ctx", 0o002, shared)) == GIT


CHMODS: dict[str, tuple[int, dict[str, int], dict[str, str]]] = {
    "private file": (0o022, {"plain": 0o600}, {"plain": "600"}),
    "private file under umask 002": (0o002, {"d/plain": 0o600}, {"d/plain": "600"}),
    "private file in a directory of mkdtemp": (0o022, {"": 0o700, "plain": 0o600}, {"plain": "600"}),
    "read-only": (0o022, {"plain": 0o444}, {"plain": "444"}),
    "read-only program": (0o077, {"d/e/program": 0o500}, {"d/e/program": "500"}),
    "setuid": (0o022, {"program": 0o4755}, {"program": "4755"}),
    "setgid of one directory": (0o022, {"d/": 0o2755}, {"d/": "2755"}),
    "sticky": (0o022, {"d/": 0o1777}, {"d/": "1777"}),
    "open to all": (0o022, {"plain": 0o666}, {"plain": "666"}),
    "open to the group": (0o022, {"d/plain": 0o664}, {"d/plain": "664"}),
    "executable for its owner": (0o022, {"plain": 0o744}, {"plain": "744"}),
    "private directory": (0o022, {"d/": 0o700}, {"d/": "700"}),
    "private directory and all in it": (
        0o022,
        {"d/plain": 0o600, "d/e/program": 0o700, "d/e/": 0o700, "d/": 0o700},
        {"d/": "700", "d/plain": "600", "d/e/": "700", "d/e/program": "700"},
    ),
    "executable": (0o022, {"plain": 0o755}, {"plain": "755"}),
    "executable under umask 077": (0o077, {"plain": 0o700}, {"plain": "755"}),
    "not executable any more": (0o027, {"program": 0o640}, {"program": "644"}),
}


@pytest.mark.parametrize("name", CHMODS)
def test_a_deliberate_chmod_counts_as_it_is(tmp_path: Path, name: str):
    """L15: what no umask explains was meant; the executable bit counts as git's."""
    umask, changed, expected = CHMODS[name]
    root = checkout(tmp_path / "ctx", umask, changed)

    assert modes(root) == {**GIT, **expected}
    assert key(root) != key(checkout(tmp_path / "other", umask))


def test_exact_modes_count_as_they_are(tmp_path: Path):
    """L15: asked otherwise, a umask counts; and such keys never meet those of the usual rule."""
    loose, usual = checkout(tmp_path / "a", 0o002), checkout(tmp_path / "b", 0o022)

    assert modes(loose, exact=True)["plain"] == "664"
    assert key(loose, exact=True) != key(usual, exact=True)
    assert key(usual, exact=True) != key(usual)


def test_an_octal_chmod_masks_the_mode_and_a_symbolic_one_does_not(tmp_path: Path):
    """L15: `--chmod` decides what is in the layer; what `u+x` gives depends on what was there."""
    one, two = checkout(tmp_path / "a", 0o022), checkout(tmp_path / "b", 0o022, {"plain": 0o600, "d/": 0o700})

    octal, symbolic = CopyOptions(mode=0o640, dir_copy_contents=True), CopyOptions(mode="u+x", dir_copy_contents=True)
    assert key(one, options=octal) == key(two, options=octal)
    assert key(one, options=symbolic) != key(two, options=symbolic)


def test_which_files_share_an_inode_does_not_count(tmp_path: Path):
    """L15: a commit has no hard links; a checkout may (git worktrees on some machines, tools that save space)."""
    one, two = checkout(tmp_path / "a", 0o022), checkout(tmp_path / "b", 0o022)
    (two / "d/plain").unlink()
    (two / "d/plain").hardlink_to(two / "plain")

    assert key(one) == key(two)


def test_a_very_deep_directory_is_no_trouble(tmp_path: Path):
    """The way up is walked without recursion."""
    root = checkout(tmp_path / "ctx", 0o022)
    fd = os.open(root, os.O_RDONLY)
    for _ in range(600):
        os.mkdir("x", 0o700, dir_fd=fd)
        below = os.open("x", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_CREAT, 0o600, dir_fd=fd))
    os.close(fd)
    with ContextView(root) as view:
        view.children("")
        folder = ""
        for _ in range(600):
            folder = f"{folder}/x" if folder else "x"
            view.children(folder)
        entry = view.lookup(f"{folder}/file")
        assert entry is not None
        assert view.counted_mode(entry) == 0o600
