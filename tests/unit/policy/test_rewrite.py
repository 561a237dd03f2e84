"""Graphs whose sources policies replaced: digests, targets and lines stay in order (H1)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina import llb
from lamina.errors import InputError
from lamina.llb.definition import Graph, load_definition
from lamina.policy.rewrite import source_of, with_sources
from lamina.policy.values import Source


def graph_of(*urls: str) -> Graph:
    state = llb.scratch()
    for number, url in enumerate(urls):
        state = state.copy(llb.http(url, filename="f"), "/f", f"/f{number}")
    return load_definition(state.marshal())


def identifiers(graph: Graph) -> list[str]:
    return [vertex.op.source.identifier for vertex in graph.vertices if vertex.op.WhichOneof("op") == "source"]


def test_a_graph_that_keeps_its_sources_is_the_same_one():
    """H1: keys of builds that a policy only lets pass do not change."""
    graph = graph_of("https://a/", "https://b/")
    assert with_sources(graph, source_of) is graph


@given(st.lists(st.sampled_from(["https://a/", "https://b/", "https://c/"]), min_size=1, max_size=6))
def test_a_converted_graph_is_the_graph_that_was_written_so(urls):
    """H1: converting a to b gives the digests that a graph with b has from the beginning; equal sources become one."""
    converted = with_sources(
        graph_of(*urls), lambda op: Source(op.source.identifier.replace("//a", "//b"), dict(op.source.attrs))
    )
    written = graph_of(*(url.replace("//a", "//b") for url in urls))

    assert {vertex.digest for vertex in converted.vertices} == {vertex.digest for vertex in written.vertices}
    assert converted.target == written.target
    seen = set()
    for vertex in converted.vertices:
        assert {below for below, _ in vertex.inputs} <= seen
        assert vertex.digest not in seen
        seen.add(vertex.digest)
    assert "https://a/" not in identifiers(converted)


def test_an_error_names_the_vertex():
    """H1: the client shows which step it is."""

    def judge(_op):
        raise InputError("no")

    graph = graph_of("https://a/")
    with pytest.raises(InputError) as caught:
        with_sources(graph, judge)
    assert caught.value.vertex == graph.vertices[0].digest
