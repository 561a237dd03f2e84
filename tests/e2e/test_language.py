"""The Dockerfile language carried out: what is in the files that come out. IDs are rows of the feature map."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from lamina.oci.platform import host_platform
from support.bases import busybox_context
from support.command import Lamina
from support.git_server import Repository, running_git_server
from support.web import Served, running_web

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for overlay mounts"),
    pytest.mark.skipif(shutil.which("crun") is None, reason="no crun here: apt-get install crun"),
]


def tree(folder: Path) -> list[str]:
    """Every path below a folder, sorted."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


class TestFile:
    def test_another_front_end_is_never_taken_for_a_dockerfile(self, lamina: Lamina, tmp_path: Path):
        """A1.2: by build, check and outline alike; the build argument says that it is a Dockerfile after all."""
        (tmp_path / "Dockerfile").write_text("# syntax=127.0.0.1:1/frontend:1\nFROM scratch\nCOPY <<E /f\nE\n")

        done = lamina.build(tmp_path, check=False)
        assert done.returncode != 0 and "127.0.0.1:1" in done.stderr
        for words in (["--call=check"], ["--call=targets"]):
            done = lamina.build(tmp_path, *words, check=False)
            said = done.stdout + done.stderr
            assert done.returncode != 0 and "not yet: the front end '127.0.0.1:1/frontend:1'" in said
            assert "# syntax=127.0.0.1:1/frontend:1" in said and "BUILDKIT_SYNTAX=docker/dockerfile:1" in said
        lamina.build(tmp_path, "--build-arg", "BUILDKIT_SYNTAX=docker/dockerfile:1")


