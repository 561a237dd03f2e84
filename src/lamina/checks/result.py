"""All checks on the result of a build: what would fail as soon as somebody runs the image, said before.

In: an `ImageView`. Out: troubles, those of the entry point first. Nothing runs, nothing is mounted; the cost is bounded
by the caps of `snapshot.peek`, `libraries` and `result_programs`. Each rule has a page in `docs/checks/`, is skipped
by name as every other, and finds nothing in a Dockerfile alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lamina.checks.result_programs import Programs
from lamina.checks.result_settings import check_user, check_workdir, check_zone
from lamina.checks.result_start import Starts
from lamina.checks.result_view import ImageView, Trouble
from lamina.checks.values import ADVICE, WARNING, Hit, Rule
from lamina.checks.view import View

_MAX_SHOWN = 1000


def _after_the_build(_view: View) -> Iterator[Hit]:
    """Find nothing: these rules look at the image, see `check_result`."""
    return iter(())


def _rule(id_: str, description: str, severity: str = WARNING) -> Rule:
    return Rule(id_, description, _after_the_build, severity)


RESULT_RULES: tuple[Rule, ...] = (
    _rule("ProgramMissing", "What the image runs should be in the image"),
    _rule("ProgramNotExecutable", "What the image runs should be executable for its user"),
    _rule("ShellMissing", "Shell form should not be used in an image without a shell"),
    _rule("ScriptInterpreterMissing", "A script that the image runs should have its interpreter there"),
    _rule("ScriptLineEnds", "A script that the image runs should have LF line ends"),
    _rule("WrongArchitecture", "Programs should be built for the image's processor"),
    _rule("LibcMismatch", "Programs should be built on the libc that the image has"),
    _rule("LoaderMissing", "A dynamically linked program should have its loader in the image"),
    _rule("LibraryMissing", "A program should have its libraries in the image"),
    _rule("CertificatesMissing", "A program that speaks TLS to others should have CA certificates", ADVICE),
    _rule("UserMissing", "USER should name a user and group that the image has"),
    _rule("WorkdirMissing", "WORKDIR should be a directory of the image"),
    _rule("TimeZoneMissing", "The time zone in TZ should be in the image", ADVICE),
)
"""The rules that look at the finished image."""

RESULT_RULES_BY_ID = {rule.id: rule for rule in RESULT_RULES}


def check_result(image: ImageView) -> list[Trouble]:
    """Return what is wrong with a finished image; nothing for one that is not for Linux."""
    if image.platform.os != "linux":
        return []
    starts = Starts(image)
    starts.run()
    programs = Programs(image)
    found = [*starts.troubles, *programs.started(starts.programs)]
    if any(image.commands()):  # otherwise it only carries files to somewhere else
        found += programs.others()
    for check in (check_user, check_workdir, check_zone):
        found += check(image)
    return list(dict.fromkeys(_shown(trouble) for trouble in found))


def _shown(trouble: Trouble) -> Trouble:
    """Return a trouble whose texts can be shown: names in images may hold anything, at any length."""
    return replace(trouble, message=_text(trouble.message), detail=tuple(_text(line) for line in trouble.detail))


def _text(text: str) -> str:
    cut = text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."
    return cut if cut.isprintable() else "".join(char if char.isprintable() else "?" for char in cut)
