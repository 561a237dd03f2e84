"""H1: source policies on the command line: every source of a build is asked about, converted ones are what is used."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lamina as library
from lamina import llb
from lamina.llb.pb import ops_pb2 as pb
from lamina.policy.values import SourceDeniedError
from support.command import Lamina
from support.git_server import Repository, running_git_server
from support.raw_llb import Definition, file
from support.web import Served, Web, running_web

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def web() -> Iterator[Web]:
    with running_web() as running:
        running.files["/one"] = Served(b"one")
        running.files["/two"] = Served(b"two")
        yield running


def rule(action: str, pattern: str, to: str = "", match: str = "WILDCARD", **attrs: str) -> dict[str, Any]:
    made: dict[str, Any] = {"action": action, "selector": {"identifier": pattern, "match_type": match}}
    if to or attrs:
        made["updates"] = {"identifier": to, "attrs": {name.replace("_", "."): value for name, value in attrs.items()}}
    return made


@pytest.fixture
def policy(tmp_path: Path):
    """Write a policy; return its path."""

    def write(*rules: dict[str, Any]) -> Path:
        path = tmp_path / "policy.json"
        path.write_text(json.dumps({"rules": list(rules)}, indent=1))
        return path

    return write


def context(tmp_path: Path, dockerfile: str) -> Path:
    folder = tmp_path / "c"
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text(dockerfile)
    return folder


def image(lamina: Lamina, tmp_path: Path, name: str, content: str) -> None:
    """Push an image with one file."""
    folder = tmp_path / "image"
    folder.mkdir(exist_ok=True)
    (folder / "which").write_text(content)
    (folder / "Dockerfile").write_text(f"FROM scratch\nCOPY which /which\nENV WHICH={content}\n")
    lamina.build(folder, "-t", name, "--push")


def test_a_denied_base_is_told_with_rule_source_and_line(lamina: Lamina, registry: str, policy, tmp_path: Path):
    """H1: the registry is not even asked."""
    folder = context(tmp_path, f"# comment\nFROM {registry}/never:1\n")

    done = lamina.build(folder, "--source-policy", policy(rule("DENY", "docker-image://*")), check=False)

    assert done.returncode == 2
    assert f"source 'docker-image://{registry}/never:1' denied by policy" in done.stderr
    assert "policy.json:3 (DENY WILDCARD 'docker-image://*')" in done.stderr
    assert "   2 | >>> FROM" in done.stderr


@pytest.mark.parametrize(
    ("dockerfile", "words"),
    [
        ("FROM {r}/a:1\n", ()),
        ("FROM scratch\nCOPY --from={r}/a:1 /which /\n", ()),
        ("FROM scratch\nCOPY --from=named /which /\n", ("--build-context", "named=docker-image://{r}/a:1")),
    ],
)
def test_images_are_converted_wherever_they_are_named(
    lamina: Lamina, registry: str, policy, tmp_path: Path, dockerfile: str, words: tuple[str, ...]
):
    """H1: FROM, COPY --from, named contexts; the converted image's layers are used, and provenance names it."""
    for name in ("a", "b"):
        image(lamina, tmp_path, f"{registry}/{name}:1", name)
    path = policy(rule("CONVERT", f"docker-image://{registry}/a:*", f"docker-image://{registry}/b:${{1}}"))
    folder, out = context(tmp_path, dockerfile.format(r=registry)), tmp_path / "out"

    words = ("--provenance=mode=max", "-o", f"type=local,dest={out}", *(word.format(r=registry) for word in words))
    lamina.build(folder, "--source-policy", path, *words)

    assert (out / "which").read_text() == "b"
    materials = json.loads((out / "provenance.json").read_text())["predicate"]["buildDefinition"][
        "resolvedDependencies"
    ]
    assert ["/b@" in one["uri"] for one in materials if one["uri"].startswith("pkg:docker")] == [True]


