"""G1-G5: provenance and SBOMs of real builds, as `lamina build` and its outputs carry them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from support.attested import Attested, read_attested
from support.bases import busybox_context
from support.command import Lamina
from support.git_web import commit, git, web_repositories
from support.golden import GOLDEN
from support.shape import shape

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for overlay mounts"),
]

V1, V02, SPDX = "https://slsa.dev/provenance/v1", "https://slsa.dev/provenance/v0.2", "https://spdx.dev/Document"

SCANNER = """set -e
one() {
  files=""
  for f in $(cd "$1" && find . -type f -name "$BUILDKIT_SCAN_PATTERN" | sort); do
    files="$files${files:+,}{\\"SPDXID\\":\\"SPDXRef-File\\",\\"fileName\\":\\"${f#.}\\"}"
  done
  cat > "$BUILDKIT_SCAN_DESTINATION/$2.spdx.json" <<X
{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://spdx.dev/Document","predicate":
{"spdxVersion":"SPDX-2.3","name":"$2","creationInfo":{"creators":["Tool: tiny"]},"files":[$files]}}
X
}
one "$BUILDKIT_SCAN_SOURCE" "$(basename $BUILDKIT_SCAN_SOURCE)"
if [ -n "$BUILDKIT_SCAN_SOURCE_EXTRAS" ]; then
  for d in $BUILDKIT_SCAN_SOURCE_EXTRAS*; do one "$d" "$(basename $d)"; done
fi
touch /tmp/writable
! touch "$BUILDKIT_SCAN_SOURCE/written" 2>/dev/null
"""


@pytest.fixture
def base(lamina: Lamina, registry: str, tmp_path: Path) -> str:
    """A base image in a registry."""
    name = f"{registry}/team/base:1.0"
    lamina.build(busybox_context(tmp_path / "base"), "-t", name, "--push")
    return name


@pytest.fixture
def app(base: str, tmp_path: Path) -> Path:
    """The context whose provenance was recorded from BuildKit."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "Dockerfile").write_text(
        f"FROM {base} AS one\n"
        "ARG GREETING\n"
        "RUN --mount=type=secret,id=token,required=false echo $GREETING > /hi\n"
        f"FROM {base}\n"
        "LABEL a=b\n"
        "COPY --from=one /hi /hi\n"
        "COPY Dockerfile /d\n"
        "RUN --network=none echo two > /two\n"
    )
    return folder


def attested(lamina: Lamina, context: Path, *words: str, env: dict[str, str] | None = None) -> Attested:
    archive = context.parent / "out.tar"
    lamina.build(context, "-o", f"type=oci,dest={archive}", *words, env=env or {})
    return read_attested(archive)


RECORDED = ("--build-arg", "GREETING=hello", "--label", "x=y", "-t", "team/app:2.0")
# What BuildKit tells of itself and asks of its executor; the graph by which it read the Dockerfile; what its client
# said besides; fields with nothing in them.
THEIRS = ("compatibilityVersion", "dockerfileVersion", "removeMountStubsRecursive", "sharedkeyhint", "/root/")
READING = ("/infos[]/llbDefinition", "/infos[]/digestMapping")
EMPTY = ("/op/constraints", "/locations/step")
# Where we tell more.
OURS = ("/mounts[]/output", "/builder/version/lamina")


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize(("version", "kind"), [("v1", V1), ("v0.2", V02)])
def test_provenance_has_every_field_that_buildkits_has(lamina: Lamina, app: Path, mode: str, version: str, kind: str):
    """G1: field by field against what BuildKit wrote about the same Dockerfile."""
    how = f"--provenance=mode={mode},version={version},builder-id=https://b.example/1"
    found = shape(attested(lamina, app, how, *RECORDED).statement(kind))

    expected = set((GOLDEN / f"attest/buildkit-{mode}-{version}.txt").read_text().splitlines())
    missing = {one for one in expected - found if not one.endswith(EMPTY)}
    assert [one for one in sorted(missing) if not any(word in one for word in THEIRS + READING)] == []
    assert [one for one in sorted(found - expected) if not one.endswith(OURS)] == []


def test_the_manifest_beside_the_image(lamina: Lamina, app: Path):
    """G3: an OCI artifact whose subject is the image, which the index hides from those who run images."""
    found = attested(lamina, app, "--provenance=true", "-t", "app:1")

    assert [one["platform"]["os"] for one in found.index["manifests"]] == ["linux", "unknown"]
    assert found.descriptor["annotations"]["vnd.docker.reference.type"] == "attestation-manifest"
    assert found.manifest["artifactType"] == "application/vnd.docker.attestation.manifest.v1+json"
    assert found.manifest["subject"]["digest"] == found.image["digest"]
    assert found.manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    (subject,) = found.statement(V1)["subject"]
    assert subject["name"].startswith("pkg:docker/app@1?platform=linux%2F")
    assert found.image["digest"] == "sha256:" + subject["digest"]["sha256"]


