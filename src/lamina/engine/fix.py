"""`lamina build --check --fix`: what checks find is mended where that is safe, and proved not to change the image.

In: `BuildOptions` with the Dockerfile's bytes. Out: a `Mended`: the new bytes and the report on them. Nothing is
written here, see `write_dockerfile`. The proof: both versions have the same stages and instructions, and every stage
becomes the same graph and the same config, base images taken as far as they are known. A version that does not
convert (it would not build either) is compared instruction by instruction instead.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from lamina.cancel import Cancel
from lamina.checks.fixing import fix_all, unified_diff
from lamina.checks.report import Report
from lamina.checks.values import Finding
from lamina.dockerfile import instructions as ins
from lamina.dockerfile.convert import ConvertOptions, ResolvedBase, convert
from lamina.dockerfile.parser import parse
from lamina.engine.build import convert_options
from lamina.engine.check import Checker
from lamina.engine.options import BuildOptions, Environment
from lamina.errors import InputError
from lamina.oci.platform import Platform
from lamina.session import Session

_NO_DIGEST = "sha256:" + "0" * 64
_UNKNOWN: Mapping[str, Any] = {"architecture": "amd64", "os": "linux", "config": {}}
_MAX_ENDS = 100
"""Most stages that are converted on their own; in files with more, nothing but the case of names may change."""
_AUTHORS = "org.opencontainers.image.authors"


@dataclass(frozen=True, slots=True)
class Mended:
    """What came of fixing a Dockerfile.

    Attributes:
        data: its new bytes; those it had when nothing could be mended.
        done: the findings that are mended.
        diff: unified; "" when nothing changed.
        before, after: the reports on both versions.
    """

    data: bytes
    done: tuple[Finding, ...]
    diff: str
    before: Report
    after: Report


def fix(options: BuildOptions, session: Session, environment: Environment, cancel: Cancel) -> Mended:
    """Mend what the checks find; a Dockerfile that cannot be read stays as it is, and its report says why."""
    with Checker(options, session, environment, cancel) as checker:
        before = checker.report(options.dockerfile)
        try:
            checker.findings(options.dockerfile)
        except InputError:
            return Mended(options.dockerfile, (), "", before, before)
        same = Sameness(options, checker.platforms, checker.bases)
        fixed = fix_all(options.dockerfile, checker.findings, same)
        if fixed.data == options.dockerfile:
            return Mended(fixed.data, (), "", before, before)
        diff = unified_diff(options.dockerfile_name, options.dockerfile, fixed)
        return Mended(fixed.data, fixed.done, diff, before, checker.report(fixed.data))


class Sameness:
    """Tells whether two versions of a Dockerfile make the same image.

    Args:
        options: the build's; its `dockerfile` is not looked at.
        platforms: those to convert for.
        bases: knows configs of base images, as far as they can be had.
    """

    def __init__(self, options: BuildOptions, platforms: Sequence[Platform], bases: Any) -> None:
        self._platforms, self._bases = platforms, bases
        self._options = [convert_options(options, platform) for platform in platforms]
        self._known: dict[bytes, tuple[ins.Dockerfile, list[Any]]] = {}

    def __call__(self, one: bytes, other: bytes, config: bool) -> bool:
        """Compare; with `config`, author, authors' label, CMD and ENTRYPOINT may differ."""
        try:
            (first, made), (second, remade) = self._read(one), self._read(other)
        except InputError:
            return False
        if not same_shape(first, second):
            return False
        if len(_ends(first)) > _MAX_ENDS and not all(map(alike, _all(first), _all(second))):
            return False
        for a, b in zip(made, remade, strict=True):
            if isinstance(a, InputError) or isinstance(b, InputError):
                if str(getattr(a, "what", "")) != str(getattr(b, "what", "")):
                    return False
                if not all(map(alike, _all(first), _all(second))):
                    return False
            elif (a[0], _config(a[1], config)) != (b[0], _config(b[1], config)):
                return False
        return True

    def _read(self, data: bytes) -> tuple[ins.Dockerfile, list[Any]]:
        found = self._known.get(data)
        if found is None:
            dockerfile = parse(data)
            made = [
                self._convert(dockerfile, options, stage)
                for options in self._options
                for stage in _ends(dockerfile)[-_MAX_ENDS:]
            ]
            if len(self._known) > 2:
                self._known.clear()
            found = self._known[data] = (dockerfile, made)
        return found

    def _convert(self, dockerfile: ins.Dockerfile, options: ConvertOptions, stage: str) -> Any:
        """Return ops and config of a stage, or why it has none."""
        try:
            converted = convert(dockerfile, replace(options, target=stage), self._resolve)
        except InputError as error:
            return error
        return list(getattr(converted.definition, "def")), converted.image_config

    def _resolve(self, name: str, platform: Platform) -> ResolvedBase:
        config = self._bases.config(name, platform) if "://" not in name else None
        return ResolvedBase(name.removeprefix("oci-layout://"), _NO_DIGEST, _UNKNOWN if config is None else config)


