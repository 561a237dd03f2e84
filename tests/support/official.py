"""The official Go parser (PyPI `dockerfile`) as judge: what it and ours make of one text, compared field by field.

Compared: keyword, first and last line, logical line, flags, whether the arguments are JSON, values, here-documents.

Where the release at hand (3.4, of 2022) is older than today's BuildKit or its binding cannot tell, `DIFFERENCES` says
so, and `judge_is_current` leaves such texts out.
"""

from __future__ import annotations

import json
import re

import dockerfile as official

from lamina.dockerfile.heredocs import heredoc_of_word
from lamina.dockerfile.instructions import (
    Arg,
    Cmd,
    Dockerfile,
    Entrypoint,
    Env,
    ExecForm,
    Expose,
    From,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    ShellForm,
    StopSignal,
    Transfer,
    User,
    Volume,
    Workdir,
)
from lamina.dockerfile.parser import parse
from lamina.dockerfile.statements import json_list, split_statement
from lamina.errors import InputError

DIFFERENCES = {
    "syntax/A1.4-check-all": "the judge does not know the directive `check` yet and ends directives there",
    "syntax/A1.13-text-behind-json": "the judge reads a JSON array and drops what follows; today that is shell form",
    "syntax/A1.13-json-nul": "a NUL can be in no argument and no path; BuildKit lets the step fail",
}
"""Cases of the corpus that the judge cannot judge, and why."""


def flatten(dockerfile: Dockerfile) -> list[Instruction]:
    """Every instruction in order of the file."""
    found: list[Instruction] = list(dockerfile.global_args)
    for stage in dockerfile.stages:
        found += [stage.base, *stage.instructions]
    return found


def values(instruction: Instruction) -> list[str]:
    """The arguments as the official parser lists them."""
    match instruction:
        case From(image=image, alias=alias):
            return [image, "AS", alias] if alias else [image]
        case Arg(pairs=pairs):
            return [name if value is None else f"{name}={value}" for name, value in pairs]
        case Env(pairs=pairs) | Label(pairs=pairs):
            return [text for pair in pairs for text in pair]
        case Maintainer(name=text) | Workdir(path=text) | User(user=text) | StopSignal(signal=text):
            return [text]
        case Expose(ports=texts) | Volume(paths=texts) | Shell(args=texts):
            return list(texts)
        case Run(command=command) | Cmd(command=command) | Entrypoint(command=command):
            return command_values(command)
        case Healthcheck(command=None):
            return ["NONE"]
        case Healthcheck(command=command):
            return ["CMD", *command_values(command)]
        case Onbuild(trigger=trigger):
            return values(trigger)
        case Transfer(sources=sources, dest=dest):
            return [*sources, dest]
    raise AssertionError(instruction)


def command_values(command: ShellForm | ExecForm) -> list[str]:
    if isinstance(command, ExecForm):
        return list(command.args)
    return [command.text] if command.text else []


def is_json(instruction: Instruction) -> bool:
    """Whether the arguments are a JSON array."""
    match instruction:
        case Run(command=command) | Cmd(command=command) | Entrypoint(command=command):
            return isinstance(command, ExecForm)
        case Healthcheck(command=command):
            return isinstance(command, ExecForm)
        case Volume() | Transfer() | Shell() | Onbuild():
            rest = split_statement(instruction.original, "\\").rest
            return json_list(rest) is not None
    return False


def heredocs(instruction: Instruction) -> list[tuple[str, int, str]]:
    """Name, number and content of the here-documents, as far as we keep them: COPY drops number and tabs."""
    match instruction:
        case Run():
            return [(doc.name, doc.fd, doc.content) for doc in instruction.heredocs]
        case Transfer(inline=inline):
            return [(file.name, 0, _without_tabs(file.data)) for file in inline]
    return []


def judged_heredocs(theirs: official.Command, instruction: Instruction) -> list[tuple[str, int, str]]:
    """The same for the judge."""
    if isinstance(instruction, Transfer):
        return [(doc.name, 0, _without_tabs(doc.content)) for doc in theirs.heredocs]
    return [(doc.name, doc.file_descriptor, doc.content) for doc in theirs.heredocs]


def _without_tabs(text: str) -> str:
    """`text` without tabs at the beginning of its lines."""
    return "".join(line.lstrip("\t") for line in text.splitlines(keepends=True))


