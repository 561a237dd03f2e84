"""H1, H3, B23: which sources a client's build may use, as BuildKit's clients say it; and what is told of sources."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from lamina import llb
from lamina.api.pb import gateway_pb2, policy_pb2, policysession_pb2
from lamina.cancel import Cancel
from lamina.llb.pb import ops_pb2 as pb
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.oci.reference import Reference
from lamina.registry.client import Registry
from lamina.registry.options import RegistryOptions
from support.buildkit_client import Client, Offers, details, new_ref, raw_solve
from support.command import Lamina
from support.daemon import running_daemon
from support.git_server import Repository, running_git_server
from support.web import Served, Web, running_web

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("crun") is None, reason="needs root and crun: apt-get install crun"
)
pytestmark = [pytest.mark.e2e, needs_root]
ALLOW, DENY, CONVERT = range(3)
WILDCARD, EXACT, REGEX = range(3)
Answer = policysession_pb2.CheckPolicyResponse
Decision = policysession_pb2.DecisionResponse
Meta = gateway_pb2.ResolveSourceMetaRequest


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with running_daemon(tmp_path / "root") as daemon, Client(daemon.address) as found:
        yield found


@pytest.fixture
def web() -> Iterator[Web]:
    with running_web() as running:
        running.files["/one"] = Served(b"one", {"Last-Modified": "Sun, 06 Nov 1994 08:49:37 GMT"})
        running.files["/two"] = Served(b"two")
        yield running


def policy(*rules: tuple[int, str, str]) -> policy_pb2.Policy:
    made = policy_pb2.Policy(version=1)
    for action, pattern, to in rules:
        updates = policy_pb2.Update(identifier=to) if to else None
        made.rules.add(action=action, selector=policy_pb2.Selector(identifier=pattern), updates=updates)
    return made


def context(folder: Path, dockerfile: str) -> Offers:
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text(dockerfile)
    return Offers(dirs={"context": folder, "dockerfile": folder})


def build(client: Client, offers: Offers, tmp_path: Path, *, judged: bool = False, **fields: Any) -> dict[str, bytes]:
    """Build, and return the files that came out."""
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    offers.outputs[0] = out
    with client.session(offers) as session:
        if judged:
            fields["SourcePolicySession"] = session
        client.dockerfile(session, exporters=[("local", {})], **fields)
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def image(lamina: Lamina, folder: Path, name: str, *words: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "which").write_text(name.partition("/")[2])
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY which /which\n")
    lamina.build(folder, "-t", name, "--push", *words)


def test_a_client_denies_and_gets_a_typed_error_with_the_line(client: Client, tmp_path: Path):
    """H1: SolveRequest.SourcePolicy; the excerpt is in the error's details."""
    offers = context(tmp_path / "c", "# one\nFROM registry.invalid/a:1\n")
    with pytest.raises(grpc.RpcError) as caught:
        build(client, offers, tmp_path, SourcePolicy=policy((DENY, "docker-image://*", "")))

    assert "source 'docker-image://registry.invalid/a:1' denied by policy" in caught.value.details()
    assert "rule 1 of the client's policy (DENY WILDCARD 'docker-image://*')" in caught.value.details()
    found = {one.type_url.rpartition("/")[2]: json.loads(one.value) for one in details(caught.value).details}
    assert found["errdefs.Source+json"]["ranges"] == [{"start": {"line": 2}, "end": {"line": 2}}]


def test_a_policy_that_means_nothing_is_refused(client: Client, tmp_path: Path):
    """H1: rules that cannot be judged end the build before it begins."""
    offers = context(tmp_path / "c", "FROM scratch\n")
    bad = policy_pb2.Policy(rules=[policy_pb2.Rule(action=DENY)])
    with pytest.raises(grpc.RpcError) as caught:
        build(client, offers, tmp_path, SourcePolicy=bad)
    assert "without a selector" in caught.value.details()


def test_the_clients_own_directories_are_sources(client: Client, tmp_path: Path):
    """H1: `local://` is judged like the rest, the Dockerfile's included."""
    offers = context(tmp_path / "c", "FROM scratch\nCOPY Dockerfile /\n")
    with pytest.raises(grpc.RpcError) as caught:
        build(client, offers, tmp_path, SourcePolicy=policy((DENY, "local://dockerfile", "")))
    assert "'local://dockerfile' denied by policy" in caught.value.details()


