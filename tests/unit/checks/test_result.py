"""L9: what would fail when the image is run is found in its files: each rule by what breaks it and what does not."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lamina.checks.result_view import Trouble
from lamina.layer.program import TRUST_PATH
from lamina.oci.platform import Platform
from support.bases import busybox_rootfs
from support.built import image_of, troubles
from support.elves import ARM, ARM64, I386, make_elf, write_elf

GLIBC = "/lib64/ld-linux-x86-64.so.2"
MUSL = "/lib/ld-musl-x86_64.so.1"
FORMS = pytest.mark.parametrize("blob", [True, False], ids=["blob", "tree"])

Check = Callable[..., list[Trouble]]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


@pytest.fixture
def check(files: Path, tmp_path: Path) -> Check:
    """Check an image made of `files`; config fields are given by name."""

    def run(*, blob: bool = True, platform: str = "linux/amd64", **config: Any) -> list[Trouble]:
        return troubles(files, tmp_path / "root", config, blob=blob, platform=Platform.parse(platform))

    return run


def write(path: Path, content: str | bytes = "", mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


def glibc(folder: Path) -> None:
    """Give the image a loader and a C library, both by name and header only."""
    write_elf(folder / GLIBC[1:], soname="ld-linux-x86-64.so.2")
    write_elf(folder / "lib/x86_64-linux-gnu/libc.so.6", soname="libc.so.6", needed=("ld-linux-x86-64.so.2",))


def rules(found: list[Trouble]) -> list[str]:
    return [trouble.rule for trouble in found]


def only(found: list[Trouble], rule: str) -> Trouble:
    assert rules(found) == [rule], found
    return found[0]


class TestLoader:
    @FORMS
    def test_a_program_with_loader_and_libraries_is_fine(self, files: Path, check: Check, blob: bool):
        glibc(files)
        write_elf(files / "app", interpreter=GLIBC, needed=("libc.so.6",))

        assert check(blob=blob, Entrypoint=["/app"]) == []

    @FORMS
    def test_a_dynamic_program_on_nothing_lacks_its_loader(self, files: Path, check: Check, blob: bool):
        """Pitfall 5: a dynamic program on scratch ends in 'no such file or directory'."""
        write_elf(files / "app", interpreter=GLIBC, needed=("libc.so.6",))

        found = only(check(blob=blob, Entrypoint=["/app"]), "LoaderMissing")

        assert found.about == "ENTRYPOINT"
        assert GLIBC in found.message and "CGO_ENABLED=0" in found.message

    def test_glibc_on_musl_is_told_with_both_names(self, files: Path, check: Check):
        """Pitfall 4, gliderlabs/docker-alpine#12."""
        write_elf(files / MUSL[1:])
        write_elf(files / "usr/local/bin/app", interpreter=GLIBC, needed=("libc.so.6",))

        found = only(check(Cmd=["app"]), "LibcMismatch")

        assert "built on glibc, the image runs musl" in found.message and "Alpine stage" in found.message

    def test_musl_on_glibc_is_told_the_other_way_round(self, files: Path, check: Check):
        glibc(files)
        write_elf(files / "app", interpreter=MUSL, needed=("libc.musl-x86_64.so.1",))

        found = only(check(Cmd=["/app"]), "LibcMismatch")

        assert "built on musl, the image runs glibc" in found.message

    def test_a_static_program_needs_nothing(self, files: Path, check: Check):
        write_elf(files / "app", kind=2)

        assert check(Entrypoint=["/app"]) == []

    def test_a_program_that_the_build_added_in_path_is_looked_at(self, files: Path, check: Check):
        write_elf(files / "app", kind=2)
        write_elf(files / "usr/local/bin/tool", interpreter=GLIBC, needed=("libc.so.6",))
        write_elf(files / "srv/node_modules/x/prebuilds/tool", interpreter=GLIBC, needed=("libc.so.6",))

        found = only(check(Entrypoint=["/app"]), "LoaderMissing")

        assert found.about == "" and "/usr/local/bin/tool" in found.message

    def test_many_broken_programs_are_not_all_told(self, files: Path, check: Check):
        for number in range(9):
            write_elf(files / f"usr/bin/tool{number}", interpreter=GLIBC)

        assert rules(check(Cmd=["/usr/bin/tool5"])) == ["LoaderMissing"] * 4

    def test_an_image_that_starts_nothing_carries_files_only(self, files: Path, check: Check):
        """`FROM scratch` with a program for others to copy is no image to run."""
        write_elf(files / "app", interpreter=GLIBC)

        assert check() == []


