"""The Dockerfile as values: what the parser returns and what conversion, checks and listings read.

In: nothing; `parser.parse` makes these. Out: frozen values. They hold the text of the file, *unexpanded*: variables
are put in by whoever walks a stage (see `words.Words`), because what a variable means depends on the instructions
before it. Nothing here knows images, graphs or files.

Which fields take variables (Dockerfile reference, "Environment replacement"): those whose docstring says *expanded*.

Invariants: every tuple keeps the order of the file; `Stage.base` is the stage's `FROM` and never among `instructions`;
names of stages are in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lamina.errors import SourceRange

_LEADING_TABS = re.compile(r"^\t+", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Heredoc:
    """One here-document that follows an instruction.

    Attributes:
        name: the word that ends it, without quotes.
        content: the lines before that word, as written (leading tabs too), each with its line end. Bytes that are not
            UTF-8 stand as lone surrogates: encode with `errors="surrogateescape"`.
        expand: False when the word was quoted, so that variables in the content are left alone.
        strip_tabs: True for `<<-`.
        fd: the number before `<<`, 0 when there is none.
    """

    name: str
    content: str
    expand: bool = True
    strip_tabs: bool = False
    fd: int = 0

    def text(self) -> str:
        """Return the content as a reader of the here-document gets it: without leading tabs for `<<-`."""
        return _LEADING_TABS.sub("", self.content) if self.strip_tabs else self.content


@dataclass(frozen=True, slots=True)
class ShellForm:
    """A command line for the shell in force (`RUN make all`), never expanded by us.

    Attributes:
        text: the logical line after the keyword and flags.
        heredocs: the here-documents it announces, in order (RUN only).
        lone: the line is nothing but `<<WORD`.
    """

    text: str
    heredocs: tuple[Heredoc, ...] = ()
    lone: bool = False

    @property
    def script(self) -> Heredoc | None:
        """The here-document whose text is the script itself, because the line is nothing but `<<WORD`."""
        return self.heredocs[0] if self.lone else None

    def full_text(self) -> str:
        """Return line and here-documents put together again, for a shell that reads them itself."""
        return self.text + "".join(f"\n{doc.content}{doc.name}" for doc in self.heredocs)


@dataclass(frozen=True, slots=True)
class ExecForm:
    """A command as a list of arguments (`["make", "all"]`), never expanded by us."""

    args: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InlineFile:
    """A here-document as a source of COPY or ADD.

    Attributes:
        name: file name in the destination directory (when the destination ends in `/`).
        data: content, leading tabs already dropped for `<<-`; surrogates stand for bytes that are not UTF-8.
        expand: whether variables in `data` are expanded (`words.Words.expand_document`).
    """

    name: str
    data: str
    expand: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """What every instruction has.

    Attributes:
        keyword: its name in upper case.
        source: the lines it was written on, here-documents included.
        original: its logical line (continued lines joined), as history shows it.
        comments: the comment lines directly above it, without `#`.
    """

    keyword: ClassVar[str] = ""

    source: SourceRange
    original: str
    comments: tuple[str, ...] = ()

    def comment_about(self, name: str) -> str:
        """Return the description that a comment above gives of `name` (`# name what it is`), or ""."""
        found = (line[len(name) + 1 :] for line in self.comments if name and line.startswith(name + " "))
        return next(found, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class From(Instruction):
    """`FROM [--platform=P] IMAGE [AS ALIAS]`.

    Attributes:
        image: reference, stage name or `scratch`; expanded with global arguments.
        alias: name of the stage in lower case, or "".
        platform: expanded with global arguments; "" when not given.
    """

    keyword: ClassVar[str] = "FROM"

    image: str
    alias: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg(Instruction):
    """`ARG NAME[=DEFAULT]...`. Names and defaults are expanded; a default of None means none was written."""

    keyword: ClassVar[str] = "ARG"

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Env(Instruction):
    """`ENV NAME=VALUE...`. Names and values are expanded (quotes are still in them).

    Attributes:
        legacy: True for the old form `ENV NAME VALUE`.
    """

    keyword: ClassVar[str] = "ENV"

    pairs: tuple[tuple[str, str], ...]
    legacy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Label(Instruction):
    """`LABEL NAME=VALUE...`. Names and values are expanded (quotes are still in them).

    Attributes:
        legacy: True for the old form `LABEL NAME VALUE`.
    """

    keyword: ClassVar[str] = "LABEL"

    pairs: tuple[tuple[str, str], ...]
    legacy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintainer(Instruction):
    """`MAINTAINER NAME` (deprecated)."""

    keyword: ClassVar[str] = "MAINTAINER"

    name: str


@dataclass(frozen=True, slots=True)
class Device:
    """A device that a RUN asks for; see `devices.parse_device`.

    Attributes:
        name: `vendor.com/class=name`, a kind, or a class.
        required: whether the build fails without it.
    """

    name: str
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Instruction):
    """`RUN [flags] COMMAND`.

    Attributes:
        command: what to run; `command.heredocs` holds the here-documents of the shell form.
        mounts: the values of `--mount`, in order; each goes through `mounts.parse_mount`, which expands.
        network: `default`, `none`, `host`, or "" when not given.
        security: `sandbox`, `insecure`, or "" when not given.
        devices: the values of `--device`, in order; never expanded.
    """

    keyword: ClassVar[str] = "RUN"

    command: ShellForm | ExecForm
    mounts: tuple[str, ...] = ()
    network: str = ""
    security: str = ""
    devices: tuple[Device, ...] = ()

    @property
    def heredocs(self) -> tuple[Heredoc, ...]:
        """The here-documents of the command, in order."""
        return self.command.heredocs if isinstance(self.command, ShellForm) else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer(Instruction):
    """What COPY and ADD share.

    Attributes:
        sources: paths, globs, for ADD URLs too; expanded.
        dest: destination; expanded.
        inline: here-documents as sources.
        chown: `user[:group]`; expanded; "" when not given.
        chmod: octal or symbolic; expanded; "" when not given.
        link: `--link`.
        exclude: patterns of `--exclude`; expanded.
    """

    sources: tuple[str, ...]
    dest: str
    inline: tuple[InlineFile, ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy(Transfer):
    """`COPY [flags] SOURCE... DEST`.

    Attributes:
        from_: stage name or number, named context or image; "" is the build context. Not expanded.
        parents: `--parents`.
    """

    keyword: ClassVar[str] = "COPY"

    from_: str = ""
    parents: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Add(Transfer):
    """`ADD [flags] SOURCE... DEST`.

    Attributes:
        checksum: digest or commit the source must have; expanded; "" when not given.
        keep_git_dir: None when not given.
        unpack: None when not given: local archives are unpacked, downloads are not.
    """

    keyword: ClassVar[str] = "ADD"

    checksum: str = ""
    keep_git_dir: bool | None = None
    unpack: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workdir(Instruction):
    """`WORKDIR PATH`; the path is expanded."""

    keyword: ClassVar[str] = "WORKDIR"

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Instruction):
    """`USER user[:group]`; expanded."""

    keyword: ClassVar[str] = "USER"

    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expose(Instruction):
    """`EXPOSE port[-port][/protocol]...`; each is expanded and may become several words (`Words.split`)."""

    keyword: ClassVar[str] = "EXPOSE"

    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume(Instruction):
    """`VOLUME PATH...` or `VOLUME ["PATH", ...]`; each is expanded."""

    keyword: ClassVar[str] = "VOLUME"

    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cmd(Instruction):
    """`CMD COMMAND`."""

    keyword: ClassVar[str] = "CMD"

    command: ShellForm | ExecForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrypoint(Instruction):
    """`ENTRYPOINT COMMAND`; `ENTRYPOINT []` (an `ExecForm` without arguments) clears what was inherited."""

    keyword: ClassVar[str] = "ENTRYPOINT"

    command: ShellForm | ExecForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell(Instruction):
    """`SHELL ["program", "argument"...]`."""

    keyword: ClassVar[str] = "SHELL"

    args: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StopSignal(Instruction):
    """`STOPSIGNAL SIGNAL`; expanded."""

    keyword: ClassVar[str] = "STOPSIGNAL"

    signal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck(Instruction):
    """`HEALTHCHECK NONE` or `HEALTHCHECK [flags] CMD COMMAND`.

    Attributes:
        command: None for `NONE`.
        interval_ns: nanoseconds; here and below 0 means "not given: inherit".
        timeout_ns: how long one probe may take.
        start_period_ns: time in which failures do not count.
        start_interval_ns: interval during that time.
        retries: failures in a row that make the container unhealthy.
    """

    keyword: ClassVar[str] = "HEALTHCHECK"

    command: ShellForm | ExecForm | None
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Onbuild(Instruction):
    """`ONBUILD INSTRUCTION`.

    Attributes:
        expression: the text that goes into the image's config, here-documents included.
        trigger: the same, parsed.
    """

    keyword: ClassVar[str] = "ONBUILD"

    expression: str
    trigger: Instruction


@dataclass(frozen=True, slots=True)
class Stage:
    """One `FROM` and what follows it.

    Attributes:
        number: position in the file, from 0.
        name: alias in lower case, or "".
        base: its `FROM`.
        instructions: what follows, in order.
        description: what a comment above `FROM` says of it (`# name what it is`), or "".
    """

    number: int
    name: str
    base: From
    instructions: tuple[Instruction, ...]
    description: str = ""


@dataclass(frozen=True, slots=True)
class Directive:
    """A parser directive at the top of the file (`# escape=...`)."""

    value: str
    source: SourceRange


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A parsed Dockerfile.

    Attributes:
        filename: as the user gave it.
        text: the whole source, for excerpts.
        escape: the escape character, a backslash or a backtick; `words.Words` wants it.
        directives: `syntax`, `escape`, `check`, by name in lower case.
        global_args: the `ARG` instructions before the first `FROM`.
        stages: at least one.
        empty_continuations: where an empty line stands inside a continued one (deprecated).
    """

    filename: str
    text: str
    escape: str
    directives: Mapping[str, Directive]
    global_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    empty_continuations: tuple[SourceRange, ...] = ()

    def stage(self, name: str) -> Stage | None:
        """Return the last stage called `name` (in any case), or the one of that number; None when there is none."""
        for stage in reversed(self.stages):
            if stage.name and stage.name == name.lower():
                return stage
        if name.isascii() and name.isdigit() and int(name) < len(self.stages):
            return self.stages[int(name)]
        return None


@dataclass(frozen=True, slots=True)
class Mount:
    """One `RUN --mount`, expanded and checked (`mounts.parse_mount` makes it).

    Attributes:
        type: `bind`, `cache`, `tmpfs`, `secret` or `ssh`.
        target: path in the step; "" when not given (secret and ssh have defaults).
        source: path inside `from_` (bind, cache), or the id of a secret.
        from_: stage, named context or image; "" is the build context (bind) or an empty directory (cache).
        readonly: bind: True unless `rw`; cache and tmpfs: False unless `ro`; secret and ssh: True.
        id: of a cache, secret or SSH agent; "" when not given.
        sharing: `shared`, `private`, `locked`, or "" when not given (cache).
        required: fail when the secret or agent is not offered.
        env: variable that carries the secret: None not asked for, "" the default name.
        size_bytes: limit of a tmpfs, 0 for none.
        mode: permission bits, None when not given.
        uid: owner, None when not given.
        gid: group, None when not given.
    """

    type: str = "bind"
    target: str = ""
    source: str = ""
    from_: str = ""
    readonly: bool = True
    id: str = ""
    sharing: str = ""
    required: bool = False
    env: str | None = None
    size_bytes: int = 0
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
