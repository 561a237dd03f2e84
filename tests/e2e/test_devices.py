"""RUN --device with real CDI files and a real runtime. IDs are rows of the feature map."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from support.bases import busybox_context
from support.command import Lamina

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for overlay mounts"),
    pytest.mark.skipif(shutil.which("crun") is None, reason="no crun here: apt-get install crun"),
]

SECONDS = 1000 + os.getpid() % 100_000  # of a hook that hangs; no other test sleeps as long
YAML = """
cdiVersion: "0.6.0"
kind: "vendor1.com/device"
devices:
- name: foo
  containerEdits:
    env:
    - FOO=injected
  annotations:
    org.mobyproject.buildkit.device.autoallow: true
"""


def spec(kind: str, *devices: dict, version: str = "0.7.0", **more) -> str:
    return json.dumps({"cdiVersion": version, "kind": kind, "devices": list(devices), **more})


def device(name: str, annotations: dict | None = None, **edits) -> dict:
    return {"name": name, "annotations": annotations or {}, "containerEdits": edits}


class Builder:
    """Builds on busybox with devices described in `cdi`; what steps leave in /out is the result."""

    def __init__(self, lamina: Lamina, folder: Path) -> None:
        self.lamina, self.folder = lamina, folder
        self.cdi = folder / "cdi"
        self.cdi.mkdir()
        busybox_context(folder / "ctx")

    def __call__(self, run: str, *words: str, check: bool = True):
        dockerfile = "FROM scratch AS base\nCOPY rootfs /\nENV PATH=/bin:/usr/bin\nWORKDIR /out\n"
        dockerfile += f"{run}\nFROM scratch\nCOPY --from=base /out /\n"
        (self.folder / "ctx" / "Dockerfile").write_text(dockerfile)
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        target = ["-o", f"type=local,dest={self.folder / 'out'}", f"--cdi-dir={self.cdi}"]
        return self.lamina.build(self.folder / "ctx", *target, *words, check=check)

    def text(self, name: str) -> str:
        return (self.folder / "out" / name).read_text().strip()


@pytest.fixture
def build(lamina: Lamina, tmp_path: Path) -> Builder:
    return Builder(lamina, tmp_path)


def test_environment_of_a_yaml_file(build: Builder):
    """A3.11: an auto-allowed device needs no --allow; an optional one that is not here is left out and said."""
    (build.cdi / "vendor1-device.yaml").write_text(YAML)

    done = build("RUN --device=vendor1.com/device=foo,required --device=vendor2.com/device=bar echo $FOO > foo")

    assert build.text("foo") == "injected"
    assert "optional device 'vendor2.com/device=bar' is not registered" in done.stderr


def test_device_of_a_file(build: Builder):
    """A3.11: the step has the machine's device under another name, owned by its user; no layer has it."""
    edits = {"deviceNodes": [{"path": "/dev/lamina/nothing", "hostPath": "/dev/zero", "fileMode": 0o640}]}
    (build.cdi / "zero.json").write_text(spec("lamina.dev/zero", device("a", **edits)))
    run = "RUN --device=lamina.dev/zero=a,required stat -c '%F %t:%T %a %u:%g' /dev/lamina/nothing > stat"
    run += " && dd if=/dev/lamina/nothing of=bytes bs=4 count=1"

    build(f"USER 12:34\nUSER 0\nRUN chown 12:34 .\nUSER 12:34\n{run}", "--allow", "device")

    assert build.text("stat") == "character special file 1:5 640 12:34"
    assert (build.folder / "out" / "bytes").read_bytes() == b"\0\0\0\0"


def test_what_a_device_brings(build: Builder):
    """A3.11: mounts are seen in the step only, groups and variables are the process's, the file's own come too."""
    library = build.folder / "lib"
    library.mkdir()
    (library / "driver.so").write_text("driver")
    mount = {"hostPath": str(library), "containerPath": "/usr/lib/vendor", "options": ["ro", "nosuid", "nodev", "bind"]}
    first = device("0", env=["PATH=/bin", "DEVICE=0"], mounts=[mount], additionalGids=[0, 44])
    common = {"env": ["COMMON=yes", "DEVICE=none"]}
    (build.cdi / "gpu.json").write_text(spec("vendor.com/gpu", first, containerEdits=common))
    run = "RUN --device=vendor.com/gpu cat /usr/lib/vendor/driver.so > driver; id -G > groups; env > env;"
    run += " ! touch /usr/lib/vendor/x"

    build(f"{run}\nRUN ls -d /usr/lib/vendor > later 2>&1 || true", "--allow", "device=vendor.com/gpu")

    assert build.text("driver") == "driver"
    assert build.text("groups").split() == ["0", "44"]
    assert {"PATH=/bin", "DEVICE=0", "COMMON=yes"} <= set(build.text("env").splitlines())
    assert "No such file" in build.text("later")