def test_the_owner_of_the_daemon_decides_first(tmp_path: Path, web: Web):
    """H1: `sourcePolicy` in the configuration holds for every build; a client's ALLOW does not undo it."""
    (tmp_path / "p.json").write_text('{"rules": [{"action": "DENY", "selector": {"identifier": "http://*"}}]}')
    (tmp_path / "d.toml").write_text('sourcePolicy = "p.json"\n')
    words = ("--config", str(tmp_path / "d.toml"))
    with running_daemon(tmp_path / "root", *words) as daemon, Client(daemon.address) as client:
        offers = context(tmp_path / "c", f"FROM scratch\nADD {web.url('/one')} /\n")
        with pytest.raises(grpc.RpcError) as caught:
            build(client, offers, tmp_path, SourcePolicy=policy((ALLOW, "*", "")))
    assert "p.json:1 (DENY" in caught.value.details()
    assert web.seen == []


def test_a_raw_definition_and_a_remote_context_are_judged(client: Client, tmp_path: Path, web: Web):
    """H1: sources that no Dockerfile names."""
    rules = policy((CONVERT, web.url("/one"), web.url("/two")))
    offers = Offers(outputs={0: tmp_path / "raw"})
    offers.outputs[0].mkdir()
    state = llb.http(web.url("/one"), filename="file")
    with client.session(offers) as session:
        client.solve(session, Definition=state.marshal(), exporters=[("local", {})], SourcePolicy=rules)
    assert (tmp_path / "raw/file").read_bytes() == b"two"

    with client.session(Offers()) as session, pytest.raises(grpc.RpcError) as caught:
        deny = policy((DENY, "http://*", ""))
        client.dockerfile(session, opts={"context": web.url("/one")}, SourcePolicy=deny)
    assert "denied by policy" in caught.value.details()


def with_bridge(client: Client, do: Callable[[str], Any], offers: Offers | None = None, **fields: Any) -> Any:
    """Do something as the frontend of a build; return what that returns."""
    ref, ended = new_ref(), []
    with client.session(offers or Offers()) as session:
        solving = threading.Thread(target=lambda: ended.append(_solved(client, session, ref, fields)))
        solving.start()
        try:
            return do(ref)
        finally:
            client.ask(ref, "Return", gateway_pb2.ReturnRequest(result=gateway_pb2.Result()))
            solving.join(60)


def _solved(client: Client, session: str, ref: str, fields: dict[str, Any]) -> object:
    if fields.pop("judged", False):
        fields["SourcePolicySession"] = session
    return client.solve(session, ref, **fields)


def test_a_frontend_brings_policies_of_its_own(client: Client, web: Web):
    """H1: SolveRequest.SourcePolicies of the gateway are asked for that definition, and the build's besides."""

    def do(ref: str) -> tuple[bytes, str]:
        request = raw_solve(llb.http(web.url("/one"), filename="f").marshal())
        request.SourcePolicies.append(policy((CONVERT, web.url("/one"), web.url("/two"))))
        found = client.ask(ref, "Solve", request).result.ref.id
        data = client.ask(ref, "ReadFile", gateway_pb2.ReadFileRequest(Ref=found, FilePath="/f")).Data
        del request.SourcePolicies[:]
        request.SourcePolicies.append(policy((CONVERT, web.url("/one"), "https://denied.test/x")))
        request.Evaluate = True
        with pytest.raises(grpc.RpcError) as caught:
            client.ask(ref, "Solve", request)
        return data, caught.value.details()

    data, told = with_bridge(client, do, SourcePolicy=policy((DENY, "https://denied.test/*", "")))
    assert data == b"two"
    assert "'https://denied.test/x' denied by policy" in told


def test_configs_of_images_are_asked_for_through_policies(
    client: Client, lamina: Lamina, registry: str, tmp_path: Path
):
    """H1, B23: ResolveImageConfig and ResolveSourceMeta tell of the image that is used instead."""
    for name in ("a", "b"):
        image(lamina, tmp_path / "i", f"{registry}/{name}:1", f"--label=which={name}")
    rules = policy((CONVERT, f"docker-image://{registry}/a:*", f"docker-image://{registry}/b:${{1}}"))

    def do(ref: str) -> None:
        config = gateway_pb2.ResolveImageConfigRequest(Ref=f"{registry}/a:1", SourcePolicies=[rules])
        found = client.ask(ref, "ResolveImageConfig", config)
        assert found.Ref.startswith(f"{registry}/b:1")
        assert json.loads(found.Config)["config"]["Labels"] == {"which": "b"}

        source = pb.SourceOp(identifier=f"docker-image://{registry}/a:1")
        meta = client.ask(ref, "ResolveSourceMeta", Meta(Source=source, SourcePolicies=[rules]))
        assert meta.Source.identifier == f"docker-image://{registry}/b:1"
        assert meta.Image.Digest == found.Ref.partition("@")[2]
        assert json.loads(meta.Image.Config)["config"]["Labels"] == {"which": "b"}
        none = Meta(Source=source, SourcePolicies=[policy((DENY, "*", ""))])
        with pytest.raises(grpc.RpcError, match="denied by policy"):
            client.ask(ref, "ResolveSourceMeta", none)

    with_bridge(client, do)