def judged_values(theirs: official.Command, instruction: Instruction) -> list[str]:
    """The judge's arguments spelled as ours: no here-document marks among sources, one case for keywords."""
    found = list(theirs.value)
    if isinstance(instruction, Transfer) and not theirs.json:
        return [value for value in found if heredoc_of_word(value) is None]
    if isinstance(instruction, From) and len(found) == 3:
        return [found[0], found[1].upper(), found[2].lower()]
    if isinstance(instruction, Healthcheck):
        return [found[0].upper(), *found[1:]]
    if isinstance(instruction, Volume):
        return [value.strip() for value in found]  # BuildKit does so after parsing
    return found


def compare(instruction: Instruction, theirs: official.Command, escape: str) -> None:
    """Compare one instruction; the first thing that differs is an AssertionError that shows both."""
    same("keyword", instruction.keyword, theirs.cmd.upper())
    lines = (instruction.source.start, instruction.source.end)
    same("lines", lines, (theirs.start_line, theirs.end_line))
    logical = theirs.original.split("\n")[0] if theirs.heredocs else theirs.original
    same("logical line", instruction.original, logical.strip())
    inner = instruction.trigger if isinstance(instruction, Onbuild) else instruction
    if isinstance(instruction, Onbuild):
        same("trigger", inner.keyword, theirs.sub_cmd.upper())
    same("flags", split_statement(instruction.original, escape).flags, theirs.flags)
    same("JSON", is_json(inner), theirs.json)
    same("values", values(inner), judged_values(theirs, inner))
    if isinstance(instruction, Onbuild):
        return  # the binding does not tell here-documents of triggers; their lines were compared
    same("here-documents", heredocs(instruction), judged_heredocs(theirs, inner))


def same(what: str, ours: object, theirs: object) -> None:
    """Fail, showing both sides, when they differ."""
    if ours != theirs:
        raise AssertionError(f"{what}: ours {ours!r}, the judge's {theirs!r}")


def judge_is_current(text: str) -> bool:
    """Tell whether the judge reads `text` as today's BuildKit does.

    It reads flags byte by byte, which breaks letters above ASCII (BuildKit still does so, we do not), and always with
    the backslash as escape; it does not know `<< WORD` with a blank, nor the directive `check`, nor, in the word of a
    here-document, `${v/p/r}`, `#` and `%`; its binding ends strings at a NUL.
    """
    return not (
        (not text.isascii() and "--" in text)
        or re.search(r"<<-?([\s\\`]|\Z)", text)
        or ("<<" in text and re.search(r"\$\{[^}]*[/#%]", text))
        or re.search(r"(?m)^\s*#\s*check\s*=", text)
        or (re.search(r"(?mi)^\s*#\s*escape\s*=\s*`", text) and "--" in text and "\\" in text)
        or "\\u0000" in text
    )


def text_behind_json(line: str) -> bool:
    """Tell whether a JSON array with text behind it stands in `line`: the judge drops that text."""
    start = line.find("[")
    if start < 0:
        return False
    try:
        _, end = json.JSONDecoder().raw_decode(line, start)
    except ValueError:
        return False
    return line[end:].strip() != ""


STRUCTURE = ("here-document <<", "the directive", "the escape character", "the Dockerfile has no instructions")
"""How our complaints begin that are about lines, not about one instruction: the judge must share these."""


def compare_all(text: str) -> bool:
    """Compare both parsers on `text`; True when both took it.

    Raises:
        AssertionError: they took it differently, or the judge refuses what we take. The other way round is fine,
            because the judge does not look into every instruction; not so where the complaint is about `STRUCTURE`.
    """
    try:
        theirs = official.parse_string(text)
    except official.GoParseError as error:
        theirs, complaint = None, str(error)
    try:
        dockerfile = parse(text)
    except InputError as error:
        behind_json = any(map(text_behind_json, text.split("\n")))  # may announce a here-document, today
        if theirs is not None and error.what.startswith(STRUCTURE) and not behind_json:
            raise AssertionError(f"the judge takes what we refuse: {error}") from None
        return False
    if theirs is None:
        if "strings only" in complaint:
            return False  # an array of numbers with text behind it, which makes it shell form today
        raise AssertionError(f"the judge refuses what we take: {text!r}")
    ours = flatten(dockerfile)
    same("number of instructions", len(ours), len(theirs))
    for instruction, command in zip(ours, theirs, strict=True):
        if not (command.json and text_behind_json(instruction.original)):
            compare(instruction, command, dockerfile.escape)
    return True
