"""The parser: Dockerfile text to typed instructions.

In: the bytes of a Dockerfile and its name. Out: `instructions.Dockerfile`. Nothing is expanded, looked up or read; what
needs values (variables, stages, images) is checked by conversion. Reference: Dockerfile reference; BuildKit's parser
where the reference is silent.

Departures: an `ONBUILD` trigger is parsed at once, so a wrong one is told in the file that has it; `RUN` without a
command is an error here, not in the step.

Invariants: whatever comes in, only `InputError` comes out, with the lines it is about; time is linear in the text.

    dockerfile = parse(path.read_bytes())       # FROM scratch, COPY app /
    dockerfile.stages[0].instructions[0].sources      # ("app",)
"""

from __future__ import annotations

from collections.abc import Callable

from lamina.dockerfile import builders
from lamina.dockerfile.blanks import BLANKS
from lamina.dockerfile.builders import Request
from lamina.dockerfile.heredocs import heredocs_of_line
from lamina.dockerfile.instructions import Arg, Dockerfile, From, Heredoc, Instruction, Onbuild, Stage
from lamina.dockerfile.scanner import LogicalLine, Scanner
from lamina.dockerfile.statements import Statement, json_list, split_statement
from lamina.dockerfile.suggest import did_you_mean
from lamina.errors import InputError, SourceRange

_BUILDERS: dict[str, Callable[[Request], Instruction]] = {
    "ADD": builders.add,
    "ARG": builders.arg,
    "CMD": builders.cmd,
    "COPY": builders.copy,
    "ENTRYPOINT": builders.entrypoint,
    "ENV": builders.env,
    "EXPOSE": builders.expose,
    "FROM": builders.from_image,
    "HEALTHCHECK": builders.healthcheck,
    "LABEL": builders.label,
    "MAINTAINER": builders.maintainer,
    "RUN": builders.run,
    "SHELL": builders.shell,
    "STOPSIGNAL": builders.stopsignal,
    "USER": builders.user,
    "VOLUME": builders.volume,
    "WORKDIR": builders.workdir,
}
KEYWORDS = (*_BUILDERS, "ONBUILD")
"""Every instruction, in upper case."""

_WITH_HEREDOCS = ("RUN", "COPY", "ADD")
_NO_TRIGGERS = ("ONBUILD", "FROM", "MAINTAINER")
MAX_STAGES = 10_000
"""Most stages in one file."""


def parse(text: str | bytes, filename: str = "Dockerfile") -> Dockerfile:
    """Parse a Dockerfile.

    Args:
        text: the whole file.
        filename: as the user gave it, for messages.

    Raises:
        InputError: the file does not follow the language; the error has the lines and a hint.
    """
    scanner = Scanner(text, filename)
    instructions: list[Instruction] = []
    while (line := scanner.next_line()) is not None:
        instructions.append(_instruction(scanner, line))
    if not instructions:
        raise InputError(
            "the Dockerfile has no instructions", where=filename, hint="begin with FROM, for example: FROM debian:12"
        )
    global_args, stages = _stages(instructions)
    return Dockerfile(
        filename=filename,
        text=scanner.text,
        escape=scanner.escape,
        directives=dict(scanner.directives),
        global_args=global_args,
        stages=stages,
        empty_continuations=tuple(scanner.empty_continuations),
    )


def parse_instruction(text: str, source: SourceRange | None = None) -> Instruction:
    """Parse one instruction on its own: a trigger that a base image brings along.

    Args:
        text: the instruction, here-documents included; the escape character is the backslash.
        source: the lines to blame, such as those of the FROM; by default the text itself.

    Raises:
        InputError: no instruction, more than one, a wrong one, or one that is not allowed as a trigger.
    """
    scanner = Scanner(text, source.file if source else "ONBUILD trigger")
    try:
        line = scanner.next_line()
        if line is None:
            raise InputError("an ONBUILD trigger of the base image is empty")
        _check_trigger(split_statement(line.text, scanner.escape).keyword)
        instruction = _instruction(scanner, line, source)
        if scanner.next_line() is not None:
            raise InputError("an ONBUILD trigger of the base image holds more than one instruction")
    except InputError as error:
        if source is not None:
            error.source, error.where = source, f"{source.file}:{source.start}"
            error.hint = (
                f"the base image brings this ONBUILD trigger along: {text[:200]!r}; mend that image or use another"
            )
        raise
    return instruction