def test_hooks(build: Builder):
    """A3.11: the runtime starts the file's hooks before the step, with their own arguments and environment."""
    hook = build.folder / "hook.sh"
    hook.write_text(f'#!/bin/sh\necho "$0 $1 $WHO" > {build.folder}/ran\ncat > {build.folder}/state\n')
    hook.chmod(0o755)
    values = {"hookName": "createRuntime", "path": str(hook), "args": ["hook", "create"], "env": ["WHO=me"]}
    (build.cdi / "hook.json").write_text(spec("lamina.dev/hook", device("h", hooks=[{**values, "timeout": 60}])))

    build("RUN --device=lamina.dev/hook=h true", "--allow=device")

    assert (build.folder / "ran").read_text().split() == [str(hook), "create", "me"]
    assert json.loads((build.folder / "state").read_text())["status"] in ("creating", "created")


def test_failing_hook_fails_the_build(build: Builder):
    """CDI, error handling: a hook that fails is told."""
    hook = {"hookName": "createRuntime", "path": "/bin/false"}
    (build.cdi / "hook.json").write_text(spec("lamina.dev/hook", device("h", hooks=[hook])))

    done = build("RUN --device=lamina.dev/hook=h true", "--allow=device", check=False)

    assert done.returncode == 5
    assert "hook" in done.stderr


class TestNames:
    @pytest.mark.parametrize(
        ("request_", "expected"),
        [
            ("lamina.dev/x=b", "b"),
            ("lamina.dev/x", "a"),
            ("lamina.dev/x=*", "a b"),
            ("fast", "b"),
        ],
    )
    def test_request(self, build: Builder, request_: str, expected: str):
        """A3.11: a device, the first of a kind, all of a kind, a class."""
        a, b = device("a", env=["A=a"]), device("b", {"org.mobyproject.buildkit.device.class": "fast"}, env=["B=b"])
        (build.cdi / "x.json").write_text(spec("lamina.dev/x", b, a))

        build(f"RUN --device={request_},required echo $A $B > got", "--allow=device")

        assert build.text("got") == expected

    def test_alias(self, build: Builder):
        """A3.11: --allow gives a device another name, and with it the leave."""
        (build.cdi / "x.json").write_text(spec("lamina.dev/x", device("a", env=["A=a"])))

        build("RUN --device=gpu,required echo $A > got", "--allow=device=lamina.dev/x=a,alias=gpu")

        assert build.text("got") == "a"


class TestRefusals:
    def test_not_allowed(self, build: Builder):
        """A3.11: a device that is here and was not allowed fails the build, required or not."""
        (build.cdi / "x.json").write_text(spec("lamina.dev/x", device("a", env=["A=a"])))

        done = build("RUN --device=lamina.dev/x=a true", "--allow=device=lamina.dev/y", check=False)

        assert done.returncode == 2
        assert "device lamina.dev/x=a is requested by the build but not allowed" in done.stderr
        assert "hint: allow it with --allow device=lamina.dev/x=a" in done.stderr
        assert "RUN --device=lamina.dev/x=a true" in done.stderr

    def test_required_and_not_here(self, build: Builder):
        """A3.11: `required` fails the build; a broken file that may be the reason is named."""
        (build.cdi / "x.json").write_text("{")

        done = build("RUN --device=lamina.dev/x=a,required true", "--allow=device", check=False)

        assert done.returncode == 2
        assert "required device 'lamina.dev/x=a' is not registered" in done.stderr
        assert f"{build.cdi}/x.json: this is no JSON" in done.stderr

    def test_a_directory_that_is_not_there(self, build: Builder):
        """A3.11: what --cdi-dir names must be there; the usual places may be missing."""
        done = build("RUN true", "--cdi-dir=/no/such", check=False)

        assert done.returncode == 2
        assert "--cdi-dir '/no/such' is no directory" in done.stderr

    def test_device_that_is_gone(self, build: Builder):
        """CDI, error handling: a device file that the machine lacks is told with its path."""
        edits = {"deviceNodes": [{"path": "/dev/lamina-no-such"}]}
        (build.cdi / "x.json").write_text(spec("lamina.dev/x", device("a", **edits)))

        done = build("RUN --device=lamina.dev/x=a true", "--allow=device", check=False)

        assert done.returncode == 5
        assert "/dev/lamina-no-such" in done.stderr


