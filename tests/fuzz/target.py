"""Fuzz targets of the Dockerfile language for libFuzzer (PyPI `atheris`), which looks for new paths through the code.

    python tests/fuzz/target.py parser|words|patterns [libFuzzer's options] [folder of seeds]

A target raises for whatever the code must not do; `InputError` is what it may do.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["lamina"]):
    from lamina.dockerfile.parser import parse
    from lamina.dockerfile.words import Words
    from lamina.errors import InputError
    from lamina.patterns import IgnoreRules, glob_regex, parse_ignore

ENVIRONMENT = {"a": "1", "b": "x/y.z", "empty": "", "long": "ab*?/" * 20}


def parser(data: bytes) -> None:
    """Any bytes are a Dockerfile or an InputError whose place lies in the text."""
    try:
        dockerfile = parse(data)
    except InputError as error:
        assert error.diagnostics()
        if error.source is not None:
            assert 1 <= error.source.start <= error.source.end <= data.count(b"\n") + 1
        return
    last = 0
    for stage in dockerfile.stages:
        for instruction in (stage.base, *stage.instructions):
            assert last < instruction.source.start <= instruction.source.end <= data.count(b"\n") + 1
            last = instruction.source.end


def words(data: bytes) -> None:
    """Any text expands, within its limits, or is an InputError; what is named was asked for."""
    text = data.decode("utf-8", "surrogateescape")
    for escape in "\\`":
        try:
            found = Words(escape).word(text, ENVIRONMENT)
            Words(escape).document(text, ENVIRONMENT)
        except InputError:
            continue
        assert found.used <= ENVIRONMENT.keys()
        assert not found.missing & ENVIRONMENT.keys()


def patterns(data: bytes) -> None:
    """Any bytes are ignore rules or an InputError; a directory that is skipped holds nothing that is kept."""
    head, _, tail = data.partition(b"\0")
    path = tail.decode("utf-8", "surrogateescape").strip("/") or "a/b/c"
    try:
        glob_regex(head.decode("utf-8", "surrogateescape")).fullmatch(path)
    except InputError:
        pass
    try:
        rules = IgnoreRules(parse_ignore(head))
    except InputError:
        return
    above = path.rpartition("/")[0]
    if above and rules.ignored(above) and not rules.may_contain_exceptions(above):
        assert rules.ignored(path)


if __name__ == "__main__":
    TARGETS = {"parser": parser, "words": words, "patterns": patterns}
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
