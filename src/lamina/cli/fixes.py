"""`lamina build --check --fix`: the file rewritten, or only the diff shown.

In: where the Dockerfile lies, and what `--check` has. Out: the report on what is left (with `--fix=diff`: on the file
as it is). The diff goes to standard output, beside a report for programs to standard error.
"""

from __future__ import annotations

import sys

from lamina.cancel import Cancel
from lamina.checks.report import Report
from lamina.cli.build_args import Request
from lamina.cli.terminal import clean_text
from lamina.engine.fix import Mended, fix, write_dockerfile
from lamina.engine.options import BuildOptions, Environment
from lamina.session import Session


def fix_file(
    path: str, options: BuildOptions, request: Request, session: Session, environment: Environment, cancel: Cancel
) -> Report:
    """Mend the Dockerfile at `path` as `request.fix` says; show the diff, and return the report to show below.

    Raises:
        InputError: the file cannot be written.
    """
    assert request.call is not None
    mended = fix(options, session, environment, cancel)
    if request.fix == "write" and mended.diff:
        write_dockerfile(path, options.dockerfile, mended.data)
    _show(mended, options.dockerfile_name, request.fix, text=request.call.format == "text")
    return mended.after if request.fix == "write" else mended.before


def _show(mended: Mended, name: str, how: str, *, text: bool) -> None:
    """Print the diff as it is, or made harmless for a terminal, and how much it mends."""
    stream = sys.stdout if text else sys.stderr
    if not mended.diff:
        summary = "nothing that --fix could mend\n"
    else:
        count = len(mended.done)
        what = f"{count} finding{'' if count == 1 else 's'}"
        summary = f"{what} mended in {name}\n" if how == "write" else f"{what} can be mended in {name}; --fix does it\n"
    if mended.diff and stream.isatty():
        stream.write(clean_text(mended.diff))
    elif mended.diff:
        stream.flush()
        stream.buffer.write(mended.diff.encode("utf-8", "surrogateescape"))
        stream.flush()
    stream.write(clean_text(summary))
    if text and how == "write":
        stream.write("\n")
