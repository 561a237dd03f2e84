"""What differs between two fact sheets: how a key was made once, and how it is made now. Pure; never raises.

In: the facts of the record found and of the step at hand, and a way to the lists behind content digests. Out: changes,
the most telling first. Inputs that count by identity are only said to differ ("below"): why is known to who knows what
happened to them.

Parts are compared by name, so that a part that nobody here knows is still told, by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from lamina.cache.changes import Change, clip, told_value
from lamina.cache.compare_files import files_change
from lamina.cache.facts import Facts
from lamina.cache.listing import Row
from lamina.solver.protocol import Counted

Lists = Callable[[str], Sequence[Row] | None]
"""Returns the rows behind a content digest, None when they are not kept."""

_FIELDS = {
    "cwd": "the working directory",
    "user": "the user",
    "network": "the network of the step",
    "security": "the security mode of the step",
    "hostname": "the host name",
    "cgroup_parent": "the control group",
    "stubs": "whether mount points are removed",
    "order": "the order of the inputs",
    "devices": "the devices found",
    "exit_codes": "the exit codes that are right",
    "platform": "the platform",
    "name": "the file's name",
    "mode": "the mode",
    "owner": "the owner",
    "subdir": "the directory in the repository",
    "keep-git-dir": "whether .git is kept",
    "submodules": "whether submodules are fetched",
    "mtime": "the files' times",
}
_TABLES = {
    "mounts": ("mount", "the mount at {}"),
    "secret_env": ("mount", "the secret variable {}"),
    "secrets": ("secret", "the secret {}"),
    "hosts": ("field", "the host entry {}"),
    "ulimits": ("field", "the limit {}"),
}
_ACTION_FIELDS = {
    "src": "the source",
    "dest": "the destination",
    "mode": "the mode (--chmod)",
    "owner": "the owner (--chown)",
    "include": "the patterns that are taken",
    "exclude": "the patterns that are left out (--exclude)",
    "need": "the paths that must be there",
    "data": "the content",
    "flags": "the options",
    "time": "the time it stamps",
    "do": "the kind of action",
}
_MOST_WORDS = 5000


def compare(old: Facts, new: Facts, lists: Lists) -> list[Change]:
    """Return what differs; [] when nothing is known to. Of inputs by identity: a change of kind "below" each, last.

    The `what` of such a change is the input's number, its values the identities.
    """
    before, after = old.parts, new.parts
    if before.get("keys", after.get("keys")) != after.get("keys"):
        versions = _text(before.get("keys")), _text(after.get("keys"))
        return [Change("keys", "keys", f"this Lamina makes keys in another way: {_arrow(*versions)}", *versions)]
    if before.get("kind") != after.get("kind"):
        kinds = _text(before.get("kind")), _text(after.get("kind"))
        return [Change("new", "kind", "another kind of step stood here", *kinds)]
    changes = [*_special(before, after), *_variables(before, after)]
    known = {"keys", "kind", "args", "env", "build_args", "actions", *_SOURCE_PARTS}
    for name in dict.fromkeys((*before, *after)):
        left, right = before.get(name), after.get(name)
        if name in known or left == right:
            continue
        if name in _TABLES and isinstance(left or {}, Mapping) and isinstance(right or {}, Mapping):
            changes += _table(name, left or {}, right or {})
        else:
            label = _FIELDS.get(name, name)
            changes.append(_field("field", name, label, _text(left), _text(right)))
    return [*changes, *_inputs(old.inputs, new.inputs, lists)]


_SOURCE_PARTS = ("reference", "digest", "url", "remote", "ref", "commit")


def _special(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Compare what belongs to one kind of op: its command, its actions, what a source stands for."""
    kind = new.get("kind")
    if kind == "exec":
        return _command(_words(old.get("args")), _words(new.get("args")))
    if kind == "file":
        return _actions(_records(old.get("actions")), _records(new.get("actions")))
    if kind in ("image", "oci-layout"):
        return _base(old, new)
    found = []
    if kind == "blob" and old.get("digest") != new.get("digest"):
        what = clip(_text(new.get("reference")))
        found.append(_source(f"the blob of {what}", what, old.get("digest"), new.get("digest")))
    if kind == "http" and old.get("digest") != new.get("digest"):
        what = clip(_text(new.get("url")))
        found.append(_source(f"the content of {what}", what, old.get("digest"), new.get("digest")))
    if kind == "git" and old.get("commit") != new.get("commit"):
        what = clip(_text(new.get("remote")))
        ref = f" at {_text(new['ref'])}" if new.get("ref") and new["ref"] != new.get("commit") else ""
        found.append(_source(f"the commit of {what}{ref}", what, old.get("commit"), new.get("commit")))
    return found


def _source(label: str, what: str, old: Any, new: Any) -> Change:
    left, right = _text(old), _text(new)
    return Change("base", what, f"{label} changed: {short(left)} -> {short(right)}", left, right)