class TestArchitecture:
    @FORMS
    def test_a_program_for_another_processor(self, files: Path, check: Check, blob: bool):
        write_elf(files / "app", machine=ARM64, interpreter="/lib/ld-linux-aarch64.so.1")

        found = only(check(blob=blob, Cmd=["/app"]), "WrongArchitecture")

        assert "built for arm64, the image for linux/amd64" in found.message

    def test_a_right_one_when_the_image_is_for_it(self, files: Path, check: Check):
        write_elf(files / "app", machine=ARM64, kind=2)

        assert check(Cmd=["/app"], platform="linux/arm64") == []

    @pytest.mark.parametrize(("machine", "platform"), [(I386, "linux/amd64"), (ARM, "linux/arm64")])
    def test_the_32_bit_kin_of_a_processor_is_fine(self, files: Path, check: Check, machine: int, platform: str):
        write_elf(files / "app", machine=machine, bits=32, kind=2)

        assert check(Cmd=["/app"], platform=platform) == []


class TestLibraries:
    @FORMS
    def test_what_is_nowhere_is_named_with_its_package(self, files: Path, check: Check, blob: bool):
        glibc(files)
        write_elf(files / "app", interpreter=GLIBC, needed=("libpq.so.5", "libc.so.6"))

        found = only(check(blob=blob, Cmd=["/app"]), "LibraryMissing")

        assert "/app needs libpq.so.5, which its loader" in found.message and "libpq5 (Debian)" in found.detail[0]

    def test_what_a_library_needs_counts_too(self, files: Path, check: Check):
        glibc(files)
        write_elf(files / "usr/lib/liba.so", needed=("libb.so",))
        write_elf(files / "app", interpreter=GLIBC, needed=("liba.so",))

        found = only(check(Cmd=["/app"]), "LibraryMissing")

        assert found.detail == ("libb.so, wanted by /usr/lib/liba.so",)

    @pytest.mark.parametrize(
        ("features", "place", "config"),
        [
            ({"runpath": "$ORIGIN/../lib"}, "opt/lib", {}),
            ({"rpath": "/x:${ORIGIN}/../lib"}, "opt/lib", {}),
            ({"runpath": "/opt/$LIB"}, "opt/lib64", {}),
            ({}, "opt/libs", {"Env": ["LD_LIBRARY_PATH=/nope:/opt/libs"]}),
            ({}, "conf/d", {}),
            ({}, "conf/included", {}),
            ({}, "usr/lib/x86_64-linux-gnu", {}),
            ({}, "usr/lib64", {}),
            ({}, "in/cache", {}),
        ],
    )
    def test_it_is_found_as_the_loader_finds_it(
        self, files: Path, check: Check, features: dict[str, str], place: str, config: dict[str, Any]
    ):
        glibc(files)
        write(files / "etc/ld.so.conf", "# a comment\n/conf/d\ninclude ld.so.conf.d/*.conf\n")
        write(files / "etc/ld.so.conf.d/x.conf", "/conf/included # here\n")
        write(files / "etc/ld.so.cache", b"\0libfoo.so.1\0/in/cache/libfoo.so.1\0")
        write_elf(files / "opt/bin/app", interpreter=GLIBC, needed=("libfoo.so.1",), **features)
        assert rules(check(Cmd=["/opt/bin/app"], **config)) == ["LibraryMissing"]

        write_elf(files / place / "libfoo.so.1.2")
        (files / place / "libfoo.so.1").symlink_to("libfoo.so.1.2")

        assert check(Cmd=["/opt/bin/app"], **config) == []

    def test_rpath_is_handed_down_and_runpath_is_not(self, files: Path, check: Check):
        """ld.so(8): DT_RPATH of a program serves its libraries, DT_RUNPATH only itself."""
        glibc(files)
        write_elf(files / "opt/lib/liba.so", needed=("libb.so",))
        write_elf(files / "opt/lib/libb.so")

        write_elf(files / "app", interpreter=GLIBC, needed=("liba.so",), rpath="/opt/lib")
        assert check(Cmd=["/app"]) == []
        write_elf(files / "app", interpreter=GLIBC, needed=("liba.so",), runpath="/opt/lib")
        assert rules(check(Cmd=["/app"])) == ["LibraryMissing"]

    def test_a_library_for_another_processor_is_passed_over(self, files: Path, check: Check):
        glibc(files)
        write_elf(files / "lib/libfoo.so", machine=ARM64)
        write_elf(files / "app", interpreter=GLIBC, needed=("libfoo.so",))

        assert rules(check(Cmd=["/app"])) == ["LibraryMissing"]

    def test_musl_has_its_own_places(self, files: Path, check: Check):
        write_elf(files / MUSL[1:])
        write_elf(files / "usr/local/lib/libfoo.so")
        write_elf(files / "app", interpreter=MUSL, needed=("libfoo.so", "libc.musl-x86_64.so.1", "libpthread.so.0"))
        assert check(Cmd=["/app"]) == []

        write(files / "etc/ld-musl-x86_64.path", "/lib:/usr/lib\n")
        assert rules(check(Cmd=["/app"])) == ["LibraryMissing"]

    def test_a_volume_may_hold_anything(self, files: Path, check: Check):
        glibc(files)
        write_elf(files / "app", interpreter=GLIBC, needed=("libfoo.so",), runpath="/plugins/lib")

        assert check(Cmd=["/app"], Volumes={"/plugins": {}}) == []

    def test_libraries_that_need_each_other_end(self, files: Path, check: Check):
        glibc(files)
        write_elf(files / "lib/liba.so", needed=("libb.so",))
        write_elf(files / "lib/libb.so", needed=("liba.so",))
        write_elf(files / "app", interpreter=GLIBC, needed=("liba.so",))

        assert check(Cmd=["/app"]) == []