class TestKeys:
    def test_names_count_and_edits_do_not(self, build: Builder):
        """A3.11: another device is another step; what a device brings is not looked at, as with BuildKit."""
        path = build.cdi / "x.json"
        path.write_text(spec("lamina.dev/x", device("a", env=["A=1"]), device("b", env=["A=2"])))
        build("RUN --device=lamina.dev/x=a echo $A > got", "--allow=device")

        path.write_text(spec("lamina.dev/x", device("a", env=["A=3"]), device("b", env=["A=2"])))
        build("RUN --device=lamina.dev/x=a echo $A > got", "--allow=device")
        assert build.text("got") == "1"

        build("RUN --device=lamina.dev/x=b echo $A > got", "--allow=device")
        assert build.text("got") == "2"

    def test_an_optional_device_that_appears(self, build: Builder):
        """A3.11: a step that ran without its device runs again when the device is here."""
        build('RUN --device=lamina.dev/x=a echo "<$A>" > got', "--allow=device")
        assert build.text("got") == "<>"

        (build.cdi / "x.json").write_text(spec("lamina.dev/x", device("a", env=["A=1"])))
        build('RUN --device=lamina.dev/x=a echo "<$A>" > got', "--allow=device")
        assert build.text("got") == "<1>"

    def test_a_build_that_was_answered_from_the_cache(self, build: Builder):
        """A3.11: which devices are here is looked up each time, also where nothing else has changed."""
        words = (f"--cdi-dir={build.cdi}", "--allow=device", "-t", "x")
        (build.folder / "ctx" / "Dockerfile").write_text(
            'FROM scratch\nCOPY rootfs /\nRUN --device=lamina.dev/x=a echo "<$A>"\n'
        )
        assert "<>" in build.lamina.build(build.folder / "ctx", *words).stderr
        assert "<>" not in build.lamina.build(build.folder / "ctx", *words).stderr

        (build.cdi / "x.json").write_text(spec("lamina.dev/x", device("a", env=["A=1"])))

        assert "<1>" in build.lamina.build(build.folder / "ctx", *words).stderr


def test_a_hook_that_hangs_ends_with_its_build(build: Builder):
    """A3.11: hooks run under the step's helper: none survives the build."""
    fifo = build.folder / "fifo"
    os.mkfifo(fifo)
    hook = build.folder / "hook.sh"
    hook.write_text(f"#!/bin/sh\necho started > {fifo}\nexec sleep {SECONDS}\n")
    hook.chmod(0o755)
    values = {"hookName": "createRuntime", "path": str(hook)}
    (build.cdi / "hook.json").write_text(spec("lamina.dev/hook", device("h", hooks=[values])))
    (build.folder / "ctx" / "Dockerfile").write_text(
        "FROM scratch\nCOPY rootfs /\nRUN --device=lamina.dev/hook=h true\n"
    )
    words = ["build", "--allow=device", f"--cdi-dir={build.cdi}", str(build.folder / "ctx")]
    environment = {**os.environ, "LAMINA_ROOT": str(build.lamina.root)}
    with subprocess.Popen([sys.executable, "-m", "lamina", *words], env=environment, stderr=subprocess.PIPE) as process:
        assert fifo.read_text() == "started\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130

    assert not [line for line in _command_lines() if str(hook) in line or f"sleep\0{SECONDS}\0" in line]


def _command_lines() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().decode("utf-8", "replace"))
        except OSError:
            continue  # it has just ended
    return found


def test_doctor_lists_devices(lamina: Lamina, build: Builder):
    """A3.11: `lamina doctor` names the devices that steps could ask for."""
    (build.cdi / "x.json").write_text(spec("lamina.dev/x", device("a", env=["A=1"])))

    done = lamina("doctor", f"--cdi-dir={build.cdi}", check=False)

    assert "lamina.dev/x=a" in done.stdout


def test_the_fixture_device_is_one():
    """What the tests above rely on."""
    assert stat.S_ISCHR(os.stat("/dev/zero").st_mode)
