"""I4: the graph of a build stays with its record, without what must not be told."""

from __future__ import annotations

from pathlib import Path

from lamina import llb
from lamina.engine import definitions
from lamina.engine.definitions import FILE, keep_definitions, kept_definitions
from lamina.llb.definition import Graph, load_definition


def graph(state: llb.State) -> Graph:
    return load_definition(state.marshal().SerializeToString())


def kept_graphs(folder: Path) -> list[Graph]:
    kept = kept_definitions(folder)
    assert kept is not None
    return [load_definition(one) for one in kept.definitions]


def test_what_was_solved_comes_back_byte_for_byte(tmp_path: Path):
    one = graph(llb.image("debian:12").run("make", name="build it").copy(llb.image("a"), "/x", "/y"))
    two = graph(llb.image("debian:12", platform="linux/arm64").run("make"))

    size = keep_definitions(tmp_path / "build", [one, two])

    assert size == (tmp_path / "build" / FILE).stat().st_size
    found = kept_graphs(tmp_path / "build")
    for before, after in zip([one, two], found, strict=True):
        assert [v.digest for v in after.vertices] == [v.digest for v in before.vertices]
        assert [v.data for v in after.vertices] == [v.data for v in before.vertices]
        assert [v.metadata for v in after.vertices] == [v.metadata for v in before.vertices]
        assert after.target == before.target
    kept = kept_definitions(tmp_path / "build")
    assert kept is not None and not kept.changed


def test_credentials_of_urls_and_variables_that_look_secret_are_left_out_everywhere(tmp_path: Path):
    """No URL's user and no value of such a variable is in the file, and the graph still loads."""
    file = llb.http("https://bob:hunter2@example.com/a.tgz")
    git = llb.git("https://bob:hunter2@example.com/r.git#main")
    base = llb.image("debian:12").with_env("API_TOKEN", "t0psecret").with_env("PLAIN", "kept")
    state = base.run("curl -u t0psecret https://bob:hunter2@example.com/", name="RUN curl -u t0psecret").copy(
        file, "/a.tgz", "/t0psecret/"
    )
    state = state.copy(git, "/", "/r").mkfile("/f", b"password t0psecret\n")

    keep_definitions(tmp_path, [graph(state)])

    (found,) = kept_graphs(tmp_path)
    kept = kept_definitions(tmp_path)
    assert kept is not None and kept.changed
    text = b"".join(vertex.data for vertex in found.vertices) + str([v.metadata for v in found.vertices]).encode()
    assert b"hunter2" not in text and b"t0psecret" not in text
    assert b"API_TOKEN=(hidden)" in text and b"PLAIN=kept" in text and b"https://example.com/a.tgz" in text


def test_an_op_that_only_looks_suspicious_is_kept_as_it_is(tmp_path: Path):
    before = graph(llb.image("debian:12").run("cat /etc/passwd user@host").run("true"))

    keep_definitions(tmp_path, [before])

    assert [v.data for v in kept_graphs(tmp_path)[0].vertices] == [v.data for v in before.vertices]


def test_a_value_that_is_a_part_of_a_digest_does_not_break_the_graph(tmp_path: Path):
    base = llb.image("debian:12")
    piece = graph(base).target[0].removeprefix("sha256:")[:8]

    keep_definitions(tmp_path, [graph(base.with_env("PASSWORD", piece).run("true").run("false"))])

    assert len(kept_graphs(tmp_path)[0].vertices) == 3


def test_too_large_a_graph_and_a_broken_file_cost_the_definition_only(tmp_path: Path, monkeypatch):
    one = graph(llb.image("debian:12"))
    monkeypatch.setattr(definitions, "MAX_BYTES", 10)
    assert keep_definitions(tmp_path, [one]) == 0 and kept_definitions(tmp_path) is None
    monkeypatch.undo()

    assert keep_definitions(tmp_path, [one]) > 0
    (tmp_path / FILE).write_bytes(b"nonsense")
    assert kept_definitions(tmp_path) is None
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).mkdir()
    assert keep_definitions(tmp_path, [one]) == 0