class TestStart:
    def test_nothing_to_run_is_fine(self, check: Check):
        assert check() == []

    @pytest.mark.parametrize(
        ("command", "says"),
        [
            (["/srv/sever"], "did you mean /srv/server?"),
            (["/gone/app"], "which is not in the image"),
            (["server"], "write ./server or /srv/server"),
            (["nginx"], "in no directory of PATH (/bin:/usr/bin)"),
            (["nginx -g x"], '["nginx", "-g", "x"]'),
            (["/srv"], "which is a directory"),
            (["/dangling"], "a link to nowhere, which is not in the image"),
            (["/loop"], "a link that leads back to itself"),
            (["python3", "main.py"], "runs python3 on /srv/main.py, which is not in the image"),
            (["/bin/tini", "--", "gone"], "'gone'"),
        ],
    )
    def test_a_dead_command(self, files: Path, check: Check, command: list[str], says: str):
        write_elf(files / "srv/server", kind=2)
        write_elf(files / "bin/python3", kind=2)
        write_elf(files / "bin/tini", kind=2)
        (files / "dangling").symlink_to("nowhere")
        (files / "loop").symlink_to("loop")

        found = only(check(Cmd=command, WorkingDir="/srv", Env=["PATH=/bin:/usr/bin"]), "ProgramMissing")

        assert says in found.message and found.about == "CMD"

    @pytest.mark.parametrize(
        "config",
        [
            {"Cmd": ["./server"]},
            {"Cmd": ["server"], "Env": ["PATH=/nope:/srv"]},
            {"Entrypoint": ["/srv/server"], "Cmd": ["any", "words"]},
            {"Cmd": ["/link/server"]},
            {"Cmd": ["/data/app"], "Volumes": {"/data": {}}},
            {"Cmd": ["/bin/python3", "main.py"], "Volumes": {"/srv": {}}},
            {"Cmd": ["/bin/python3", "-m", "main.py"]},
        ],
    )
    def test_a_live_command(self, files: Path, check: Check, config: dict[str, Any]):
        write_elf(files / "srv/server", kind=2)
        write_elf(files / "bin/python3", kind=2)
        (files / "link").symlink_to("srv")

        assert check(WorkingDir="/srv", **config) == []

    def test_shell_form_without_a_shell(self, files: Path, check: Check):
        """Pitfall: CMD app on scratch means /bin/sh -c app."""
        write_elf(files / "app", kind=2)

        found = only(check(Cmd=["/bin/sh", "-c", "/app --now"]), "ShellMissing")

        assert "shell form" in found.message and "/bin/sh" in found.message

    def test_health_checks_are_commands_too(self, files: Path, check: Check):
        write_elf(files / "app", kind=2)
        shell = {"Test": ["CMD-SHELL", "curl -f http://localhost/"]}

        found = only(check(Cmd=["/app"], Healthcheck=shell), "ShellMissing")
        assert found.about == "HEALTHCHECK" and 'HEALTHCHECK CMD ["program"' in found.message
        assert rules(check(Cmd=["/app"], Healthcheck={"Test": ["CMD", "curl"]})) == ["ProgramMissing"]
        assert check(Cmd=["/app"], Healthcheck={"Test": ["NONE"]}) == []

    def test_the_first_word_of_shell_form_when_it_is_a_path(self, files: Path, check: Check):
        write_elf(files / "bin/sh", kind=2)

        assert rules(check(Cmd=["/bin/sh", "-c", "exec /app/run --x"])) == ["ProgramMissing"]
        assert check(Cmd=["/bin/sh", "-c", "cd /app && ./run"]) == []
        assert check(Cmd=["/bin/sh", "-c", "/app/${NAME}/run"]) == []

    def test_what_may_not_be_executed(self, files: Path, check: Check):
        write(files / "run.sh", "#!/bin/sh\n", 0o644)

        found = only(check(Entrypoint=["/run.sh"]), "ProgramNotExecutable")

        assert "COPY --chmod=755" in found.message

    def test_what_only_its_owner_may_execute(self, files: Path, check: Check):
        write_elf(files / "app", kind=2).chmod(0o700)

        assert check(Entrypoint=["/app"]) == []
        assert rules(check(Entrypoint=["/app"], User="4242")) == ["ProgramNotExecutable"]

    @FORMS
    def test_a_script_saved_on_windows(self, files: Path, check: Check, blob: bool):
        write_elf(files / "bin/sh", kind=2)
        write(files / "run.sh", "#!/bin/sh\r\necho hello\r\n", 0o755)

        found = only(check(blob=blob, Entrypoint=["/run.sh"]), "ScriptLineEnds")

        assert "CR LF" in found.message and ".gitattributes" in found.message

    @pytest.mark.parametrize(
        ("first", "says"),
        [
            ("#!/bin/bash\n", "install bash"),
            ("#! /usr/bin/env python3\n", "'python3'"),
            ("#!/usr/bin/env -S python3 -u\n", "'python3'"),
            ("#!/usr/bin/python3\n", "/usr/bin/python3, which is not in the image"),
            ("echo no first line\n", "a text without a first line"),
            ("", "an empty file"),
        ],
    )
    def test_a_script_without_its_interpreter(self, files: Path, check: Check, first: str, says: str):
        write_elf(files / "usr/bin/env", kind=2)
        write(files / "run", first, 0o755)

        assert says in only(check(Entrypoint=["/run"]), "ScriptInterpreterMissing").message

    def test_a_scripts_interpreter_is_checked_in_its_turn(self, files: Path, check: Check):
        write_elf(files / "usr/bin/env", kind=2)
        write_elf(files / "usr/bin/python3", interpreter=GLIBC, needed=("libc.so.6",))
        write(files / "run", "#!/usr/bin/env python3\n", 0o755)

        assert "/usr/bin/python3" in only(check(Entrypoint=["/run"]), "LoaderMissing").message

    def test_scripts_that_interpret_each_other_end(self, files: Path, check: Check):
        write(files / "a", "#!/b\n", 0o755)
        write(files / "b", "#!/a\n", 0o755)

        assert check(Entrypoint=["/a"]) == []

    def test_a_damaged_program_is_told(self, files: Path, check: Check):
        write(files / "app", make_elf(interpreter=GLIBC)[:70], 0o755)

        assert "build it again" in only(check(Entrypoint=["/app"]), "ProgramMissing").message