def test_an_image_instead_of_an_artifact_for_old_registries(lamina: Lamina, app: Path):
    """C4: oci-artifact=false."""
    archive = app.parent / "old.tar"
    lamina.build(app, "--provenance=true", "-o", f"type=oci,dest={archive},oci-artifact=false")

    found = read_attested(archive)

    assert found.manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert "subject" not in found.manifest
    assert found.statement(V1)["subject"][0]["name"] == "_"


def test_min_tells_neither_arguments_nor_secrets_nor_the_dockerfile(lamina: Lamina, app: Path):
    """G2."""
    found = attested(
        lamina, app, "--provenance=mode=min", "--build-arg", "GREETING=xyzzy-arg", "--label", "x=plugh-label"
    )

    text = json.dumps(found.statement(V1))
    assert "xyzzy" not in text and "plugh" not in text and "token" not in text and "buildConfig" not in text
    details = found.statement(V1)["predicate"]["runDetails"]
    assert details["metadata"]["buildkit_completeness"] == {"request": False, "resolvedDependencies": False}


def test_the_values_of_secrets_are_nowhere(lamina: Lamina, base: str, tmp_path: Path):
    """G2: arguments named like secrets, credentials in URLs, and secrets proper."""
    context = tmp_path / "app"
    context.mkdir()
    (context / "Dockerfile").write_text(
        f"FROM {base}\nARG API_TOKEN\nARG MIRROR\nENV KEPT=$API_TOKEN\n"
        "RUN --mount=type=secret,id=s --mount=type=secret,id=e,env=E echo $API_TOKEN $MIRROR | wc -c\n"
        "RUN echo $KEPT | wc -c\n"
    )
    (tmp_path / "s").write_text("marker-file")
    words = [
        *("--build-arg", "API_TOKEN=marker-argument", "--build-arg", "MIRROR=https://me:marker-url@mirror.example/a"),
        *("--build-arg", "HTTP_PROXY=http://me:marker-proxy@proxy.example:1"),
        *("--secret", f"id=s,src={tmp_path / 's'}", "--secret", "id=e,env=MARKED"),
    ]
    found = attested(lamina, context, "--provenance=mode=max", *words, env={"MARKED": "marker-environment"})

    predicate = found.statement(V1)["predicate"]
    assert "marker" not in json.dumps(found.statement(V1))
    request = predicate["buildDefinition"]["externalParameters"]["request"]
    assert request["secrets"] == [{"id": "e"}, {"id": "s"}] or [one["id"] for one in request["secrets"]] == ["e", "s"]
    assert request["args"]["build-arg:API_TOKEN"] == "(hidden)"
    assert predicate["runDetails"]["metadata"]["buildkit_completeness"]["request"] is False


def test_a_build_from_a_commit_without_network_is_hermetic(lamina: Lamina, base: str, tmp_path: Path):
    """G1: materials complete, the commit that was built in the config source."""
    with web_repositories(tmp_path / "web") as url:
        repository = tmp_path / "web/app.git"
        repository.mkdir(parents=True)
        git(repository, "init", "-q", "-b", "main")
        sha = commit(repository, "one", Dockerfile=f"FROM {base}\nRUN --network=none echo hi > /hi\n".encode())
        archive = tmp_path / "out.tar"
        context = f"{url.replace('://', '://user:pass-word@')}/app.git#main"
        lamina.build(context, "--provenance=mode=max,complete-materials=true", "-o", f"type=oci,dest={archive}")

    statement = read_attested(archive).statement(V1)
    predicate = statement["predicate"]
    assert "pass-word" not in json.dumps(statement)
    metadata = predicate["runDetails"]["metadata"]
    assert metadata["buildkit_hermetic"] is True
    assert metadata["buildkit_completeness"]["resolvedDependencies"] is True
    source = predicate["buildDefinition"]["externalParameters"]["configSource"]
    assert source == {"uri": f"{url}/app.git#main", "digest": {"sha1": sha}}
    assert {"uri": f"{url}/app.git#main", "digest": {"sha1": sha}} in predicate["buildDefinition"][
        "resolvedDependencies"
    ]