def test_what_is_told_of_images_with_attestations(client: Client, lamina: Lamina, registry: str, tmp_path: Path):
    """B23: the chain from the index to the attestations; configs and statements only where they are asked for."""
    image(lamina, tmp_path / "i", f"{registry}/a:1", "--provenance=mode=max")
    image(lamina, tmp_path / "i", f"{registry}/plain:1")
    slsa = "https://slsa.dev/provenance/v1"

    def do(ref: str) -> None:
        def ask(name: str, **fields: Any) -> Any:
            source = pb.SourceOp(identifier=f"docker-image://{registry}/{name}:1")
            asked = gateway_pb2.ResolveSourceImageRequest(**fields)
            return client.ask(ref, "ResolveSourceMeta", Meta(Source=source, Image=asked)).Image

        assert ask("a", NoConfig=True).Config == b""
        assert not ask("a").HasField("AttestationChain")
        chain = ask("a", NoConfig=True, AttestationChain=True).AttestationChain
        assert set(chain.Blobs) == {chain.Root, chain.AttestationManifest}
        index = json.loads(chain.Blobs[chain.Root].data)
        assert chain.ImageManifest == index["manifests"][0]["digest"]
        assert chain.AttestationManifest == index["manifests"][1]["digest"]
        full = ask("a", ResolveAttestations=[slsa]).AttestationChain
        (statement,) = set(full.Blobs) - set(chain.Blobs)
        assert json.loads(full.Blobs[statement].data)["predicateType"] == slsa
        for digest, blob in full.Blobs.items():
            assert digest == blob.descriptor.digest == "sha256:" + hashlib.sha256(blob.data).hexdigest()
        assert not ask("plain", AttestationChain=True).HasField("AttestationChain")

    with_bridge(client, do)


def test_a_signature_of_an_attestation_is_told_with_it(client: Client, lamina: Lamina, registry: str, tmp_path: Path):
    """B23: what refers to the attestation and signs it: its manifest and its bundle."""
    image(lamina, tmp_path / "i", f"{registry}/a:1", "--provenance=mode=max")
    bundle = "application/vnd.dev.sigstore.bundle.v0.3+json"
    signed = b'{"signed": true}'

    def do(ref: str) -> None:
        source = pb.SourceOp(identifier=f"docker-image://{registry}/a:1")
        asked = Meta(Source=source, Image=gateway_pb2.ResolveSourceImageRequest(NoConfig=True, AttestationChain=True))
        before = client.ask(ref, "ResolveSourceMeta", asked).Image.AttestationChain
        assert list(before.SignatureManifests) == []
        signature = sign(registry, before.AttestationManifest, bundle, signed)

        chain = client.ask(ref, "ResolveSourceMeta", asked).Image.AttestationChain
        assert list(chain.SignatureManifests) == [signature]
        assert chain.Blobs["sha256:" + hashlib.sha256(signed).hexdigest()].data == signed
        assert json.loads(chain.Blobs[signature].data)["subject"]["digest"] == before.AttestationManifest

    with_bridge(client, do)


