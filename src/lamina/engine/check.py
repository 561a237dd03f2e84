"""Checks beside a build and checks alone: what `checks` may know is gathered here.

In a build: the Dockerfile and the base images that conversion met; findings become warning events, and with
`error=true` the error that ends the build before its first step. Alone (`lamina build --check`): base images are looked
up as a build would, but one that cannot be had only makes the checks know less; every stage is converted to tell what
would not build, and nothing is run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lamina import rooted
from lamina.cancel import Cancel
from lamina.checks.report import Report
from lamina.checks.run import refusal, run_checks, wishes_of
from lamina.checks.values import WARNING, Finding
from lamina.checks.view import BaseConfig, CheckOptions, ListContext
from lamina.dockerfile.convert import ResolvedBase, convert
from lamina.dockerfile.instructions import Dockerfile
from lamina.dockerfile.parser import parse
from lamina.dockerfile.syntax import check_syntax
from lamina.engine.gate import Gate, open_gate
from lamina.engine.options import BuildOptions, Environment
from lamina.errors import Error, InputError, MachineError, NetworkError, NotYetError, StorageError
from lamina.oci.platform import Platform, host_platform
from lamina.oci.reference import Reference
from lamina.patterns import IgnoreRules, parse_ignore
from lamina.policy.values import Source
from lamina.progress import Sink, WarningEvent
from lamina.session import Session

_MAX_LISTED = 100_000
_MAX_EVENTS = 200
_ANSWERED = ("unauthorized", "denied", "not found")
_NO_DIGEST = "sha256:" + "0" * 64

Configs = Mapping[tuple[str, str], Mapping[str, Any]]
"""Configs of base images by full reference and platform."""


def check_in_build(
    dockerfile: Dockerfile, options: BuildOptions, platforms: Sequence[Platform], configs: Configs, sink: Sink
) -> tuple[str, ...]:
    """Check what a build is about to build for these platforms; return the findings, one line each.

    They are told to `sink` too.

    Raises:
        InputError: the `check` directive is wrong, or it makes the findings an error.
    """
    check_options = replace(_check_options(options, platforms[0], _known_configs(configs)), all_stages=False)
    findings = _findings(dockerfile, check_options, platforms)
    warnings = [finding for finding in findings if finding.rule.severity == WARNING]
    for finding in warnings[:_MAX_EVENTS]:
        sink(_event(finding))
    more, advice = len(warnings[_MAX_EVENTS:]), len(findings) - len(warnings)
    if more:
        sink(WarningEvent("", f"{more} more warnings: `lamina build --check` lists them"))
    if advice:
        pieces = "1 piece" if advice == 1 else f"{advice} pieces"
        sink(WarningEvent("", f"{pieces} of advice about {dockerfile.filename}: `lamina build --check` gives them"))
    error = refusal(findings, wishes_of(dockerfile, check_options))
    if error is not None:
        raise error
    return tuple(finding.line() for finding in warnings[:_MAX_EVENTS])


def check(
    options: BuildOptions, session: Session, environment: Environment, cancel: Cancel, gate: Gate | None = None
) -> Report:
    """Check a Dockerfile without building; what is wrong with it stands in the report.

    Args:
        gate: of the build in which this is asked; None for what the options say.
    """
    with Checker(options, session, environment, cancel, gate) as checker:
        return checker.report(options.dockerfile)


class Checker:
    """Checks versions of one Dockerfile; base images are looked up once. A context manager.

    Attributes:
        platforms: what the build is for.
        bases: what is known of base images.
    """

    def __init__(
        self,
        options: BuildOptions,
        session: Session,
        environment: Environment,
        cancel: Cancel,
        gate: Gate | None = None,
    ) -> None:
        self._options, self._name = options, options.dockerfile_name
        self.platforms = list(map(Platform.parse, options.platforms)) or [host_platform()]
        self.bases = _Bases(session, environment, cancel, self.platforms[0], pull=options.pull)
        self.bases.gate = gate or open_gate(options)
        self._check_options = _check_options(options, self.platforms[0], self.bases.config)

    def __enter__(self) -> Checker:
        return self

    def __exit__(self, *_: object) -> None:
        self.bases.close()

    def findings(self, data: bytes) -> tuple[Finding, ...]:
        """Return what is found in a version of the file.

        Raises:
            InputError: it cannot be parsed, or its `check` directive is wrong.
        """
        return _findings(parse(data, self._name), self._check_options, self.platforms)

    def report(self, data: bytes) -> Report:
        """Return all that is to be said about a version of the file."""
        try:
            check_syntax(data, self._name, self._options.build_args)
            dockerfile = parse(data, self._name)
        except InputError as error:
            text = error.source.text if error.source is not None else data.decode("utf-8", "replace")
            return Report(self._name, text, error=error)
        try:
            findings = _findings(dockerfile, self._check_options, self.platforms)
        except InputError as error:  # the directive itself
            return Report(self._name, dockerfile.text, error=error, notes=self.bases.notes())
        obstacle = _conversion_error(dockerfile, self._options, self.platforms[0], self.bases)
        return Report(self._name, dockerfile.text, findings, obstacle, self.bases.notes())


def _findings(dockerfile: Dockerfile, options: CheckOptions, platforms: Sequence[Platform]) -> tuple[Finding, ...]:
    """Return what is found for any of the platforms; what is true of several is said once."""
    found: dict[tuple[str, int, str], Finding] = {}
    for platform in platforms:
        for finding in run_checks(dockerfile, replace(options, platform=platform)):
            found.setdefault((finding.rule.id, finding.source.start, finding.message), finding)
    return tuple(sorted(found.values(), key=lambda finding: finding.order))


def _event(finding: Finding) -> WarningEvent:
    return WarningEvent(
        "",
        f"{finding.rule.id}: {finding.message}",
        detail=(finding.rule.description, *finding.detail),
        url=finding.rule.url,
        source=finding.source,
    )


def _check_options(options: BuildOptions, platform: Platform, base_config: BaseConfig) -> CheckOptions:
    return CheckOptions(
        build_args=options.build_args,
        target=options.target,
        all_stages=not options.target,
        platform=platform,
        build_platform=host_platform(),
        ignore=IgnoreRules(parse_ignore(options.ignore)) if options.ignore is not None else None,
        named_contexts=frozenset(options.build_contexts),
        base_config=base_config,
        list_context=_lister(options.context) if options.context else None,
    )


def _lister(context: str) -> ListContext:
    """Return what lists directories of the build context; links are not followed."""

    def listed(path: str) -> Sequence[str]:
        root = -1
        fd = -1
        try:
            root = rooted.open_root(context)
            fd = rooted.open_beneath(root, path, os.O_RDONLY | os.O_DIRECTORY)
            names = []
            with os.scandir(fd) as entries:
                for entry in entries:
                    names.append(entry.name + ("/" if entry.is_dir(follow_symlinks=False) else ""))
                    if len(names) >= _MAX_LISTED:
                        break
            return sorted(names)
        except OSError:
            return ()
        finally:
            for number in (root, fd):
                if number >= 0:
                    os.close(number)

    return listed


def _known_configs(configs: Configs) -> BaseConfig:
    """Return what answers from the images that a conversion resolved."""

    def config(name: str, platform: Platform) -> Mapping[str, Any] | None:
        try:
            return configs.get((str(Reference.parse(name)), str(platform)))
        except InputError:
            return None

    return config


class _UnknownBaseError(Error):
    """A base image cannot be had; no fault of the Dockerfile."""


class _Bases:
    """Base images for checks alone: looked up once, and never a reason to fail."""

    def __init__(
        self, session: Session, environment: Environment, cancel: Cancel, platform: Platform, *, pull: bool
    ) -> None:
        self._open: Callable[[], Any] = lambda: _open_place(session, environment, cancel, platform, pull)
        self._cancel = cancel
        self._place: Any = None
        self.gate = Gate()
        self._broken = ""
        self._found: dict[tuple[str, str], tuple[Mapping[str, Any] | None, str]] = {}
        self._unreachable: dict[str, str] = {}

    def close(self) -> None:
        """Close what was opened for looking up."""
        if self._place is not None:
            self._place.close()

    def config(self, name: str, platform: Platform) -> Mapping[str, Any] | None:
        """Return an image's config, None when it cannot be had."""
        try:
            reference = Reference.parse(name)
        except InputError:
            return None
        key = (str(reference), str(platform))
        if key not in self._found:
            self._found[key] = self._look_up(reference, platform)
        return self._found[key][0]

    def resolve(self, name: str, platform: Platform) -> ResolvedBase:
        """Answer a conversion.

        Raises:
            _UnknownBaseError: the image cannot be had, so the conversion could only guess.
        """
        config = self.config(name, platform)
        if config is None:
            raise _UnknownBaseError(f"{name} is not known")
        return ResolvedBase(name, _NO_DIGEST, config)

    def notes(self) -> tuple[str, ...]:
        """Return what is not known, and why."""
        return tuple(
            f"the base image {name} could not be looked up, so less is known of its stages: {why}"
            for (name, _), (config, why) in self._found.items()
            if config is None
        )

    def _look_up(self, reference: Reference, platform: Platform) -> tuple[Mapping[str, Any] | None, str]:
        """Return the config, or None and why; a registry that cannot be reached is asked once."""
        if why := self._broken or self._unreachable.get(reference.registry, ""):
            return None, why
        try:
            if self._place is None:
                self._place = self._open()
        except (Error, OSError) as error:
            self._broken = str(error)
            return None, self._broken
        try:
            admitted = self.gate.judge(Source(f"docker-image://{reference}"), platform).identifier
            reference = Reference.parse(admitted.removeprefix("docker-image://"))
            image = self._place.images.resolve(reference, platform, self._cancel)
        except (NetworkError, InputError, StorageError, MachineError) as error:
            if isinstance(error, NetworkError) and getattr(error, "kind", "") not in _ANSWERED:
                self._unreachable[reference.registry] = str(error)
            return None, str(error)
        return dict(image.config.fields), ""


