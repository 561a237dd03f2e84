"""Rules about single instructions: forms that are old, forms that do less than they seem to."""

from __future__ import annotations

from collections.abc import Iterator

from lamina.checks.values import Hit, rule
from lamina.checks.view import View
from lamina.dockerfile.instructions import Cmd, Entrypoint, Env, Healthcheck, Instruction, Label, ShellForm, Workdir


@rule(
    "JSONArgsRecommended",
    "CMD and ENTRYPOINT should be JSON arrays, so that the program gets the signals",
    buildkit=True,
    aliases=("DL3025",),
    needs_bases=True,
)
def json_args_recommended(view: View) -> Iterator[Hit]:
    """In shell form the shell is the first process; it does not hand SIGTERM on, and stopping takes ten seconds.

    Who chose a shell with SHELL meant it.
    """
    for step in view.steps(Cmd, Entrypoint):
        item = step.item
        assert isinstance(item, Cmd | Entrypoint)
        if isinstance(item.command, ShellForm) and not step.shell_set:
            yield Hit(
                f"{item.keyword} in shell form keeps signals from the program: "
                f'write {item.keyword} ["program", "argument"]',
                item.source,
                ("a shell is needed? then say so with SHELL, or begin the command with exec",),
            )


@rule(
    "MultipleInstructionsDisallowed",
    "CMD, ENTRYPOINT and HEALTHCHECK should stand once in a stage",
    buildkit=True,
    aliases=("DL4003", "DL4004", "DL3012"),
)
def multiple_instructions_disallowed(view: View) -> Iterator[Hit]:
    """Only the last one counts; the others are leftovers, or somebody hoped for both."""
    for stage in view.stages:
        last: dict[str, Instruction] = {}
        for step in stage.items(Cmd, Entrypoint, Healthcheck):
            keyword = step.item.keyword
            if keyword in last:
                yield Hit(
                    f"this {keyword} has no effect, the one in line {step.item.source.start} replaces it: remove it",
                    last[keyword].source,
                )
            last[keyword] = step.item


@rule("LegacyKeyValueFormat", "ENV and LABEL should be written with =", buildkit=True)
def legacy_key_value_format(view: View) -> Iterator[Hit]:
    """`ENV NAME VALUE` takes one name only, and the rest of the line with all its blanks as the value."""
    for step in view.steps(Env, Label):
        item = step.item
        assert isinstance(item, Env | Label)
        if item.legacy:
            name = item.pairs[0][0]
            yield Hit(f'{item.keyword} {name} VALUE is an old form: write {item.keyword} {name}="VALUE"', item.source)


@rule(
    "WorkdirRelativePath",
    "The first WORKDIR should be an absolute path",
    buildkit=True,
    aliases=("DL3000",),
)
def workdir_relative_path(view: View) -> Iterator[Hit]:
    """A relative path continues the base image's working directory, which may change with its next version."""
    for step in view.steps(Workdir):
        path = step.values[0]
        if not step.workdir_set and not path.startswith("/"):
            yield Hit(
                f"WORKDIR '{path}' hangs on the working directory of the base image: begin it with a slash",
                step.item.source,
            )