def sign(registry: str, digest: str, kind: str, signed: bytes) -> str:
    """Push what signs a manifest, as clients do where a registry keeps no list of referrers; return its digest."""
    manifest_type = "application/vnd.oci.image.manifest.v1+json"
    options = RegistryOptions(insecure=frozenset({registry}))
    with Registry(options, lambda _host: None, Cancel()) as client:

        def put(data: bytes) -> dict[str, Any]:
            descriptor = Descriptor(
                "application/octet-stream", Digest("sha256:" + hashlib.sha256(data).hexdigest()), len(data)
            )
            client.push_blob(Reference.parse(f"{registry}/a:1"), descriptor, lambda: io.BytesIO(data))
            return descriptor.to_json()

        subject = {"mediaType": manifest_type, "digest": digest, "size": 1}
        fields = {"schemaVersion": 2, "mediaType": manifest_type, "artifactType": kind, "subject": subject}
        raw = json.dumps({**fields, "config": put(b"{}"), "layers": [put(signed)]}).encode()
        found = "sha256:" + hashlib.sha256(raw).hexdigest()
        client.push_manifest(Reference.parse(f"{registry}/a@{found}"), manifest_type, raw)
        entry = {"mediaType": manifest_type, "digest": found, "size": len(raw), "artifactType": kind}
        index_type = "application/vnd.oci.image.index.v1+json"
        listed = json.dumps({"schemaVersion": 2, "mediaType": index_type, "manifests": [entry]}).encode()
        client.push_manifest(Reference.parse(f"{registry}/a:{digest.replace(':', '-')}"), index_type, listed)
    return found


def test_what_is_told_of_files_and_repositories(client: Client, web: Web, tmp_path: Path):
    """B23: sum, name and time of a file; commit, ref and objects of a repository, a tag's own where it has one."""
    repository = Repository(tmp_path / "served" / "r.git")
    commit = repository.commit({"file": "one\n"})
    repository.git("tag", "-a", "v1", "-m", "first")
    tag = repository.git("rev-parse", "v1").strip()

    def do(ref: str) -> None:
        asked = gateway_pb2.ChecksumRequest(Algo=2, Suffix=b"!")
        request = Meta(Source=pb.SourceOp(identifier=web.url("/one")))
        found = client.ask(ref, "ResolveSourceMeta", request).HTTP
        assert (found.Checksum, found.Filename) == ("sha256:" + hashlib.sha256(b"one").hexdigest(), "one")
        assert found.LastModified.seconds == 784111777
        assert not found.HasField("ChecksumResponse")
        request.HTTP.ChecksumRequest.CopyFrom(asked)
        answer = client.ask(ref, "ResolveSourceMeta", request).HTTP.ChecksumResponse
        assert (answer.Digest, answer.Suffix) == ("sha512:" + hashlib.sha512(b"one!").hexdigest(), b"!")

        def git(name: str, *, objects: bool) -> Any:
            source = pb.SourceOp(identifier=f"{host}/r.git#{name}", attrs={"git.fullurl": f"{server.url}/r.git"})
            wanted = gateway_pb2.ResolveSourceGitRequest(ReturnObject=objects)
            return client.ask(ref, "ResolveSourceMeta", Meta(Source=source, Git=wanted)).Git

        host = server.url.replace("http://", "git://")
        plain = git("main", objects=False)
        assert (plain.Ref, plain.Checksum, plain.CommitChecksum) == ("refs/heads/main", commit, "")
        assert plain.CommitObject == b""
        tagged = git("v1", objects=True)
        assert (tagged.Ref, tagged.Checksum, tagged.CommitChecksum) == ("refs/tags/v1", tag, commit)
        for kind, data, name in (("commit", tagged.CommitObject, commit), ("tag", tagged.TagObject, tag)):
            assert hashlib.sha1(b"%s %d\0" % (kind.encode(), len(data)) + data).hexdigest() == name

    with running_git_server(tmp_path / "served") as server:
        with_bridge(client, do)


# -- a client that judges


def allow(_request: Any) -> Any:
    return Answer(decision=Decision(action=ALLOW))


def test_a_client_is_asked_about_every_source(client: Client, tmp_path: Path, web: Web):
    """H3: SourcePolicySession; each source once, before it is looked at."""
    offers = context(tmp_path / "c", f"FROM scratch\nADD {web.url('/one')} {web.url('/two')} /\nCOPY Dockerfile /\n")
    offers.judge = allow
    assert set(build(client, offers, tmp_path, judged=True)) == {"one", "two", "Dockerfile"}

    judged = [one.partition(" ")[2] for one in offers.asked if one.startswith("judge")]
    assert {"local://dockerfile", "local://context", web.url("/one"), web.url("/two")} <= set(judged)
    assert judged.count(web.url("/one")) == 1


