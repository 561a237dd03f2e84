"""How a build is called, and what of that counts. IDs are rows of the feature map."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from support.bases import BUSYBOX_STAGE, busybox_context
from support.command import Lamina
from support.git_server import Repository, running_git_server

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for overlay mounts"),
    pytest.mark.skipif(shutil.which("crun") is None, reason="no crun here: apt-get install crun"),
]

LOG = "--mount=type=cache,id=log,target=/log"
READ = f"FROM base AS read\nARG NOW\nRUN {LOG} cp /log/* /\n"
"""A stage that shows what steps wrote into the cache `log`; run anew for each value of NOW."""


@pytest.fixture
def ran(lamina: Lamina, tmp_path: Path) -> Callable[..., dict[str, int]]:
    """Build a Dockerfile; return how often each step that writes a line into `/log/NAME` has run so far."""
    context = busybox_context(tmp_path / "ctx")
    calls = iter(range(100))

    def run(text: str, *words: str) -> dict[str, int]:
        (context / "Dockerfile").write_text(f"{BUSYBOX_STAGE}{text}")
        lamina.build(context, *words)
        (context / "Dockerfile").write_text(f"{BUSYBOX_STAGE}{READ}FROM scratch\nCOPY --from=read /[a-z] /\n")
        out = tmp_path / f"log{next(calls)}"
        lamina.build(context, "--build-arg", f"NOW={out}", "-o", f"type=local,dest={out}")
        return {path.name: len(path.read_text().splitlines()) for path in sorted(out.iterdir())}

    return run


def step(name: str) -> str:
    """Return a RUN that writes a line into `/log/NAME`."""
    return f"RUN {LOG} echo x >> /log/{name}\n"


class TestInputs:
    def test_a_context_on_standard_input(self, lamina: Lamina, tmp_path: Path):
        """A1.14: a tar archive, compressed or not, whose Dockerfile is named inside it; its ignore file counts."""
        folder = tmp_path / "ctx"
        folder.mkdir()
        for name, text in {"a": "a", "b": "b", "my.Dockerfile": "FROM scratch\nCOPY . /\n"}.items():
            (folder / name).write_text(text)
        (folder / ".dockerignore").write_text("b\n*Dockerfile\n.dockerignore\n")
        for kind in ("w", "w:gz", "w:bz2", "w:xz"):
            with tarfile.open(tmp_path / "ctx.tar", kind) as tar:
                tar.add(folder, ".")
            with (tmp_path / "ctx.tar").open() as archive:
                out = tmp_path / kind.replace(":", "")
                lamina.build("-", "-f", "my.Dockerfile", "-o", f"type=local,dest={out}", stdin=archive)
            assert [path.name for path in out.iterdir()] == ["a"]


class TestStages:
    def test_a_base_of_many_is_built_once(self, ran):
        """A2.7: for two stages of one build, for another target, for another file."""
        base = f"FROM base AS common\n{step('a')}"
        stages = f"FROM common AS one\n{step('b')}FROM common AS two\n{step('c')}"
        both = "FROM scratch AS both\nCOPY --from=one /etc/passwd /1\nCOPY --from=two /etc/passwd /2\n"

        assert ran(base + stages + both) == {"a": 1, "b": 1, "c": 1}
        assert ran(base + stages + both, "--target", "two") == {"a": 1, "b": 1, "c": 1}
        assert ran(f"{base}FROM common\n{step('d')}") == {"a": 1, "b": 1, "c": 1, "d": 1}

    def test_only_what_the_target_needs(self, ran):
        """A2.5, A2.8: by name in any case, or by number; other stages are left alone."""
        text = f"FROM base AS One\n{step('a')}FROM base\n{step('b')}FROM base AS three\n{step('c')}"

        assert ran(text, "--target", "ONE") == {"a": 1}
        assert ran(text, "--target=2") == {"a": 1, "b": 1}
        assert ran(text) == {"a": 1, "b": 1, "c": 1}

    def test_an_image_by_tag_by_digest_and_by_both(self, lamina: Lamina, registry: str, tmp_path: Path):
        """A2.3: the digest counts, whatever the tag means by then."""
        context = tmp_path / "ctx"
        context.mkdir()
        digests = []
        for text in ("old", "new"):
            (context / "Dockerfile").write_text(f"FROM scratch\nCOPY <<E /f\n{text}\nE\n")
            lamina.build(context, "-t", f"{registry}/i:1", "--push", "--metadata-file", tmp_path / "meta")
            digests.append(json.loads((tmp_path / "meta").read_text())["containerimage.digest"])
        found = []
        for name in ("i:1", f"i@{digests[0]}", f"i:1@{digests[0]}"):
            (context / "Dockerfile").write_text(f"FROM {registry}/{name}\n")
            Lamina(tmp_path / "fresh").build(context, "-o", f"type=local,dest={tmp_path}/out")
            found.append((tmp_path / "out" / "f").read_text())
            shutil.rmtree(tmp_path / "out")
            shutil.rmtree(tmp_path / "fresh")

        assert found == ["new\n", "old\n", "old\n"]


class TestNamedContexts:
    def test_a_directory_in_place_of_an_image_and_of_a_stage(self, build, tmp_path: Path):
        """A2.9: what the stage would do is not done; nobody asks for the image."""
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "f").write_text("mine")
        text = "FROM registry.invalid/never:1 AS one\nFROM base AS two\nRUN false\n"
        text += "FROM scratch\nCOPY --from=one /f /one\nCOPY --from=two /f /two\n"
        mine = str(tmp_path / "mine")

        options = ("--build-context", f"registry.invalid/never:1={mine}", "--build-context", f"two={mine}")
        out = build(BUSYBOX_STAGE.replace("COPY rootfs /\n", "") + text, *options)

        assert ((out / "one").read_text(), (out / "two").read_text()) == ("mine", "mine")

    def test_an_image_in_place_of_another(self, lamina: Lamina, build, registry: str, tmp_path: Path):
        """A2.9: `docker-image://`, with its config."""
        (tmp_path / "i").mkdir()
        (tmp_path / "i" / "Dockerfile").write_text("FROM scratch\nCOPY <<E /f\nimage\nE\nENV X=1\n")
        lamina.build(tmp_path / "i", "-t", f"{registry}/i:1", "--push")

        source = f"alpine=docker-image://{registry}/i:1"
        out = build("FROM alpine:latest\nCOPY <<E /x\n$X\nE\n", "--build-context", source)

        assert ((out / "f").read_text(), (out / "x").read_text()) == ("image\n", "1\n")

    def test_a_repository(self, build, tmp_path: Path):
        """A2.9: the files of a commit, by branch and subdirectory."""
        repository = Repository(tmp_path / "work")
        (repository.folder / "sub").mkdir()
        (repository.folder / "sub" / "f").write_text("one")
        repository.git("add", "--all")
        repository.git("commit", "-q", "-m", "one")
        (tmp_path / "served").mkdir()
        repository.git("clone", "-q", "--bare", ".", str(tmp_path / "served" / "r.git"))
        with running_git_server(tmp_path / "served") as server:
            source = f"src={server.url}/r.git#main:sub"
            out = build("FROM scratch\nCOPY --from=src . /\n", "--build-context", source)

        assert [path.name for path in out.iterdir()] == ["f"]


class TestKeys:
    def test_an_argument_counts_from_its_line_on(self, ran):
        """A5.2: a step before the ARG does not see it and is not run again for it; the RUNs behind it are."""
        text = f"FROM base\n{step('a')}ARG V=0\n{step('b')}"

        assert ran(text, "--build-arg", "V=1") == {"a": 1, "b": 1}
        assert ran(text, "--build-arg", "V=2") == {"a": 1, "b": 2}
        assert ran(text, "--build-arg", "V=1") == {"a": 1, "b": 2}

    def test_proxies_are_given_and_do_not_count(self, lamina: Lamina, tmp_path: Path):
        """A5.3: every step has them in both cases; no key, no history and no image does, unless an ARG names one."""
        text = "FROM base\nRUN env | grep -i _proxy | sort > /seen\n"
        context = busybox_context(tmp_path / "ctx", text)
        names = ("HTTP_PROXY", "https_proxy", "FTP_PROXY", "no_proxy", "ALL_PROXY")
        options = [word for name in names for word in ("--build-arg", f"{name}=p-{name}")]
        lamina.build(context, "-t", "x", *options, "-o", f"type=local,dest={tmp_path}/out", "-o", "type=image")

        seen = set((tmp_path / "out" / "seen").read_text().split())
        wanted = {f"{form}=p-{name}" for name in names for form in (name.upper(), name.lower())}
        assert seen == wanted
        again = lamina.build(context, "-t", "y", "--build-arg", "HTTP_PROXY=other")
        assert "UnusedBuildArgs" not in again.stderr
        assert any(line.endswith("CACHED") for line in again.stderr.splitlines())
        assert "p-" not in lamina("inspect", "x").stdout + lamina("history", "--no-trunc", "x").stdout

        (context / "Dockerfile").write_text(BUSYBOX_STAGE + "FROM base\nARG HTTP_PROXY\nRUN true\n")
        lamina.build(context, "-t", "z", "--build-arg", "HTTP_PROXY=declared")
        assert "RUN |1 HTTP_PROXY=declared /bin/sh -c true" in lamina("history", "--no-trunc", "z").stdout

    def test_no_cache_for_all_or_for_a_stage(self, ran):
        """A7.1: --no-cache runs everything again, --no-cache-filter the stages that it names."""
        text = f"FROM base AS one\n{step('a')}FROM one AS two\n{step('b')}"

        ran(text)
        assert ran(text, "--no-cache-filter", "two") == {"a": 1, "b": 2}
        assert ran(text, "--no-cache") == {"a": 2, "b": 3}
        assert ran(text) == {"a": 2, "b": 3}


class TestAnswers:
    TEXT = "FROM scratch\nCOPY <<E /f\nhi\nE\n"

    def test_image_id_metadata_names_and_labels(self, lamina: Lamina, tmp_path: Path):
        """A7.1: --iidfile, --metadata-file, -t more than once, --label, -q; the same from the cache."""
        (tmp_path / "Dockerfile").write_text(self.TEXT)
        words = ("-t", "one:1", "-t", "localhost:5000/two", "--label", "a=b", "--label", "c=")
        for _ in range(2):
            files = ("--iidfile", tmp_path / "id", "--metadata-file", tmp_path / "meta")
            done = lamina("build", "-q", *files, *words, tmp_path)
            meta = json.loads((tmp_path / "meta").read_text())
            image_id = (tmp_path / "id").read_text()

            assert done.stdout == image_id + "\n" and done.stderr == ""
            assert meta["containerimage.config.digest"] == image_id
            assert meta["containerimage.digest"].startswith("sha256:")
            assert meta["image.name"] == "docker.io/library/one:1,localhost:5000/two:latest"
            (found,) = json.loads(lamina("inspect", "localhost:5000/two").stdout)
            assert found["Id"] == image_id and found["Config"]["Labels"] == {"a": "b", "c": ""}
            (tmp_path / "id").unlink()
            (tmp_path / "meta").unlink()

    def test_pull_asks_for_a_tag_that_moved(self, lamina: Lamina, registry: str, tmp_path: Path):
        """A7.1: without --pull what is here serves."""
        base, own = tmp_path / "base", tmp_path / "own"
        for folder in (base, own):
            folder.mkdir()
        (own / "Dockerfile").write_text(f"FROM {registry}/b:1\n")
        other, found = Lamina(tmp_path / "other"), []
        for text, words in (("one", ()), ("two", ()), ("two", ("--pull",))):
            (base / "Dockerfile").write_text(f"FROM scratch\nCOPY <<E /f\n{text}\nE\n")
            other.build(base, "-t", f"{registry}/b:1", "--push")
            if not found:
                lamina("pull", f"{registry}/b:1")
            lamina.build(own, *words, "-o", f"type=local,dest={tmp_path}/out")
            found.append((tmp_path / "out" / "f").read_text())

        assert found == ["one\n", "one\n", "two\n"]

    def test_network_of_all_steps(self, busybox):
        """A7.1: --network=none, and --network=default of one step against it."""
        text = "FROM base\nRUN ls /sys/class/net > /none\nRUN --network=none ls /sys/class/net > /own\n"
        out = busybox(text, "--network", "none")

        assert (out / "none").read_text().split() == ["lo"] == (out / "own").read_text().split()

    def test_no_output_is_the_image_store(self, lamina: Lamina, tmp_path: Path):
        """A7.3: nothing is lost when nothing is asked for: the image is there by its ID."""
        (tmp_path / "Dockerfile").write_text(self.TEXT)
        lamina.build(tmp_path, "--iidfile", tmp_path / "id")

        assert (tmp_path / "id").read_text()[:19] in lamina("images", "-q", "--no-trunc").stdout

    def test_one_platform_as_an_index(self, lamina: Lamina, tmp_path: Path):
        """A5.5: BUILDKIT_MULTI_PLATFORM makes an index (and directories) also for one platform."""
        (tmp_path / "Dockerfile").write_text(self.TEXT)
        given = ("--platform", "linux/arm64", "--build-arg", "BUILDKIT_MULTI_PLATFORM=1")
        lamina.build(tmp_path, *given, "-o", f"type=oci,dest={tmp_path}/i.tar", "-o", f"type=local,dest={tmp_path}/o")

        assert (tmp_path / "o" / "linux_arm64" / "f").read_text() == "hi\n"
        with tarfile.open(tmp_path / "i.tar") as tar:
            top = json.load(tar.extractfile("index.json"))["manifests"][0]
        assert top["mediaType"] == "application/vnd.oci.image.index.v1+json"

        several = ("--platform", "linux/arm64,linux/amd64", "--build-arg", "BUILDKIT_MULTI_PLATFORM=false")
        done = lamina.build(tmp_path, *several, check=False)
        assert done.returncode == 2 and "BUILDKIT_MULTI_PLATFORM says no" in done.stderr
        done = lamina.build(tmp_path, "--build-arg", "BUILDKIT_MULTI_PLATFORM=maybe", check=False)
        assert done.returncode == 2 and "neither true nor false" in done.stderr

    @pytest.mark.parametrize("how", ["argument", "environment", "file"])
    def test_the_time_of_what_the_build_stamps(self, lamina: Lamina, tmp_path: Path, how: str):
        """A5.5: SOURCE_DATE_EPOCH by option, environment or global ARG: config, history, WORKDIR; steps may see it."""
        seconds = 1_000_000_000
        start = f"ARG SOURCE_DATE_EPOCH={seconds}\n" if how == "file" else ""
        text = "FROM base\nARG SOURCE_DATE_EPOCH\nWORKDIR /made\nRUN echo $SOURCE_DATE_EPOCH > /seen\n"
        context = busybox_context(tmp_path / "ctx")
        (context / "Dockerfile").write_text(start + BUSYBOX_STAGE + text)
        words = ("--build-arg", f"SOURCE_DATE_EPOCH={seconds}") if how == "argument" else ()
        environment = {"SOURCE_DATE_EPOCH": str(seconds)} if how == "environment" else {}
        lamina.build(
            context, *words, "-t", "x", "-o", "type=image", "-o", f"type=tar,dest={tmp_path}/o.tar", env=environment
        )

        (found,) = json.loads(lamina("inspect", "x").stdout)
        assert found["Created"].startswith("2001-09-09T01:46:40")
        with tarfile.open(tmp_path / "o.tar") as tar:
            assert tar.getmember("made").mtime == seconds
            assert tar.extractfile("seen").read() == b"1000000000\n"

    def test_a_name_in_the_history(self, lamina: Lamina, tmp_path: Path):
        """A5.5: BUILDKIT_BUILD_NAME is what `lamina history` calls the build, also when it was cached as a whole."""
        (tmp_path / "Dockerfile").write_text(self.TEXT)
        for _ in range(2):
            lamina.build(tmp_path, "--build-arg", "BUILDKIT_BUILD_NAME=my  build")

        rows = lamina("history", "ls").stdout.splitlines()
        assert [("my build" in row) for row in rows] == [False, True, True]

    def test_inline_cache_by_build_argument(self, lamina: Lamina, registry: str, tmp_path: Path):
        """A5.5: BUILDKIT_INLINE_CACHE is --cache-to=type=inline."""
        (tmp_path / "Dockerfile").write_text(self.TEXT)
        given = ("--build-arg", "BUILDKIT_INLINE_CACHE=1")
        lamina.build(tmp_path, "-t", f"{registry}/c:1", "--push", *given)
        raw = ["skopeo", "inspect", "--tls-verify=false", "--raw", "--config", f"docker://{registry}/c:1"]
        config = json.loads(subprocess.run(raw, capture_output=True, text=True, check=True).stdout)

        assert any("cache" in key for key in config), list(config)
        again = Lamina(tmp_path / "fresh").build(tmp_path, "--cache-from", f"{registry}/c:1")
        assert any(line.endswith("CACHED") for line in again.stderr.splitlines())


class TestCalls:
    def test_the_graph(self, lamina: Lamina, tmp_path: Path):
        """A7.2: BuildKit's subrequest `convertllb`: ops by digest, names, lines; nothing is built."""
        (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY <<E /f\nhi\nE\nCOPY f /\n")
        found = json.loads(lamina("build", "--call=convertllb", tmp_path).stdout)

        assert set(found) == {"def", "metadata", "source"}
        last = found["def"].pop(next(key for key, op in found["def"].items() if set(op) == {"inputs"}))
        copies = [op for op in found["def"].values() if "file" in op]
        assert last["inputs"][0]["digest"] in found["def"] and len(copies) == 3
        assert {"identifier": "local://context", "attrs": {"local.followpaths": '["f"]'}} in [
            op.get("source") for op in found["def"].values()
        ]
        names = [one.get("description", {}).get("llb.customname") for one in found["metadata"].values()]
        assert "[stage-0 2/2] COPY f /" in names
        assert found["source"]["infos"][0]["filename"] == "Dockerfile"
        assert lamina("images", "-q").stdout == ""

    def test_what_there_is_to_call(self, lamina: Lamina, tmp_path: Path):
        """A7.2: BuildKit's subrequest `describe`."""
        (tmp_path / "Dockerfile").write_text(TestAnswers.TEXT)
        table = lamina("build", "--call=subrequests.describe", tmp_path).stdout
        found = json.loads(lamina("build", "--call=subrequests.describe,format=json", tmp_path).stdout)

        names = ["outline", "targets", "lint", "convertllb", "subrequests.describe"]
        assert [line.split()[0] for line in table.splitlines()] == ["NAME", *names]
        assert [one["name"] for one in found] == [f"frontend.{name}" for name in names]


class TestIgnoreFiles:
    def test_the_one_of_the_dockerfile_counts_alone(self, lamina: Lamina, tmp_path: Path):
        """A6.2: `<Dockerfile>.dockerignore` beside a Dockerfile anywhere; the shared one is not read then."""
        context = tmp_path / "ctx"
        context.mkdir()
        for name in ("a", "b"):
            (context / name).write_text(name)
        (context / ".dockerignore").write_text("a\n")
        for folder in (context, tmp_path):
            (folder / "x.Dockerfile").write_text("FROM scratch\nCOPY [ab] /\n")
            (folder / "x.Dockerfile.dockerignore").write_text("b\n")
            out = tmp_path / f"out-{folder.name}"
            lamina.build(context, "-f", folder / "x.Dockerfile", "-o", f"type=local,dest={out}")
            assert [path.name for path in out.iterdir()] == ["a"]

    def test_dockerfile_and_ignore_file_may_be_ignored(self, lamina: Lamina, tmp_path: Path):
        """A6.3: they are read all the same, and are no part of the context."""
        context = tmp_path / "ctx"
        context.mkdir()
        (context / "a").write_text("a")
        (context / ".dockerignore").write_text("Dockerfile\n.dockerignore\n")
        (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
        lamina.build(context, "-o", f"type=local,dest={tmp_path}/out")

        assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]
        (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
        done = lamina.build(context, check=False)
        assert done.returncode != 0 and "Dockerfile: not found" in done.stderr
