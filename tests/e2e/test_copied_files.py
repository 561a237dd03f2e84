"""What COPY and ADD keep of files, and what they refuse. IDs are rows of the feature map."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from support.bases import busybox_context
from support.command import Lamina

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for overlay mounts"),
    pytest.mark.skipif(shutil.which("crun") is None, reason="no crun here: apt-get install crun"),
]

CAPABILITY = struct.pack("<IIIII", 0x02000000, 1 << 10, 0, 0, 0)
"""`security.capability` of a program that may bind low ports (CAP_NET_BIND_SERVICE)."""


def members(archive: Path) -> dict[str, tarfile.TarInfo]:
    """Return the members of a tar of files by path, without slashes at the end."""
    with tarfile.open(archive) as tar:
        return {member.name.removeprefix("./").rstrip("/"): member for member in tar}


def make_files(folder: Path) -> None:
    """Make one file of every kind that a file system knows."""
    folder.mkdir()
    (folder / "a").write_text("a")
    os.link(folder / "a", folder / "hard")
    with (folder / "sparse").open("wb") as file:
        file.truncate(1 << 20)
    (folder / "program").write_text("p")
    os.setxattr(folder / "program", "security.capability", CAPABILITY)
    os.setxattr(folder / "program", "user.note", b"v")
    (folder / "setuid").write_text("s")
    os.chown(folder / "setuid", 33, 44)
    (folder / "setuid").chmod(0o4750)
    (folder / "sub").mkdir(mode=0o2711)
    (folder / "sub").chmod(0o2711)
    os.mkfifo(folder / "fifo")
    os.mknod(folder / "node", 0o600 | 0o020000, os.makedev(1, 3))
    (folder / "link").symlink_to("nowhere")
    for name, seconds in (("a", 1_000_000_000), ("sub", 5), ("link", 9), ("fifo", 11)):
        os.utime(folder / name, (seconds, seconds), follow_symlinks=False)


class TestKept:
    @pytest.mark.parametrize(
        "text",
        [
            "FROM scratch\nCOPY d /d/\n",
            "FROM scratch\nADD d /d/\n",
            "FROM base\nCOPY d /d/\n",
            "FROM scratch AS s\nCOPY d /from\nFROM base\nCOPY --from=s /from /d\n",
            "FROM base AS s\nCOPY d /from\nRUN true\nFROM base\nCOPY --link --from=s /from /d\n",
        ],
        ids=["context", "add", "over a base", "stage", "link"],
    )
    def test_every_kind_of_file(self, lamina: Lamina, tmp_path: Path, text: str):
        """A4.17: xattrs, hard links, sparse files, setuid, nodes and fifos arrive; owners become root's, times stay."""
        context = busybox_context(tmp_path / "ctx", text)
        make_files(context / "d")

        lamina.build(context, "-o", f"type=tar,dest={tmp_path}/out.tar")

        found = members(tmp_path / "out.tar")
        links = [found[f"d/{name}"] for name in ("a", "hard")]
        assert sorted(member.type for member in links) == [tarfile.REGTYPE, tarfile.LNKTYPE]
        assert {member.mtime for member in links} == {1_000_000_000}
        assert found["d/sparse"].size == 1 << 20
        assert found["d/program"].pax_headers["SCHILY.xattr.user.note"] == "v"
        capability = found["d/program"].pax_headers["SCHILY.xattr.security.capability"]
        assert capability.encode("utf-8", "surrogateescape") == CAPABILITY
        setuid = found["d/setuid"]
        assert (setuid.mode, setuid.uid, setuid.gid) == (0o4750, 0, 0)
        assert (found["d/sub"].mode, found["d/sub"].mtime) == (0o2711, 5)
        assert (found["d/fifo"].type, found["d/fifo"].mtime) == (tarfile.FIFOTYPE, 11)
        assert (found["d/link"].linkname, found["d/link"].mtime) == ("nowhere", 9)
        node = found["d/node"]
        assert (node.type, node.devmajor, node.devminor) == (tarfile.CHRTYPE, 1, 3)

    def test_owners_of_a_stage_stay(self, lamina: Lamina, tmp_path: Path):
        """A4.17: from a stage, owners are kept; from the context they are root's; --chown says otherwise."""
        text = "FROM base AS s\nRUN mkdir /x && echo > /x/f && chown 7:8 /x/f && chmod 4711 /x/f\n"
        text += "FROM base\nCOPY --from=s /x /kept\nCOPY --from=s --chown=1:2 /x /changed\n"
        context = busybox_context(tmp_path / "ctx", text)

        lamina.build(context, "-o", f"type=tar,dest={tmp_path}/out.tar")

        found = members(tmp_path / "out.tar")
        assert [(m.uid, m.gid) for m in (found["kept/f"], found["changed/f"])] == [(7, 8), (1, 2)]
        assert found["kept/f"].mode == 0o4711


