"""Small Dockerfiles and what comes of them: the image's config, its history, and the files below `/out`.

`golden/dockerfile_results/cases.txt` holds the cases, `=== NAME: ROWS` (the rows of the feature map that it proves) and
what follows the busybox stage `base`;
`golden/dockerfile_results/buildkit.json` what BuildKit makes of them (`make.py` beside it asks one).
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import zstandard

from support.bases import BUSYBOX_STAGE, busybox_rootfs
from support.golden import GOLDEN

FOLDER = GOLDEN / "dockerfile_results"
_COMPRESSED = re.compile(r"out/(all/)?t\.(tgz|data|tar\..*)")  # their sizes are those of a library's version
_KINDS = {tarfile.DIRTYPE: "dir", tarfile.SYMTYPE: "link", tarfile.FIFOTYPE: "fifo"}


def cases() -> dict[str, str]:
    """Return every case's Dockerfile by its name."""
    parts = re.split(r"^=== (.*): .*\n", (FOLDER / "cases.txt").read_text(), flags=re.MULTILINE)
    start = BUSYBOX_STAGE + "FROM base\nRUN mkdir /out\n"
    return {name: start + text for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def case_rows() -> dict[str, list[str]]:
    """Return the rows of the feature map that each case proves, by the case's name."""
    found = re.findall(r"^=== (.*): (.*)$", (FOLDER / "cases.txt").read_text(), flags=re.MULTILINE)
    return {name: rows.split(", ") for name, rows in found}


def make_context(folder: Path) -> Path:
    """Write the files that the cases copy, with modes and owners of their own."""
    busybox_rootfs(folder / "rootfs")
    files = {"a.txt": "a\n", "b.txt": "b\n", "d/one": "1\n", "d/sub/f.txt": "f\n", "d/sub/g": "g\n", "[x].t": "x\n"}
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o640 if name == "d/one" else 0o644)
    (folder / "d" / "sub").chmod(0o750)
    (folder / "links").mkdir()
    (folder / "links" / "to-a").symlink_to("../a.txt")
    (folder / "links" / "dangling").symlink_to("nowhere")
    archives = {"t.tar": "w:", "t.tgz": "w:gz", "t.data": "w:gz", "t.tar.bz2": "w:bz2", "t.tar.xz": "w:xz"}
    for name, mode in archives.items():
        with tarfile.open(folder / name, mode) as archive:
            for member, data in (("in/file", b"data"), ("in/run", b"#!")):
                info = tarfile.TarInfo(member)
                info.size, info.mode, info.uid, info.gid = len(data), 0o755 if member == "in/run" else 0o600, 11, 12
                archive.addfile(info, io.BytesIO(data))
    (folder / "t.tar.zst").write_bytes(zstandard.compress((folder / "t.tar").read_bytes()))
    (folder / ".dockerignore").write_text("Dockerfile\n")
    return folder


def read_tree(archive: bytes) -> dict[str, list[Any]]:
    """Return kind, mode, owner and content of every path below `/out` and `/data` of a tar of files."""
    found: dict[str, list[Any]] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            name = member.name.removeprefix("./").strip("/")
            if not re.match(r"(out|data)(/|$)", name) or name.startswith("out/all/rootfs/") or member.ischr():
                continue
            if _COMPRESSED.fullmatch(name):
                continue
            content = member.linkname if member.issym() else ""
            if member.isreg() or member.islnk():
                data = tar.extractfile(member)
                raw = b"" if data is None else data.read()
                content = raw.decode() if len(raw) < 100 and raw.isascii() else f"{len(raw)} bytes"
            kind = _KINDS.get(member.type, "file")
            found[name] = [kind, f"{member.mode & 0o7777:o}", f"{member.uid}:{member.gid}", content]
    return dict(sorted(found.items()))


def read_image(archive: bytes) -> dict[str, Any]:
    """Return config and history of the only image in an OCI archive, without times and digests."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:

        def read(name: str) -> bytes:
            file = tar.extractfile(name)
            assert file is not None
            return file.read()

        def blob(digest: str) -> Any:
            raw = read("blobs/" + digest.replace(":", "/"))
            assert hashlib.sha256(raw).hexdigest() == digest.partition(":")[2]
            return json.loads(raw)

        found = json.loads(read("index.json"))
        while "manifests" in found:
            found = blob(found["manifests"][0]["digest"])
        config = blob(found["config"]["digest"])
    return {
        "config": {key: value for key, value in sorted(config["config"].items()) if value},
        "history": [[row["created_by"], bool(row.get("empty_layer"))] for row in config["history"]],
        "layers": len(found["layers"]),
        "author": config.get("author", ""),
    }
