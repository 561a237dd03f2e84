"""Rules about single instructions: forms that are old, forms that do less than they seem to."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator

from lamina.checks.edits import LineEdits, code_lines, replace_once, rewrite_rest, word, written
from lamina.checks.values import Fix, Hit, rule
from lamina.checks.view import StageView, Step, View
from lamina.dockerfile.blanks import BLANKS
from lamina.dockerfile.instructions import (
    Cmd,
    Entrypoint,
    Env,
    Healthcheck,
    Instruction,
    Label,
    Onbuild,
    ShellForm,
    Workdir,
)
from lamina.dockerfile.statements import split_words
from lamina.dockerfile.words import Words
from lamina.errors import InputError

_PLAIN_WORD = re.compile(r"[A-Za-z0-9_./:=@%+,-]+")
_SHELLS_OWN = frozenset(
    """
    alias bg bind break builtin caller case cd command compgen complete continue coproc declare dirs disown do done
    echo elif else enable esac eval exec exit export false fc fg fi for function getopts hash help history if in jobs
    kill let local logout mapfile popd printf pushd pwd read readarray readonly return select set shift shopt source
    suspend test then time times trap true type typeset ulimit umask unalias unset until wait while . :
    """.split()  # noqa: SIM905 - reads better
)
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9_./-]*")


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
    for stage in view.stages:
        for step in stage.items(Cmd, Entrypoint):
            item = step.item
            assert isinstance(item, Cmd | Entrypoint)
            if isinstance(item.command, ShellForm) and not step.shell_set:
                yield Hit(
                    f"{item.keyword} in shell form keeps signals from the program: "
                    f'write {item.keyword} ["program", "argument"]',
                    item.source,
                    ("a shell is needed? then say so with SHELL, or begin the command with exec",),
                    _exec_form(view, stage, item),
                )


def _exec_form(view: View, stage: StageView, item: Cmd | Entrypoint) -> Fix | None:
    """Return the fix that writes a command as a JSON array; None unless a shell would start just these words.

    In shell form CMD and ENTRYPOINT do not go together: where both count, the array would mean something else. So
    nothing is done where the file has both, or where the base image may have the other one.
    """
    command = item.command
    assert isinstance(command, ShellForm)
    words = command.text.split(" ")
    words = [text for text in words if text]
    if words[:1] == ["exec"]:
        words = words[1:]
    plain = bool(words) and all(_PLAIN_WORD.fullmatch(text) for text in words)
    if not plain or words[0] in _SHELLS_OWN or "=" in words[0] or words[0].startswith("-"):
        return None
    if view.options.platform.os != "linux" or not stage.sure or not _alone(view, stage, item):
        return None
    return rewrite_rest(view, item, written(item), json.dumps(words), "start the program without a shell", config=True)


def _alone(view: View, stage: StageView, item: Cmd | Entrypoint) -> bool:
    """Tell whether there is nothing but `item`'s kind of command, in the file and in the base image."""
    other = Entrypoint if isinstance(item, Cmd) else Cmd
    for found in view.instructions():
        if isinstance(found.trigger if isinstance(found, Onbuild) else found, other):
            return False
    if isinstance(item, Entrypoint):
        return True  # it clears the base image's CMD
    inner = (stage.config or {}).get("config")
    return not (isinstance(inner, dict) and inner.get("Entrypoint"))


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
            yield Hit(
                f'{item.keyword} {name} VALUE is an old form: write {item.keyword} {name}="VALUE"',
                item.source,
                fix=_with_equals(view, item),
            )


def _with_equals(view: View, item: Env | Label) -> Fix | None:
    """Return the fix that joins name and value by `=`; None where quotes would make the value another one."""
    (name, value), escape = item.pairs[0], view.dockerfile.escape
    verbatim = len(split_words(value, escape)) == 1 and not set(value) & set(BLANKS)
    quotes = "" if verbatim else '"'
    if quotes and set(value) & {'"', "'", escape}:
        if len(split_words(value, escape)) != 1:
            return None
        quotes = ""
    new = split_words(f"{name}={quotes}{value}{quotes}", escape)
    if len(new) != 1 or not _mean_the_same(value, new[0].partition("=")[2], escape):
        return None
    lines = code_lines(view, item)
    changed = LineEdits(view)
    first = re.compile(
        rf"(\s*{item.keyword}[ \t]+{re.escape(name)})[ \t]+(?=\S)(?!{re.escape(escape)}[ \t]*\r?\Z)", re.I
    )
    match = first.match(changed.line(lines[0]))
    if match is None:
        return None
    changed.put(lines[0], f"{match[1]}={quotes}{changed.line(lines[0])[match.end() :]}")
    last = changed.line(lines[-1])
    text = last.rstrip(BLANKS)
    if quotes and (text.endswith(escape) or not text):
        return None
    changed.put(lines[-1], text + quotes + last[len(text) :])
    return Fix(f"write {item.keyword} {name}=...", changed.edits())


def _mean_the_same(one: str, other: str, escape: str) -> bool:
    """Tell whether two texts come to the same, whether the variables in them are set or not."""
    words = Words(escape)
    try:
        names = words.word(one, {}).missing
        return all(
            words.word(one, env).text == words.word(other, env).text
            for env in ({}, dict.fromkeys(names, "a  \"b\" 'c' $d \\e"))
        )
    except InputError:
        return False


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
                fix=_absolute(view, step),
            )


def _absolute(view: View, step: Step) -> Fix | None:
    """Return the fix that writes out where a relative WORKDIR leads; None where the base image is not known."""
    assert isinstance(step.item, Workdir)
    path = step.item.path
    if not _PLAIN_PATH.fullmatch(step.workdir) or not _PLAIN_PATH.fullmatch("/" + path):
        return None
    whole = posixpath.normpath(posixpath.join(step.workdir, path))
    return replace_once(view, step.item, word(path), whole, f"write {whole}")