class TestLink:
    def test_a_new_base_is_no_reason_to_copy_again(self, lamina: Lamina, tmp_path: Path):
        """A4.5: the layer is used as it is over another base; without --link it is made again."""
        context = busybox_context(tmp_path / "ctx")
        (context / "f").write_text("f")

        def copied(number: int, flag: str) -> tuple[bool, str]:
            text = f"FROM base AS b\nRUN echo {number} > /n\nFROM b\nCOPY {flag} f /dir/f\n"
            (context / "Dockerfile").write_text("FROM scratch AS base\nCOPY rootfs /\nENV PATH=/bin\n" + text)
            done = lamina.build(context, "-t", "x")
            lines = done.stderr.splitlines()
            step = next(line.split()[0] for line in lines if line.endswith("f /dir/f"))
            (image,) = json.loads(lamina("inspect", "x").stdout)
            return f"{step} CACHED" in lines, image["RootFS"]["Layers"][-1]

        (first, layer), (again, same_layer) = copied(1, "--link"), copied(2, "--link")
        assert (first, again) == (False, True) and layer == same_layer
        copied(3, "")
        assert copied(4, "")[0] is False

    def test_the_base_need_not_be_here(self, lamina: Lamina, registry: str, tmp_path: Path):
        """A4.5: what goes to the registry where the base lies is made without a byte of the base's layers."""
        context = busybox_context(tmp_path / "base", "FROM base\nRUN echo big > /big\n")
        lamina.build(context, "-t", f"{registry}/x:base", "--push")
        other = Lamina(tmp_path / "other")
        (tmp_path / "ctx").mkdir()
        (tmp_path / "ctx" / "Dockerfile").write_text(f"FROM {registry}/x:base\nCOPY --link <<E /own\nhi\nE\n")

        other.build(tmp_path / "ctx", "-t", f"{registry}/x:own", "-o", "type=registry")

        raw = ["skopeo", "inspect", "--tls-verify=false", "--raw", f"docker://{registry}/x:own"]
        manifest = json.loads(subprocess.run(raw, capture_output=True, text=True, check=True).stdout)
        here = {path.name for path in (other.root / "oci" / "blobs" / "sha256").iterdir()}
        digests = [layer["digest"].partition(":")[2] for layer in manifest["layers"]]
        assert len(digests) == 3 and [digest in here for digest in digests] == [False, False, True]


class TestSources:
    def test_a_name_must_be_there_and_a_pattern_need_not(self, lamina: Lamina, tmp_path: Path):
        """A4.16: in COPY and ADD, from the context and from a stage."""
        context = busybox_context(tmp_path / "ctx")
        start = (context / "Dockerfile").read_text()
        (context / "f").write_text("")
        lines = ("COPY {} /x/", "ADD {} /x/", "COPY --from=base {} /x/", "COPY f {} /x/")
        for line in lines:
            (context / "Dockerfile").write_text(f"{start}FROM scratch\n{line.format('none*')}\nCOPY f /\n")
            lamina.build(context)
            (context / "Dockerfile").write_text(f"{start}FROM scratch\n{line.format('none')}\n")
            done = lamina.build(context, check=False)
            assert done.returncode != 0 and "/none: not found" in done.stderr and f">>> {line[:4]}" in done.stderr

    def test_nothing_outside_the_context(self, build):
        """A4.1: `..` stops at the root, links are followed inside it."""
        out = build("FROM scratch\nCOPY ../../f /a\nCOPY /sub/../f /b\nCOPY sub/../../f /c\n", f="x", sub__y="")

        assert [(out / name).read_text() for name in "abc"] == ["x", "x", "x"]

    def test_a_link_out_of_the_context_leads_into_it(self, lamina: Lamina, tmp_path: Path):
        """A4.1: `/etc/passwd` behind a link is the context's, not this machine's."""
        context = tmp_path / "ctx"
        (context / "etc").mkdir(parents=True)
        (context / "etc" / "passwd").write_text("mine")
        (context / "out").symlink_to("/etc")
        (context / "Dockerfile").write_text("FROM scratch\nCOPY out/passwd /p\n")

        lamina.build(context, "-o", f"type=local,dest={tmp_path}/o")

        assert (tmp_path / "o" / "p").read_text() == "mine"

    def test_from_an_image(self, lamina: Lamina, registry: str, tmp_path: Path):
        """A4.2: an image that no FROM names, by tag and by digest."""
        (tmp_path / "i").mkdir()
        (tmp_path / "i" / "Dockerfile").write_text("FROM scratch\nCOPY <<E /d/f\nimage\nE\n")
        lamina.build(tmp_path / "i", "-t", f"{registry}/i:1", "--push", "--metadata-file", tmp_path / "meta")
        digest = json.loads((tmp_path / "meta").read_text())["containerimage.digest"]
        (tmp_path / "ctx").mkdir()
        for name in (f"{registry}/i:1", f"{registry}/i@{digest}", f"{registry}/i:1@{digest}"):
            (tmp_path / "ctx" / "Dockerfile").write_text(f"FROM scratch\nCOPY --from={name} /d/f /g\n")
            Lamina(tmp_path / "fresh").build(tmp_path / "ctx", "-o", f"type=local,dest={tmp_path}/o")
            assert (tmp_path / "o" / "g").read_text() == "image\n"
            shutil.rmtree(tmp_path / "o")
            shutil.rmtree(tmp_path / "fresh")