def test_the_commit_that_a_context_is(lamina: Lamina, tmp_path: Path):
    """G2: revision, where it came from without credentials, and whether files were changed since."""
    context = tmp_path / "repository"
    context.mkdir()
    git(context, "init", "-q", "-b", "main")
    git(context, "remote", "add", "origin", "https://me:pass-word@git.example/r.git")
    git(context, "config", "core.fsmonitor", f"touch {tmp_path / 'run-by-git'}; false")
    git(context, "config", "filter.f.clean", f"touch {tmp_path / 'run-by-git'}; cat")
    git(context, "config", "filter.f.required", "true")
    files = {".gitattributes": b"* filter=f\n", "sub__Dockerfile": b"FROM scratch\nCOPY Dockerfile /\n"}
    sha = commit(context, "one", **files)

    def vcs() -> Any:
        statement = attested(lamina, context / "sub", "--provenance=true").statement(V1)
        return statement["predicate"]["runDetails"]["metadata"]["buildkit_metadata"]["vcs"]

    (tmp_path / "run-by-git").unlink(missing_ok=True)  # what our own `git add` made of it
    expected = {"localdir:context": "sub", "revision": sha, "source": "https://git.example/r.git"}
    assert vcs() == expected
    (context / "sub/Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /changed\n")
    assert vcs() == {**expected, "revision": f"{sha}-dirty"}
    assert not (tmp_path / "run-by-git").exists()


def test_complete_materials_that_are_not_fail(lamina: Lamina, app: Path):
    done = lamina.build(app, "--provenance=mode=max,complete-materials=true", check=False)

    assert done.returncode != 0
    assert "directories of yours have none: context, dockerfile" in done.stderr