def test_a_client_denies_with_messages(client: Client, tmp_path: Path, web: Web):
    """H3: what the policy's author says of it is in the error and in its details; the line, too."""

    def judge(request: Any) -> Any:
        if request.Source.Source.identifier != web.url("/one"):
            return allow(request)
        said = [policysession_pb2.DenyMessage(message="no files from there")]
        return Answer(decision=Decision(action=DENY, denyMessages=said))

    offers = context(tmp_path / "c", f"FROM scratch\nADD {web.url('/one')} /\n")
    offers.judge = judge
    with pytest.raises(grpc.RpcError) as caught:
        build(client, offers, tmp_path, judged=True)
    assert "no files from there" in caught.value.details()
    found = {one.type_url: json.loads(one.value) for one in details(caught.value).details}
    denied = found["github.com/moby/buildkit/policysession.DecisionResponse+json"]
    assert denied == {"action": "DENY", "denyMessages": [{"message": "no files from there"}]}
    assert found["github.com/moby/buildkit/errdefs.Source+json"]["ranges"][0]["start"] == {"line": 2}
    assert web.seen == []


def test_a_client_converts_and_is_asked_again(client: Client, tmp_path: Path, web: Web):
    """H3: the converted source is judged once more, by policies as well."""

    def judge(request: Any) -> Any:
        if request.Source.Source.identifier != web.url("/one"):
            return allow(request)
        update = pb.SourceOp(identifier=web.url("/two"), attrs={"http.filename": "one"})
        return Answer(decision=Decision(action=CONVERT, update=update))

    offers = context(tmp_path / "c", f"FROM scratch\nADD {web.url('/one')} /as-one\n")
    offers.judge = judge
    assert build(client, offers, tmp_path, judged=True) == {"as-one": b"two"}
    assert f"judge {web.url('/two')}" in offers.asked

    with pytest.raises(grpc.RpcError) as caught:
        build(client, offers, tmp_path, judged=True, SourcePolicy=policy((DENY, web.url("/two"), "")))
    assert "denied by policy" in caught.value.details()


def test_a_client_asks_for_more_before_it_decides(
    client: Client, lamina: Lamina, registry: str, tmp_path: Path, web: Web
):
    """H3: what ResolveSourceMeta tells, in the next question: digest and config of an image, sum of a file."""
    image(lamina, tmp_path / "i", f"{registry}/a:1", "--label=ok=yes")
    seen: dict[str, Any] = {}

    def judge(request: Any) -> Any:
        source = request.Source
        name = source.Source.identifier
        if name.startswith("local://") or source.HasField("Image") or source.HasField("HTTP"):
            seen[name.partition("://")[0]] = source
            return allow(request)
        return Answer(request=Meta(Source=source.Source, Platform=request.Platform))

    offers = context(tmp_path / "c", f"FROM {registry}/a:1\nADD {web.url('/one')} /\n")
    offers.judge = judge
    assert set(build(client, offers, tmp_path, judged=True)) == {"which", "one"}
    assert json.loads(seen["docker-image"].Image.Config)["config"]["Labels"] == {"ok": "yes"}
    assert seen["http"].HTTP.Checksum == "sha256:" + hashlib.sha256(b"one").hexdigest()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda request: Answer(), "decides nothing"),
        (lambda request: Answer(decision=Decision(action=CONVERT)), "converts 'local://dockerfile' to nothing"),
        (lambda request: Answer(decision=Decision(action=9)), "action 9"),
        (lambda request: Answer(request=Meta(Source=pb.SourceOp(identifier="http://x"))), "another source"),
        (lambda request: Answer(request=Meta(Source=request.Source.Source)), "too many questions"),
        (
            lambda request: Answer(
                decision=Decision(action=CONVERT, update=pb.SourceOp(identifier=request.Source.Source.identifier + "x"))
            ),
            "again and again",
        ),
    ],
)
def test_a_client_that_answers_nonsense_ends_its_build(client: Client, tmp_path: Path, answer, told: str):
    """H3: every answer is checked, and there is an end to questions."""
    offers = context(tmp_path / "c", "FROM scratch\nCOPY Dockerfile /\n")
    offers.judge = answer
    with pytest.raises(grpc.RpcError) as caught:
        build(client, offers, tmp_path, judged=True)
    assert told in caught.value.details()


def test_a_client_that_fails_to_judge_denies(client: Client, tmp_path: Path):
    """H3: no answer is no permission; neither is a session that does not judge."""
    offers = context(tmp_path / "c", "FROM scratch\nCOPY Dockerfile /\n")

    def judge(request: Any) -> Any:
        raise ValueError("broken")

    offers.judge = judge
    with pytest.raises(grpc.RpcError, match="cannot judge"):
        build(client, offers, tmp_path, judged=True)
    offers.judge = None
    with pytest.raises(grpc.RpcError, match="does not judge sources"):
        build(client, offers, tmp_path, judged=True)
