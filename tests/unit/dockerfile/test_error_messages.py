"""Every message about a wrong Dockerfile, whole, as a person meets it: `tests/golden/dockerfile_errors/messages.txt`.

A case there is `#### NAME [option...]`, the Dockerfile, `>>>>`, and what `lamina build` prints. Options: `--escapes`
(the Dockerfile holds Python's escapes, for bytes no editor shows), `--target=NAME`, `--build-arg=NAME=VALUE`,
`--onbuild=TRIGGER` (an ONBUILD of the base image), `--build-context=NAME=SOURCE`.
Run this file to write the messages anew; then read them by eye.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lamina.cli.main import report
from lamina.cli.terminal import clean_text
from lamina.dockerfile import heredocs, scanner, shell_patterns, words
from lamina.dockerfile.convert import ConvertOptions, ResolvedBase, convert
from lamina.dockerfile.convert_stage import MAX_ENVIRONMENT, MAX_PATH, MAX_VARIABLE
from lamina.dockerfile.parser import MAX_STAGES, parse
from lamina.dockerfile.syntax import check_syntax
from lamina.errors import Error, InputError
from lamina.oci.platform import Platform

GOLDEN = Path(__file__).parents[2] / "golden" / "dockerfile_errors" / "messages.txt"
SOURCES = Path(scanner.__file__).parent
CHECKED = (
    "builders", "convert", "convert_config", "convert_copy", "convert_run", "convert_sources", "convert_stage",
    "devices", "durations", "flag_fields", "flags", "heredocs", "mounts", "parser", "scanner", "shell_patterns",
    "stages", "statements", "words",
)  # fmt: skip
"""Modules whose every `raise` must be reached by a case."""


@dataclass(frozen=True)
class Case:
    """One wrong Dockerfile."""

    name: str
    data: bytes
    expected: str = ""
    target: str = ""
    build_args: tuple[str, ...] = ()
    onbuild: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()


def read_cases() -> list[Case]:
    """The cases of the golden file."""
    _, *parts = re.split(r"(?m)^#### (.*)\n", GOLDEN.read_text())
    found = []
    for head, body in zip(parts[::2], parts[1::2], strict=True):
        name, *options = shlex.split(head)
        text, _, expected = body.partition(">>>>\n")
        data = text.encode("ascii").decode("unicode_escape").encode("latin-1") if "--escapes" in options else None
        values: dict[str, tuple[str, ...]] = {}
        for key, _, value in (option.partition("=") for option in options):
            values[key] = (*values.get(key, ()), value.replace("\\n", "\n"))
        found.append(
            Case(
                name,
                text.encode() if data is None else data,
                expected,
                "".join(values.get("--target", ())),
                values.get("--build-arg", ()),
                values.get("--onbuild", ()),
                values.get("--build-context", ()),
            )
        )
    return found


CASES = read_cases()
DOUBLING = "FROM a\nENV a=xxxxxxxxxxxxxxxx\n" + "ENV a=$a$a\n" * 20
MADE = {
    "file too large": Case("", b"#" * (scanner.MAX_BYTES + 1)),
    "too many stages": Case("", b"FROM a\n" * (MAX_STAGES + 1)),
    "too many here-documents": Case("", b"FROM a\nRUN " + b"<<E " * (heredocs.MAX_PER_LINE + 1)),
    "doubling": Case("", DOUBLING.encode()),
    "many times": Case("", b"FROM a\nENV a=" + b"x" * 100_000 + b"\nENV b=" + b"$a" * 200),
    "nested": Case("", b"FROM a\nENV a=" + b"${a:-" * (words.MAX_DEPTH + 1) + b"}" * (words.MAX_DEPTH + 1)),
    "long pattern": Case("", b"FROM a\nENV a=b\nENV b=${a#*" + b"x" * shell_patterns.MAX_PATTERN + b"}"),
    "long path": Case("", b"FROM a\nWORKDIR " + b"/x" * MAX_PATH),
    "long variable": Case("", b"FROM a\nENV a=" + b"x" * (MAX_VARIABLE + 1)),
    "many variables": Case(
        "", b"FROM a\n" + b"".join(b"ENV a%d=%s\n" % (n, b"x" * 100_000) for n in range(MAX_ENVIRONMENT // 100_000 + 1))
    ),
    "replacement": Case("", b"FROM a\nENV a=" + b"x" * 2000 + b"\nENV b=${a//x/" + b"y" * 2000 + b"}"),
    "replacement by pattern": Case("", b"FROM a\nENV a=" + b"x" * 2000 + b"\nENV b=${a//?/" + b"y" * 2000 + b"}"),
}
"""Cases too large to print."""


def failure(case: Case) -> Error:
    """What the language says about a case: parse, then convert, with images that are all alike."""

    def image(reference: str, platform: Platform) -> ResolvedBase:
        return ResolvedBase(reference, "sha256:" + "0" * 64, {"config": {"OnBuild": list(case.onbuild)}})

    arguments = dict(argument.split("=", 1) for argument in case.build_args)
    with pytest.raises(Error) as caught:
        contexts = dict(context.split("=", 1) for context in case.contexts)
        options = ConvertOptions(build_args=arguments, target=case.target, named_contexts=contexts)
        check_syntax(case.data, "Dockerfile", arguments)
        convert(parse(case.data), options, image)
    return caught.value


def message(case: Case) -> str:
    """What `lamina build` prints."""
    return clean_text(failure(case).diagnostics()) + "\n"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_wrong_dockerfile_is_explained(case):
    """A1.16: what, where, the lines, and how to mend: changes here are read by eye."""
    assert message(case) == case.expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_message_helps(case):
    """A newcomer is told where it is and what to do."""
    text = message(case)

    assert "hint: " in text
    assert text.startswith("error: Dockerfile")


def test_the_command_line_prints_it_so(capsys):
    """What the golden file holds is what stands on standard error; the exit code says: your input."""
    assert report(failure(CASES[0])) == 2

    assert capsys.readouterr().err == CASES[0].expected


@pytest.mark.parametrize("case", MADE.values(), ids=MADE)
def test_a_hostile_dockerfile_is_explained_shortly(case):
    """What is too large is not printed back whole."""
    text = message(case)

    assert text.startswith("error: Dockerfile")
    assert "hint: " in text
    assert len(text) < 4000


def raise_sites(module: str) -> dict[tuple[str, int], str]:
    """Every `raise` of an error of ours in a module, by file name and line; the text says which."""
    path = SOURCES / f"{module}.py"
    source = path.read_text()
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and "ValueError" not in ast.unparse(node.exc):
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                found[path.name, line] = f"{path.name}:{node.lineno}: {ast.unparse(node.exc)[:100]}"
    return found


def raised_at(error: BaseException | None) -> Iterator[tuple[str, int]]:
    """File names and lines that an error and those before it came through."""
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            yield Path(trace.tb_frame.f_code.co_filename).name, trace.tb_lineno
            trace = trace.tb_next
        error = error.__context__


def test_every_error_has_its_case():
    """A `raise` that no case reaches is a message that nobody has read."""
    sites = {place: name for module in CHECKED for place, name in raise_sites(module).items()}
    errors = [*map(failure, [*CASES, *MADE.values()]), spent()]
    reached = {sites[place] for error in errors for place in raised_at(error) if place in sites}

    assert sorted(set(sites.values()) - reached) == []


def spent() -> Error:
    """The error of one who expands too much in all; a Dockerfile that does so is too large for a test."""
    patient, large = words.Words(), {"a": "x" * words.MAX_EXPANDED}
    with pytest.raises(Error) as caught:
        for _ in range(words.MAX_TOTAL // words.MAX_EXPANDED + 1):
            patient.word("$a", large)
    return caught.value


def test_input_errors_only():
    """Nothing but errors about the input, whose exit code is 2."""
    assert all(isinstance(failure(case), InputError) for case in CASES)


if __name__ == "__main__":
    _, *pieces = re.split(r"(?m)^(#### .*\n)", GOLDEN.read_text())
    new = [
        head + body.partition(">>>>\n")[0] + ">>>>\n" + message(case)
        for case, head, body in zip(CASES, pieces[::2], pieces[1::2], strict=True)
    ]
    GOLDEN.write_text("".join(new))
