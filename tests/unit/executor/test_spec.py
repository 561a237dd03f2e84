"""The runtime config of a step, without a runtime."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lamina.errors import InputError
from lamina.executor import seccomp
from lamina.executor.spec import ALL_CAPABILITIES, DEFAULT_CAPABILITIES, Place, build_config
from lamina.executor.step import Rootfs, Step, StepMount, Ulimit
from lamina.executor.wire import decode_request, dump_config, encode_request

STEP = Step(args=("true",), rootfs=Rootfs(("/l",), "/u", "/w"), env=("PATH=/bin",))
PLACE = Place("x86_64")


def config(place: Place = PLACE, **changes: object) -> dict:  # type: ignore[type-arg]
    """Return the config as a runtime would read it."""
    return json.loads(dump_config(build_config(replace(STEP, **changes), place)))  # type: ignore[arg-type,no-any-return]


def test_the_default_confinement_is_dockers() -> None:
    """Fourteen capabilities in three sets, none inheritable or ambient; sudo must work; a filter is there."""
    process = config()["process"]

    assert set(process["capabilities"]) == {"bounding", "effective", "permitted"}
    assert process["capabilities"]["bounding"] == list(DEFAULT_CAPABILITIES)
    assert len(DEFAULT_CAPABILITIES) == 14
    assert process["noNewPrivileges"] is False
    assert process["user"]["umask"] == 0o022
    assert config()["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert "/proc/kcore" in config()["linux"]["maskedPaths"]
    assert "/proc/sys" in config()["linux"]["readonlyPaths"]


def test_insecure_has_no_confinement() -> None:
    """All capabilities that this process may hand on, no filter, no masks, /sys writable."""
    linux = config(security="insecure")["linux"]

    assert "seccomp" not in linux
    assert linux["maskedPaths"] == linux["readonlyPaths"] == []
    assert config(security="insecure")["process"]["capabilities"]["effective"] == list(ALL_CAPABILITIES)
    assert "rw" in next(mount for mount in config(security="insecure")["mounts"] if mount["type"] == "sysfs")["options"]


def test_capabilities_we_do_not_hold_are_not_asked_for() -> None:
    """A runtime fails on them; a container without CAP_MKNOD builds all the same."""
    place = replace(PLACE, capabilities=PLACE.capabilities & ~(1 << ALL_CAPABILITIES.index("CAP_MKNOD")))

    assert "CAP_MKNOD" not in config(place)["process"]["capabilities"]["bounding"]


def test_the_number_of_each_capability_is_the_kernels() -> None:
    """Spot checks against linux/capability.h."""
    numbers = {"CHOWN": 0, "SETPCAP": 8, "SYS_ADMIN": 21, "MKNOD": 27, "SETFCAP": 31, "CHECKPOINT_RESTORE": 40}

    assert {name: ALL_CAPABILITIES.index(f"CAP_{name}") for name in numbers} == numbers


@pytest.mark.parametrize(("network", "own"), [("default", False), ("host", False), ("none", True)])
def test_only_network_none_has_a_network_namespace(network: str, own: bool) -> None:
    """Default is the host's, as the best that works."""
    kinds = [namespace["type"] for namespace in config(network=network)["linux"]["namespaces"]]

    assert ("network" in kinds) is own
    assert {"pid", "ipc", "uts", "mount"} <= set(kinds)
    assert "user" not in kinds


def test_a_user_namespace_binds_sys_unless_the_network_is_its_own() -> None:
    """The kernel gives a new sysfs only to the owner of the network namespace."""
    inside = replace(PLACE, user_namespace=True)

    def sys_type(**changes: object) -> str:
        return next(mount["type"] for mount in config(inside, **changes)["mounts"] if mount["destination"] == "/sys")

    assert sys_type(network="host") == "none"
    assert sys_type(network="none") == "sysfs"


def test_devpts_uses_the_tty_group_only_where_it_is_mapped() -> None:
    """With a single id there is no group 5, and the mount would fail."""

    def options(place: Place) -> list[str]:
        return next(mount["options"] for mount in config(place)["mounts"] if mount["destination"] == "/dev/pts")

    assert "gid=5" in options(PLACE)
    assert "gid=5" not in options(replace(PLACE, maps_tty_group=False))


