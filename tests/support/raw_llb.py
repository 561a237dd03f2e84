"""Raw definitions whose trees BuildKit was asked for: the table behind tests/golden/raw_llb.

A case is a chain of file actions on an empty root, files being copied from the local directory `ctx`; or one op whose
actions branch, or a passthrough.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

from lamina.llb.pb import ops_pb2 as pb

TIME_NS = 1_500_000_000 * 10**9
_KINDS: dict[str, Any] = {
    "copy": pb.FileActionCopy,
    "mkdir": pb.FileActionMkDir,
    "mkfile": pb.FileActionMkFile,
    "rm": pb.FileActionRm,
    "symlink": pb.FileActionSymlink,
}


class Definition:
    """Ops in order; each is known by its number."""

    def __init__(self) -> None:
        self._data: list[bytes] = []

    def add(self, op: pb.Op, *inputs: tuple[int, int]) -> int:
        """Add an op over outputs of others."""
        op.inputs.extend(pb.Input(digest=self._digest(number), index=index) for number, index in inputs)
        self._data.append(op.SerializeToString())
        return len(self._data) - 1

    def local(self, name: str) -> int:
        """Add a directory."""
        return self.add(pb.Op(source=pb.SourceOp(identifier=f"local://{name}")))

    def message(self, number: int, index: int = 0) -> pb.Definition:
        """Return the definition with one output as its target."""
        end = pb.Op(inputs=[pb.Input(digest=self._digest(number), index=index)])
        return pb.Definition(**{"def": [*self._data, end.SerializeToString()]})

    def _digest(self, number: int) -> str:
        return "sha256:" + hashlib.sha256(self._data[number]).hexdigest()


def action(kind: str, below: int, source: int, output: int, **fields: Any) -> pb.FileAction:
    """Return a file action; times are fixed, modes of copies stay unless given."""
    if kind != "rm":
        fields.setdefault("timestamp", TIME_NS)
    if kind == "copy":
        fields.setdefault("mode", -1)
    return pb.FileAction(input=below, secondaryInput=source, output=output, **{kind: _KINDS[kind](**fields)})


def file(*actions: pb.FileAction) -> pb.Op:
    """Return a FileOp."""
    return pb.Op(file=pb.FileOp(actions=actions))


def make_context(folder: Path) -> Path:
    """Make the directory that the cases copy from."""
    (folder / "d/sub").mkdir(parents=True)
    for path, mode in {"a": 0o644, "b.txt": 0o600, "d/c": 0o644, "d/sub/e": 0o644}.items():
        (folder / path).write_text(f"{path}\n")
        (folder / path).chmod(mode)
    for path in ("d", "d/sub"):
        (folder / path).chmod(0o755)
    (folder / "ld").symlink_to("d")
    (folder / "la").symlink_to("a")
    with tarfile.open(folder / "t.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("in/one", "two"):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(name), 0o640
            archive.addfile(member, BytesIO(name.encode()))
    (folder / "t.tar").chmod(0o644)
    for found in folder.rglob("*"):
        os.utime(found, (1_000_000_000, 1_000_000_000), follow_symlinks=False)
    return folder


def listing(archive: Path) -> list[str]:
    """Return what a tree is, a line for each path: kind, mode, owner, time of files, content or link."""
    lines = []
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.strip("/").removeprefix("./")
            if name in ("", "."):
                continue
            if member.issym():
                lines.append(f"{name} l {member.uid}:{member.gid} -> {member.linkname}")
            elif member.isdir():
                lines.append(f"{name} d {member.mode:04o} {member.uid}:{member.gid}")
            else:
                content = tar.extractfile(member)
                digest = hashlib.sha256(content.read() if content else b"").hexdigest()[:12]
                time_s = int(member.mtime)
                lines.append(f"{name} f {member.mode:04o} {member.uid}:{member.gid} {time_s} {digest}")
    return sorted(lines)


def cases() -> dict[str, pb.Definition]:
    """Return every case by name."""
    found = {name: _chained(steps) for name, steps in _CHAINS}
    for index in (0, 1):
        found[f"branch {index}"] = _one(_mark(-1, -1, "/base"), _mark(0, 1, "/one"), _mark(0, 0, "/two"), index=index)
        found[f"middle {index}"] = _one(_mark(-1, 0, "/a"), _mark(0, 1, "/b"), index=index)
        found[f"passthrough {index}"] = _passing(index)
    copied = action("copy", -1, 0, 0, src="/f", dest="/d/t", createDestPath=True)
    found["from an earlier action"] = _one(_mark(-1, -1, "/f"), copied)
    found["an unused action"] = _one(action("rm", -1, -1, -1, path="/no"), _mark(-1, 0, "/a"))
    found["outputs with a gap"] = _one(_mark(-1, 0, "/a"), _mark(-1, 2, "/b"))
    found["no output"] = _one(_mark(-1, -1, "/a"))
    return found


def _mark(below: int, output: int, path: str) -> pb.FileAction:
    return action("mkfile", below, -1, output, path=path, data=b"1", mode=0o644)


def _one(*actions: pb.FileAction, index: int = 0) -> pb.Definition:
    made = Definition()
    return made.message(made.add(file(*actions)), index)


def _passing(index: int) -> pb.Definition:
    made = Definition()
    one, two = (made.add(file(_mark(-1, 0, path))) for path in ("/one", "/two"))
    op = pb.Op(passthrough=pb.PassthroughOp(id="gate", outputs=[1, 0]))
    return made.message(made.add(op, (one, 0), (two, 0)), index)


def _chained(steps: tuple[tuple[str, dict[str, Any]], ...]) -> pb.Definition:
    made = Definition()
    source, last = made.local("ctx"), len(steps) - 1
    actions = [
        action(kind, number or -1, 0 if kind == "copy" else -1, 0 if number == last else -1, **fields)
        for number, (kind, fields) in enumerate(steps)
    ]
    return made.message(made.add(file(*actions), (source, 0)))


def _chain(name: str, *steps: tuple[str, dict[str, Any]]) -> tuple[str, tuple[tuple[str, dict[str, Any]], ...]]:
    return name, steps


def _copy(**fields: Any) -> tuple[str, dict[str, Any]]:
    return "copy", fields


def _required(include: list[str], required: list[str], **fields: Any) -> tuple[str, dict[str, Any]]:
    given = {"include_patterns": include, "required_paths": required, "createDestPath": True, **fields}
    return _copy(src="/", dest="/i/", dirCopyContents=True, **given)


def _mkfile(path: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    return "mkfile", {"path": path, "data": b"x", "mode": 0o640, **fields}


def _mkdir(path: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    return "mkdir", {"path": path, "mode": 0o750, **fields}


def _own(user: int, group: int | None = None) -> pb.ChownOpt:
    return pb.ChownOpt(user=pb.UserOpt(byID=user), group=None if group is None else pb.UserOpt(byID=group))


_CHAINS = (
    _chain("copy file", _copy(src="/a", dest="/x")),
    _chain("copy into missing dir", _copy(src="/a", dest="/q/x")),
    _chain("createDest", _copy(src="/a", dest="/q/x", createDestPath=True)),
    _chain("slash dest", _copy(src="/a", dest="/q/", createDestPath=True)),
    _chain("dir", _copy(src="/d", dest="/x")),
    _chain("dir into existing", _mkdir("/x"), _copy(src="/d", dest="/x")),
    _chain("dir contents", _copy(src="/d", dest="/x", dirCopyContents=True, createDestPath=True)),
    _chain("link", _copy(src="/la", dest="/x")),
    _chain("link follow", _copy(src="/la", dest="/x", followSymlink=True)),
    _chain(
        "dirlink follow", _copy(src="/ld", dest="/x", followSymlink=True, dirCopyContents=True, createDestPath=True)
    ),
    _chain("wild", _copy(src="/*.txt", dest="/w/", allowWildcard=True, createDestPath=True)),
    _chain("wild none", _copy(src="/*.zz", dest="/w/", allowWildcard=True, createDestPath=True)),
    _chain(
        "wild none ok", _copy(src="/*.zz", dest="/w/", allowWildcard=True, allowEmptyWildcard=True, createDestPath=True)
    ),
    _chain("missing", _copy(src="/none", dest="/x")),
    _chain("unpack", _copy(src="/t.tar", dest="/u/", attemptUnpackDockerCompatibility=True, createDestPath=True)),
    _chain("include", _copy(src="/", dest="/i", include_patterns=["d/**"], createDestPath=True)),
    _chain(
        "exclude", _copy(src="/", dest="/i", exclude_patterns=["d", "*.tar"], createDestPath=True, dirCopyContents=True)
    ),
    _chain("required", _required(["d/c"], ["/d/c"])),
    _chain("required not there", _required(["d/none"], ["/d/none"])),
    _chain("required and excluded", _required(["d/c"], ["/d/c"], exclude_patterns=["d/c"])),
    _chain("required and all excluded", _required(["d"], ["/d"], exclude_patterns=["d"])),
    _chain("required and one below kept", _required(["d"], ["/d"], exclude_patterns=["d", "!d/c"])),
    _chain("required and all below excluded", _required(["d"], ["/d"], exclude_patterns=["d/**"])),
    _chain("required and not included", _required(["*.txt"], ["/d/c"])),
    _chain("required without patterns", _required([], ["/d/c"])),
    _chain(
        "replace",
        _mkdir("/x"),
        _mkdir("/x/d"),
        _mkfile("/x/d/c"),
        _copy(src="/d", dest="/x/d", dirCopyContents=True, alwaysReplaceExistingDestPaths=True),
    ),
    _chain("dir over file", _mkfile("/x"), _copy(src="/d", dest="/x", dirCopyContents=True)),
    _chain(
        "replace file by dir",
        _mkfile("/x"),
        _copy(src="/d", dest="/x", dirCopyContents=True, alwaysReplaceExistingDestPaths=True),
    ),
    _chain("mode", _copy(src="/a", dest="/x", mode=0o4711)),
    _chain("modeStr", _copy(src="/d", dest="/x", modeStr="u=rwX,go=rX")),
    _chain("owner", _copy(src="/d", dest="/x", owner=_own(7, 8))),
    _chain("owner user", _copy(src="/a", dest="/x", owner=_own(7))),
    _chain("mkdir parents", _mkdir("/a/b/c", makeParents=True, owner=_own(3, 4))),
    _chain("mkdir noparents", _mkdir("/a/b")),
    _chain("mkdir twice", _mkdir("/a"), ("mkdir", {"path": "/a", "mode": 0o700})),
    _chain("mkdir sticky", ("mkdir", {"path": "/a", "mode": 0o1777})),
    _chain("mkfile over", _mkfile("/f"), ("mkfile", {"path": "/f", "data": b"zz", "mode": 0o600})),
    _chain("mkfile noparent", _mkfile("/p/f")),
    _chain("mkfile suid", ("mkfile", {"path": "/f", "data": b"", "mode": 0o4755})),
    _chain("mkfile on dir", _mkdir("/f"), _mkfile("/f")),
    _chain("rm", _mkfile("/f"), _mkfile("/g"), ("rm", {"path": "/f"})),
    _chain("rm missing", _mkfile("/g"), ("rm", {"path": "/f"})),
    _chain("rm missing ok", _mkfile("/g"), ("rm", {"path": "/f", "allowNotFound": True})),
    _chain("rm wild", _mkfile("/f1"), _mkfile("/f2"), _mkfile("/g"), ("rm", {"path": "/f*", "allowWildcard": True})),
    _chain("rm wild none", _mkfile("/g"), ("rm", {"path": "/f*", "allowWildcard": True})),
    _chain("rm dir", _mkdir("/d"), _mkfile("/d/f"), _mkfile("/g"), ("rm", {"path": "/d"})),
    _chain(
        "rm link", _mkdir("/d"), _mkfile("/d/f"), ("symlink", {"oldpath": "d", "newpath": "/l"}), ("rm", {"path": "/l"})
    ),
    _chain(
        "rm through link",
        _mkdir("/d"),
        _mkfile("/d/f"),
        ("symlink", {"oldpath": "d", "newpath": "/l"}),
        ("rm", {"path": "/l/f"}),
    ),
    _chain("rm root", _mkfile("/g"), ("rm", {"path": "/"})),
    _chain("symlink", _mkfile("/f"), ("symlink", {"oldpath": "f", "newpath": "/l"})),
    _chain("symlink owner", ("symlink", {"oldpath": "f", "newpath": "/l", "owner": _own(5, 6)})),
    _chain("symlink there", _mkfile("/l"), ("symlink", {"oldpath": "f", "newpath": "/l"})),
    _chain("symlink noparent", ("symlink", {"oldpath": "f", "newpath": "/p/l"})),
)
