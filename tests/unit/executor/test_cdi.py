"""CDI files: what is taken, what is refused and how it is said. Spec: container-device-interface SPEC.md 1.1."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import InputError, MachineError
from lamina.executor.cdi import DeviceNode, Edits, Hook, HostMount, Plain, parse_spec
from lamina.executor.cdi_registry import CdiRegistry
from lamina.executor.cdi_text import read_json, read_yaml
from lamina.executor.devices import with_devices
from lamina.executor.spec import Place, build_config
from lamina.executor.step import Rootfs, Step

FULL = """\
cdiVersion: 0.7.0
kind: vendor.com/gpu.v1
annotations: {a: 1}
containerEdits:
  additionalGids: [0, 7]
devices:
  - name: 0
    annotations: {org.mobyproject.buildkit.device.autoallow: true}
    containerEdits:
      env: [A=1]
      deviceNodes:
        - {path: /dev/x, hostPath: /dev/y, type: c, major: 0x10, minor: 2, fileMode: 0640, permissions: rwm, uid: 1}
      mounts:
        - hostPath: /lib/x
          containerPath: "/lib/y"
          options: [ro, bind]
      hooks:
        - hookName: createContainer
          path: /bin/hook
          args: [hook, "1"]
          env:
          timeout: 3
"""


def minimal(**more) -> dict:
    values = {"cdiVersion": "1.1.0", "kind": "v.com/c", "devices": [{"name": "d"}]}
    return {**values, **more}


def with_edits(**edits) -> dict:
    return minimal(devices=[{"name": "d", "containerEdits": edits}])


def test_everything_in_a_yaml_file():
    """A3.11: unquoted scalars are numbers or texts as their field asks; octal and hexadecimal as YAML 1.1 has them."""
    spec = parse_spec(read_yaml(FULL.encode()))

    assert spec.kind == "vendor.com/gpu.v1"
    assert spec.edits == Edits(gids=(7,))
    (device,) = spec.devices
    assert device.name == "0"
    assert device.auto_allowed
    assert device.annotations["a"] == "1"
    assert device.edits == Edits(
        env=("A=1",),
        nodes=(DeviceNode("/dev/x", "/dev/y", "c", 16, 2, 0o640, "rwm", 1, None),),
        mounts=(HostMount("/lib/x", "/lib/y", "", ("ro", "bind")),),
        hooks=(Hook("createContainer", "/bin/hook", ("hook", "1"), (), 3),),
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "the file must be an object"),
        (minimal(cdiVersion="2"), "cdiVersion '2' is no version"),
        (minimal(cdiVersion="9.0.0"), "cdiVersion 9.0.0 is newer than 1.1.0"),
        (minimal(kind="gpu"), "kind 'gpu' is not of the form vendor.com/class"),
        (minimal(kind="v.com/c/d"), "not of the form vendor.com/class"),
        (minimal(devices=[]), "the file has no devices"),
        (minimal(devices=[{"name": "d"}, {"name": "d"}]), "device 'd' is there twice"),
        (minimal(devices=[{"name": "-d"}]), "devices[0].name must be letters"),
        (minimal(extra=1), "extra is no field that CDI knows"),
        (minimal(KIND="v.com/c"), "KIND is there twice"),
        (minimal(annotations={"a": 1}), "annotations.a must be a text"),
        (minimal(cdiVersion="0.5.0", annotations={"a": "b"}), "annotations needs cdiVersion 0.6.0"),
        (minimal(cdiVersion="0.5.0", kind="v.com/a.b"), "needs cdiVersion 0.6.0"),
        (minimal(cdiVersion="0.3.0", devices=[{"name": "0"}]), "needs cdiVersion 0.5.0"),
        (with_edits(env=["=x"]), "device d.containerEdits.env must hold NAME=value, got '=x'"),
        (with_edits(env="x"), "env must be a list"),
        (with_edits(env=["A=\0"]), "env holds a NUL byte"),
        (with_edits(deviceNodes=[{}]), "device d.containerEdits.deviceNodes[0].path is missing"),
        (with_edits(deviceNodes=[{"path": "dev/x"}]), "must be an absolute path"),
        (with_edits(deviceNodes=[{"path": "/dev/../x"}]), "must be an absolute path without '..'"),
        (with_edits(deviceNodes=[{"path": "/dev/x", "type": "z"}]), "type must be b, c, u or p"),
        (with_edits(deviceNodes=[{"path": "/dev/x", "major": "1"}]), "major must be a whole number"),
        (with_edits(deviceNodes=[{"path": "/dev/x", "major": True}]), "major must be a whole number"),
        (with_edits(deviceNodes=[{"path": "/dev/x", "uid": -1}]), "uid must be between"),
        (with_edits(deviceNodes=[{"path": "/dev/x", "permissions": "rx"}]), "permissions must be of the letters"),
        (with_edits(mounts=[{"hostPath": "/a"}]), "containerPath is missing"),
        (with_edits(hooks=[{"hookName": "before", "path": "/a"}]), "hookName must be one of prestart"),
        (with_edits(hooks=[{"hookName": "prestart", "path": "a"}]), "must be an absolute path"),
        (with_edits(hooks=[{"hookName": "prestart", "path": "/a", "timeout": 0}]), "timeout must be between 1"),
        (with_edits(additionalGids=[1 << 40]), "additionalGids must be between"),
    ],
)
def test_refused(value: object, message: str):
    """A field that is not right is named with its path."""
    with pytest.raises(InputError) as caught:
        parse_spec(value)

    assert message in caught.value.what


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "this is no YAML"),
        ("a: &x [1]\nb: *x", "line 2: aliases"),
        ("a: !!python/object:os.system [x]", "line 1: tags"),
        ("a: 1\na: 2", "line 2: key 'a' is there twice"),
        ("? [a]\n: b", "line 1: a key must be a text"),
        ("a: 1\n---\nb: 2", "line 2: one document"),
        ("[" * 100 + "]" * 100, "nested too deeply"),
        ("a: \x01", "this is no YAML"),
    ],
)
def test_yaml_refused(text: str, message: str):
    with pytest.raises(InputError) as caught:
        read_yaml(text.encode())

    assert message in caught.value.what


@pytest.mark.parametrize("text", ["{", '{"a": 1, "a": 2}', "NaN", "[" * 100_000, "1" * 10_000, "\xff"])
def test_json_refused(text: str):
    with pytest.raises(InputError):
        read_json(text.encode("latin-1"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
FIELDS = [
    *("cdiVersion", "kind", "devices", "annotations", "containerEdits", "name", "env", "deviceNodes", "mounts"),
    *("hooks", "path", "hostPath", "containerPath", "type", "major", "options", "hookName", "args", "timeout"),
    *("additionalGids", "intelRdt", "permissions"),
]
SPEC_LIKE = st.recursive(
    JSON | st.sampled_from(["1.1.0", "0.3.0", "v.com/c", "/dev/null", "A=b", "prestart", "rwm", "c"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
    max_leaves=30,
)


@given(SPEC_LIKE)
def test_anything_is_taken_or_refused(value: object):
    """No value makes anything but a `Spec` or our error."""
    for candidate in (value, minimal(containerEdits=value), minimal(devices=value)):
        try:
            parse_spec(candidate)
        except InputError:
            pass


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
def test_any_text_is_read_or_refused(text: str):
    for read in (read_json, read_yaml):
        try:
            read(text.encode("utf-8", "surrogatepass"))
        except InputError:
            pass


@given(JSON)
def test_json_read_as_yaml_has_the_same_shape(value: object):
    """JSON is YAML; the scalars of YAML are texts until a field asks."""

    def shape(part: object) -> object:
        if isinstance(part, dict):
            return {key: shape(item) for key, item in part.items()}
        return [shape(item) for item in part] if isinstance(part, list) else None

    text = json.dumps(value).encode()
    try:
        found = read_yaml(text)
    except InputError:
        return  # YAML 1.1 knows no long keys and no surrogates
    assert shape(found) == shape(read_json(text))


class TestRegistry:
    def write(self, folder: Path, name: str, *devices: str, kind: str = "v.com/c", env: str = "A=1") -> Path:
        folder.mkdir(exist_ok=True)
        listed = [{"name": device, "containerEdits": {"env": [env]}} for device in devices]
        path = folder / name
        path.write_text(json.dumps({"cdiVersion": "0.5.0", "kind": kind, "devices": listed}))
        return path

    def test_a_later_directory_counts_more(self, tmp_path: Path):
        self.write(tmp_path / "etc", "a.json", "x", "y", env="A=etc")
        self.write(tmp_path / "run", "b.json", "x", env="A=run")
        registry = CdiRegistry([str(tmp_path / "etc"), str(tmp_path / "run"), str(tmp_path / "none")])

        assert registry.names == ["v.com/c=x", "v.com/c=y"]
        assert registry.edits(["v.com/c=x", "v.com/c=y"]).env == ("A=run", "A=etc")
        assert registry.problems == []

    def test_two_files_of_a_directory_that_claim_a_device(self, tmp_path: Path):
        self.write(tmp_path, "a.json", "x", "y")
        self.write(tmp_path, "b.json", "x")
        registry = CdiRegistry([str(tmp_path)])

        assert registry.names == ["v.com/c=y"]
        assert registry.problems == [f"{tmp_path}/b.json: v.com/c=x is described in {tmp_path}/a.json too"]

    def test_broken_files_hide_their_own_devices_only(self, tmp_path: Path):
        self.write(tmp_path, "good.json", "x")
        self.write(tmp_path, "ignored.txt", "y")
        (tmp_path / "bad.yaml").write_text("a: [")
        (tmp_path / "folder.json").mkdir()
        os.mkfifo(tmp_path / "fifo.json")
        self.write(tmp_path, "open.json", "z").chmod(0o666)
        registry = CdiRegistry([str(tmp_path)])

        assert registry.names == ["v.com/c=x"]
        assert [line.partition(": ")[0].rpartition("/")[2] for line in registry.problems] == [
            "bad.yaml",
            "fifo.json",
            "folder.json",
            "open.json",
        ]
        assert "everybody may write it" in registry.problems[-1]

    def test_unsupported_is_refused_when_asked_for(self, tmp_path: Path):
        """A device that steps cannot be given does not take its neighbours along."""
        listed = [
            {"name": "rdt", "containerEdits": {"intelRdt": {"closID": "x"}}},
            {"name": "ro", "containerEdits": {"deviceNodes": [{"path": "/dev/null", "permissions": "r"}]}},
            {"name": "fine", "containerEdits": {"env": ["A=1"]}},
        ]
        (tmp_path / "a.json").write_text(json.dumps({"cdiVersion": "0.7.0", "kind": "v.com/c", "devices": listed}))
        registry = CdiRegistry([str(tmp_path)])

        assert registry.edits(["v.com/c=fine"]).env == ("A=1",)
        for name, what in (("rdt", "intelRdt"), ("ro", "/dev/null with less than read and write permission")):
            with pytest.raises(InputError, match=what):
                registry.edits([f"v.com/c={name}"])


class TestStep:
    STEP = Step(args=("true",), rootfs=Rootfs(("/",)), env=("PATH=/bin", "A=0"), uid=5, gid=6, extra_gids=(1,))

    def test_environment_and_groups(self):
        """A device's variable takes the place of the step's, groups are added once."""
        step = with_devices(self.STEP, Edits(env=("A=1", "B=2"), gids=(1, 2)))

        assert step.env == ("PATH=/bin", "A=1", "B=2")
        assert step.extra_gids == (1, 2)

    def test_device_file_takes_from_the_machine_what_is_not_said(self):
        step = with_devices(self.STEP, Edits(nodes=(DeviceNode("/dev//z", "/dev/zero", mode=0o600),)))

        assert step.devices == (DeviceNode("/dev/z", "/dev/zero", "c", 1, 5, 0o600, "", 5, 6),)

    @pytest.mark.parametrize(
        ("node", "error", "message"),
        [
            (DeviceNode("/etc/x", "/dev/null"), InputError, "/etc/x"),
            (DeviceNode("/dev/./", "/dev/null"), InputError, "under /dev/ only"),
            (DeviceNode("/dev/x", "/dev/null", "b"), MachineError, "device file of type b"),
            (DeviceNode("/dev/x", "/etc"), MachineError, "/etc to be a device file"),
            (DeviceNode("/dev/x", "/dev/no-such"), MachineError, "/dev/no-such"),
        ],
    )
    def test_device_files_refused(self, node: DeviceNode, error: type[Exception], message: str):
        with pytest.raises(error) as caught:
            with_devices(self.STEP, Edits(nodes=(node,)))

        assert message in str(caught.value) + getattr(caught.value, "hint", "")

    def test_a_mount_that_steps_cannot_be_given(self):
        for mount in (HostMount("proc", "/p", "proc"), HostMount("/a", "/b", "", ("idmap",))):
            with pytest.raises(InputError):
                with_devices(self.STEP, Edits(mounts=(mount,)))

    def test_config(self):
        """Root makes device files; in a user namespace the machine's own are bound. Hooks are listed by moment."""
        hooks = (Hook("prestart", "/a"), Hook("poststop", "/b", ("b", "x"), ("E=1",), 2), Hook("prestart", "/c"))
        step = with_devices(self.STEP, Edits(nodes=(DeviceNode("/dev/z", "/dev/zero"),), hooks=hooks))
        root = build_config(step, Place("x86_64"))
        user = build_config(step, Place("x86_64", user_namespace=True))

        mode = os.stat("/dev/zero").st_mode & 0o7777
        node = {"path": "/dev/z", "type": "c", "major": 1, "minor": 5, "fileMode": mode, "uid": 5, "gid": 6}
        assert root["linux"]["devices"] == [node]  # type: ignore[index]
        assert "devices" not in user["linux"]  # type: ignore[operator]
        bound = {"destination": "/dev/z", "type": "none", "source": "/dev/zero"}
        assert {**bound, "options": ["bind", "rw", "nosuid", "noexec"]} in user["mounts"]  # type: ignore[operator]
        assert root["hooks"] == {
            "prestart": [{"path": "/a", "args": ["/a"], "env": []}, {"path": "/c", "args": ["/c"], "env": []}],
            "poststop": [{"path": "/b", "args": ["b", "x"], "env": ["E=1"], "timeout": 2}],
        }


def test_plain_scalars_are_numbers_where_numbers_are_asked_for():
    for text, number in (("0640", 0o640), ("0o17", 15), ("0x1F", 31), ("1_000", 1000), ("12", 12)):
        node = with_edits(deviceNodes=[{"path": "/dev/x", "major": Plain(text)}])
        assert parse_spec(node).devices[0].edits.nodes[0].major == number
    for text in ("08", "1.5", "x", "-1", "1" * 30, "٣"):
        with pytest.raises(InputError):
            parse_spec(with_edits(deviceNodes=[{"path": "/dev/x", "major": Plain(text)}]))