def test_the_variable_of_buildx_names_the_file(lamina: Lamina, web: Web, policy, tmp_path: Path):
    """H1: EXPERIMENTAL_BUILDKIT_SOURCE_POLICY; the option counts more."""
    path = policy(rule("CONVERT", f"{web.url('/one')}", f"{web.url('/two')}", "EXACT", http_filename="one"))
    folder, out = context(tmp_path, f"FROM scratch\nADD {web.url('/one')} /\n"), tmp_path / "out"

    lamina.build(folder, "-o", str(out), env={"EXPERIMENTAL_BUILDKIT_SOURCE_POLICY": str(path)})

    assert (out / "one").read_bytes() == b"two"
    empty = tmp_path / "empty.json"
    empty.write_text("{}")
    words = ("--source-policy", empty, "-o", str(out))
    lamina.build(folder, *words, env={"EXPERIMENTAL_BUILDKIT_SOURCE_POLICY": str(path)})
    assert (out / "one").read_bytes() == b"one"


def test_a_context_that_is_a_url_is_a_source(lamina: Lamina, web: Web, policy, tmp_path: Path):
    """H1: judged before it is fetched; a converted one comes from elsewhere."""
    for name in ("a", "b"):
        web.files[f"/{name}"] = Served(f"FROM scratch\nADD {web.url('/one')} /{name}\n".encode())
    done = lamina.build(web.url("/a"), "--source-policy", policy(rule("DENY", "http://*")), check=False)
    assert f"source '{web.url('/a')}' denied by policy" in done.stderr
    assert web.seen == []

    path, out = policy(rule("CONVERT", web.url("/a"), web.url("/b"), "EXACT")), tmp_path / "out"
    lamina.build(web.url("/a"), "--source-policy", path, "-o", str(out))
    assert [one.name for one in out.iterdir()] == ["b"]


def test_a_denied_add_names_its_line(lamina: Lamina, web: Web, policy, tmp_path: Path):
    """H1: http sources, before the server is asked."""
    folder = context(tmp_path, f"FROM scratch\nADD {web.url('/one')} /\n")
    path = policy(rule("DENY", "^https?://", match="REGEX"))

    done = lamina.build(folder, "--source-policy", path, check=False)

    assert done.returncode == 2
    assert "denied by policy" in done.stderr
    assert "   2 | >>> ADD" in done.stderr
    assert web.seen == []


def test_a_checksum_may_be_demanded_or_given(lamina: Lamina, web: Web, policy, tmp_path: Path):
    """H1: attribute constraints, and attributes that a conversion adds: the sum is checked."""
    folder = context(tmp_path, f"FROM scratch\nADD {web.url('/one')} /\n")
    demand = rule("DENY", "http://*")
    demand["selector"]["constraints"] = [{"key": "http.checksum", "value": "", "condition": "EQUAL"}]
    assert lamina.build(folder, "--source-policy", policy(demand), check=False).returncode == 2

    wrong = rule("CONVERT", f"{web.url('/one')}", match="EXACT", http_checksum="sha256:" + "0" * 64)
    done = lamina.build(folder, "--source-policy", policy(wrong), check=False)
    assert done.returncode != 0
    assert "0000" in done.stderr


def test_a_repository_is_judged_by_where_it_lies(lamina: Lamina, policy, tmp_path: Path):
    """H1: git sources are known by host and path; a converted one comes from its new place."""
    for name in ("a", "b"):
        Repository(tmp_path / "served" / f"{name}.git").commit({"which": name})
    with running_git_server(tmp_path / "served") as server:
        host = server.url.partition("://")[2]
        folder, out = context(tmp_path, f"FROM scratch\nADD {server.url}/a.git /\n"), tmp_path / "out"
        denied = policy(rule("DENY", f"git://{host}/*"))
        assert "denied by policy" in lamina.build(folder, "--source-policy", denied, check=False).stderr

        path = policy(rule("CONVERT", f"git://{host}/a.git", "x", "EXACT", git_fullurl=f"{server.url}/b.git"))
        text = path.read_text().replace('"identifier": "x"', f'"identifier": "git://{host}/b.git"')
        path.write_text(text)
        lamina.build(folder, "--source-policy", path, "-o", str(out))
    assert (out / "which").read_text() == "b"


