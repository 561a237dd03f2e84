"""The options of `lamina build` mean what docker and buildx users know, and nothing is silently ignored."""

from __future__ import annotations

import socket
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from lamina.cli import build_args, build_values, secret_args
from lamina.cli.build_args import Request
from lamina.cli.build_values import parse_allow
from lamina.engine.options import BuildOptions
from lamina.errors import InputError, NotYetError


def request(*words: str, environ: dict[str, str] | None = None) -> Request:
    return Request(build_args.parser_of()([*words, "."]), environ or {})


def test_a_plain_build_asks_for_nothing_special():
    options = request().options
    assert options["tags"] == [] and options["outputs"] == [] and options["source_date_epoch"] is None
    assert request().progress == "auto"


def test_every_option_of_a_build_is_stated():
    """The memo's key is made of these values, so they must be the very fields that the engine remembers."""
    inputs = {"context", "dockerfile", "dockerfile_name", "ignore", "ignore_name"}
    assert set(request().options) | inputs == {field.name for field in fields(BuildOptions)}
    defaults = asdict(BuildOptions())
    assert all(value == defaults[name] for name, value in request().options.items())


def test_build_arg_without_value_comes_from_the_environment():
    """A7.1"""

    options = request("--build-arg", "A", "--build-arg", "B", "--build-arg", "C=x=y", environ={"A": "1"}).options
    assert options["build_args"] == {"A": "1", "C": "x=y"}


def test_lists_may_be_repeated_or_separated_by_commas():
    """A7.1"""

    options = request("--platform", "linux/amd64,linux/arm64", "--platform", "linux/386").options
    assert options["platforms"] == ["linux/amd64", "linux/arm64", "linux/386"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64", 64),
        ("64b", 64),
        ("1k", 1024),
        ("64m", 64 << 20),
        ("64MB", 64 << 20),
        ("1.5g", 3 << 29),
        ("2GiB", 2 << 30),
    ],
)
def test_sizes_have_docker_units(text: str, size: int):
    assert build_values.parse_size(text, "--shm-size") == size


@pytest.mark.parametrize("text", ["", "m", "-1", "1x", "1.m.2", "٣"])
def test_other_sizes_are_refused(text: str):
    with pytest.raises(InputError):
        build_values.parse_size(text, "--shm-size")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("db:10.0.0.1", "db=10.0.0.1"),
        ("db=10.0.0.1", "db=10.0.0.1"),
        ("db:::1", "db=::1"),
        ("db=[fe80::1]", "db=fe80::1"),
        ("gate:host-gateway", "gate=host-gateway"),
    ],
)
def test_add_host_forms(text: str, expected: str):
    assert build_values.parse_add_host(text) == expected


@pytest.mark.parametrize("text", ["db", "db:", ":1.2.3.4", "db:1.2.3", "db:nowhere"])
def test_bad_add_host_is_refused(text: str):
    with pytest.raises(InputError):
        build_values.parse_add_host(text)


def test_ulimits():
    assert build_values.parse_ulimit("nofile=1024") == "nofile=1024:1024"
    assert build_values.parse_ulimit("nofile=1024:2048") == "nofile=1024:2048"
    assert build_values.parse_ulimit("core=0:-1") == "core=0:-1"
    for text in ("nofile", "nofile=a", "files=1", "nofile=2:1", "core=-1:5"):
        with pytest.raises(InputError):
            build_values.parse_ulimit(text)


