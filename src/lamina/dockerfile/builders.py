"""One function an instruction: from the parts of a line to the typed value.

In: a `Request`. Out: a value of `instructions`. Errors name what is wrong; the parser adds where. Reference: Dockerfile
reference, one section an instruction. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

from lamina.dockerfile.blanks import BLANKS
from lamina.dockerfile.devices import parse_device
from lamina.dockerfile.durations import parse_duration
from lamina.dockerfile.flags import LIST, SWITCH, TEXT, Flags
from lamina.dockerfile.heredocs import heredoc_of_word
from lamina.dockerfile.instructions import (
    Add,
    Arg,
    Cmd,
    Copy,
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
    Run,
    Shell,
    ShellForm,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from lamina.dockerfile.mounts import check_mount
from lamina.dockerfile.statements import Statement, json_list, split_fields, split_pairs, split_words
from lamina.dockerfile.suggest import did_you_mean
from lamina.errors import InputError, SourceRange

_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*\Z")
_MIN_INTERVAL_NS = 1_000_000
_MAX_RETRIES = (1 << 31) - 1
_NETWORKS = ("default", "none", "host")
_SECURITY = ("sandbox", "insecure")


@dataclass(frozen=True, slots=True)
class Request:
    """A line that is to become an instruction.

    Attributes:
        statement: the line in parts.
        original: the logical line.
        comments: the comments above.
        source: where it stands.
        heredocs: the here-documents behind it, with content.
        escape: the escape character.
    """

    statement: Statement
    original: str
    comments: tuple[str, ...]
    source: SourceRange
    heredocs: tuple[Heredoc, ...]
    escape: str

    @property
    def keyword(self) -> str:
        """The keyword in upper case."""
        return self.statement.keyword.upper()

    def common(self) -> _Common:
        """Return the fields that every instruction has."""
        return {"source": self.source, "original": self.original, "comments": self.comments}

    def flags(self, known: Mapping[str, str]) -> Flags:
        """Return the flags, which must be among `known`."""
        return Flags(self.keyword, self.statement.flags, known)


class _Common(TypedDict):
    """Keyword arguments that every instruction takes."""

    source: SourceRange
    original: str
    comments: tuple[str, ...]


def no_flags(request: Request) -> None:
    """Refuse every flag."""
    request.flags({})


def from_image(request: Request) -> From:
    """Build FROM."""
    fields = split_fields(request.statement.rest)
    if len(fields) not in (1, 3) or (len(fields) == 3 and fields[1].lower() != "as"):
        got = " ".join(fields)
        raise InputError(
            f"FROM takes an image, or an image AS a name; got {got[:80]!r}" if fields else "FROM needs an image",
            hint=_from_advice(fields),
        )
    alias = fields[2].lower() if len(fields) == 3 else ""
    if alias and not _STAGE_NAME.match(alias):
        raise InputError(
            f"not a name for a stage: {fields[2]!r}",
            hint="a name begins with a letter; letters, digits, '-', '_' and '.' follow",
        )
    flags = request.flags({"platform": TEXT})
    return From(**request.common(), image=fields[0], alias=alias, platform=flags.text("platform"))


def _from_advice(fields: list[str]) -> str:
    """Return what to write instead of a FROM with these words."""
    if any(field.startswith("#") for field in fields):
        return "a comment needs a line of its own"
    if "${" in "".join(fields):
        return "there can be no blanks inside ${...} here"
    if len(fields) == 2:
        return f"a tag is joined with a colon (FROM {fields[0]}:{fields[1]}), a name with AS (FROM {fields[0]} AS name)"
    return "write FROM IMAGE or FROM IMAGE AS NAME"


def arg(request: Request) -> Arg:
    """Build ARG. Flags are ignored, as BuildKit does."""
    pairs: list[tuple[str, str | None]] = []
    for word in split_words(request.statement.rest, request.escape):
        name, equals, value = word.partition("=")
        if not name:
            raise InputError(f"ARG has an empty name in {word!r}", hint="write ARG NAME or ARG NAME=DEFAULT")
        pairs.append((name, value if equals else None))
    if not pairs:
        raise InputError("ARG needs a name", hint="write ARG NAME or ARG NAME=DEFAULT")
    return Arg(**request.common(), pairs=tuple(pairs))


def env(request: Request) -> Env:
    """Build ENV."""
    no_flags(request)
    pairs, legacy = split_pairs(request.statement.rest, request.escape, "ENV")
    return Env(**request.common(), pairs=tuple(pairs), legacy=legacy)


def label(request: Request) -> Label:
    """Build LABEL."""
    no_flags(request)
    pairs, legacy = split_pairs(request.statement.rest, request.escape, "LABEL")
    return Label(**request.common(), pairs=tuple(pairs), legacy=legacy)


def maintainer(request: Request) -> Maintainer:
    """Build MAINTAINER."""
    return Maintainer(**request.common(), name=_only_argument(request, "NAME"))


def workdir(request: Request) -> Workdir:
    """Build WORKDIR."""
    return Workdir(**request.common(), path=_only_argument(request, "PATH"))


def user(request: Request) -> User:
    """Build USER."""
    return User(**request.common(), user=_only_argument(request, "NAME[:GROUP]"))


def stopsignal(request: Request) -> StopSignal:
    """Build STOPSIGNAL. Flags are ignored, as BuildKit does."""
    if not request.statement.rest:
        raise InputError("STOPSIGNAL needs an argument", hint="write STOPSIGNAL SIGNAL, such as SIGTERM")
    return StopSignal(**request.common(), signal=request.statement.rest)


def run(request: Request) -> Run:
    """Build RUN."""
    flags = request.flags({"mount": LIST, "network": TEXT, "security": TEXT, "device": LIST})
    command = _command(request, request.statement.rest)
    if not (command.text if isinstance(command, ShellForm) else command.args):
        raise InputError("RUN needs a command", hint="write it behind: RUN make")
    for value in flags.texts("mount"):
        check_mount(value)
    network = _choice("network", flags, _NETWORKS)
    security = _choice("security", flags, _SECURITY)
    return Run(
        **request.common(),
        command=command,
        mounts=flags.texts("mount"),
        network=network,
        security=security,
        devices=tuple(map(parse_device, flags.texts("device"))),
    )


def cmd(request: Request) -> Cmd:
    """Build CMD."""
    no_flags(request)
    return Cmd(**request.common(), command=_command(request, request.statement.rest))


def entrypoint(request: Request) -> Entrypoint:
    """Build ENTRYPOINT."""
    no_flags(request)
    return Entrypoint(**request.common(), command=_command(request, request.statement.rest))


def shell(request: Request) -> Shell:
    """Build SHELL."""
    no_flags(request)
    args = json_list(request.statement.rest)
    if not args:
        raise InputError(
            "SHELL takes a JSON array with at least one string",
            hint='write SHELL ["/bin/bash", "-o", "pipefail", "-c"]',
        )
    return Shell(**request.common(), args=tuple(args))


def expose(request: Request) -> Expose:
    """Build EXPOSE."""
    ports = split_fields(request.statement.rest)
    if not ports:
        raise InputError("EXPOSE needs a port", hint="write EXPOSE PORT[/PROTOCOL], such as 8080/tcp")
    no_flags(request)
    return Expose(**request.common(), ports=tuple(ports))


def volume(request: Request) -> Volume:
    """Build VOLUME."""
    found = json_list(request.statement.rest)
    paths = [path.strip(BLANKS) for path in (split_fields(request.statement.rest) if found is None else found)]
    if not paths:
        raise InputError("VOLUME needs a path", hint="write VOLUME /data")
    no_flags(request)
    if not all(paths):
        raise InputError("VOLUME has an empty path", hint="remove it, or give a path")
    return Volume(**request.common(), paths=tuple(paths))


def healthcheck(request: Request) -> Healthcheck:
    """Build HEALTHCHECK."""
    kind, *after = request.statement.rest.split(maxsplit=1)[:2] or [""]
    rest = after[0] if after else ""
    if kind.upper() == "NONE":
        if rest:
            raise InputError("HEALTHCHECK NONE takes no arguments", hint="remove what follows NONE")
        return Healthcheck(**request.common(), command=None)
    if kind.upper() != "CMD":
        what = f"HEALTHCHECK takes CMD or NONE, got {kind[:80]!r}" if kind else "HEALTHCHECK needs CMD or NONE"
        raise InputError(what, hint=f"write HEALTHCHECK [flags] CMD {kind[:80] or 'COMMAND'} ..., or HEALTHCHECK NONE")
    times = ("interval", "timeout", "start-period", "start-interval")
    flags = request.flags(dict.fromkeys((*times, "retries"), TEXT))
    command = _command(request, rest)
    if not (command.text if isinstance(command, ShellForm) else command.args):
        raise InputError("HEALTHCHECK CMD needs a command", hint="write HEALTHCHECK CMD COMMAND")
    interval, timeout, start_period, start_interval = (_interval(name, flags.text(name)) for name in times)
    return Healthcheck(
        **request.common(),
        command=command,
        interval_ns=interval,
        timeout_ns=timeout,
        start_period_ns=start_period,
        start_interval_ns=start_interval,
        retries=_retries(flags.text("retries")),
    )


def copy(request: Request) -> Copy:
    """Build COPY."""
    transfer = _transfer(request)
    flags = request.flags(
        {
            "from": TEXT,
            "chown": TEXT,
            "chmod": TEXT,
            "link": SWITCH,
            "parents": SWITCH,
            "exclude": LIST,
        }
    )
    if "$" in flags.text("from"):
        raise InputError(
            "COPY --from takes no variables",
            hint=f"write FROM {flags.text('from')[:80]} AS name further up, and here --from=name",
        )
    return Copy(
        **request.common(),
        **transfer,
        from_=flags.text("from"),
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=bool(flags.switch("link")),
        parents=bool(flags.switch("parents")),
        exclude=flags.texts("exclude"),
    )


def add(request: Request) -> Add:
    """Build ADD."""
    transfer = _transfer(request)
    flags = request.flags(
        {
            "chown": TEXT,
            "chmod": TEXT,
            "link": SWITCH,
            "keep-git-dir": SWITCH,
            "checksum": TEXT,
            "unpack": SWITCH,
            "exclude": LIST,
        }
    )
    return Add(
        **request.common(),
        **transfer,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=bool(flags.switch("link")),
        keep_git_dir=flags.switch("keep-git-dir"),
        checksum=flags.text("checksum"),
        unpack=flags.switch("unpack"),
        exclude=flags.texts("exclude"),
    )


class _Transfer(TypedDict):
    """Keyword arguments for what COPY and ADD take before their flags."""

    sources: tuple[str, ...]
    dest: str
    inline: tuple[InlineFile, ...]


def _transfer(request: Request) -> _Transfer:
    """Return sources, inline files and destination of COPY or ADD."""
    found = json_list(request.statement.rest)
    fields = split_fields(request.statement.rest) if found is None else found
    if len(fields) < 2:
        what = "a source and a destination" if not fields else f"a destination behind {fields[0]!r}"
        raise InputError(f"{request.keyword} needs {what}", hint=f"write {request.keyword} SOURCE... DESTINATION")
    *sources, dest = fields
    if found is not None:
        return {"sources": tuple(sources), "dest": dest, "inline": ()}
    if heredoc_of_word(dest) is not None:
        raise InputError(
            f"{request.keyword} cannot have a here-document as its destination",
            hint=f"name the file to write: {request.keyword} {dest} /path",
        )
    by_name = {doc.name: doc for doc in request.heredocs}
    paths: list[str] = []
    inline: list[InlineFile] = []
    for source in sources:
        mark = heredoc_of_word(source)
        if mark is None:
            paths.append(source)
        else:
            doc = by_name.get(mark.name)
            if doc is None:
                raise InputError(
                    f"the here-document {source} has no content, because a quote is open on this line",
                    hint="close the quote, or put a backslash before it",
                )
            inline.append(InlineFile(mark.name, doc.text(), mark.expand))
    return {"sources": tuple(paths), "dest": dest, "inline": tuple(inline)}


def _command(request: Request, text: str) -> ShellForm | ExecForm:
    """Return `text` in the form it has."""
    args = json_list(text)
    if args is not None:
        return ExecForm(tuple(args))
    lone = len(request.heredocs) >= 1 and heredoc_of_word(text) is not None
    return ShellForm(text, request.heredocs, lone)


def _only_argument(request: Request, what: str) -> str:
    """Return the one argument, which is the whole rest of the line."""
    if not request.statement.rest:
        raise InputError(f"{request.keyword} needs an argument", hint=f"write {request.keyword} {what}")
    no_flags(request)
    return request.statement.rest


def _choice(name: str, flags: Flags, allowed: tuple[str, ...]) -> str:
    """Return the value of the flag `name`, which must be among `allowed`; "" when it was not given."""
    value = flags.text(name)
    if flags.texts(name) and value not in allowed:
        raise InputError(
            f"--{name} is one of {', '.join(allowed)}; got {value[:80]!r}",
            hint=did_you_mean(value, allowed, otherwise=f"write --{name}={allowed[0]}, or leave it out"),
        )
    return value


def _interval(name: str, text: str) -> int:
    """Return the nanoseconds of a HEALTHCHECK flag; 0 when it was not given."""
    if not text:
        return 0
    try:
        nanoseconds = parse_duration(text)
    except InputError as error:
        raise InputError(f"--{name}: {error.what}", hint=error.hint) from None
    if nanoseconds and nanoseconds < _MIN_INTERVAL_NS:
        raise InputError(f"--{name} must be at least 1ms, got {text}", hint="give more, or 0 for the default")
    return nanoseconds


def _retries(text: str) -> int:
    """Return the value of --retries; 0 when it was not given."""
    if not text:
        return 0
    digits = text.removeprefix("+")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 10 or int(digits) > _MAX_RETRIES:
        raise InputError(
            f"--retries takes a whole number that is not negative, got {text[:80]!r}", hint="for example --retries=3"
        )
    return int(digits)