def test_files_name_every_file_with_its_digest(lamina: Lamina, app: Path, tmp_path: Path):
    """C8: provenance.json in a directory and in an archive."""
    (app / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /a/d\n")
    out = tmp_path / "out"
    lamina.build(
        app,
        "--provenance=true",
        "-o",
        f"type=local,dest={out},attestation-prefix=my-",
        "-o",
        f"type=tar,dest={out}.tar",
    )

    statement = json.loads((out / "my-provenance.json").read_text())
    digest = hashlib.sha256((out / "a/d").read_bytes()).hexdigest()
    assert statement["subject"] == [{"name": "a/d", "digest": {"sha256": digest}}]
    with tarfile.open(f"{out}.tar") as tar:
        assert tar.getnames() == [".", "a", "a/d", "provenance.json"]


def test_what_is_for_images_only_is_in_no_files(lamina: Lamina, app: Path, tmp_path: Path):
    """G1: inline-only, as buildx asks by default."""
    (app / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /d\n")
    lamina.build(app, "--provenance=mode=min,inline-only=true", "-o", str(tmp_path / "out"))

    assert os.listdir(tmp_path / "out") == ["d"]


def test_a_file_of_that_name_is_not_overwritten(lamina: Lamina, app: Path, tmp_path: Path):
    (app / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /provenance.json\n")
    done = lamina.build(app, "--provenance=true", "-o", str(tmp_path / "out"), check=False)

    assert done.returncode != 0 and "attestation-prefix" in done.stderr


def test_nothing_is_said_unasked(lamina: Lamina, app: Path, tmp_path: Path):
    """ADR 6: an image stays what docker's own builder would make of it."""
    archive = tmp_path / "plain.tar"
    lamina.build(app, "-o", f"type=oci,dest={archive}", "--provenance=false", "--attest", "type=sbom,disabled=true")

    with tarfile.open(archive) as tar:
        file = tar.extractfile("index.json")
        assert file is not None
        assert json.load(file)["manifests"][0]["mediaType"].endswith("manifest.v1+json")


def test_a_registry_and_the_next_build_take_it(lamina: Lamina, app: Path, registry: str, tmp_path: Path):
    """G3: pushed with the build and afterwards, read by skopeo, pulled and built upon."""
    name = f"{registry}/team/app:1"
    lamina.build(app, "--provenance=mode=max", "-t", name, "--push")
    raw = skopeo("inspect", "--raw", name)
    assert [one["platform"]["os"] for one in raw["manifests"]] == ["linux", "unknown"]
    assert skopeo("inspect", name)["Os"] == "linux"

    lamina.build(app, "--provenance=mode=max", "-t", f"{registry}/team/other:1")
    lamina("push", f"{registry}/team/other:1")
    beside = skopeo("inspect", "--raw", f"{registry}/team/other:1")["manifests"][1]
    assert skopeo("inspect", "--raw", f"{registry}/team/other@{beside['digest']}")["artifactType"]

    (tmp_path / "Dockerfile").write_text(f"FROM {name}\nRUN test -f /two\n")
    other = Lamina(tmp_path / "other-store")
    other.build(tmp_path, "-t", "next")


def skopeo(verb: str, *words: str) -> dict[str, Any]:
    program = shutil.which("skopeo")
    assert program is not None, "needs skopeo"
    *options, name = words
    done = subprocess.run(
        [program, verb, "--tls-verify=false", *options, f"docker://{name}"], capture_output=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture
def generator(lamina: Lamina, base: str, registry: str, tmp_path: Path) -> str:
    """An SBOM generator that lists files whose names match."""
    folder = tmp_path / "generator"
    folder.mkdir()
    (folder / "scan").write_text(SCANNER)
    (folder / "Dockerfile").write_text(f'FROM {base}\nCOPY scan /scan\nENTRYPOINT ["/bin/sh", "/scan"]\n')
    name = f"{registry}/team/generator:1"
    lamina.build(folder, "-t", name, "--push")
    return name


def test_a_generator_sees_the_result_and_its_sbom_is_kept(lamina: Lamina, app: Path, generator: str):
    """G5: the SBOM protocol, with parameters; the generator's image is among the materials."""
    found = attested(lamina, app, f"--sbom=generator={generator},PATTERN=two", "--provenance=true", "-t", "app:1")

    document = found.statement(SPDX)
    assert document["subject"][0]["name"].startswith("pkg:docker/app@1")
    assert [one["fileName"] for one in document["predicate"]["files"]] == ["/two"]
    dependencies = found.statement(V1)["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert sorted(one["uri"].rpartition("/team/")[2].partition("1")[0] for one in dependencies) == [
        "base@",
        "generator@",
    ]


def test_an_sbom_of_files(lamina: Lamina, app: Path, generator: str, tmp_path: Path):
    """G5, C8: sbom.spdx.json beside the files."""
    lamina.build(app, f"--sbom=generator={generator},PATTERN=two", "-o", str(tmp_path / "out"))

    statement = json.loads((tmp_path / "out/sbom.spdx.json").read_text())
    assert "two" in [one["name"] for one in statement["subject"]]


def test_a_generator_that_fails_fails_the_build(lamina: Lamina, app: Path, base: str):
    done = lamina.build(app, f"--sbom=generator={base}", check=False)

    assert done.returncode != 0
    assert "names nothing to run" in done.stderr or "no SBOM" in done.stderr


def test_stages_and_the_context_are_scanned_where_the_author_asks(
    lamina: Lamina, base: str, generator: str, tmp_path: Path
):
    """G5: BUILDKIT_SBOM_SCAN_STAGE and BUILDKIT_SBOM_SCAN_CONTEXT; stages that are not built are not scanned."""
    context = tmp_path / "staged"
    context.mkdir()
    (context / "two").write_text("in the context")
    (context / "Dockerfile").write_text(
        f"FROM {base} AS tools\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nRUN echo 2 > /opt-two && echo 2 > /two\n"
        f"FROM {base} AS unasked\nRUN echo 3 > /two\n"
        f"FROM {base} AS unbuilt\nARG BUILDKIT_SBOM_SCAN_STAGE=true\n"
        f"FROM {base}\nARG BUILDKIT_SBOM_SCAN_CONTEXT=true\n"
        "COPY two /\nCOPY --from=tools /opt-two /\nCOPY --from=unasked /two /three\n"
    )
    found = attested(lamina, context, f"--sbom=generator={generator},PATTERN=two")

    names = [one["predicate"]["name"] for one in found.statements[SPDX]]
    assert names == ["sbom", "sbom-context", "sbom-tools"]


def test_an_sbom_tells_which_layer_brought_a_file(lamina: Lamina, app: Path, generator: str):
    """G5: files of the result's own SBOM name their layer, as BuildKit's do."""
    archive = app.parent / "out.tar"
    found = attested(lamina, app, f"--sbom=generator={generator},PATTERN=two")

    (file,) = found.statement(SPDX)["predicate"]["files"]
    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("blobs/" + found.image["digest"].replace(":", "/"))
        assert manifest is not None
        layers = [one["digest"] for one in json.load(manifest)["layers"]]
    assert file["comment"] == f"layerID: {layers[-1]}"
    assert found.statement(SPDX)["predicate"]["creationInfo"]["creators"][0] == "Tool: tiny"
    assert found.statement(SPDX)["predicate"]["creationInfo"]["creators"][1].startswith("Tool: lamina-")