def test_secret_from_file_variable_and_by_its_name_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A7.1"""

    monkeypatch.chdir(tmp_path)
    Path("token").write_text("t")
    environ = {"KEY": "k", "both": "b"}

    secrets = request(
        "--secret", "id=a,src=token", "--secret", "id=b,env=KEY", "--secret", "id=token", "--secret", "id=both",
        "--secret", "type=env,id=KEY", environ=environ,
    ).secrets  # fmt: skip

    assert secrets == {
        "a": ("file", str(tmp_path / "token")),
        "b": ("env", "KEY"),
        "token": ("file", str(tmp_path / "token")),
        "both": ("env", "both"),
        "KEY": ("env", "KEY"),
    }


def test_a_secret_counts_when_asked_to(tmp_path: Path):
    """L14: `fingerprint=true`; the last `--secret` of an id decides, as it does about its source."""
    environ = {"A": "1", "B": "2", "C": "3"}
    words = ["--secret", "id=a,env=A,fingerprint=true", "--secret", "id=b,env=B,fingerprint=false", "--secret", "id=C"]
    options = request(*words, "--secret-key", "key", environ=environ).options

    assert options["counted_secrets"] == ["a"]
    assert options["secret_key"] == str(Path.cwd() / "key")
    assert request(*words, "--secret", "id=a,env=C", environ=environ).options["counted_secrets"] == []
    with pytest.raises(InputError, match="neither true nor false"):
        request("--secret", "id=a,env=A,fingerprint=maybe", environ=environ)


def test_exact_modes_are_asked_for():
    """L15: a flag, like those of docker."""
    assert [request(*words).options["exact_modes"] for words in ([], ["--exact-modes"], ["--exact-modes=false"])] == [
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("text", ["src=", "id=a,src=/no/such", "id=a,env=NOT_SET", "id=a,mode=1", "id=a,type=x,src=y"])
def test_bad_secret_is_refused_before_anything_runs(text: str):
    with pytest.raises(InputError):
        secret_args.parse_secret(text, {})


def test_ssh_takes_the_agent_of_the_environment_a_socket_or_keys(tmp_path: Path):
    """A7.1"""

    path = str(tmp_path / "agent")
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(path)
        assert secret_args.parse_ssh("default", {"SSH_AUTH_SOCK": path}) == ("default", path)
        assert secret_args.parse_ssh(f"git={path}", {}) == ("git", path)
    with pytest.raises(InputError, match="SSH_AUTH_SOCK"):
        secret_args.parse_ssh("default", {})
        for name in ("key", "other"):
            (tmp_path / name).write_text("")
        keys = (str(tmp_path / "key"), str(tmp_path / "other"))
        assert secret_args.parse_ssh(f"x={keys[0]},{keys[1]}", {}) == ("x", keys)
        for wrong in (f"x={keys[0]},{path}", f"x={tmp_path}", f"x={tmp_path}/none"):
            with pytest.raises(InputError):
                secret_args.parse_ssh(wrong, {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("out", "type=local,dest=out"),
        ("a,b", 'type=local,"dest=a,b"'),
        ("type=oci,dest=x.tar", "type=oci,dest=x.tar"),
        ("type=image,name=a,push=true", "type=image,name=a,push=true"),
    ],
)
def test_output_short_forms(text: str, expected: str):
    assert build_values.check_output(text) == expected


@pytest.mark.parametrize("text", ["dest=x", "type=oci", "type=tar,type=oci,dest=x", 'type=oci,"dest=x'])
def test_incomplete_outputs_are_refused(text: str):
    with pytest.raises(InputError):
        build_values.check_output(text)


@pytest.mark.parametrize(
    "words",
    [
        ["--provenance=capture-usage=true"],
        ["--squash"],
        ["--network=bridge0"],
        ["--rm=false"],
    ],
)
def test_what_has_no_meaning_yet_says_so(words: list[str]):
    with pytest.raises(NotYetError, match="not yet"):
        request(*words)


def test_asking_for_what_happens_anyway_is_fine():
    request("--provenance=false", "--sbom=false", "--rm", "--call=build", "--attest", "type=sbom,disabled=true")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {}),
        (["--provenance=false", "--sbom=0"], {}),
        (["--provenance"], {"provenance": "mode=min"}),
        (["--provenance=mode=max,version=v0.2"], {"provenance": "mode=max,version=v0.2"}),
        (["--provenance=builder-id=https://b"], {"provenance": "mode=min,builder-id=https://b"}),
        (["--attest", "type=provenance,mode=max", "--provenance=false"], {}),
        (["--attest", '"builder-id=a,b",type=provenance'], {"provenance": 'mode=min,"builder-id=a,b"'}),
        (["--sbom"], {"sbom": ""}),
        (
            ["--attest", "type=sbom,generator=g", "--attest", "type=provenance"],
            {"sbom": "generator=g", "provenance": "mode=min"},
        ),
    ],
)
def test_attestations_as_buildx_users_ask_for_them(words: list[str], expected: dict[str, str]):
    """G1, G5: the short options win over --attest."""
    assert request(*words).options["attests"] == expected


@pytest.mark.parametrize(
    "words",
    [
        ["--attest", "mode=max"],
        ["--attest", "type=vex"],
        ["--attest", "type=sbom", "--attest", "type=sbom"],
        ["--attest", "type=sbom,type=provenance"],
        ["--provenance=mode=most"],
        ["--provenance=maximal"],
    ],
)
def test_attestations_that_make_no_sense(words: list[str]):
    with pytest.raises(InputError):
        request(*words)


def test_flags_may_carry_a_value():
    options = request("--pull", "--no-cache=true", "--push=false", "--rm").options
    assert (options["pull"], options["no_cache"], options["push"]) == (True, True, False)


def test_quiet_and_progress():
    assert request("-q").progress == "quiet"
    assert request(environ={"BUILDKIT_PROGRESS": "plain"}).progress == "plain"
    assert request("--progress=tty", environ={"BUILDKIT_PROGRESS": "plain"}).progress == "tty"
    with pytest.raises(InputError):
        request("-q", "--progress=plain")
    with pytest.raises(InputError):
        request(environ={"BUILDKIT_PROGRESS": "fancy"})


@pytest.mark.parametrize("text", ["x", "-1", "1.5", str(1 << 33)])
def test_bad_epoch_is_refused(text: str):
    with pytest.raises(InputError, match="SOURCE_DATE_EPOCH"):
        build_values.parse_epoch(text)


@pytest.mark.parametrize(
    ("texts", "granted"),
    [
        (["network.host,security.insecure", "device"], ["device", "network.host", "security.insecure"]),
        (["device=v.com/c=a", "device=v.com/c=a"], ["device=v.com/c=a"]),
        (["device=v.com/c=a,alias=gpu,network.host"], ["device=v.com/c=a,alias=gpu", "network.host"]),
    ],
)
def test_allow(texts: list[str], granted: list[str]):
    """A3.8, A3.11: entitlements, separated by commas or given apart; an alias belongs to its device."""
    assert parse_allow(texts) == granted


@pytest.mark.parametrize("text", ["everything", "device=", "alias=x", "device,alias=x", "device=a,alias=b,alias=c"])
def test_allow_of_what_is_not_known(text: str):
    """A3.8, A3.11"""
    with pytest.raises(InputError, match="no entitlement"):
        parse_allow([text])
