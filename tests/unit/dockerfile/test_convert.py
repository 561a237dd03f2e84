"""From a Dockerfile to ops and config, without running anything; the row IDs are those of the feature map."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from lamina.dockerfile.convert import Converted, ConvertOptions, ResolvedBase, convert
from lamina.dockerfile.parser import parse
from lamina.errors import InputError
from lamina.llb.pb import ops_pb2 as pb
from lamina.oci.platform import Platform

DIGEST = "sha256:" + "1" * 64
BASE: dict[str, Any] = {
    "architecture": "amd64",
    "os": "linux",
    "config": {"Env": ["PATH=/bin", "A=base"], "WorkingDir": "/home", "Cmd": ["sh"], "Labels": {"from": "base"}},
    "history": [{"created_by": "base", "created": "2020-01-01T00:00:00Z"}],
}


def converted(text: str, base: Mapping[str, Any] = BASE, **options: Any) -> Converted:
    def resolve(name: str, platform: Platform) -> ResolvedBase:
        return ResolvedBase(f"{name}@{DIGEST}", DIGEST, base)

    settings: dict[str, Any] = {
        "platform": Platform.parse("linux/amd64"),
        "build_platform": Platform.parse("linux/amd64"),
    }
    return convert(parse(text.encode(), "Dockerfile"), ConvertOptions(**settings | options), resolve)


def ops(found: Converted) -> list[pb.Op]:
    return [pb.Op.FromString(data) for data in getattr(found.definition, "def")]


def only(found: Converted, kind: str) -> pb.Op:
    (op,) = [op for op in ops(found) if op.WhichOneof("op") == kind]
    return op


def config(text: str, **options: Any) -> dict[str, Any]:
    return dict(converted(text, **options).image_config)["config"]


def history(text: str, **options: Any) -> list[str]:
    rows = converted(text, **options).image_config["history"]
    return [row["created_by"] + (" (empty)" if row.get("empty_layer") else "") for row in rows][1:]


def test_equal_files_give_equal_graphs():
    """B1: the digest of an op is that of its bytes; nothing of the run goes in."""
    text = "FROM a\nCOPY x y\nRUN z\n"

    assert converted(text).definition.SerializeToString(deterministic=True) == converted(
        text
    ).definition.SerializeToString(deterministic=True)


class TestVariables:
    def test_an_instruction_sees_the_values_from_before_it(self):
        """A1.10"""
        assert "B=base" in config("FROM a\nENV A=1 B=$A\n")["Env"]

    def test_what_was_said_last_wins_in_a_step(self):
        """A5.2: ENV over an ARG before it; an ARG after it counts in steps, and the image keeps the ENV."""
        run = only(converted("FROM a\nARG A=arg\nENV A=env\nRUN x\n"), "exec")
        later = converted("FROM a\nENV A=env\nARG A=arg\nRUN x\n")

        assert "A=env" in run.exec.meta.env
        assert "A=arg" in only(later, "exec").exec.meta.env
        assert "A=env" in later.image_config["config"]["Env"]

    def test_args_go_on_in_a_stage_built_on_another(self):
        """A5.2"""
        run = only(converted("FROM a AS b\nARG V=1\nFROM b\nRUN x\n"), "exec")

        assert "V=1" in run.exec.meta.env

    def test_a_global_arg_must_be_taken_up(self):
        """A2.10"""
        text = "ARG V=1\nFROM a\n{}RUN x\n"

        assert "V=1" in only(converted(text.format("ARG V\n")), "exec").exec.meta.env
        assert not [line for line in only(converted(text.format("")), "exec").exec.meta.env if line.startswith("V=")]

    def test_platform_args(self):
        """A5.4"""
        options = {"platform": Platform.parse("linux/arm/v7"), "target": "b"}
        text = "FROM a AS b\nARG TARGETPLATFORM\nARG TARGETVARIANT\nARG BUILDARCH\nARG TARGETSTAGE\nRUN x\n"
        env = only(converted(text, **options), "exec").exec.meta.env

        assert {"TARGETPLATFORM=linux/arm/v7", "TARGETVARIANT=v7", "BUILDARCH=amd64", "TARGETSTAGE=b"} <= set(env)

    def test_every_platform_arg(self):
        """A5.4: four forms of two platforms each, and the stage; without ARG a RUN sees none of them."""
        names = [
            f"{of}{what}" for of in ("TARGET", "BUILD") for what in ("PLATFORM", "OS", "ARCH", "VARIANT", "OSVERSION")
        ]
        options = {"platform": Platform.parse("linux/arm64/v8"), "build_platform": Platform.parse("linux/amd64")}
        lines = "".join(f"ARG {name}\n" for name in [*names, "TARGETSTAGE"])
        env = set(only(converted(f"FROM a\n{lines}RUN x\n", **options), "exec").exec.meta.env)
        without = only(converted("FROM a\nRUN x\n", **options), "exec").exec.meta.env

        assert {"TARGETPLATFORM=linux/arm64", "TARGETOS=linux", "TARGETARCH=arm64", "TARGETSTAGE=default"} <= env
        assert {"BUILDPLATFORM=linux/amd64", "BUILDOS=linux", "BUILDARCH=amd64"} <= env
        assert not [line for line in without if line.startswith(("TARGET", "BUILD"))]

    def test_platform_args_can_be_given(self):
        """A5.4: --build-arg says otherwise, before the first FROM as well."""
        text = "FROM --platform=$BUILDPLATFORM a\nARG TARGETARCH\nRUN x\n"
        found = converted(text, build_args={"TARGETARCH": "mine", "BUILDPLATFORM": "linux/s390x"})

        assert "TARGETARCH=mine" in only(found, "exec").exec.meta.env
        assert only(found, "exec").platform.Architecture == "s390x"

    def test_from_platform(self):
        """A2.4: a platform of its own for a stage, by global ARGs and platform ARGs."""
        text = "ARG ON=linux/arm/v7\nFROM --platform=$ON a AS x\nRUN 1\nFROM --platform=${BUILDOS}/$BUILDARCH a\n"
        text += "COPY --from=x f /\nRUN 2\n"
        found = converted(text, platform=Platform.parse("linux/s390x"))
        platforms = {op.exec.meta.args[-1]: op.platform for op in ops(found) if op.WhichOneof("op") == "exec"}

        assert (platforms["1"].Architecture, platforms["1"].Variant) == ("arm", "v7")
        assert platforms["2"].Architecture == "amd64"
        assert found.image_config["architecture"] == "amd64"

    def test_an_argument_names_a_source_by_way_of_a_stage(self):
        """A1.12: `--from` and `from=` take no variables; a stage `FROM $ARG AS name` does it, as in BuildKit."""
        text = "ARG X=one\nFROM $X AS src\nFROM b\nCOPY --from=src f /\nRUN --mount=from=src,target=/s x\n"
        found = converted(text, build_args={"X": "two"})

        names = [op.source.identifier for op in ops(found) if op.WhichOneof("op") == "source"]
        assert any("library/two:latest" in name for name in names)
        for line in ("COPY --from=$X f /", "RUN --mount=from=$X,target=/s x"):
            with pytest.raises(InputError, match="takes no variables"):
                converted(f"ARG X=one\nFROM b\nARG X\n{line}\n")

    def test_proxies_stay_out_of_history_and_environment(self):
        """A5.3"""
        found = converted("FROM a\nRUN x\n", build_args={"HTTP_PROXY": "http://p"})

        assert only(found, "exec").exec.meta.proxy_env.http_proxy == "http://p"
        assert "http://p" not in json.dumps(dict(found.image_config)) + "".join(only(found, "exec").exec.meta.env)
        assert found.warnings == ()

    def test_args_of_the_builder_are_no_unused_ones(self):
        """A5.5"""
        args = {"BUILDKIT_SANDBOX_HOSTNAME": "h", "BUILDKIT_CACHE_MOUNT_NS": "ns", "BUILDKIT_INLINE_CACHE": "1"}
        found = converted("FROM a\nRUN --mount=type=cache,target=/c x\n", build_args=args)

        run = only(found, "exec").exec
        assert (found.warnings, run.meta.hostname, run.mounts[1].cacheOpt.ID) == ((), "h", "ns//c")


class TestHistory:
    """A5.17: the rows that `docker history` shows."""

    @pytest.mark.parametrize(
        ("text", "rows"),
        [
            ("ENV a=1 b=2", ["ENV a=1 b=2 (empty)"]),
            ("ARG v", ["ARG v (empty)"]),
            ("ARG v=1\nRUN x", ["ARG v=1 (empty)", "RUN |1 v=1 /bin/sh -c x # buildkit"]),
            ('RUN ["a", "b"]', ["RUN a b # buildkit"]),
            ("COPY --chown=1:2 --chmod=755 a b /", ["COPY --chown=1:2 --chmod=755 a b / # buildkit"]),
            ("COPY --parents a /", ["COPY --parents a / # buildkit"]),
            ("COPY <<E /x\nhi\nE", ["COPY <<E /x # buildkit"]),
            ("WORKDIR b", ["WORKDIR /home/b"]),
            ("WORKDIR /", ["WORKDIR / (empty)"]),
            ('CMD echo "hi"', ['CMD ["/bin/sh" "-c" "echo \\"hi\\""] (empty)']),
            ('ENTRYPOINT ["a", "ü\\n"]', ['ENTRYPOINT ["a" "ü\\n"] (empty)']),
            ("EXPOSE 80 9000-9001/udp", ["EXPOSE [80/tcp 9000/udp 9001/udp] (empty)"]),
            ("VOLUME /a /b", ["VOLUME [/a /b] (empty)"]),
            ('SHELL ["/bin/bash", "-c"]', ["SHELL [/bin/bash -c] (empty)"]),
            ("STOPSIGNAL SIGINT", ["STOPSIGNAL SIGINT (empty)"]),
            ("ONBUILD RUN x", []),
            (
                "HEALTHCHECK --interval=90s --timeout=500ms CMD x",
                [
                    "HEALTHCHECK {Test:[CMD-SHELL x] Interval:1m30s Timeout:500ms StartPeriod:0s StartInterval:0s"
                    " Retries:0} (empty)"
                ],
            ),
            ("RUN <<E\na\nb\nE", ["RUN /bin/sh -c a\nb\n # buildkit"]),
            ("RUN <<E\n#!/bin/x\nb\nE", ["RUN /bin/sh -c /dev/pipes/E # buildkit"]),
        ],
    )
    def test_rows(self, text: str, rows: list[str]):
        assert history(f"FROM a\n{text}\n") == rows


class TestConfig:
    def test_entrypoint_drops_the_command_of_the_base_and_not_the_stages_own(self):
        """A5.11"""
        assert "Cmd" not in config('FROM a\nENTRYPOINT ["x"]\n')
        assert config('FROM a\nCMD ["y"]\nENTRYPOINT ["x"]\n')["Cmd"] == ["y"]

    def test_shell_counts_for_run_cmd_and_entrypoint(self):
        """A5.12"""
        found = converted('FROM a\nSHELL ["/b", "-e"]\nRUN r\nCMD c\nENTRYPOINT e\n')

        assert list(only(found, "exec").exec.meta.args) == ["/b", "-e", "r"]
        assert found.image_config["config"]["Cmd"] == ["/b", "-e", "c"]
        assert found.image_config["config"]["Entrypoint"] == ["/b", "-e", "e"]

    @pytest.mark.parametrize("bad", ["SIGNOPE", "0", "65", "TERM;", "-9"])
    def test_signals_are_checked(self, bad: str):
        """A5.13"""
        with pytest.raises(InputError, match="no signal"):
            config(f"FROM a\nSTOPSIGNAL {bad}\n")

    @pytest.mark.parametrize("good", ["SIGTERM", "quit", "9", "SIGRTMIN+3"])
    def test_signals_by_name_and_number(self, good: str):
        """A5.13"""
        assert config(f"FROM a\nSTOPSIGNAL {good}\n")["StopSignal"] == good

    def test_a_new_directory_belongs_to_the_user_of_that_moment(self):
        """A5.10"""
        mkdir = only(converted("FROM a\nUSER app:1000\nWORKDIR /w\n"), "file").file.actions[0].mkdir

        assert (mkdir.owner.user.byName.name, mkdir.owner.group.byID) == ("app", 1000)

    def test_labels_of_the_command_line_come_last(self):
        """A5.6"""
        assert config("FROM a\nLABEL a=1\n", labels={"a": "2"})["Labels"] == {"from": "base", "a": "2"}


class TestSources:
    def test_only_what_is_read_is_asked_of_the_context(self):
        """A6.5: variables are put in first; a bind mount reads too."""
        found = converted("FROM a\nENV D=src\nCOPY $D/x /\nRUN --mount=target=/m,source=lib y\n")
        (local,) = [op.source for op in ops(found) if op.source.identifier == "local://context"]

        assert json.loads(local.attrs["local.followpaths"]) == ["lib", "src/x"]

    def test_the_whole_context_is_one_path(self):
        """A6.5"""
        found = converted("FROM a\nCOPY x /\nCOPY . /\n")
        (local,) = [op.source for op in ops(found) if op.source.identifier == "local://context"]

        assert json.loads(local.attrs["local.followpaths"]) == ["."]

    @pytest.mark.parametrize("name", ["a", "a:latest", "docker.io/library/a", "docker.io/a:latest"])
    def test_a_named_context_takes_an_images_place(self, name: str):
        """A2.9: however the image is written."""
        found = converted("FROM a\nCOPY x /\n", named_contexts={name: "docker-image://b:1"})

        assert [op.source.identifier for op in ops(found) if op.source.identifier.startswith("docker")] == [
            f"docker-image://docker.io/library/b:1@{DIGEST}"
        ]

    def test_a_named_context_takes_a_stages_place(self):
        """A2.9: what the stage would have done is not done."""
        found = converted("FROM a AS s\nRUN x\nFROM c\nCOPY --from=s f /\n", named_contexts={"s": "/some/dir"})

        assert {op.source.identifier for op in ops(found) if op.WhichOneof("op") == "source"} == {
            f"docker-image://docker.io/library/c:latest@{DIGEST}",
            "local://s",
        }

    def test_a_context_for_one_platform(self):
        """A2.9: `NAME::PLATFORM`."""
        contexts = {"a::linux/arm64": "docker-image://arm", "a": "docker-image://other"}
        arm = converted("FROM a\n", named_contexts=contexts, platform=Platform.parse("linux/arm64"))
        amd = converted("FROM a\n", named_contexts=contexts)

        assert "library/arm:" in ops(arm)[0].source.identifier
        assert "library/other:" in ops(amd)[0].source.identifier

    def test_a_copy_from_a_number_that_is_no_stage(self):
        """A2.1"""
        with pytest.raises(InputError, match="no stage number 3"):
            converted("FROM a\nCOPY --from=3 x /\n")

    def test_onbuild_triggers_run_first_and_are_gone(self):
        """A5.15"""
        base = {**BASE, "config": {**BASE["config"], "OnBuild": ["ENV T=1", "RUN t"]}}
        found = converted("FROM a\nRUN own\n", base)

        assert [op.exec.meta.args[-1] for op in ops(found) if op.WhichOneof("op") == "exec"] == ["t", "own"]
        assert "OnBuild" not in found.image_config["config"]


class TestCopies:
    def copy(self, line: str) -> pb.FileActionCopy:
        found = converted(f"FROM a\n{line}\n")
        (op,) = [op for op in ops(found) if op.WhichOneof("op") == "file" and op.file.actions[-1].HasField("copy")]
        return op.file.actions[-1].copy

    def test_parents_with_a_pivot(self):
        """A4.6: what stands before `/./` is left out of the destination; a plain name must be there."""
        copy = self.copy("COPY --parents src/./a/b.txt /out/")

        assert (copy.src, list(copy.include_patterns), list(copy.required_paths)) == (
            "/src",
            ["a/b.txt"],
            ["/src/a/b.txt"],
        )
        assert list(self.copy("COPY --parents src/**/x /out/").required_paths) == []

    def test_modes(self):
        """A4.4: octal and symbolic, with variables."""
        assert self.copy("ENV M=750\nCOPY --chmod=$M a /").mode == 0o750
        assert self.copy("COPY --chmod=u=rwX,go=rX a /").modeStr == "u=rwX,go=rX"

    def test_exclude_takes_variables(self):
        """A4.7"""
        assert list(self.copy("ENV E=*.o\nCOPY --exclude=$E --exclude=b a /").exclude_patterns) == ["*.o", "b"]

    def test_unpacking_is_adds_own(self):
        """A4.8"""
        unpacks = [
            self.copy(line).attemptUnpackDockerCompatibility
            for line in ("ADD a /", "COPY a /", "ADD --unpack=false a /")
        ]

        assert unpacks == [True, False, False]

    def test_a_download(self):
        """A4.9, A4.10"""
        found = converted(f"FROM a\nADD --checksum={DIGEST} https://host/dir/f.tgz?x=1 /\n")
        (op,) = [op.source for op in ops(found) if op.source.identifier.startswith("https")]

        assert dict(op.attrs) == {"http.filename": "f.tgz", "http.checksum": DIGEST}

    def test_a_repository(self):
        """A4.11, A4.12"""
        found = converted("FROM a\nADD --keep-git-dir=true https://host/o/r.git#v1:sub /\n")
        (op,) = [op.source for op in ops(found) if op.source.identifier.startswith("git")]

        assert op.identifier == "git://host/o/r.git#v1:sub"
        assert op.attrs["git.keepgitdir"] == "true"

    def test_copy_takes_no_url(self):
        """A4.9"""
        with pytest.raises(InputError, match="COPY takes no URL"):
            converted("FROM a\nCOPY https://host/f /\n")

    def test_a_link_is_a_layer_of_its_own(self):
        """A4.5: nothing of the base goes into it, so that it holds over a new base."""
        first, second = (converted(f"FROM {base}\nCOPY --link x /\n") for base in ("a", "b"))
        files = [
            next(data for data in getattr(one.definition, "def") if pb.Op.FromString(data).HasField("file"))
            for one in (first, second)
        ]

        assert files[0] == files[1]
