"""L9: builds tell what would fail when the image is run, and are silent about images that work.

Real builds; nothing of the results is run.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from pathlib import Path

import pytest

from lamina.oci.platform import host_platform
from support.bases import busybox_context, debian_rootfs, find_busybox, link_or_copy
from support.command import Lamina
from support.elves import AMD64, ARM64, write_elf

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for overlay mounts"),
    pytest.mark.skipif(shutil.which("crun") is None, reason="no crun here: apt-get install crun"),
]

RULES = (
    "ProgramMissing", "ProgramNotExecutable", "ShellMissing", "ScriptInterpreterMissing", "ScriptLineEnds",
    "WrongArchitecture", "LibcMismatch", "LoaderMissing", "LibraryMissing", "CertificatesMissing", "UserMissing",
    "WorkdirMissing", "TimeZoneMissing",
)  # fmt: skip


def warnings(lamina: Lamina, context: Path, *words: str) -> list[str]:
    """Build and return the warnings of these rules, as `RULE: message`."""
    done = lamina("build", "--progress=rawjson", *words, context)
    found = []
    for line in done.stderr.splitlines() + done.stdout.splitlines():
        if line.startswith("{"):
            for warning in json.loads(line).get("warnings") or []:
                found.append(base64.b64decode(warning["short"]).decode())
    return [short for short in found if short.startswith(RULES)]


def rules(found: list[str]) -> list[str]:
    return [short.partition(":")[0] for short in found]


def write(context: Path, dockerfile: str) -> Path:
    context.mkdir(parents=True, exist_ok=True)
    (context / "Dockerfile").write_text(dockerfile)
    return context


def test_a_dynamic_program_of_this_machine_on_scratch(lamina: Lamina, tmp_path: Path):
    context = write(tmp_path / "ctx", 'FROM scratch\nCOPY ls /ls\nENTRYPOINT ["/ls"]\n')
    shutil.copy(shutil.which("ls") or "/bin/ls", context / "ls")

    found = warnings(lamina, context)

    assert rules(found) == ["LoaderMissing"]


def test_files_that_are_not_exported_as_an_image_are_left_alone(lamina: Lamina, tmp_path: Path):
    """The usual way to build a program for this machine: `-o type=local`."""
    context = write(tmp_path / "ctx", 'FROM scratch\nCOPY ls /ls\nENTRYPOINT ["/ls"]\n')
    shutil.copy(shutil.which("ls") or "/bin/ls", context / "ls")

    assert warnings(lamina, context, "-o", f"type=local,dest={tmp_path / 'out'}") == []


def test_a_glibc_program_on_a_musl_base(lamina: Lamina, tmp_path: Path):
    context = busybox_context(tmp_path / "ctx", 'COPY ls /usr/bin/real-ls\nCMD ["real-ls"]\n')
    write_elf(context / "rootfs/lib/ld-musl-x86_64.so.1", soname="libc.musl-x86_64.so.1")
    shutil.copy(shutil.which("ls") or "/bin/ls", context / "ls")

    found = warnings(lamina, context)

    assert rules(found) == ["LibcMismatch"]
    assert "built on glibc, the image runs musl" in found[0]


def test_a_library_that_stayed_in_the_build_stage(lamina: Lamina, tmp_path: Path):
    """The classic of multi-stage builds: the program comes along, what it is linked to does not."""
    context = write(
        tmp_path / "ctx",
        'FROM scratch\nADD debian.tar /\nRUN rm /usr/lib/*/libexpat.so.1*\nCMD ["python3", "-c", "print(1)"]\n',
    )
    link_or_copy(debian_rootfs(), context / "debian.tar")

    found = warnings(lamina, context)

    assert rules(found) == ["LibraryMissing"]
    assert "libexpat.so.1" in found[0]


def test_a_dead_entrypoint_a_script_from_windows_and_shell_form_on_scratch(lamina: Lamina, tmp_path: Path):
    context = busybox_context(
        tmp_path / "ctx",
        'FROM base AS dead\nENTRYPOINT ["/app/sever"]\n'
        'FROM base AS windows\nCOPY --chmod=755 run.sh /\nENTRYPOINT ["/run.sh"]\n'
        "FROM scratch AS shell\nCOPY run.sh /\nCMD /run.sh\n",
    )
    (context / "run.sh").write_bytes(b"#!/bin/sh\r\necho hello\r\n")

    assert rules(warnings(lamina, context, "--target=dead")) == ["ProgramMissing"]
    assert rules(warnings(lamina, context, "--target=windows")) == ["ScriptLineEnds"]
    assert rules(warnings(lamina, context, "--target=shell")) == ["ShellMissing"]


def test_a_program_for_another_processor(lamina: Lamina, tmp_path: Path):
    context = busybox_context(tmp_path / "ctx", 'COPY app /usr/bin/app\nRUN true\nCMD ["app"]\n')
    here = host_platform().architecture
    machine, foreign = (AMD64, "amd64") if here == "arm64" else (ARM64, "arm64")
    write_elf(context / "app", machine=machine, kind=2)

    found = warnings(lamina, context)

    assert rules(found) == ["WrongArchitecture"]
    assert f"built for {foreign}, the image for linux/{here}" in found[0]


def test_a_base_image_is_not_blamed_but_what_it_starts_is(lamina: Lamina, tmp_path: Path):
    """A program in a base is somebody else's, until this build makes it the entry point; the base is only a blob."""
    base = write(tmp_path / "base", "FROM scratch\nCOPY bin /usr/bin/\n")
    write_elf(base / "bin/broken", interpreter="/lib/gone.so.1", machine=_machine())
    lamina.build(base, "-t", "base")
    silent = write(tmp_path / "silent", "FROM base\nCOPY Dockerfile /\n")
    starts = write(tmp_path / "starts", 'FROM base\nCOPY Dockerfile /\nCMD ["broken"]\n')

    assert warnings(lamina, silent) == []
    assert rules(warnings(lamina, starts)) == ["LoaderMissing"]