def _base(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    left, right = _text(old.get("digest")), _text(new.get("digest"))
    if left == right:
        return []
    name, other = (_text(side.get("reference")).partition("@")[0] for side in (new, old))
    if name and other and name != other:
        sentence = f"the base image changed: {other} ({short(left)}) -> {name} ({short(right)})"
    else:
        sentence = f"the base image {name or other} changed: {short(left)} -> {short(right)}".replace("  ", " ")
    return [Change("base", name, sentence, left, right)]


def short(digest: str) -> str:
    """Return the beginning of a digest."""
    name, colon, value = digest.partition(":")
    return f"{name}:{value[:12]}" if colon else digest[:12]


# -- commands and variables


def _command(old: Sequence[str], new: Sequence[str]) -> list[Change]:
    if list(old) == list(new):
        return []
    whole = " ".join(old), " ".join(new)
    if len(old) > 1 and len(new) > 1 and old[-1] == new[-1] and old[:-1] != new[:-1]:
        shells = clip(" ".join(old[:-1]), 40), clip(" ".join(new[:-1]), 40)
        return [Change("shell", "shell", f"the shell changed: {_arrow(*shells)}", *whole)]
    sentence = _word_changes(whole[0].split(), whole[1].split())
    return [Change("command", "command", sentence, *whole)]


def _word_changes(old: Sequence[str], new: Sequence[str]) -> str:
    """Return which words of a command changed."""
    if len(old) > _MOST_WORDS or len(new) > _MOST_WORDS:
        return "the command changed"
    changed, gained, lost = [], [], []
    for what, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        left, right = clip(" ".join(old[a:b]), 60), clip(" ".join(new[c:d]), 60)
        if what == "replace":
            changed.append(f'"{left}" -> "{right}"')
        elif what == "insert":
            gained.append(f'"{right}"')
        elif what == "delete":
            lost.append(f'"{left}"')
    words = [("changed: ", changed), ("gained ", gained), ("lost ", lost)]
    parts = [word + ", ".join(list_[:3]) + (" ..." if len(list_) > 3 else "") for word, list_ in words if list_]
    return f"the command {' and '.join(parts)}" if parts else "the command changed in its blanks"


def _variables(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    before, after = _environment(old.get("env")), _environment(new.get("env"))
    if before == after:
        if _words(old.get("env")) != _words(new.get("env")):
            return [Change("env", "env", "the variables are set in another order")]
        return []
    arguments = {*_words(old.get("build_args")), *_words(new.get("build_args"))}
    found = []
    for name in dict.fromkeys((*before, *after)):
        left, right = before.get(name), after.get(name)
        if left != right:
            kind = "arg" if name in arguments else "env"
            found.append(_variable(kind, name, left, right))
    return found


def _variable(kind: str, name: str, old: str | None, new: str | None) -> Change:
    label = f"{kind.upper()} {clip(name)}"
    left = "" if old is None else told_value(name, old)
    right = "" if new is None else told_value(name, new)
    if old is None:
        return Change(kind, name, f"{label} was added: {right}", "", right)
    if new is None:
        return Change(kind, name, f"{label} was removed", left, "")
    if left == right:
        return Change(kind, name, f"{label} changed", left, right)
    return Change(kind, name, f"{label} changed: {left} -> {right}", left, right)


def _environment(lines: Any) -> dict[str, str]:
    found = {}
    for line in _words(lines):
        name, _, value = line.partition("=")
        found[name] = value
    return found


# -- file actions


def _actions(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[Change]:
    """Compare what a FileOp does; several sources of one COPY are several actions."""
    if len(old) == len(new):
        return [change for a, b in zip(old, new, strict=True) for change in _action(a, b)]
    left, right = (
        [_text(item.get("src", item.get("dest"))) for item in old],
        [_text(item.get("src", item.get("dest"))) for item in new],
    )
    found = [Change("source", text, f"it copies {clip(text)} too", "", text) for text in right if text not in left]
    found += [Change("source", text, f"it copies {clip(text)} no more", text, "") for text in left if text not in right]
    return found or [Change("source", "actions", "what it copies changed")]


def _action(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    found = []
    for name in dict.fromkeys((*old, *new)):
        left, right = old.get(name), new.get(name)
        if left == right:
            continue
        kind = "source" if name == "src" else "field"
        if name == "data":
            where = clip(_text(new.get("dest")))
            found.append(Change("field", name, f"the content of {where} changed", _text(left), _text(right)))
            continue
        label = _ACTION_FIELDS.get(name, name)
        if name == "dest" and new.get("do") == "mkdir":
            label = "the directory"
        found.append(_field(kind, name, label, _text(left), _text(right)))
    return found


# -- the rest


def _table(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    kind, pattern = _TABLES[name]
    found = []
    for key in dict.fromkeys((*old, *new)):
        left, right = old.get(key), new.get(key)
        if left == right:
            continue
        label = pattern.format(clip(_text(key)))
        if kind == "secret":  # a fingerprint says nothing to anybody
            how = "counts now" if left is None else "counts no more" if right is None else "changed"
            found.append(Change(kind, _text(key), f"{label} {how}"))
            continue
        if left is None:
            found.append(Change(kind, _text(key), f"{label} was added ({clip(_text(right))})", "", _text(right)))
        elif right is None:
            found.append(Change(kind, _text(key), f"{label} was removed ({clip(_text(left))})", _text(left), ""))
        else:
            found.append(_field(kind, _text(key), label, _text(left), _text(right)))
    return found


def _field(kind: str, what: str, label: str, old: str, new: str) -> Change:
    return Change(kind, what, f"{label} changed: {_arrow(old, new)}", old, new)


def _inputs(old: Sequence[Counted], new: Sequence[Counted], lists: Lists) -> list[Change]:
    """Compare inputs number by number; files before identities."""
    files, identities = [], []
    for number, item in enumerate(new):
        before = old[number] if number < len(old) else None
        if before is None or before.kind != item.kind:
            continue  # an input that was not there: the mounts or actions tell it
        if before.value == item.value:
            continue
        if item.kind == "content":
            files.append(files_change(item, lists(before.value), lists(item.value)))
        else:
            sentence = f'"{clip(item.name)}" is not what it was'
            identities.append(Change("below", str(number), sentence, before.value, item.value))
    return [*files, *identities]


def _arrow(old: str, new: str) -> str:
    return f"{clip(old, 60) or 'none'} -> {clip(new, 60) or 'none'}"


def _text(value: Any) -> str:
    """Return any part's value as text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    return value if isinstance(value, str) else str(value)


def _words(value: Any) -> list[str]:
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def _records(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
