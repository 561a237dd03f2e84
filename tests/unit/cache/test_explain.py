"""L1: comparing what keys were made of. Whatever the records hold, it never raises and names every difference."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lamina.cache.align import align
from lamina.cache.changes import Change, Explanation, explanation
from lamina.cache.compare_files import compare_rows
from lamina.cache.explain import compare
from lamina.cache.facts import Facts, facts_of
from lamina.cache.listing import Row, decode, encode
from lamina.solver.protocol import Counted

NAMES = st.binary(max_size=12).map(lambda data: os.fsdecode(data.replace(b"\0", b"")))
FIELDS = st.tuples(st.sampled_from("fdlcp"), *[st.text("abc017", max_size=3)] * 3)
ROWS = st.dictionaries(NAMES, FIELDS, max_size=12).map(
    lambda rows: {path: Row(path, *rest) for path, rest in rows.items()}
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
PART_NAMES = st.sampled_from(
    ["kind", "keys", "args", "env", "build_args", "actions", "mounts", "hosts", "digest", "reference", "inputs", "x"]
)
PARTS = st.dictionaries(PART_NAMES, JSON | st.sampled_from(["exec", "file", "image", "http", "git"]), max_size=8)


def no_lists(_digest: str) -> None:
    return None


def exec_facts(**parts: Any) -> Facts:
    return Facts("[stage-0 1/1] RUN x", {"kind": "exec", "args": ["/bin/sh", "-c", "x"], "env": [], **parts})


def sentences(old: Facts, new: Facts) -> list[str]:
    return [change.sentence for change in compare(old, new, no_lists)]


@given(ROWS, ROWS)
def test_every_path_that_differs_is_named_and_no_other(old: dict[str, Row], new: dict[str, Row]):
    differing = {path or "/" for path in old.keys() | new.keys() if old.get(path) != new.get(path)}

    found = compare_rows(old.values(), new.values())

    assert {change.path for change in found} == differing


@given(PARTS, PARTS)
def test_parts_of_any_shape_are_compared_without_raising(old: dict[str, Any], new: dict[str, Any]):
    changes = compare(facts_of("a", old), facts_of("b", new), no_lists)

    assert all(change.sentence for change in changes)


@given(PARTS)
def test_equal_parts_do_not_differ(parts: dict[str, Any]):
    assert compare(facts_of("a", parts), facts_of("b", parts), no_lists) == []


@given(ROWS)
def test_a_list_of_files_comes_back_from_its_bytes(rows: dict[str, Row]):
    assert decode(encode(rows.values())) == tuple(rows.values())


@given(PARTS, PARTS)
def test_an_explanation_comes_back_from_json(old: dict[str, Any], new: dict[str, Any]):
    changes = compare(facts_of("a", old), facts_of("b", new), no_lists)
    told = explanation("step", changes or [Change("x", "y", "z")])

    assert Explanation.from_json(told.to_json() | {"changes": [*told.to_json()["changes"]]}) == told


@given(st.lists(st.text("abc [/]1", max_size=6), max_size=8), st.lists(st.text("abc [/]1", max_size=6), max_size=8))
def test_no_old_step_is_two_new_ones(old: list[str], new: list[str]):
    found = align(old, new)

    assert len({match.old for match in found.values()}) == len(found)
    assert all(0 <= number < len(new) and 0 <= match.old < len(old) for number, match in found.items())


@given(st.lists(st.text("abc", max_size=6), max_size=8))
def test_unchanged_steps_are_themselves(names: list[str]):
    assert {number: match.old for number, match in align(names, names).items()} == dict(enumerate(range(len(names))))


def test_a_renumbered_step_is_the_same_step():
    found = align(["[a 1/2] RUN x", "[a 2/2] RUN z"], ["[a 1/3] RUN x", "[a 2/3] RUN y", "[a 3/3] RUN z"])

    assert {number: match.old for number, match in found.items()} == {0: 0, 2: 1}


def test_a_secret_looking_variable_keeps_its_value():
    told = sentences(exec_facts(env=["DB_PASSWORD=hunter2"]), exec_facts(env=["DB_PASSWORD=hunter3"]))

    assert told == ["ENV DB_PASSWORD changed"]


def test_a_variable_from_arg_is_called_so():
    old, new = exec_facts(env=["V=1"], build_args=["V"]), exec_facts(env=["V=2"], build_args=["V"])

    assert sentences(old, new) == ['ARG V changed: "1" -> "2"']


def test_a_part_that_nobody_knows_is_told_by_its_name():
    assert sentences(exec_facts(gpu="one"), exec_facts(gpu="two")) == ["gpu changed: one -> two"]


def test_another_key_version_explains_everything_else():
    old, new = exec_facts(keys="v1", env=["A=1"]), exec_facts(keys="v2", env=["A=2"])

    assert sentences(old, new) == ["this Lamina makes keys in another way: v1 -> v2"]


def test_content_whose_list_is_gone_is_told_without_names():
    old = Facts("x", {"kind": "file"}, (Counted("content", "sha256:a", "[internal] load build context"),))
    new = Facts("x", {"kind": "file"}, (Counted("content", "sha256:b", "[internal] load build context"),))

    assert sentences(old, new) == [
        "what it reads from the build context changed (the list of files is not kept any more)"
    ]
