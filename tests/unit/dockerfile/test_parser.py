"""The parser: lines, directives, here-documents, every instruction."""

import dataclasses

import pytest

from lamina.dockerfile.instructions import (
    Add,
    Arg,
    Cmd,
    Copy,
    Device,
    Entrypoint,
    Env,
    ExecForm,
    Expose,
    From,
    Healthcheck,
    Heredoc,
    InlineFile,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    ShellForm,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from lamina.dockerfile.parser import parse, parse_instruction
from lamina.errors import InputError, SourceRange


def one(text: str):
    """The first instruction behind a FROM."""
    return parse("FROM base\n" + text).stages[0].instructions[0]


def fields(instruction) -> dict:
    """What the instruction says, without where and how it was written."""
    written = {"source", "original", "comments"}
    names = [field.name for field in dataclasses.fields(instruction)]
    return {name: getattr(instruction, name) for name in names if name not in written}


INSTRUCTIONS = {
    "ARG": ("ARG a b=1 c= d='x y'", Arg, {"pairs": (("a", None), ("b", "1"), ("c", ""), ("d", "'x y'"))}),
    "ENV": (r'ENV a=1 b="x y" c=x\ y', Env, {"pairs": (("a", "1"), ("b", '"x y"'), ("c", r"x\ y"))}),
    "ENV old": ("ENV a  b c", Env, {"pairs": (("a", "b c"),), "legacy": True}),
    "LABEL": ('LABEL "a b"=c d=e', Label, {"pairs": (('"a b"', "c"), ("d", "e"))}),
    "MAINTAINER": ("MAINTAINER a <b@c>", Maintainer, {"name": "a <b@c>"}),
    "WORKDIR": ("WORKDIR /a b", Workdir, {"path": "/a b"}),
    "USER": ("USER $u:g", User, {"user": "$u:g"}),
    "EXPOSE": ("EXPOSE 80 53/udp 1-2/tcp", Expose, {"ports": ("80", "53/udp", "1-2/tcp")}),
    "VOLUME": ("VOLUME /a /b", Volume, {"paths": ("/a", "/b")}),
    "VOLUME exec": ('VOLUME ["/a b"]', Volume, {"paths": ("/a b",)}),
    "STOPSIGNAL": ("STOPSIGNAL SIGINT", StopSignal, {"signal": "SIGINT"}),
    "SHELL": ('SHELL ["bash", "-c"]', Shell, {"args": ("bash", "-c")}),
    "CMD": ("CMD a  $b", Cmd, {"command": ShellForm("a  $b")}),
    "CMD exec": ('CMD ["a", "$b"]', Cmd, {"command": ExecForm(("a", "$b"))}),
    "CMD bad JSON": ("CMD ['a']", Cmd, {"command": ShellForm("['a']")}),
    "CMD test command": ("CMD [ -f a ] && b", Cmd, {"command": ShellForm("[ -f a ] && b")}),
    "CMD nothing": ("CMD []", Cmd, {"command": ExecForm(())}),
    "ENTRYPOINT": ("entrypoint a", Entrypoint, {"command": ShellForm("a")}),
    "ENTRYPOINT cleared": ("ENTRYPOINT []", Entrypoint, {"command": ExecForm(())}),
    "RUN": ("RUN a -- b", Run, {"command": ShellForm("a -- b")}),
    "RUN flags": (
        "RUN --mount=type=cache,target=/a --mount=target=/b --network=none --security=insecure --device=x a",
        Run,
        {
            "command": ShellForm("a"),
            "mounts": ("type=cache,target=/a", "target=/b"),
            "network": "none",
            "security": "insecure",
            "devices": (Device("x"),),
        },
    ),
    "RUN end of flags": ("RUN --network=host -- --a", Run, {"command": ShellForm("--a"), "network": "host"}),
    "COPY": ("COPY a b /c/", Copy, {"sources": ("a", "b"), "dest": "/c/"}),
    "COPY exec": ('COPY ["a b", "/c"]', Copy, {"sources": ("a b",), "dest": "/c"}),
    "COPY flags": (
        'COPY --from=x --chown=a:b --chmod=u=rw --link --parents=false --exclude="*.a b" --exclude=c s d',
        Copy,
        {
            "sources": ("s",),
            "dest": "d",
            "from_": "x",
            "chown": "a:b",
            "chmod": "u=rw",
            "link": True,
            "exclude": ("*.a b", "c"),
        },
    ),
    "ADD flags": (
        "ADD --checksum=sha256:1 --keep-git-dir --unpack=FALSE --link=false https://x/y /z",
        Add,
        {
            "sources": ("https://x/y",),
            "dest": "/z",
            "checksum": "sha256:1",
            "keep_git_dir": True,
            "unpack": False,
        },
    ),
    "HEALTHCHECK NONE": ("HEALTHCHECK none", Healthcheck, {"command": None}),
    "HEALTHCHECK": (
        "HEALTHCHECK --interval=1m30s --timeout=1.5s --start-period=0 --start-interval=100ms --retries=3 CMD a b",
        Healthcheck,
        {
            "command": ShellForm("a b"),
            "interval_ns": 90_000_000_000,
            "timeout_ns": 1_500_000_000,
            "start_interval_ns": 100_000_000,
            "retries": 3,
        },
    ),
}


@pytest.mark.parametrize(("text", "kind", "expected"), INSTRUCTIONS.values(), ids=INSTRUCTIONS)
def test_instruction(text, kind, expected):
    """A1.13: each instruction with its flags and forms; what is not written has its default."""
    instruction = one(text)

    assert isinstance(instruction, kind)
    assert {name: value for name, value in fields(instruction).items() if value not in ("", (), None, False, 0)} == {
        name: value for name, value in expected.items() if value not in ("", (), None, False, 0)
    }
    assert instruction.original == text


def test_unpack_false_is_not_absent():
    """`--unpack=false` on a local archive differs from saying nothing."""
    assert one("ADD --unpack=false a b").unpack is False
    assert one("ADD a b").unpack is None


def test_stages():
    """A2.1, A2.10: global arguments, names in lower case, numbers, platform."""
    dockerfile = parse("ARG V=1\nFROM --platform=$BUILDPLATFORM a:$V as Build\nRUN x\nFROM build\nFROM scratch AS b\n")

    assert [arg.pairs for arg in dockerfile.global_args] == [(("V", "1"),)]
    assert [(stage.number, stage.name, stage.base.image) for stage in dockerfile.stages] == [
        (0, "build", "a:$V"),
        (1, "", "build"),
        (2, "b", "scratch"),
    ]
    assert dockerfile.stages[0].base.platform == "$BUILDPLATFORM"
    assert dockerfile.stage("BUILD") is dockerfile.stages[0]
    assert dockerfile.stage("1") is dockerfile.stages[1]
    assert dockerfile.stage("3") is None


def test_comments_continuations_and_case():
    """A1.1: comments only at line starts, dropped inside continued lines; BOM and blanks before keywords ignored."""
    text = "\ufeff  from a\n\trun a \\  \n  # gone\n\n   && b # stays\n\n# next\nCmd c\n"

    dockerfile = parse(text)

    run, cmd = dockerfile.stages[0].instructions
    assert run.command == ShellForm("a    && b # stays")
    assert run.source == SourceRange("Dockerfile", 2, 5)
    assert isinstance(cmd, Cmd)
    assert [source.start for source in dockerfile.empty_continuations] == [4]


def test_escaped_escape_does_not_continue():
    """Two escape characters at the end are text."""
    first, second = parse("FROM a\nRUN x\\\\\nRUN y\n").stages[0].instructions

    assert (first.command.text, second.command.text) == ("x\\\\", "y")


def test_escape_directive():
    """A1.3: the backtick continues lines and escapes words; backslashes are paths then."""
    dockerfile = parse("# Escape = `\nFROM a\nENV p=C:\\ q=a` b\nRUN a `\n b\nRUN `x` \\\nRUN y\n")

    env, run, kept, last = dockerfile.stages[0].instructions
    assert env.pairs == (("p", "C:\\"), ("q", "a` b"))
    assert run.command.text == "a  b"
    assert (kept.command.text, last.command.text) == ("`x` \\", "y")
    assert dockerfile.escape == "`"


def test_directives_only_at_the_top():
    """A1.5: behind any other comment they are comments."""
    dockerfile = parse("# syntax=docker/dockerfile:1\n# check=skip=all;error=true\n# hello\n# escape=`\nFROM a\n")

    assert {name: directive.value for name, directive in dockerfile.directives.items()} == {
        "syntax": "docker/dockerfile:1",
        "check": "skip=all;error=true",
    }
    assert dockerfile.escape == "\\"


@pytest.mark.parametrize("before", ["\n", "# other=1\n", "#\n", "#!/bin/x\n# hello\n", "ARG x\n"])
def test_what_ends_directives(before: str):
    """A1.5: an empty line, a directive that is none, a comment, an instruction; what follows is a comment."""
    dockerfile = parse(f"{before}# escape=`\n# check=error=true\nFROM a\nRUN x \\\n y\n")

    assert (dict(dockerfile.directives), dockerfile.escape) == ({}, "\\")


@pytest.mark.parametrize("name", ["syntax", "escape", "check"])
def test_a_directive_is_given_once(name: str):
    """A1.5: also when both say the same, in another case."""
    value = "`" if name == "escape" else "skip=all"

    with pytest.raises(InputError, match="given twice"):
        parse(f"# {name}={value}\n#{name.upper()} = {value}\nFROM a\n")


def test_descriptions():
    """A1.15: a comment that begins with the name describes a stage or an argument."""
    dockerfile = parse("# V the version\nARG V\n#\n# other\n# build compiles it\nFROM a AS build\n")

    assert dockerfile.global_args[0].comment_about("V") == "the version"
    assert dockerfile.stages[0].description == "compiles it"
    assert dockerfile.stages[0].base.comments == ("other", "build compiles it")


HEREDOCS = {
    "plain": ("RUN <<EOF\na\n b\nEOF", (Heredoc("EOF", "a\n b\n"),), True),
    "tabs": ("RUN <<-EOF\n\ta\n\tEOF", (Heredoc("EOF", "\ta\n", strip_tabs=True),), True),
    "single quotes": ("RUN <<'EOF'\n$a\nEOF", (Heredoc("EOF", "$a\n", expand=False),), True),
    "double quotes": ('RUN <<"EOF"\n$a\nEOF', (Heredoc("EOF", "$a\n", expand=False),), True),
    "descriptor": ("RUN 3<<EOF\nEOF", (Heredoc("EOF", "", fd=3),), True),
    "interpreter behind": ("RUN <<EOF python3\na\nEOF", (Heredoc("EOF", "a\n"),), False),
    "command before": ("RUN cat <<EOF >/x\na\nEOF", (Heredoc("EOF", "a\n"),), False),
    "two": ("RUN cat <<A <<B\n1\nA\n2\nB", (Heredoc("A", "1\n"), Heredoc("B", "2\n")), False),
    "blank before the word": ("RUN << EOF\na\nEOF", (Heredoc("EOF", "a\n"),), True),
    "comment lines are content": ("RUN <<EOF\n# a\n\nEOF", (Heredoc("EOF", "# a\n\n"),), True),
    "quoted mark is none": ("RUN echo '<<EOF'", (), False),
    "here-string is none": ("RUN cat <<<EOF", (), False),
    "carriage returns": ("RUN <<EOF\r\na\r\nEOF\r", (Heredoc("EOF", "a\r\n"),), True),
}


@pytest.mark.parametrize(("text", "expected", "lone"), HEREDOCS.values(), ids=HEREDOCS)
def test_run_heredocs(text, expected, lone):
    """A1.6: every form on RUN, and the next instruction is found behind it."""
    run, cmd = parse(f"FROM a\n{text}\nCMD z\n").stages[0].instructions

    assert run.heredocs == expected
    assert (run.command.script is not None) is lone
    assert cmd.command == ShellForm("z")


def test_heredoc_text_and_reassembly():
    """`<<-` drops leading tabs from a script; a shell that reads here-documents itself gets them whole."""
    run = one("RUN cat <<-A b\n\t\t1\n\tA\n")

    assert run.heredocs[0].text() == "1\n"
    assert run.command.full_text() == "cat <<-A b\n\t\t1\nA"


def test_copy_heredocs():
    """A4.15: inline files beside paths; quoting and tabs as told by the mark."""
    copy = one("COPY --chmod=755 <<-A plain <<'B' /d/\n\tx $y\n\tA\n$z\nB\n")

    assert copy.sources == ("plain",)
    assert copy.inline == (InlineFile("A", "x $y\n", True), InlineFile("B", "$z\n", False))
    assert copy.dest == "/d/"


def test_heredoc_bytes_survive():
    """A binary file inline comes out as it went in."""
    dockerfile = parse(b"FROM a\nCOPY <<A /a\n\xff\x00\xe9\nA\n")

    assert dockerfile.stages[0].instructions[0].inline[0].data.encode("utf-8", "surrogateescape") == b"\xff\x00\xe9\n"


def test_onbuild():
    """A5.15: text for the config, and the trigger parsed."""
    onbuild = one("ONBUILD COPY --from=x <<A y /z/\n1\nA\n")

    assert isinstance(onbuild, Onbuild)
    assert onbuild.expression == "COPY --from=x <<A y /z/\n1\nA"
    assert isinstance(onbuild.trigger, Copy)
    assert onbuild.trigger.inline == (InlineFile("A", "1\n", True),)


@pytest.mark.parametrize("line", ["FROM x", "MAINTAINER x", "ONBUILD RUN x", "onbuild run x", ""])
def test_what_is_no_trigger(line: str):
    """A5.15: these three, and nothing at all."""
    with pytest.raises(InputError, match="ONBUILD"):
        parse(f"FROM a\nONBUILD {line}\n")


@pytest.mark.parametrize("flag", ["--parents", "--from=x"])
def test_flags_that_only_copy_has(flag: str):
    """A4.14: the error says who has it."""
    with pytest.raises(InputError, match="ADD has no flag") as caught:
        parse(f"FROM a\nADD {flag} b /c\n")

    assert caught.value.hint == f"COPY has {flag.partition('=')[0]}"


def test_trigger_text_parses_again():
    """What a base image carries is parsed to the same instruction."""
    onbuild = one("ONBUILD RUN <<A\nx\nA\n")

    trigger = parse_instruction(onbuild.expression, SourceRange("Dockerfile", 3))

    assert trigger.command == onbuild.trigger.command
    assert trigger.source == SourceRange("Dockerfile", 3)


@pytest.mark.parametrize("text", ["", "# only", "RUN a\nRUN b", "FROM x", "ONBUILD RUN x", "RNU x", "RUN <<A\n"])
def test_wrong_triggers_blame_the_from(text):
    """A5.15: the user has no other line to look at."""
    source = SourceRange("Dockerfile", 3)

    with pytest.raises(InputError) as caught:
        parse_instruction(text, source)

    assert caught.value.source == source
    assert caught.value.where == "Dockerfile:3"


def test_json_escapes_without_a_partner():
    """A lone surrogate in JSON becomes U+FFFD, so that it can be stored."""
    assert one('CMD ["\\ud800x"]').command == ExecForm(("\ufffdx",))


def test_python_only_json_is_shell_form():
    """NaN is JSON for Python alone."""
    assert one("CMD [NaN]").command == ShellForm("[NaN]")


def test_from_only():
    """The shortest Dockerfile."""
    (stage,) = parse("FROM scratch").stages

    assert isinstance(stage.base, From)
    assert stage.instructions == ()


@pytest.mark.parametrize("line", ["cat <<-", "cat <<- ", "echo $((1<<-1)) <<"])
def test_two_less_than_signs_without_a_word_announce_nothing(line):
    """A1.6: `<<-` is not a here-document that ends at `-`."""
    assert one(f"RUN {line}\nRUN next").heredocs == ()