def _open_place(session: Session, environment: Environment, cancel: Cancel, platform: Platform, pull: bool) -> Any:
    from lamina.engine.place import Place

    return Place(environment, cancel, credentials=session.credentials, platform=platform, pull=pull)


def _conversion_error(
    dockerfile: Dockerfile, options: BuildOptions, platform: Platform, bases: _Bases
) -> InputError | None:
    """Return why the target (any stage, without one) would not become a graph; None when it would."""
    from lamina.engine.build import convert_options

    wanted = convert_options(options, platform)
    targets = [options.target] if options.target else _ends(dockerfile)
    for target in targets:
        try:
            convert(dockerfile, replace(wanted, target=target), bases.resolve)
        except (NotYetError, _UnknownBaseError):
            continue  # as far as can be told, the Dockerfile is right
        except InputError as error:
            return error
    return None


_MAX_ENDS = 100
"""Most stages that are converted on their own; each may need all the others."""


def _ends(dockerfile: Dockerfile) -> list[str]:
    """Return the stages that no later FROM goes on from, last first: together they need nearly all stages."""
    goes_on = {stage.base.image.lower() for stage in dockerfile.stages}
    last = dockerfile.stages[-1].number
    ends = [stage for stage in dockerfile.stages if stage.number == last or stage.name not in goes_on]
    return [stage.name or str(stage.number) for stage in reversed(ends[-_MAX_ENDS:])]