def test_a_step_without_an_upper_has_a_read_only_root() -> None:
    """There is nowhere to write."""
    assert config(rootfs=Rootfs(("/l",)))["root"]["readonly"] is True
    assert config()["root"]["readonly"] is False
    assert config(readonly_root=True)["root"]["readonly"] is True


def test_an_unlimited_ulimit_is_the_largest_number() -> None:
    """-1 as in docker's option; the spec has unsigned numbers."""
    limits = config(ulimits=(Ulimit("core", 0, -1),))["process"]["rlimits"]

    assert limits == [{"type": "RLIMIT_CORE", "soft": 0, "hard": 2**64 - 1}]


@pytest.mark.parametrize(
    "changes",
    [
        {"args": ()},
        {"args": ("",)},
        {"args": ("a\0b",)},
        {"cwd": "relative"},
        {"env": ("NOEQUALS",)},
        {"env": ("=x",)},
        {"ulimits": (Ulimit("nofiles", 1, 1),)},
        {"security": "Insecure"},
        {"network": "bridge"},
    ],
)
def test_a_step_that_is_not_right_is_refused(changes: dict[str, object]) -> None:
    """Unknown modes are refused and never taken for the default."""
    with pytest.raises(InputError):
        build_config(replace(STEP, **changes), PLACE)  # type: ignore[arg-type]


def test_a_bad_variable_is_not_repeated_in_the_message() -> None:
    """It may be a secret that somebody passed in a wrong way."""
    with pytest.raises(InputError) as caught:
        build_config(replace(STEP, env=("canary-4711",)), PLACE)

    assert "canary" not in caught.value.diagnostics()


def test_text_that_is_not_unicode_reaches_the_config_as_bytes() -> None:
    """File names in arguments are bytes."""
    assert b'"caf\xe9"' in dump_config(build_config(replace(STEP, args=("x", "caf\udce9")), PLACE))


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "armv7l", "ppc64le", "s390x", "riscv64"])
def test_no_call_is_both_allowed_and_refused(machine: str) -> None:
    """The order of rules must not matter."""
    profile = seccomp.profile(machine)
    assert profile is not None
    rules: list[dict] = profile["syscalls"]  # type: ignore[type-arg,assignment]
    plain = [rule for rule in rules if "args" not in rule]
    names = [name for rule in plain for name in rule["names"]]

    assert len(names) == len(set(names))
    conditional = {name for rule in rules if "args" in rule for name in rule["names"]}
    assert conditional.isdisjoint(names)
    assert {"mount", "bpf", "keyctl", "unshare", "setns"}.isdisjoint(plain[0]["names"])
    assert "clone3" not in names


def test_an_unknown_machine_has_no_filter_rather_than_a_wrong_one() -> None:
    """Numbers of calls differ between machines."""
    assert seccomp.profile("vax") is None
    assert "seccomp" not in config(Place("vax"))["linux"]


def test_a_request_survives_the_wire_with_secrets_outside_of_the_header() -> None:
    """The header may be logged or written down; the blobs never are."""
    step = replace(
        STEP,
        mounts=(StepMount("/a", "secret", data=b"one"), StepMount("/b", "secret", data=b"\0" * 1000)),
        hosts=b"hosts",
        resolv_conf=b"",
    )

    request = encode_request(step, build_config(step, PLACE))
    header, blobs = decode_request(request)

    by_target = {mount["target"]: blobs[mount["blob"]] for mount in header["mounts"]}
    assert by_target == {"/a": b"one", "/b": b"\0" * 1000, "/etc/hosts": b"hosts", "/etc/resolv.conf": b""}
    assert "one" not in json.dumps(header["mounts"])


@pytest.mark.parametrize("cut", [4, 40, -1])
def test_a_request_that_is_cut_off_is_refused(cut: int) -> None:
    """Never half a secret."""
    step = replace(STEP, hosts=b"hosts")

    with pytest.raises(ValueError, match="cut off"):
        decode_request(encode_request(step, build_config(step, PLACE))[:cut])