class TestCopy:
    def test_parents(self, build):
        """A4.6: directories come along; what stands before the pivot does not; patterns reach any depth."""
        files = {"a__b__c.txt": "c", "a__d.txt": "d", "e__f.py": "f"}

        assert tree(build("FROM scratch\nCOPY --parents a/b/c.txt e /out/\n", **files)) == [
            *("out", "out/a", "out/a/b", "out/a/b/c.txt", "out/e", "out/e/f.py"),
        ]
        assert tree(build("FROM scratch\nCOPY --parents a/./b/c.txt /out/\n", **files)) == [
            "out",
            "out/b",
            "out/b/c.txt",
        ]
        assert tree(build("FROM scratch\nCOPY --parents **/*.txt /\n", **files)) == [
            *("a", "a/b", "a/b/c.txt", "a/d.txt"),
        ]

    def test_parents_of_a_missing_name(self, lamina: Lamina, tmp_path: Path):
        """A4.6, A4.16: a plain name must be there, as without --parents."""
        (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY --parents a/nope /\n")

        done = lamina.build(tmp_path, check=False)

        assert done.returncode != 0 and "/a/nope: not found in the build context" in done.stderr

    def test_symbolic_modes(self, build):
        """A4.4: X gives search to directories alone; here-documents too."""
        out = build("FROM scratch\nCOPY --chmod=u=rwX,go=rX d /d\nCOPY --chmod=a+x <<E /run\nhi\nE\n", d__f="x")

        assert (mode(out / "d" / "f"), mode(out / "run")) == (0o644, 0o755)

    def test_here_documents_land_like_files(self, build):
        """A4.15: into a directory that is there, under their names; variables unless quoted."""
        out = build('FROM scratch\nENV V=1\nCOPY <<a <<"b" /dir/\n$V\na\n$V\nb\nCOPY <<c /dir\nin c\nc\n')

        assert {name: (out / "dir" / name).read_text() for name in "abc"} == {"a": "1\n", "b": "$V\n", "c": "in c\n"}

    def test_exclude(self, build):
        """A4.7"""
        out = build(
            "FROM scratch\nCOPY --exclude=*.o --exclude=sub/x d /\n", d__a="a", **{"d__b.o": "b", "d__sub__x": "x"}
        )

        assert tree(out) == ["a", "sub"]

    def test_a_stage_without_files(self, lamina: Lamina, tmp_path: Path):
        """A2.2: copying from it says what is missing."""
        (tmp_path / "Dockerfile").write_text("FROM scratch AS a\nENV x=1\nFROM scratch\nCOPY --from=a /f /\n")

        done = lamina.build(tmp_path, check=False)

        assert done.returncode != 0 and "/f: not found" in done.stderr


class TestAdd:
    def test_a_download_with_checksum_and_unpacking(self, build):
        """A4.8, A4.9, A4.10"""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as tar:
            member = tarfile.TarInfo("inside")
            member.size = 2
            tar.addfile(member, io.BytesIO(b"ok"))
        data = archive.getvalue()
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        with running_web() as web:
            web.files["/a.tgz"] = Served(data)
            url = web.url("/a.tgz")
            text = f"ADD --checksum={digest} {url} /d/\nADD --unpack=true {url} /u/\nADD --chmod=640 {url} /x\n"
            out = build(f"FROM scratch\n{text}")

        assert (out / "d" / "a.tgz").read_bytes() == data and mode(out / "d" / "a.tgz") == 0o600
        assert (out / "u" / "inside").read_bytes() == b"ok" and mode(out / "x") == 0o640

    def test_a_wrong_checksum(self, lamina: Lamina, tmp_path: Path):
        """A4.10"""
        with running_web() as web:
            web.files["/f"] = Served(b"evil")
            (tmp_path / "Dockerfile").write_text(f"FROM scratch\nADD --checksum=sha256:{'0' * 64} {web.url('/f')} /\n")
            done = lamina.build(tmp_path, check=False)

        assert done.returncode != 0 and "0000000" in done.stderr and "Dockerfile:2" in done.stderr

    def test_a_repository(self, build, tmp_path: Path):
        """A4.11, A4.12: ref and subdirectory; `.git` only when asked for."""
        repository = Repository(tmp_path / "work")
        (repository.folder / "sub").mkdir()
        (repository.folder / "sub" / "f").write_text("one")
        repository.git("add", "--all")
        repository.git("commit", "-q", "-m", "one")
        (tmp_path / "served").mkdir()
        repository.git("clone", "-q", "--bare", ".", str(tmp_path / "served" / "r.git"))
        with running_git_server(tmp_path / "served") as server:
            url = f"{server.url}/r.git"
            out = build(f"FROM scratch\nADD {url}#main:sub /s/\nADD --keep-git-dir=true {url} /w/\n")

        assert (out / "s" / "f").read_text() == "one" and tree(out / "s") == ["f"]
        assert (out / "w" / "sub" / "f").exists() and (out / "w" / ".git").is_dir()

    def test_credentials_are_secrets(self, build, tmp_path: Path):
        """A4.13: by the host's name, a header or a token, for downloads and for repositories."""
        repository = Repository(tmp_path / "work")
        (repository.folder / "f").write_text("cloned")
        repository.git("add", "--all")
        repository.git("commit", "-q", "-m", "one")
        (tmp_path / "served").mkdir()
        repository.git("clone", "-q", "--bare", ".", str(tmp_path / "served" / "r.git"))
        with running_web() as web, running_git_server(tmp_path / "served") as server:
            web.files["/f"] = Served(b"downloaded")
            server.authorization = "bearer letmein"
            secrets = {
                f"HTTP_AUTH_TOKEN_{web.address.partition(':')[0]}": "abc",
                f"GIT_AUTH_HEADER.{server.host}": "bearer letmein",
            }
            words = [
                word for name in secrets for word in ("--secret", f"id={name},type=env,env=S_{name.split('_')[0]}")
            ]
            environment = {f"S_{name.split('_')[0]}": value for name, value in secrets.items()}
            text = f"FROM scratch\nADD {web.url('/f')} /d\nADD {server.url}/r.git /r/\n"
            out = build(text, *words, env=environment)
            header = web.asked("/f")[0].get("authorization")

        assert (out / "d").read_bytes() == b"downloaded" and header == "Bearer abc"
        assert (out / "r" / "f").read_text() == "cloned"


class TestRun:
    def test_a_script_with_its_own_interpreter(self, busybox):
        """A1.6"""
        out = busybox('FROM base\nRUN <<E\n#!/bin/awk -f\nBEGIN { print 6*7 > "/answer" }\nE\n')

        assert (out / "answer").read_text() == "42\n"

    def test_mount_options_take_variables(self, busybox):
        """A1.11: ids, modes and targets; a cache with an owner of its own."""
        out = busybox(
            "FROM base\nARG ID=77\nRUN --mount=type=cache,target=/c,uid=$ID,gid=$ID,mode=0700 "
            "stat -c '%u:%g %a' /c > /seen\n"
        )

        assert (out / "seen").read_text() == "77:77 700\n"

    def test_workdir_belongs_to_the_user(self, busybox):
        """A5.10"""
        out = busybox("FROM base\nUSER 33:44\nWORKDIR /made/here\nUSER root\nRUN stat -c %u:%g . .. > /seen\n")

        assert (out / "seen").read_text() == "33:44\n33:44\n"

    def test_insecure_steps_need_leave_and_have_all_rights(self, busybox):
        """A3.10"""
        grep = "grep CapEff /proc/self/status"
        line = f"FROM base\nRUN --security=insecure {grep} > /caps\nRUN {grep} > /less\n"
        out = busybox(line, "--allow", "security.insecure")

        bits = [int((out / name).read_text().split()[1], 16).bit_count() for name in ("caps", "less")]
        assert bits[0] > 30 and bits[1] == 14

    @pytest.mark.parametrize(
        ("flag", "name"), [("network=host", "network.host"), ("security=insecure", "security.insecure")]
    )
    def test_what_needs_leave(self, lamina: Lamina, tmp_path: Path, flag: str, name: str):
        """A3.9, A3.10: the error shows the line and names the option."""
        context = busybox_context(tmp_path / "ctx", f"FROM base\nRUN --{flag} true\n")
        done = lamina.build(context, check=False)

        assert done.returncode != 0 and f"--allow {name}" in done.stderr and f">>> RUN --{flag}" in done.stderr

    def test_host_network_for_all_is_leave_for_one(self, busybox):
        """A3.9"""
        busybox("FROM base\nRUN --network=host true\n", "--network", "host")

    def test_args_of_a_base_stage(self, busybox):
        """A5.2"""
        out = busybox("FROM base AS one\nARG V=1\nFROM one\nRUN echo $V > /v\n")

        assert (out / "v").read_text() == "1\n"


class TestContexts:
    def test_a_directory_has_its_own_ignore_file(self, build, tmp_path: Path):
        """A2.9, A6.6"""
        other = tmp_path / "other"
        other.mkdir()
        for name in ("keep", "drop", ".dockerignore"):
            (other / name).write_text("drop\n")

        assert tree(build("FROM scratch\nCOPY --from=o . /\n", "--build-context", f"o={other}")) == [
            ".dockerignore",
            "keep",
        ]

    def test_an_oci_layout_is_a_base(self, lamina: Lamina, build, tmp_path: Path):
        """A2.9: by tag, by digest, and alone without either."""
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "Dockerfile").write_text("FROM scratch\nCOPY <<E /base\nhi\nE\nENV X=1\n")
        layout = tmp_path / "layout"
        lamina.build(tmp_path / "b", "-t", "b:v1", "-o", f"type=oci,tar=false,dest={layout}")
        digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
        for source in (f"{layout}:v1", f"{layout}@{digest}", str(layout)):
            out = build("FROM any\nCOPY <<E /own\n$X\nE\n", "--build-context", f"any=oci-layout://{source}")
            assert tree(out) == ["base", "own"] and (out / "own").read_text() == "1\n"

    def test_a_missing_tag_lists_what_is_there(self, lamina: Lamina, tmp_path: Path):
        """A2.9"""
        (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY <<E /base\nhi\nE\n")
        layout = tmp_path / "layout"
        lamina.build(tmp_path, "-t", "b:v1", "-o", f"type=oci,tar=false,dest={layout}")
        (tmp_path / "Dockerfile").write_text("FROM any\n")

        done = lamina.build(tmp_path, "--build-context", f"any=oci-layout://{layout}:v2", check=False)

        assert done.returncode != 0 and "there is: v1" in done.stderr

    def test_a_download_is_a_context_of_one_file(self, build):
        """A2.9"""
        with running_web() as web:
            web.files["/f"] = Served(b"data")
            out = build("FROM scratch\nCOPY --from=d /context /f\n", "--build-context", f"d={web.url('/f')}")

        assert (out / "f").read_bytes() == b"data"


class TestPlatforms:
    TEXT = (
        "FROM scratch AS tool\nCOPY <<E /tool\ntool\nE\n"
        "FROM scratch\nARG TARGETARCH\nCOPY --from=tool /tool /\nCOPY <<E /arch\n$TARGETARCH\nE\n"
    )

    def test_an_index_that_other_tools_read(self, lamina: Lamina, tmp_path: Path):
        """Several platforms are one image; each holds its own files."""
        (tmp_path / "Dockerfile").write_text(self.TEXT)
        lamina.build(tmp_path, "--platform", "linux/amd64,linux/arm64", "-t", "m")
        raw = subprocess.run(
            ["skopeo", "inspect", "--raw", f"oci:{lamina.root}/oci:docker.io/library/m:latest"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

        platforms = [entry["platform"]["architecture"] for entry in json.loads(raw)["manifests"]]
        assert platforms == ["amd64", "arm64"]

    def test_a_directory_for_each(self, build):
        """`-o type=local` keeps platforms apart."""
        out = build(self.TEXT, "--platform", "linux/amd64,linux/arm64")

        assert [(out / f"linux_{name}" / "arch").read_text() for name in ("amd64", "arm64")] == ["amd64\n", "arm64\n"]

    def test_a_step_for_another_machine_says_what_to_install(self, busybox, lamina: Lamina, tmp_path: Path):
        """Without an emulator the error names the one command."""
        other = "s390x" if host_platform().architecture != "s390x" else "amd64"
        if Path("/proc/sys/fs/binfmt_misc/qemu-s390x").exists():
            pytest.skip("an emulator is registered here")
        busybox_context(tmp_path / "ctx", "FROM base\nRUN true\n")

        done = lamina.build(tmp_path / "ctx", "--platform", f"linux/{other}", check=False)

        assert done.returncode != 0 and "apt-get install qemu-user-static" in done.stderr
        assert f"this step is for linux/{other}" in done.stderr and ">>> RUN true" in done.stderr