def _instruction(scanner: Scanner, line: LogicalLine, blame: SourceRange | None = None) -> Instruction:
    """Return the instruction on `line`, reading its here-documents; any error gets its place."""
    try:
        statement = split_statement(line.text, scanner.escape)
        trigger = None
        if statement.keyword.upper() == "ONBUILD" and statement.rest:
            trigger = split_statement(statement.rest, scanner.escape)
        inner = trigger or statement
        heredocs: tuple[Heredoc, ...] = ()
        if inner.keyword.upper() in _WITH_HEREDOCS and "<<" in line.text and json_list(inner.rest) is None:
            heredocs = scanner.read_heredocs(heredocs_of_line(line.text), line.start)
        source = blame or scanner.source(line.start)
        original = line.text.strip(BLANKS)
        request = Request(statement, original, line.comments, source, heredocs, scanner.escape)
        return _onbuild(request, trigger) if statement.keyword.upper() == "ONBUILD" else _build(request)
    except InputError as error:
        error.source = error.source or scanner.source(line.start)
        error.where = error.where or f"{scanner.filename}:{line.start}"
        raise


def _build(request: Request) -> Instruction:
    """Return the instruction of `request`."""
    keyword = request.statement.keyword
    builder = _BUILDERS.get(keyword.upper())
    if builder is None:
        if not keyword:
            raise InputError(
                "this line is continued, but nothing follows",
                hint=f"remove the {request.escape!r} at its end, or write the rest of the instruction",
            )
        raise InputError(f"unknown instruction: {keyword[:80]}", hint=_advice(keyword, request.escape))
    return builder(request)


def _advice(keyword: str, escape: str) -> str:
    """Return what to do about an unknown instruction."""
    if keyword[:1] in "&|;-<\"'$([{":
        return f"does this line continue the one above? end that one with the escape character, {escape}"
    if keyword == "EOF":
        return "does it end a here-document? one begins with <<EOF on the line of RUN, COPY or ADD"
    known = "instructions are " + ", ".join(sorted(KEYWORDS))
    return did_you_mean(keyword, KEYWORDS, otherwise=f"write RUN before a command of the shell; {known}")


def _onbuild(request: Request, trigger: Statement | None) -> Onbuild:
    """Return the ONBUILD instruction of `request`."""
    if trigger is None:
        raise InputError("ONBUILD needs an instruction", hint="write it behind: ONBUILD RUN make")
    builders.no_flags(request)
    _check_trigger(trigger.keyword)
    inner = Request(trigger, request.statement.rest, (), request.source, request.heredocs, request.escape)
    expression = request.statement.rest + "".join(f"\n{doc.content}{doc.name}" for doc in request.heredocs)
    return Onbuild(
        source=request.source,
        original=request.original,
        comments=request.comments,
        expression=expression,
        trigger=_build(inner),
    )


def _check_trigger(keyword: str) -> None:
    """Refuse what may not be a trigger."""
    if keyword.upper() in _NO_TRIGGERS:
        raise InputError(
            f"{keyword.upper()} is not allowed as an ONBUILD trigger",
            hint="triggers run inside the stage that is based on this image: use any instruction but "
            + ", ".join(_NO_TRIGGERS),
        )


def _stages(instructions: list[Instruction]) -> tuple[tuple[Arg, ...], tuple[Stage, ...]]:
    """Return the global arguments and the stages."""
    global_args: list[Arg] = []
    bodies: list[tuple[From, list[Instruction]]] = []
    for instruction in instructions:
        if isinstance(instruction, From):
            bodies.append((instruction, []))
        elif bodies:
            bodies[-1][1].append(instruction)
        elif isinstance(instruction, Arg):
            global_args.append(instruction)
        else:
            raise _before_from(instruction)
    if not bodies:
        raise _no_from(instructions[-1])
    if len(bodies) > MAX_STAGES:
        source = bodies[MAX_STAGES][0].source
        where = f"{source.file}:{source.start}"
        raise InputError(
            f"more than {MAX_STAGES} stages in one Dockerfile",
            where=where,
            source=source,
            hint="split it into several files",
        )
    return tuple(global_args), tuple(
        Stage(number, base.alias, base, tuple(body), base.comment_about(base.alias))
        for number, (base, body) in enumerate(bodies)
    )


def _before_from(instruction: Instruction) -> InputError:
    """Return the error for an instruction that stands before the first FROM."""
    source = instruction.source
    return InputError(
        f"{instruction.keyword} stands before the first FROM",
        where=f"{source.file}:{source.start}",
        source=source,
        hint="only ARG may come before FROM: begin the stage with FROM, for example: FROM debian:12",
    )


def _no_from(last: Instruction) -> InputError:
    """Return the error for a file without FROM."""
    source = last.source
    return InputError(
        "the Dockerfile has no FROM",
        where=f"{source.file}:{source.start}",
        source=source,
        hint="a stage begins with FROM, for example: FROM debian:12",
    )
