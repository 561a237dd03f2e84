"""All checks on the result of a build: what would fail as soon as somebody runs the image, said before.

In: an `ImageView`. Out: troubles, those of the entry point first. Nothing runs, nothing is mounted; the cost is bounded
by the caps of `snapshot.peek`, `libraries` and `result_programs`. Each rule has a page in `docs/checks/`.
"""

from __future__ import annotations

from lamina.checks.result_programs import Programs
from lamina.checks.result_settings import check_user, check_workdir, check_zone
from lamina.checks.result_start import Starts
from lamina.checks.result_view import ImageView, Trouble


def check_result(image: ImageView) -> list[Trouble]:
    """Return what is wrong with a finished image; nothing for one that is not for Linux."""
    if image.platform.os != "linux":
        return []
    starts = Starts(image)
    starts.run()
    programs = Programs(image)
    found = [*starts.troubles, *programs.started(starts.programs), *programs.others()]
    for check in (check_user, check_workdir, check_zone):
        found += check(image)
    return list(dict.fromkeys(found))