def _machine() -> int:
    return ARM64 if host_platform().architecture == "arm64" else AMD64


@pytest.mark.parametrize("form", ["", "RUN true\n"], ids=["blob only", "tree"])
def test_busybox_is_silent(lamina: Lamina, tmp_path: Path, form: str):
    context = busybox_context(tmp_path / "ctx", f'{form}WORKDIR /srv\nUSER nobody\nCMD ["sh", "-c", "echo hello"]\n')

    assert warnings(lamina, context) == []


@pytest.mark.parametrize("form", ["", "RUN python3 -m venv /venv\nENV PATH=/venv/bin:$PATH\n"], ids=["blob", "tree"])
def test_debian_is_silent(lamina: Lamina, tmp_path: Path, form: str):
    """All of a distribution's programs count as the build's own here, and not one may be called broken."""
    context = write(
        tmp_path / "ctx",
        "FROM scratch\nADD debian.tar /\nENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TZ=Etc/UTC\n"
        f'{form}WORKDIR /srv\nCOPY app.py .\nUSER www-data\nENTRYPOINT ["python3", "app.py"]\n',
    )
    (context / "app.py").write_text("print('hello')\n")
    link_or_copy(debian_rootfs(), context / "debian.tar")

    assert warnings(lamina, context) == []


def test_a_warning_is_repeated_when_all_is_cached_and_can_be_skipped(lamina: Lamina, tmp_path: Path):
    """The second build does no work and still tells; `# check=skip=` silences it."""
    context = write(tmp_path / "ctx", 'FROM scratch\nCOPY app /app\nENTRYPOINT ["/ap"]\n')
    shutil.copy(find_busybox(), context / "app")

    first, second = lamina.build(context), lamina.build(context)
    for done in (first, second):
        assert "ProgramMissing" in done.stderr + done.stdout
    assert "did you mean /app?" in first.stderr + first.stdout

    (context / "Dockerfile").write_text("# check=skip=ProgramMissing\n" + (context / "Dockerfile").read_text())
    assert warnings(lamina, context) == []


def test_findings_end_a_build_that_asks_for_it(lamina: Lamina, tmp_path: Path):
    context = write(tmp_path / "ctx", '# check=error=true\nFROM scratch\nCOPY app /app\nENTRYPOINT ["/ap"]\n')
    shutil.copy(find_busybox(), context / "app")

    done = lamina("build", "-t", "broken", context, check=False)

    assert done.returncode == 2
    assert "ProgramMissing" in done.stderr and "Dockerfile:4" in done.stderr