class TestCertificates:
    def test_a_static_program_that_looks_for_them(self, files: Path, check: Check):
        """Go's crypto/x509 on scratch: 'certificate signed by unknown authority'."""
        write_elf(files / "app", kind=2, payload=bytes(2_000_000) + TRUST_PATH)

        found = only(check(Entrypoint=["/app"]), "CertificatesMissing")

        assert "ca-certificates" in found.message

    def test_a_large_one_that_is_linked_to_the_c_library_alone(self, files: Path, check: Check):
        """What Go makes with cgo."""
        glibc(files)
        write_elf(files / "app", interpreter=GLIBC, needed=("libc.so.6",), payload=bytes(2_000_000) + TRUST_PATH)

        assert rules(check(Entrypoint=["/app"])) == ["CertificatesMissing"]

    @FORMS
    def test_a_program_that_calls_for_the_systems_trust(self, files: Path, check: Check, blob: bool):
        glibc(files)
        write_elf(files / "lib/libssl.so.3")
        write_elf(
            files / "app", interpreter=GLIBC, needed=("libssl.so.3",), symbols=("SSL_CTX_set_default_verify_paths",)
        )

        assert rules(check(blob=blob, Entrypoint=["/app"])) == ["CertificatesMissing"]

    def test_a_server_that_only_shows_its_own_is_fine(self, files: Path, check: Check):
        glibc(files)
        write_elf(files / "lib/libssl.so.3")
        write_elf(files / "app", interpreter=GLIBC, needed=("libssl.so.3",), symbols=("SSL_CTX_use_certificate_file",))

        assert check(Entrypoint=["/app"]) == []

    @pytest.mark.parametrize("bundle", ["etc/ssl/certs/ca-certificates.crt", "etc/ssl/cert.pem", "etc/ssl/certs/0a.0"])
    def test_an_image_that_has_them_is_fine(self, files: Path, check: Check, bundle: str):
        write_elf(files / "app", kind=2, payload=TRUST_PATH)
        write(files / bundle, "certificates")

        assert check(Entrypoint=["/app"]) == []

    def test_one_told_where_they_are_is_fine(self, files: Path, check: Check):
        write_elf(files / "app", kind=2, payload=TRUST_PATH)

        assert check(Entrypoint=["/app"], Env=["SSL_CERT_FILE=/run/ca.pem"]) == []


