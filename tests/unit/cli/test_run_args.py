"""`lamina run`'s options: docker's names and meanings, and a clear word about what is not there."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from lamina.cli import run_args
from lamina.cli.main import main
from lamina.errors import InputError, NotYetError
from lamina.executor.step import StepMount

NOEXEC = ("nosuid", "nodev", "noexec")


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    run_args.add_arguments(parser)
    return parser.parse_args(words)


def test_short_flags_run_together_and_the_command_keeps_its_options():
    args = parse("-it", "--rm", "-e", "A=1", "image", "sh", "-c", "ls -l", "--rm")

    assert args.interactive and args.tty and args.image == "image"
    assert args.command == ["sh", "-c", "ls -l", "--rm"]


def test_volumes(tmp_path: Path):
    for mode, readonly in (("", False), (":ro", True), (":rw", False), (":z", False), (":ro,Z", True)):
        assert run_args.parse_volume(f"{tmp_path}:/data{mode}") == (str(tmp_path), "/data", readonly)
    for text in ("/x", f"{tmp_path}:data", f"{tmp_path}:/data:x", "/no/such:/data", ""):
        with pytest.raises(InputError):
            run_args.parse_volume(text)


def test_a_named_volume_is_not_taken_for_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`-v data:/x` names a volume in docker, whatever lies in the working directory."""
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)

    with pytest.raises(NotYetError, match="volumes with a name") as caught:
        run_args.parse_volume("data:/x")

    assert "./data:/x" in caught.value.hint
    assert run_args.parse_volume("./data:/x") == (str(tmp_path / "data"), "/x", False)


def test_env_takes_values_from_the_environment():
    assert run_args.parse_env(["A=1", "B", "C"], {"B": "2"}) == {"A": "1", "B": "2"}


def test_an_env_file_is_read_as_docker_reads_it(tmp_path: Path):
    """Quotes stay, nothing is expanded, comments are whole lines, a bare name takes the caller's value."""
    path = tmp_path / "env"
    path.write_bytes(b'\xef\xbb\xbfA=1 # no comment\r\n# comment\n\n  B="$A"\nC=\nHOMELESS\nE')

    assert run_args.load_env_file(str(path), {"E": "e"}) == {"A": "1 # no comment", "B": '"$A"', "C": "", "E": "e"}


@pytest.mark.parametrize("line", ["export A=secret", "=secret", "A B=secret", "\t=secret"])
def test_a_bad_line_of_an_env_file_is_named_and_not_shown(tmp_path: Path, line: str):
    path = tmp_path / "env"
    path.write_text(f"GOOD=1\n{line}\n")

    with pytest.raises(InputError) as caught:
        run_args.load_env_file(str(path), {})

    text = caught.value.diagnostics()
    assert f"{path}:2" in text and "secret" not in text


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_an_env_file_that_cannot_be_read(tmp_path: Path, content: bytes | None):
    if content is not None:
        (tmp_path / "env").write_bytes(content)
    with pytest.raises(InputError, match="--env-file"):
        run_args.load_env_file(str(tmp_path / "env"), {})


def test_published_ports_are_those_of_the_host_network():
    run_args.check_publish("8080:8080", "host")
    run_args.check_publish("8080/tcp", "host")
    with pytest.raises(NotYetError):
        run_args.check_publish("80:8080", "host")
    for text, network in (("80", "none"), ("x", "host"), ("70000", "host")):
        with pytest.raises(InputError):
            run_args.check_publish(text, network)


def test_tmpfs_has_dockers_options_and_executes_nothing_unless_asked():
    found = run_args.parse_tmpfs("/run:rw,nosuid,size=64m,mode=700,uid=5")

    assert found == StepMount("/run", "tmpfs", size_bytes=64 << 20, mode=0o700, uid=5, flags=NOEXEC)
    assert run_args.parse_tmpfs("/t:exec") == StepMount("/t", "tmpfs")
    for text in ("run", "/t:mode=9", "/t:sizes=3", "/t:size=x", "/t:uid=-1", "/t:mode=77777"):
        with pytest.raises(InputError):
            run_args.parse_tmpfs(text)


def test_mount(tmp_path: Path):
    bind = run_args.parse_mount(f"type=bind,src={tmp_path},dst=/d,readonly")
    assert bind == StepMount("/d", "bind", source=str(tmp_path), readonly=True)
    memory = run_args.parse_mount("type=tmpfs,destination=/m,tmpfs-size=1m")
    assert memory == StepMount("/m", "tmpfs", size_bytes=1 << 20, mode=0o1777, flags=NOEXEC)
    with pytest.raises(NotYetError, match="type=volume"):
        run_args.parse_mount("source=x,target=/x")
    for text in ("type=bind,target=/x", f"type=bind,src={tmp_path}", "type=bind,src=/no/such,dst=/x", "type=tmpfs"):
        with pytest.raises(InputError):
            run_args.parse_mount(text)
    with pytest.raises(InputError, match="unknown key 'bind-propagation'"):
        run_args.parse_mount(f"type=bind,src={tmp_path},dst=/x,bind-propagation=rslave")


def test_names_are_dockers():
    assert run_args.check_name("web-1.a_b") == "web-1.a_b"
    for text in ("-x", "a b", "a/b", "x" * 64):
        with pytest.raises(InputError):
            run_args.check_name(text)


@pytest.mark.parametrize(
    "words",
    [["-d"], ["--privileged"], ["--init"], ["-m", "1g"], ["--cap-add=SYS_ADMIN"], ["--gpus", "all"], ["--restart=no"]],
)
def test_what_is_not_there_says_so(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["run", *words, "image"]) == 2
    assert "not yet: run --" in capsys.readouterr().err


@pytest.mark.parametrize("network", ["bridge", "default", "container:x"])
def test_networks_that_are_not_there_say_so(network: str, capsys: pytest.CaptureFixture[str]):
    assert main(["run", "--network", network, "image"]) == 2
    assert "host and none are known" in capsys.readouterr().err


def test_a_terminal_for_input_that_is_none_is_refused(capfd: pytest.CaptureFixture[str]):
    """Before anything is pulled or started."""
    assert main(["run", "-it", "image"]) == 2
    assert "needs a terminal" in capfd.readouterr().err
