"""L9: whatever an image's files and config say, the checks on it give an answer, and soon."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.checks.libraries import MAX_LOOKUPS
from lamina.checks.result import check_result
from lamina.checks.result_view import ImageView
from lamina.elf import Elf
from lamina.layer.entry import Entry
from lamina.layer.index import Index
from lamina.layer.program import Program, dump_program, load_program
from lamina.layer.union import Union
from lamina.oci.platform import Platform

AMD64 = Platform("linux", "amd64")
NAMES = st.sampled_from(
    ["a", "lib", "b.so", "etc", "ld.so.conf", "passwd", "bin", "sh", "ld-musl-x.so.1", "\udcff\x1b"]
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
TEXTS = st.one_of(PATHS, PATHS.map(lambda path: "/" + path), st.text(max_size=8), st.just("$ORIGIN/../lib"))
ELVES = st.builds(
    Elf,
    bits=st.sampled_from([32, 64]),
    little=st.booleans(),
    machine=st.sampled_from([3, 62, 183, 999]),
    type=st.sampled_from([1, 2, 3]),
    interpreter=TEXTS,
    needed=st.lists(TEXTS, max_size=4).map(tuple),
    rpath=st.lists(TEXTS, max_size=3).map(tuple),
    runpath=st.lists(TEXTS, max_size=3).map(tuple),
)
PROGRAMS = st.one_of(
    st.none(),
    st.builds(Program, st.binary(max_size=20).map(lambda rest: b"#!/" + rest)),
    st.builds(Program, st.just(b"\x7fELF"), ELVES, wants_trust=st.sampled_from([True, False, None])),
    st.builds(Program, st.binary(max_size=20)),
)
ENTRIES = st.builds(
    Entry, PATHS, st.sampled_from("ffdlhcw"), st.sampled_from([0, 0o644, 0o755, 0o700]), size=st.just(9), target=TEXTS
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS, lambda x: st.lists(x) | st.dictionaries(TEXTS, x)
)
WORDS = st.lists(TEXTS, max_size=4)
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "Entrypoint": WORDS | st.just(["/bin/sh", "-c", "/lib/a"]),
        "Cmd": WORDS,
        "Env": st.lists(TEXTS.map(lambda text: "PATH=" + text) | TEXTS.map(lambda text: "TZ=" + text) | TEXTS),
        "Healthcheck": st.none() | st.dictionaries(st.just("Test"), JSON),
        "Volumes": st.none() | st.dictionaries(TEXTS, st.just({})),
        "User": TEXTS,
        "WorkingDir": TEXTS,
        "Shell": WORDS,
    },
)


@dataclass
class Tree:
    """Any entries, with anything in them; counts what it is asked."""

    union: Union
    programs: dict[str, Program | None] = field(default_factory=dict)
    content: bytes = b""
    asked: int = 0

    def lookup(self, path: str) -> Entry | None:
        self.asked += 1
        return self.union.lookup(path)

    def children(self, path: str) -> list[str]:
        return self.union.children(path)

    def resolve(self, path: str, follow_last: bool = True) -> str:
        self.asked += 1
        return self.union.resolve(path, follow_last)

    def program(self, path: str, *, deep: bool = False, aside: bool = False) -> Program | None:
        return self.programs.get(path)

    def text(self, path: str) -> bytes | None:
        return self.content

    def own_programs(self, folders: frozenset[str]) -> Iterator[str]:
        return (entry.path for entry in self.union.walk() if entry.kind == "f")


@given(
    files=st.lists(st.tuples(ENTRIES, PROGRAMS), max_size=12),
    config=CONFIGS,
    content=st.sampled_from([b"", b"include *\n/lib\n", b"root:x:0:0::/:\n", b"\xff\n" * 9]),
)
@settings(max_examples=300)
def test_any_image_gives_an_answer_that_can_be_shown(
    files: list[tuple[Entry, Program | None]], config: dict[str, Any], content: bytes
):
    union = Union([Index.from_entries(entry for entry, _ in files)])
    tree = Tree(union, {entry.path: program for entry, program in files}, content)

    found = check_result(ImageView(tree, config, AMD64))

    for trouble in found:
        assert trouble.message.isprintable() and len(trouble.message) < 1100
        assert all(line.isprintable() for line in trouble.detail)


def test_search_paths_made_to_keep_us_busy_are_given_up():
    """A hundred libraries, each with long search paths of its own and a thousand needs: billions of places to look."""
    far = tuple(f"/far/{number}" for number in range(2000))
    entries, programs = [Entry("app", "f", 0o755, size=9)], {}
    names = [f"lib{number}.so" for number in range(100)]
    for name in ["app", *names]:
        path = name if name == "app" else f"lib/{name}"
        needed = (*names, *(f"none-{name}-{number}.so" for number in range(900)))
        entries.append(Entry(path, "f", 0o755, size=9))
        programs[path] = Program(b"\x7fELF", Elf(64, True, 62, 3, "/lib/lib0.so", True, needed, far))
    tree = Tree(Union([Index.from_entries(entries)]), dict(programs))

    found = check_result(ImageView(tree, {"Cmd": ["/app"]}, AMD64))

    assert found == []
    assert tree.asked < 5 * MAX_LOOKUPS  # a place asks up to four times


@given(PROGRAMS.filter(lambda program: program is not None))
def test_notes_about_a_program_survive_being_written_down(program: Program):
    assert load_program(dump_program(program)) == program
