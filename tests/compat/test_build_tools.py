"""What we build, docker, skopeo and umoci take; what docker builds comes out the same here."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from compat.dockerd import Docker, dockerd  # noqa: F401 - a fixture
from support.bases import busybox_context
from support.command import Lamina

pytestmark = [
    pytest.mark.compat,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for overlay mounts"),
    pytest.mark.skipif(shutil.which("crun") is None, reason="no crun here: apt-get install crun"),
]


def make_context(folder: Path, dockerfile: str) -> Path:
    """Make a context with files of many kinds."""
    context = busybox_context(folder, dockerfile)
    data = context / "data"
    (data / "sub").mkdir(parents=True)
    (data / "file").write_text("file\n")
    (data / "script").write_text("#!/bin/sh\n")
    (data / "script").chmod(0o755)
    # no setuid file: docker 20.10 loses the bit, later ones and we keep it
    (data / "link").symlink_to("file")
    (data / "sub" / "deep").write_text("deep")
    os.link(data / "file", data / "hard")
    with tarfile.open(context / "archive.tar", "w") as archive:
        for name, mode in (("packed/one", 0o600), ("packed/two", 0o644)):
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.uid, member.gid, member.mtime = 3, mode, 7, 8, 1_000_000
            archive.addfile(member, io.BytesIO(b"abc"))
    return context


def listing(stream: io.BufferedIOBase | io.BytesIO) -> dict[str, tuple[object, ...]]:
    """Return a root file system archive as comparable values; directories' and new files' times do not count."""
    found: dict[str, tuple[object, ...]] = {}
    with tarfile.open(fileobj=stream, mode="r|*") as archive:
        for member in archive:
            name = member.name.removeprefix("./").rstrip("/")
            if name in ("", ".") or name.split("/")[0] in ("dev", "proc", "sys") or name == ".dockerenv":
                continue
            if name in ("etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/mtab"):
                continue
            data = archive.extractfile(member) if member.isfile() else None
            content = data.read() if data is not None else b""
            # of hard links either name may hold the data
            kind = "file" if member.isfile() or member.islnk() else member.type
            content = b"" if member.islnk() or name in ("data/hard", "data/file") else content
            found[name] = (
                kind,
                member.mode & 0o7777,
                member.uid,
                member.gid,
                member.linkname if member.issym() else "",
                content,
            )
    return found


CONFIG_KEYS = (
    *("Env", "Cmd", "Entrypoint", "User", "WorkingDir", "ExposedPorts", "Volumes", "Labels", "StopSignal"),
    *("OnBuild", "Healthcheck"),
)

DOCKERFILES = {
    "copies": "FROM base\nCOPY data /data\nCOPY data/file data/script /several/\nCOPY data/* /globbed/\n",
    "owners": "FROM base\nCOPY --chown=nobody:nogroup data /data\nCOPY --chown=12:34 data/file /new/parent/file\n",
    "archive": "FROM base\nADD archive.tar /unpacked\nADD data/file /added/\n",
    "removals": "FROM base\nCOPY data /data\nRUN rm -rf /data/sub /data/link && mkdir /data/sub\n"
    "RUN touch /data/sub/new\n",
    "links": "FROM base\nRUN mkdir /real && ln -s real /alias\nCOPY data/file /alias/\n"
    "RUN ln /alias/file /alias/hard\n",
    "stages": "FROM base AS a\nRUN mkdir /o && echo 1 > /o/f && chown 5:6 /o/f && chmod 0711 /o\n"
    "FROM base\nCOPY --from=a /o /o\nCOPY --from=a /o/f /copied\n",
    "config": "FROM base\nENV A=1 B=two\nWORKDIR /made/here\nUSER nobody\nLABEL x=y\nEXPOSE 1 2/udp\nVOLUME /v\n"
    'STOPSIGNAL 9\nENTRYPOINT ["/bin/sh"]\nCMD ["-c", "id"]\nHEALTHCHECK --retries=2 CMD true\nONBUILD RUN true\n',
    "replace": "FROM base\nRUN mkdir -p /p/q && touch /p/q/r /f\nRUN rm -r /p && echo file > /p\n"
    "RUN rm /f && mkdir /f\n",
}


@pytest.mark.parametrize("name", sorted(DOCKERFILES))
def test_files_and_config_come_out_as_docker_makes_them(lamina: Lamina, tmp_path: Path, dockerd: Docker, name: str):  # noqa: F811
    context = make_context(tmp_path / "ctx", DOCKERFILES[name])
    dockerd.run("build", "-q", "--network=host", "-t", f"theirs-{name}", str(context))
    container = dockerd.run("create", f"theirs-{name}", "true").strip()
    dockerd.run("export", "-o", str(tmp_path / "theirs.tar"), container)
    dockerd.run("rm", container)
    (theirs,) = json.loads(dockerd.run("inspect", f"theirs-{name}"))

    lamina.build(context, "-t", "ours", "-o", "type=image", "-o", f"type=tar,dest={tmp_path / 'ours.tar'}")

    (ours,) = json.loads(lamina("inspect", "ours").stdout)
    # 20.10 leaves the working directory of FROM scratch empty, later ones say "/"
    theirs["Config"]["WorkingDir"] = theirs["Config"]["WorkingDir"] or "/"
    for key in CONFIG_KEYS:
        assert (ours["Config"].get(key) or None) == (theirs["Config"].get(key) or None), key
    with (tmp_path / "ours.tar").open("rb") as mine, (tmp_path / "theirs.tar").open("rb") as other:
        got, expected = listing(mine), listing(other)
    if name == "config":
        expected.pop("v", None)  # docker makes a volume's directory when it makes the container
        got.pop("v", None)
    differs = {name for name in got.keys() | expected.keys() if got.get(name) != expected.get(name)}
    assert {name: got.get(name) for name in differs} == {name: expected.get(name) for name in differs}


STEPS = """\
FROM base
RUN mkdir /d /d/s /e && echo 1 >/d/a && echo 2 >/d/s/b && echo f >/f && ln -s d /l && echo h >/h && ln /h /h2
RUN mkdir /new /new/sub && echo x >/new/sub/x
RUN rm -rf /d && mkdir /d && mkdir /d/s && echo 2 >/d/s/b
RUN mkdir /gone && echo x >/gone/x && rm -r /gone
RUN touch /tmp/x && rm /tmp/x
RUN chmod 700 /e
RUN rm /f && mkdir /f && echo x >/f/x
RUN rm -rf /f && ln -s /d /f
RUN rm /l && echo y >/l
RUN echo z >>/h
RUN mv /e /e2
RUN rm -r /d/s && rm /h
RUN rm -r /new && echo x >/new
RUN echo q >/f/q
"""


def test_each_step_gives_the_layer_that_docker_packs(lamina: Lamina, tmp_path: Path, dockerd: Docker):  # noqa: F811
    """Whiteouts, opaque marks and directories on the way: entry by entry, layer by layer."""
    context = busybox_context(tmp_path / "ctx", STEPS)
    dockerd.run("build", "-q", "--network=host", "-t", "theirs-steps", str(context))
    dockerd.run("save", "-o", str(tmp_path / "theirs.tar"), "theirs-steps")
    lamina.build(context, "-t", "ours", "-o", f"type=docker,dest={tmp_path / 'ours.tar'}")

    theirs, ours = saved_layers(tmp_path / "theirs.tar"), saved_layers(tmp_path / "ours.tar")

    assert ours.count({}) == 1  # of a step that left nothing; docker makes no layer of it
    assert [layer for layer in ours[1:] if layer] == theirs[1:]  # the first is the base


def saved_layers(archive: Path) -> list[dict[str, tuple[object, ...]]]:
    """Return what is in each layer of a saved image: kind, mode, owner, target; marks count by their name."""
    layers = []
    with tarfile.open(archive) as image:
        (manifest,) = json.load(image.extractfile("manifest.json"))  # type: ignore[arg-type]
        for name in manifest["Layers"]:
            with tarfile.open(fileobj=image.extractfile(name), mode="r|*") as layer:
                found: dict[str, tuple[object, ...]] = {}
                for member in layer:
                    mark = os.path.basename(member.name).startswith(".wh.")
                    what = (member.type, member.mode & 0o7777, member.uid, member.gid, member.linkname)
                    found[member.name.removeprefix("./").rstrip("/")] = () if mark else what
                found.pop("etc", None)  # docker's own mount points
                layers.append(found)
    return layers


def test_docker_loads_and_runs_what_we_write(lamina: Lamina, tmp_path: Path, dockerd: Docker):  # noqa: F811
    context = busybox_context(tmp_path / "ctx", 'FROM base\nRUN echo built > /x\nCMD ["cat", "/x"]\n')
    lamina.build(context, "-t", "loaded:1", "-o", f"type=docker,dest={tmp_path / 'd.tar'}")

    dockerd.run("load", "-i", str(tmp_path / "d.tar"))

    assert dockerd.run("run", "--rm", "--network=host", "loaded:1") == "built\n"


def test_docker_pulls_what_we_push_and_we_what_docker_pushes(
    lamina: Lamina,
    tmp_path: Path,
    dockerd: Docker,  # noqa: F811
    registry: str,
):
    context = busybox_context(tmp_path / "ctx", "FROM base\nRUN echo ours > /x\n")
    lamina.build(context, "-t", f"{registry}/ours:1", "--push")
    dockerd.run("pull", f"{registry}/ours:1")
    assert dockerd.run("run", "--rm", "--network=host", f"{registry}/ours:1", "cat", "/x") == "ours\n"

    dockerd.run("tag", f"{registry}/ours:1", f"{registry}/theirs:1")
    dockerd.run("push", f"{registry}/theirs:1")
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "Dockerfile").write_text(f"FROM {registry}/theirs:1\nRUN cat /x > /y && echo more >> /y\n")
    fresh = Lamina(tmp_path / "fresh")
    fresh.build(tmp_path / "second", "-t", "second")

    assert fresh("run", "second", "cat", "/y").stdout == "ours\nmore\n"


def test_an_image_that_docker_saved_is_a_base_for_us(lamina: Lamina, tmp_path: Path, dockerd: Docker):  # noqa: F811
    context = busybox_context(tmp_path / "ctx", "FROM base\nRUN echo docker > /made-by\n")
    dockerd.run("build", "-q", "--network=host", "-t", "base-by-docker", str(context))
    dockerd.run("save", "-o", str(tmp_path / "base.tar"), "base-by-docker")
    lamina("load", "-i", tmp_path / "base.tar")
    (tmp_path / "on").mkdir()
    (tmp_path / "on" / "Dockerfile").write_text("FROM base-by-docker\nRUN cp /made-by /copied\n")

    lamina.build(tmp_path / "on", "-t", "on")

    assert lamina("run", "on", "cat", "/copied").stdout == "docker\n"


def test_skopeo_and_umoci_read_the_store_in_place_and_our_archives(lamina: Lamina, tmp_path: Path):
    for tool in ("skopeo", "umoci"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} here: apt-get install {tool}")
    context = busybox_context(tmp_path / "ctx", "FROM base\nRUN echo x > /x; rm /bin/yes\n")
    lamina.build(context, "-t", "app:1", "-o", "type=image", "-o", f"type=oci,dest={tmp_path / 'o.tar'}")
    store = f"{lamina.root / 'oci'}:docker.io/library/app:1"

    inspected = subprocess.run(["skopeo", "inspect", f"oci:{store}"], check=True, capture_output=True)
    subprocess.run(
        [
            "skopeo",
            "--insecure-policy",
            "copy",
            "-q",
            f"oci-archive:{tmp_path / 'o.tar'}",
            f"dir:{tmp_path / 'copied'}",
        ],
        check=True,
    )
    subprocess.run(["umoci", "unpack", "--image", store, tmp_path / "bundle"], check=True, capture_output=True)

    assert json.loads(inspected.stdout)["Layers"]
    assert (tmp_path / "bundle" / "rootfs" / "x").read_text() == "x\n"
    assert not (tmp_path / "bundle" / "rootfs" / "bin" / "yes").exists()


@pytest.mark.parametrize("compression", ["zstd", "uncompressed", "gzip,compression-level=9"])
def test_every_compression_can_be_pushed_and_pulled_back(
    lamina: Lamina, tmp_path: Path, registry: str, compression: str
):
    context = busybox_context(tmp_path / "ctx", "FROM base\nRUN echo x > /x\n")
    name = f"{registry}/c:1"
    lamina.build(context, "-o", f"type=registry,name={name},compression={compression},force-compression=true")

    fresh = Lamina(tmp_path / "fresh")

    assert fresh("run", name, "cat", "/x").stdout == "x\n"