def _ends(dockerfile: ins.Dockerfile) -> list[str]:
    """Return the numbers of the stages that nothing goes on from; together they need all the others."""
    goes_on = {stage.base.image.lower() for stage in dockerfile.stages}
    last = dockerfile.stages[-1].number
    return [str(stage.number) for stage in dockerfile.stages if stage.number == last or stage.name not in goes_on]


def _all(dockerfile: ins.Dockerfile) -> Iterator[ins.Instruction]:
    yield from dockerfile.global_args
    for stage in dockerfile.stages:
        yield stage.base
        yield from stage.instructions


def same_shape(one: ins.Dockerfile, other: ins.Dockerfile) -> bool:
    """Tell whether two files have the same directives, stages, kinds of instructions, comments and here-documents."""
    if _outline(one) != _outline(other) or one.escape != other.escape:
        return False
    return {name: found.value for name, found in one.directives.items()} == {
        name: found.value for name, found in other.directives.items()
    }


def _outline(dockerfile: ins.Dockerfile) -> list[Any]:
    return [
        (
            "LABEL" if item.keyword == "MAINTAINER" else item.keyword,
            item.comments,
            item.alias if isinstance(item, ins.From) else "",
            item.heredocs if isinstance(item, ins.Run) else (),
            item.inline if isinstance(item, ins.Transfer) else (),
        )
        for item in _all(dockerfile)
    ]


def alike(one: ins.Instruction, other: ins.Instruction) -> bool:
    """Tell whether two instructions say the same word for word, the case of stage names aside."""
    return type(one) is type(other) and all(
        _folded(one, name) == _folded(other, name)
        for name in (field.name for field in fields(one))
        if name not in ("source", "original", "trigger")
    )


def _folded(item: ins.Instruction, name: str) -> Any:
    value = getattr(item, name)
    if name == "from_" or (name == "image" and isinstance(item, ins.From)):
        return value.lower()
    return tuple(text.lower() for text in value) if name == "mounts" else value


def _config(config: Mapping[str, Any], loose: bool) -> Any:
    """Return what must be equal in the configs of two versions."""
    if not loose:
        return config
    inner = dict(config.get("config") or {})
    labels = {name: value for name, value in (inner.pop("Labels", None) or {}).items() if name != _AUTHORS}
    for name in ("Cmd", "Entrypoint"):
        inner.pop(name, None)
    rest = {name: value for name, value in config.items() if name not in ("author", "history", "config")}
    return rest, inner, labels


def write_dockerfile(path: str, old: bytes, new: bytes) -> None:
    """Put `new` in the place of the file `path`, in one step; its mode and owner stay, a symbolic link is followed.

    Raises:
        InputError: it is no regular file, it cannot be written, or it is not `old` any more.
    """
    real = os.path.realpath(path)
    temporary = f"{real}.{os.getpid()}.tmp"
    try:
        found = os.lstat(real)
        if not stat.S_ISREG(found.st_mode):
            raise InputError("only a regular file can be mended", where=path, hint="see the change with --fix=diff")
        if _content(real) != old:
            raise InputError("the Dockerfile has changed meanwhile; it was left alone", where=path, hint="run it again")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(new)
                if (found.st_uid, found.st_gid) != (os.geteuid(), os.getegid()):
                    os.fchown(fd, found.st_uid, found.st_gid)
                os.fchmod(fd, stat.S_IMODE(found.st_mode))
                file.flush()
                os.fsync(fd)
            os.replace(temporary, real)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror}", where=path, hint="see the change with --fix=diff"
        ) from error


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
