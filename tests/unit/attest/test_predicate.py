"""G1, G2: predicates of graphs made by hand: what is told in which mode, and that nothing secret is."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina import llb
from lamina.attest.capture import Capture, Material, capture, reachable
from lamina.attest.hide import Hiding
from lamina.attest.predicate import Facts, Invocation, as_v02, predicate
from lamina.attest.request import ProvenanceRequest
from lamina.llb.definition import Graph, load_definition
from lamina.llb.pb import ops_pb2 as pb
from lamina.oci.platform import Platform
from support.golden import assert_golden

AMD64 = Platform("linux", "amd64")
MIN, MAX = ProvenanceRequest(mode="min", builder_id="https://b"), ProvenanceRequest(mode="max", builder_id="https://b")
DIGEST = "sha256:" + "1f" * 32


def graph() -> Graph:
    base = llb.image("alpine:3.19", platform="linux/amd64")
    step = base.run(["make", "all"], env={"LEVEL": "9"})
    return load_definition(step.mkfile("/f", b"data").marshal())


def facts(graph: Graph | None = None, seen: Capture | None = None, **changes: Any) -> Facts:
    found = Facts(
        invocation=Invocation("dockerfile.v0", {"build-arg:LEVEL": "9", "target": "x", "platform": "linux/amd64"}),
        capture=seen or Capture(),
        graph=graph,
        builder=AMD64,
        id="1234",
        started="2026-01-01T00:00:00Z",
        finished="2026-01-01T00:00:01Z",
        hiding=Hiding(),
    )
    return replace(found, **changes)


@pytest.mark.parametrize("version", ["v1", "v0.2"])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_whole_predicate(mode: str, version: str):
    found = graph()
    materials = {found.vertices[0].digest: Material("image", "docker.io/library/alpine:3.19", DIGEST, AMD64)}
    told = facts(found, capture([found], materials), layers=lambda digest: {})
    asked = ProvenanceRequest(mode, version, "https://b")

    text = json.dumps(predicate(told, asked), indent=1, sort_keys=True) + "\n"

    assert_golden(f"attest/predicate-{mode}-{version}.json", text)


def test_options_of_this_machine_are_no_parameters():
    request = predicate(facts(), MAX)["buildDefinition"]["externalParameters"]["request"]

    assert request["args"] == {"build-arg:LEVEL": "9", "target": "x"}


def test_min_keeps_options_and_says_that_arguments_are_missing():
    found = predicate(facts(), MIN)

    assert found["buildDefinition"]["externalParameters"]["request"]["args"] == {"target": "x"}
    assert found["runDetails"]["metadata"]["buildkit_completeness"]["request"] is False


def test_min_leaves_nothing_out_where_nothing_was_given():
    found = predicate(facts(invocation=Invocation("dockerfile.v0")), MIN)

    assert found["runDetails"]["metadata"]["buildkit_completeness"]["request"] is True


def test_the_context_is_the_config_source_with_the_commit_it_had():
    seen = Capture([Material("git", "https://git.example/a/b.git#main", "c" * 40)])
    asked = Invocation("dockerfile.v0", {"context": "https://u:p@git.example/a/b.git#main", "filename": "sub/D"})

    source = predicate(facts(invocation=asked, seen=seen), MIN)["buildDefinition"]["externalParameters"]["configSource"]

    assert source == {
        "uri": "https://git.example/a/b.git#main", "digest": {"sha1": "c" * 40}, "path": "sub/D"
    }  # fmt: skip


def test_what_version_control_said_is_an_extension_and_no_argument():
    asked = Invocation("dockerfile.v0", {"vcs:revision": "abc", "vcs:source": "https://u:p@git.example/r"})
    found = predicate(facts(invocation=asked), MAX)

    assert found["runDetails"]["metadata"]["buildkit_metadata"]["vcs"] == {
        "revision": "abc", "source": "https://git.example/r"
    }  # fmt: skip
    assert "args" not in found["buildDefinition"]["externalParameters"]["request"]


def test_another_request_of_the_client_is_told():
    root = Invocation("", {"build-arg:LEVEL": "9"})
    request = predicate(facts(root=root), MAX)["buildDefinition"]["externalParameters"]["request"]

    assert request["root"] == {"configSource": {}, "request": {"args": {"build-arg:LEVEL": "9"}}}


def test_hermetic_is_what_has_no_network_and_no_directory():
    def hermetic(seen: Capture) -> bool:
        return "buildkit_hermetic" in predicate(facts(seen=seen), MIN)["runDetails"]["metadata"]

    assert hermetic(Capture())
    assert not hermetic(Capture(network=True))
    assert not hermetic(Capture([Material("local", "context")]))
    assert not hermetic(Capture(incomplete=True))


def test_an_unknown_source_makes_materials_incomplete():
    assert capture([graph()], {}).incomplete


def test_an_image_by_tag_stands_for_itself_by_digest():
    """The graph names what the frontend pinned; the name that was written is told."""
    tagged = Material("image", "docker.io/library/alpine:3.19", DIGEST, AMD64)
    pinned = Material("image", f"docker.io/library/alpine:3.19@{DIGEST}", DIGEST, AMD64)

    assert [one["uri"] for one in Capture([pinned, tagged]).resolved()] == [
        "pkg:docker/alpine@3.19?platform=linux%2Famd64"
    ]


def test_secrets_are_told_by_id_and_as_needed_as_the_neediest_step_has_them():
    exec_op = pb.ExecOp(mounts=[pb.Mount(input=-1, mountType=pb.SECRET, secretOpt=pb.SecretOpt(ID="s", optional=True))])
    needed = pb.ExecOp(secretenv=[pb.SecretEnv(ID="s", name="S")])
    agent = pb.ExecOp(mounts=[pb.Mount(input=-1, mountType=pb.SSH, SSHOpt=pb.SSHOpt())])
    seen = capture([of_ops(exec_op, needed, agent)], {})

    request = predicate(facts(seen=seen), MAX)["buildDefinition"]["externalParameters"]["request"]

    assert request["secrets"] == [{"id": "s"}]
    assert request["ssh"] == [{"id": "default"}]


def of_ops(*ops: pb.ExecOp) -> Graph:
    """Return a graph of steps one upon the other."""
    definition = pb.Definition()
    digest = ""
    for exec_op in ops:
        for mount in exec_op.mounts:
            mount.output = -1
        exec_op.meta.args.append("true")
        exec_op.mounts.append(pb.Mount(dest="/", input=0 if digest else -1))
        op = pb.Op(exec=exec_op, inputs=[pb.Input(digest=digest)] if digest else [])
        digest = add(definition, op)
    add(definition, pb.Op(inputs=[pb.Input(digest=digest)]))
    return load_definition(definition)


def add(definition: pb.Definition, op: pb.Op) -> str:
    import hashlib

    data = op.SerializeToString(deterministic=True)
    getattr(definition, "def").append(data)
    return "sha256:" + hashlib.sha256(data).hexdigest()


def test_a_diamond_of_a_thousand_floors_is_walked_once():
    definition, digest = pb.Definition(), ""
    for number in range(1000):
        below = [pb.Input(digest=digest), pb.Input(digest=digest)] if digest else []
        step = pb.ExecOp(meta=pb.Meta(args=[str(number)]), mounts=[pb.Mount(dest="/", input=len(below) - 1)])
        digest = add(definition, pb.Op(exec=step, inputs=below))
    add(definition, pb.Op(inputs=[pb.Input(digest=digest)]))

    assert [vertex.op.exec.meta.args[0] for vertex in reachable(load_definition(definition))] == [
        str(number) for number in range(1000)
    ]


WORDS = st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=6)


@given(
    st.dictionaries(st.sampled_from(["build-arg:TOKEN", "build-arg:A", "label:b", "target", "vcs:source"]), WORDS),
    WORDS, WORDS, st.sampled_from([MIN, MAX, replace(MAX, version="v0.2")]),
)  # fmt: skip
def test_a_secret_is_nowhere_whatever_it_is_a_part_of(
    args: dict[str, str], before: str, after: str, asked: ProvenanceRequest
):
    """A secret argument's value in arguments, environments, commands, files, the Dockerfile; and users in URLs."""
    secret = "hunter2-secret"
    args = {**args, "build-arg:TOKEN": secret, "context": f"https://me:p4ssw0rd@host.example/{before}"}
    state = llb.image("alpine").run(
        [f"{before}{secret}{after}", f"https://me:p4ssw0rd@host/{after}"], env={"T": secret}
    )
    definition = state.marshal()
    definition.Source.infos.add(filename="Dockerfile", data=f"FROM x\nRUN {before}{secret}\n".encode())
    found = load_definition(definition)
    seen = capture([found], {})
    seen.add(Material("git", "https://me:p4ssw0rd@host.example/r.git", "c" * 40))

    told = facts(found, seen, invocation=Invocation("dockerfile.v0", args), hiding=Hiding([secret]))
    text = json.dumps(predicate(told, asked))

    assert secret not in text and "p4ssw0rd" not in text
    assert all(secret.encode() not in data for data in decoded(predicate(told, asked)))


def decoded(value: Any) -> list[bytes]:
    """Return all base64 data of source files."""
    import base64

    if isinstance(value, dict):
        own = [base64.b64decode(item) for key, item in value.items() if key == "data" and isinstance(item, str)]
        return own + [data for item in value.values() for data in decoded(item)]
    return [data for item in value for data in decoded(item)] if isinstance(value, list) else []


def test_the_two_versions_say_the_same():
    found = predicate(facts(graph()), MAX)

    assert as_v02(found) == predicate(facts(graph()), replace(MAX, version="v0.2"))