class TestSettings:
    @FORMS
    def test_a_user_that_nobody_made(self, files: Path, check: Check, blob: bool):
        write(files / "etc/passwd", "root:x:0:0::/root:/bin/sh\napp:x:5:5::/:/bin/sh\n")
        write(files / "etc/group", "root:x:0:\n")

        assert check(blob=blob, User="app") == []
        assert check(blob=blob, User="4:4") == []
        assert (
            "user 'web', which /etc/passwd does not have" in only(check(blob=blob, User="web"), "UserMissing").message
        )
        assert "group 'web'" in only(check(blob=blob, User="app:web"), "UserMissing").message

    def test_a_user_where_there_is_no_list_of_users(self, check: Check):
        assert "the image has no /etc/passwd" in only(check(User="nobody"), "UserMissing").message

    def test_a_working_directory_that_is_none(self, files: Path, check: Check):
        write(files / "file")
        (files / "folder").mkdir()

        assert check(WorkingDir="/folder") == []
        assert check(WorkingDir="/data/x", Volumes={"/data": {}}) == []
        assert "a later step removed it" in only(check(WorkingDir="/gone"), "WorkdirMissing").message
        assert "no directory but a file" in only(check(WorkingDir="/file"), "WorkdirMissing").message

    def test_a_time_zone_without_rules(self, files: Path, check: Check):
        assert "install tzdata" in only(check(Env=["TZ=Europe/Berlin"]), "TimeZoneMissing").message
        assert (
            check(Env=["TZ=Etc/UTC"])
            == check(Env=["TZ=UTC"])
            == check(Env=["TZ=CET-1CEST"])
            == check(Env=["TZ=Europe/Berlin", "TZDIR=/z"])
            == []
        )

        write(files / "usr/share/zoneinfo/Europe/Berlin", "TZif")
        assert check(Env=["TZ=Europe/Berlin"]) == []
        assert "check the spelling" in only(check(Env=["TZ=Europe/Berlim"]), "TimeZoneMissing").message


class TestRealFiles:
    @FORMS
    def test_busybox_gives_no_finding(self, files: Path, check: Check, blob: bool):
        """False alarms cost more than they teach: a sound image is silent."""
        busybox_rootfs(files)

        assert check(blob=blob, Cmd=["sh"], Env=["PATH=/bin:/usr/bin"], User="nobody", WorkingDir="/root") == []

    def test_a_real_program_of_this_machine_with_its_real_libraries(self, files: Path, check: Check):
        """What ldd says this machine's `ls` loads is enough for it, and every one of them is needed."""
        program = shutil.which("ls") or "/bin/ls"
        said = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        paths = [word for line in said.splitlines() for word in line.split() if word.startswith("/")]
        for path in [program, *paths]:
            target = files / path[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(path).resolve(), target)
        host = Platform.parse("local")
        assert check(Cmd=[program], platform=str(host)) == []

        for path in paths:
            (files / path[1:]).rename(files / "away")
            assert rules(check(Cmd=[program], platform=str(host))) in (["LibraryMissing"], ["LoaderMissing"]), path
            (files / "away").rename(files / path[1:])

    def test_an_image_for_another_system_is_left_alone(self, check: Check):
        assert check(Cmd=["app.exe"], platform="windows/amd64") == []

    def test_blob_and_notes_give_the_same_answer(self, files: Path, tmp_path: Path):
        """What a blob's programs say is kept: the second look reads no blob and finds the same."""
        write_elf(files / "app", interpreter=GLIBC, needed=("libc.so.6",))
        with image_of(files, tmp_path / "root", {}) as image:
            first = image.tree.program("app")
        blobs = tmp_path / "root/oci/blobs/sha256"

        with image_of(files, tmp_path / "root", {}) as image:
            for path in blobs.iterdir():
                path.unlink()
            second = image.tree.program("app")

        assert first == second and first is not None and first.elf is not None