def test_a_cached_build_does_not_get_around_a_policy(lamina: Lamina, registry: str, policy, tmp_path: Path):
    """H1: what was built before is asked about again."""
    image(lamina, tmp_path, f"{registry}/a:1", "a")
    folder = context(tmp_path, f"FROM {registry}/a:1\n")
    lamina.build(folder, "-t", "x")
    lamina.build(folder, "-t", "x")

    path = policy(rule("DENY", "docker-image://*"))
    assert lamina.build(folder, "-t", "x", "--source-policy", path, check=False).returncode == 2
    path = policy(rule("ALLOW", "docker-image://*"))
    for _ in range(2):
        lamina.build(folder, "-t", "x", "--source-policy", path)


@pytest.mark.parametrize(
    ("text", "told"),
    [('{\n "rules": [}', "policy.json:2: not JSON"), ('{"rules": [\n\n{"action": "NO"}]}', "policy.json:3")],
)
def test_a_bad_file_is_an_error_with_its_line(lamina: Lamina, policy, tmp_path: Path, text: str, told: str):
    """H1: no build begins with a policy that cannot be understood."""
    path = policy()
    path.write_text(text)
    done = lamina.build(context(tmp_path, "FROM scratch\n"), "--source-policy", path, check=False)
    assert done.returncode == 2
    assert told in done.stderr
    missing = lamina.build(context(tmp_path, "FROM scratch\n"), "--source-policy", "none.json", check=False)
    assert missing.returncode == 2


def test_an_sbom_generator_is_an_image_like_any_other(lamina: Lamina, registry: str, policy, tmp_path: Path):
    """H1: images that a build pulls for itself are asked about, too."""
    folder = context(tmp_path, "FROM scratch\nCOPY Dockerfile /\n")
    path = policy(rule("DENY", f"docker-image://{registry}/*"))
    words = ("--source-policy", path, f"--attest=type=sbom,generator={registry}/generator:1", "-t", "x")

    done = lamina.build(folder, *words, check=False)

    assert f"source 'docker-image://{registry}/generator:1' denied by policy" in done.stderr


def test_a_plan_and_a_check_ask_too(lamina: Lamina, registry: str, policy, tmp_path: Path):
    """H1: `lamina plan` denies; checks do without the config of a base that is denied."""
    folder = context(tmp_path, f"FROM {registry}/never:1\n")
    path = policy(rule("DENY", "docker-image://*"))
    assert "denied by policy" in lamina("plan", "--source-policy", path, folder, check=False).stderr
    done = lamina.build(folder, "--check", "--source-policy", path, check=False)
    assert "denied by policy" in done.stdout + done.stderr


def test_sources_in_a_nested_build_are_judged_when_it_runs_and_when_it_was_cached(web: Web, tmp_path: Path):
    """H1, B12: nobody knows its sources before; a result made under other rules is not taken."""
    inner = llb.http(web.url("/one"), filename="f").marshal()
    made = Definition()
    mkfile = pb.FileActionMkFile(
        path="/buildkit.llb.definition", data=inner.SerializeToString(), mode=0o644, timestamp=-1
    )
    written = made.add(file(pb.FileAction(input=-1, secondaryInput=-1, output=0, mkfile=mkfile)))
    op = pb.BuildOp(builder=-1, inputs={"buildkit.llb.definition": pb.BuildInput(input=0)})
    outer = made.message(made.add(pb.Op(build=op), (written, 0)))

    def solve(*rules: dict[str, Any]) -> bytes:
        out = tmp_path / "out"
        policies = [("p.json", json.dumps({"rules": rules}))] if rules else []
        library.solve(outer, output=f"type=local,dest={out}", root=tmp_path / "root", source_policies=policies)
        return (out / "f").read_bytes()

    assert solve() == b"one"
    assert solve(rule("CONVERT", web.url("/one"), web.url("/two"), http_filename="f")) == b"two"
    with pytest.raises(SourceDeniedError):
        solve(rule("DENY", "http://*"))
    assert solve() == b"one"
