"""Our own rules, beyond the examples on their pages: when they speak, and above all when they keep quiet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.checks.ruleset import RULES
from lamina.checks.run import run_checks
from lamina.checks.shell import commands
from lamina.checks.view import CheckOptions
from lamina.dockerfile.parser import parse
from lamina.oci.platform import Platform
from lamina.patterns import IgnoreRules, parse_ignore

OWN = [rule for rule in RULES if not rule.buildkit]
AMD64 = Platform("linux", "amd64")
DIGEST = "@sha256:" + "0" * 64


def found(
    text: str, *, ignore: str | None = None, context: str | None = None, **config: object
) -> list[tuple[int, str]]:
    """Return line and name of what our own rules find; bases are known to be `config`."""
    options = CheckOptions(
        platform=AMD64,
        build_platform=AMD64,
        base_config=lambda _name, _platform: {"config": config},
        ignore=IgnoreRules(parse_ignore(ignore.encode())) if ignore is not None else None,
        list_context=(lambda directory: [] if directory else context.split()) if context is not None else None,
    )
    return [(finding.source.start, finding.rule.id) for finding in run_checks(parse(text), options, OWN)]


def names(text: str, **options: object) -> set[str]:
    return {name for _, name in found(text, **options)}  # type: ignore[arg-type]


class TestBases:
    """LatestTag, BaseTagMoves."""

    @pytest.mark.parametrize("image", ["scratch", "debian:12" + DIGEST, "localhost:5000/app:1" + DIGEST, "$NOWHERE"])
    def test_quiet(self, image: str) -> None:
        assert names(f"FROM {image}\n") == set()

    @pytest.mark.parametrize("image", ["debian", "debian:latest", "localhost:5000/debian", "a/b:latest"])
    def test_latest(self, image: str) -> None:
        assert names(f"FROM {image}\n") == {"LatestTag"}

    def test_arguments_are_put_in(self) -> None:
        assert names("ARG V=3.12\nFROM python:$V\n") == {"BaseTagMoves"}

    def test_stages_and_named_contexts_are_none(self) -> None:
        assert found(f"FROM a:1{DIGEST} AS base\nFROM base\n") == []

    def test_one_name_is_said_once(self) -> None:
        assert found("FROM a:1 AS x\nFROM a:1\nCOPY --from=x / /\n") == [(1, "BaseTagMoves")]


class TestUser:
    """RunsAsRoot."""

    @pytest.mark.parametrize(
        "text",
        [
            'USER app\nCMD ["a"]',
            'CMD ["a"]\nUSER 1000:1000',
            "USER app",
            "RUN make",  # nothing is run from it
            'USER $SOMEONE\nCMD ["a"]',
        ],
    )
    def test_quiet(self, text: str) -> None:
        assert "RunsAsRoot" not in names(f"FROM x:1{DIGEST}\n{text}\n")

    @pytest.mark.parametrize("text", ['CMD ["a"]', 'USER root\nCMD ["a"]', 'USER app\nUSER 0:0\nENTRYPOINT ["a"]'])
    def test_root(self, text: str) -> None:
        assert "RunsAsRoot" in names(f"FROM x:1{DIGEST}\n{text}\n")

    def test_the_base_counts(self) -> None:
        assert "RunsAsRoot" not in names(f'FROM x:1{DIGEST}\nCMD ["a"]\n', User="nonroot")
        assert "RunsAsRoot" in names(f"FROM x:1{DIGEST}\nRUN a\n", Cmd=["server"])

    @pytest.mark.parametrize("cmd", ['["python3"]', '["/usr/bin/node"]', "bash", '["irb"]'])
    def test_a_prompt_is_no_program(self, cmd: str) -> None:
        """A base image of a language."""
        assert "RunsAsRoot" not in names(f"FROM x:1{DIGEST}\nCMD {cmd}\n")
        assert "RunsAsRoot" not in names(f'FROM x:1{DIGEST}\nENTRYPOINT ["entrypoint.sh"]\nCMD {cmd}\n')

    def test_a_shell_is_no_program(self) -> None:
        """A base image, or one to type into."""
        assert "RunsAsRoot" not in names(f"FROM x:1{DIGEST}\nRUN a\n", Cmd=["/bin/bash"])
        assert "RunsAsRoot" not in names('FROM scratch\nADD rootfs.tar.xz /\nCMD ["bash"]\n')
        assert "RunsAsRoot" in names(f'FROM x:1{DIGEST}\nENTRYPOINT ["a"]\n', Cmd=["/bin/bash"])
        assert "RunsAsRoot" in names(f'FROM x:1{DIGEST}\nCMD ["sh", "start.sh"]\n')

    @pytest.mark.parametrize(
        "text",
        [
            "ENV GOSU_VERSION=1.17",
            "RUN gosu nobody true",
            "RUN apk add --no-cache su-exec",
            "COPY --from=g /gosu /bin/",
        ],
    )
    def test_entry_points_that_step_down(self, text: str) -> None:
        assert "RunsAsRoot" not in names(f'FROM x:1{DIGEST}\n{text}\nENTRYPOINT ["start"]\n')

    def test_a_base_that_steps_down(self) -> None:
        assert names(f"FROM x:1{DIGEST}\n", Entrypoint=["start"], Env=["GOSU_VERSION=1.17"]) == set()

    def test_only_what_is_shipped(self) -> None:
        assert "RunsAsRoot" not in names(f'FROM x:1{DIGEST} AS b\nCMD ["a"]\nFROM x:1{DIGEST}\nUSER a\nCMD ["b"]\n')

    def test_an_unknown_base_is_not_judged(self) -> None:
        findings = run_checks(parse(f'FROM x:1{DIGEST}\nCMD ["a"]\n'), CheckOptions(), OWN)
        assert findings == ()


BASE = f"FROM x:1{DIGEST}\n"


class TestPackages:
    """AptListsLeft, AptUpdateAlone, PackageCacheLeft, CacheMountUseful, PipeHidesFailure."""

    @pytest.mark.parametrize(
        "run",
        [
            "apt-get update && apt-get install -y curl && rm -rf /var/lib/apt/lists/*",
            "apt-get update; apt-get install -y --no-install-recommends curl; rm -rf /var/lib/apt/lists/* /tmp/*",
            "--mount=type=cache,target=/var/lib/apt,sharing=locked apt-get update && apt-get install -y curl",
            "set -eux; \\\n  apt-get update; \\\n  apt-get install -y curl; \\\n  rm -rf /var/lib/apt/lists/*",
            "echo apt-get update",
            "apk add --no-cache curl",
            "apk --no-cache add curl",
            "apk add --update --no-cache --virtual .deps gcc",
            "apk add curl && rm -rf /var/cache/apk/*",
            "dnf install -y curl && dnf clean all",
            "microdnf install curl && microdnf clean all",
            "yum -y install curl && yum clean all && rm -rf /var/cache/yum",
            "pip install --no-cache-dir -r requirements.txt",
            "pip --no-cache-dir install x",
            "python -m pip install --no-cache-dir x",
            "--mount=type=cache,target=/root/.cache/pip pip install x",
            "--mount=type=cache,target=/root/.npm npm ci",
            "npm run build",
            "go test ./...",
            "go version && cargo --version",
            "curl -fsSLO https://example.com/x && sh x",
            "curl -fsSL https://example.com/x || true",
            "set -o pipefail && curl x | sh",
            "cat list | sort",
            "pip list",
            "mvn --version",
            "apt-get update && apt-get -t backports install -y x && rm -rf /var/lib/apt/lists/*",
            "apt-get update && apt-get -o Dpkg::Use-Pty=0 install -y x && rm -rf /var/lib/{apt,dpkg,cache}/",
            "apt-get update && apt-get install -y x && apt-get dist-clean",
            "apt-get update && apt-get install -y x && rm -f /var/lib/apt/lists/*_*",
            "apk add --no-network --virtual .run $deps",
            "apk add curl && rm -rf /var/cache/*",
            "dnf -y install --installroot /mnt x && dnf --installroot /mnt clean all",
            "pip install --no-cache x",
            "pip install x && rm -rf ~/.cache",
            "pip install x && pip cache purge",
            "composer install --no-cache",
            "curl x | tar -xz -C /opt",
            "wget -qO- x | tar --strip-components=1 -xJf -",
            "curl x | gpg --dearmor -o /k",
            "<<END\ncat > /etc/x <<CONF\npip install x\nCONF\nEND",
            "<<END\n#!/usr/bin/env python3\nsudo = apt\napk add x\nEND",
            "cat <<END > /x\napk add x\nEND",
        ],
    )
    def test_quiet(self, run: str) -> None:
        assert names(f"{BASE}RUN {run}\n") == set()

    @pytest.mark.parametrize(
        ("run", "rule"),
        [
            ("apt-get update && apt-get install -y curl", "AptListsLeft"),
            ("apt update && apt install -y curl && rm -rf /tmp/x", "AptListsLeft"),
            ("<<END\napt-get update\napt-get install -y curl\nEND", "AptListsLeft"),
            ("apt-get update", "AptUpdateAlone"),
            ("apt-get update && apt-get clean", "AptUpdateAlone"),
            ("apt-get -qq update && rm -rf /tmp", "AptUpdateAlone"),
            ("apk add curl", "PackageCacheLeft"),
            ("apk update && apk add curl", "PackageCacheLeft"),
            ("dnf -y install curl", "PackageCacheLeft"),
            ("zypper in curl", "PackageCacheLeft"),
            ("pip install x", "PackageCacheLeft"),
            ("pip3 install -U pip && echo done", "PackageCacheLeft"),
            ("python3 -m pip install x", "PackageCacheLeft"),
            ('["pip", "install", "x"]', "PackageCacheLeft"),
            ('["sh", "-c", "apk add curl"]', "PackageCacheLeft"),
            ("npm ci", "CacheMountUseful"),
            ("cd app && yarn", "CacheMountUseful"),
            ("go mod download", "CacheMountUseful"),
            ("CGO_ENABLED=0 GOOS=linux go build -o /app .", "CacheMountUseful"),
            ("cargo build --release", "CacheMountUseful"),
            ("./mvnw package", "CacheMountUseful"),
            ("composer install", "CacheMountUseful"),
            ("if true; then npm install; fi", "CacheMountUseful"),
            ("curl x | sh", "PipeHidesFailure"),
            ("wget -qO- x | tar x", "PipeHidesFailure"),
            ("curl x 2>&1 | bash -s -- y", "PipeHidesFailure"),
            ("apt-get -o Acquire::Retries=3 update && apt-get install -y curl", "AptListsLeft"),
            ("apk update && apk add --no-cache curl", "PackageCacheLeft"),
            ("dnf -y upgrade", "PackageCacheLeft"),
            ("bash -e <<END\napk add curl\nEND", "PackageCacheLeft"),
            ("<<END\n#!/bin/sh -e\napk add curl\nEND", "PackageCacheLeft"),
        ],
    )
    def test_found(self, run: str, rule: str) -> None:
        assert rule in names(f"{BASE}RUN {run}\n")

    def test_stages_that_are_not_shipped_may_be_dirty(self) -> None:
        install = "RUN apt-get update && apt-get install -y gcc\nRUN apk add gcc\n"
        text = f"FROM x:1{DIGEST} AS b\n{install}FROM scratch\nCOPY --from=b /a /a\n"

        assert names(text) == set()

    def test_the_environment_may_say_it(self) -> None:
        assert names(f"{BASE}ENV PIP_NO_CACHE_DIR=1\nRUN pip install x\n") == set()

    @pytest.mark.parametrize("value", ["1", "off", "false"])
    def test_pip_takes_every_value_for_yes(self, value: str) -> None:
        assert names(f"{BASE}ENV PIP_NO_CACHE_DIR={value}\nRUN pip install x\n") == set()

    def test_one_remedy_for_update_alone(self) -> None:
        """To remove the lists would make the next step fail."""
        assert names(f"{BASE}RUN apt-get update\n") == {"AptUpdateAlone"}

    def test_one_tool_is_said_once(self) -> None:
        """What an earlier step downloaded lies in its layer."""
        text = f"FROM x:1{DIGEST} AS b\nRUN go mod download\nFROM b\nRUN go build\nRUN npm ci\n"
        assert found(text) == [(2, "CacheMountUseful"), (5, "CacheMountUseful")]

    def test_pip_where_its_cache_is_not_shipped(self) -> None:
        text = f"FROM x:1{DIGEST} AS b\nRUN pip install x\nFROM scratch\nCOPY --from=b /a /a\n"
        assert names(text) == {"CacheMountUseful"}

    def test_the_cache_of_other_users(self) -> None:
        options = CheckOptions(platform=AMD64, build_platform=AMD64)
        (hit,) = run_checks(parse(f"{BASE}USER node\nRUN npm ci\n"), options, OWN)
        assert "target=/home/node/.npm,uid=..." in hit.message

    def test_pipefail_of_the_stage_below(self) -> None:
        shell = 'SHELL ["/bin/bash", "-o", "pipefail", "-c"]'
        assert names(f"FROM x:1{DIGEST} AS a\n{shell}\nFROM a\nRUN curl x | sh\n") == set()

    def test_pipefail_for_alpine(self) -> None:
        """It has no bash."""
        (hit,) = run_checks(parse(f"FROM alpine:3{DIGEST}\nRUN wget x | sh\n"), CheckOptions(), OWN)
        assert '["/bin/ash"' in hit.message

    def test_pipefail_by_shell(self) -> None:
        shell = 'SHELL ["/bin/bash", "-eo", "pipefail", "-c"]\n'
        assert names(f"{BASE}{shell}RUN curl x | sh\n") == set()


class TestLayers:
    """SeveralRuns, SudoInRun, HealthcheckMissing."""

    def test_three_in_a_row(self) -> None:
        assert (2, "SeveralRuns") in found(f"{BASE}RUN a\nRUN b\nRUN c\n")

    @pytest.mark.parametrize(
        "text",
        [
            "RUN a\nRUN b\nWORKDIR /x\nRUN c",
            "RUN a\nRUN --mount=type=cache,target=/c b\nRUN c",
            "RUN a\nRUN <<E\nb\nE\nRUN c",
            "RUN a\nRUN --network=none b\nRUN c\nRUN d",
            "RUN a\nRUN a && b && c && d\nRUN c",
        ],
    )
    def test_not_a_row(self, text: str) -> None:
        assert "SeveralRuns" not in names(f"{BASE}{text}\n")

    def test_other_stages_may(self) -> None:
        assert names(f"FROM x:1{DIGEST} AS b\nRUN a\nRUN b\nRUN c\nFROM scratch\nCOPY --from=b /a /a\n") == set()

    def test_sudo(self) -> None:
        assert names(f"{BASE}RUN a && sudo -E b\n") == {"SudoInRun"}
        assert names(f"{BASE}RUN apt-get install -y sudo && rm -rf /var/lib/apt/lists\n") == set()

    def test_health(self) -> None:
        assert "HealthcheckMissing" in names(f"{BASE}EXPOSE 80\n")
        assert "HealthcheckMissing" not in names(f"{BASE}EXPOSE 80\nHEALTHCHECK NONE\n")
        assert "HealthcheckMissing" not in names(f"{BASE}EXPOSE 80\n", Healthcheck={"Test": ["CMD", "x"]})
        assert "HealthcheckMissing" not in names(f"{BASE}RUN x\n")


class TestContext:
    """CredentialsCopied, ContextTooBroad, DependenciesNotFirst, AddCouldBeCopy."""

    @pytest.mark.parametrize(
        "name", [".env", "conf/.netrc", "id_rsa", "keys/server-key.pem", "privkey.pem", "store.p12", "tls/server.key"]
    )
    def test_credentials(self, name: str) -> None:
        assert "CredentialsCopied" in names(f"{BASE}COPY {name} /x\n")

    @pytest.mark.parametrize(
        "name",
        [
            ".env.example",
            "id_rsa.pub",
            "ca.pem",
            "key.py",
            "credentials/",
            "src/keys.go",
            ".npmrc",
            "apt.key",
            "public.key",
        ],
    )
    def test_no_credentials(self, name: str) -> None:
        assert "CredentialsCopied" not in names(f"{BASE}COPY {name} /x/\n")

    def test_credentials_in_a_directory_of_that_name(self) -> None:
        assert "CredentialsCopied" not in names(f"{BASE}COPY credentials /x\n", context="credentials/ a")
        assert "CredentialsCopied" in names(f"{BASE}COPY credentials /x\n", context="credentials a")

    def test_credentials_in_a_stage_that_is_not_shipped(self) -> None:
        text = f"FROM x:1{DIGEST} AS b\nCOPY id_rsa /k\nFROM scratch\nCOPY --from=b /a /a\n"
        (hit,) = run_checks(parse(text), CheckOptions(), OWN)
        assert "in the build cache" in hit.message

    def test_credentials_of_another_stage(self) -> None:
        assert names(f"FROM x:1{DIGEST} AS b\nFROM scratch\nCOPY --from=b /.env /x\n") == set()

    def test_broad(self) -> None:
        there = ".git/ .env node_modules/ src/"
        assert "ContextTooBroad" in names(f"{BASE}COPY . /app\n", context=there)
        assert "ContextTooBroad" in names(f"{BASE}ADD ./ /app\n", context=there, ignore=".git\n")
        assert "ContextTooBroad" not in names(
            f"{BASE}COPY . /app\n", context=there, ignore=".git\n.env\nnode_modules\n"
        )
        assert "ContextTooBroad" not in names(f"{BASE}COPY src /app\n", context=there)
        assert "ContextTooBroad" in names(f"{BASE}COPY . /app\n", context="Cargo.toml target/")
        assert "ContextTooBroad" not in names(f"{BASE}COPY . /app\n", context="target/")
        assert "ContextTooBroad" in names(f"{BASE}COPY . /app\n", context=".env.local")
        assert "ContextTooBroad" not in names(f"{BASE}COPY . /app\n", context="src/ Makefile")
        assert "ContextTooBroad" not in names(f"{BASE}COPY . /app\n")

    @pytest.mark.parametrize(
        "text",
        [
            "COPY . .\nRUN npm ci",
            "COPY ./ /app\nRUN make\nRUN pip install --no-cache-dir -r requirements.txt",
            "COPY . .\nRUN go mod download && go build",
            "COPY src/ src/\nCOPY . .\nRUN bundle install",
            "COPY requirements.txt .\nCOPY . .\nRUN pip install --no-cache-dir -r requirements.txt",
            "COPY . .\nRUN python3 -m pip install -r requirements.txt",
            "COPY . .\nRUN go build -o /app .",
            "COPY . .\nRUN cargo install --path .",
            "COPY . .\nRUN mvn -B package",
            "COPY . .\nRUN ./gradlew build",
        ],
    )
    def test_everything_first(self, text: str) -> None:
        assert "DependenciesNotFirst" in names(f"{BASE}{text}\n")

    @pytest.mark.parametrize(
        "text",
        [
            "COPY package.json package-lock.json ./\nRUN npm ci\nCOPY . .",
            "COPY package*.json ./\nRUN npm ci\nCOPY . .\nRUN npm ci --omit=dev",
            "COPY requirements.txt .\nRUN ./install.sh\nCOPY . .\nRUN pip install --no-cache-dir -r requirements.txt",
            "COPY . .\nRUN npm install -g serve",
            "COPY . .\nRUN npm install express",
            "COPY . .\nRUN pip install --no-cache-dir .",
            "COPY . .\nRUN npm run build",
            "COPY go.* ./\nRUN go mod download\nCOPY . .\nRUN go mod download",
            "COPY . .\nRUN --mount=type=cache,target=/root/.m2 mvn package",
            "COPY . .\nRUN go install example.com/tool@v1",
            "COPY . .\nRUN cargo --version && cargo install ripgrep",
            "RUN --mount=type=bind,source=uv.lock,target=uv.lock uv sync --no-install-project\nCOPY . .\nRUN uv sync",
            "COPY . .\nRUN cargo chef prepare --recipe-path recipe.json",
            "COPY --from=plan /recipe.json .\nRUN cargo chef cook\nCOPY . .\nRUN cargo build",
            "COPY requirements /requirements\nRUN make deps\nCOPY . .\nRUN pip install -r requirements/a.txt",
        ],
    )
    def test_in_good_order(self, text: str) -> None:
        assert "DependenciesNotFirst" not in names(f"{BASE}{text}\n")

    def test_go_without_other_modules(self) -> None:
        """Without go.sum there is nothing to fetch."""
        text = f"{BASE}COPY . .\nRUN go build\n"
        assert "DependenciesNotFirst" not in names(text, context="go.mod main.go")
        assert "DependenciesNotFirst" in names(text, context="go.mod go.sum main.go")

    def test_the_stage_below_has_installed(self) -> None:
        text = f"FROM x:1{DIGEST} AS a\nCOPY go.mod .\nRUN go mod download\nFROM a\nCOPY . .\nRUN go build\n"
        assert "DependenciesNotFirst" not in names(text)

    def test_add(self) -> None:
        assert "AddCouldBeCopy" in names(f"{BASE}ADD a b /x/\n")
        for source in (
            "https://example.com/x",
            "git@example.com:a/b.git",
            "a.tar.gz",
            "rootfs.tar",
            "*.x",
            "--unpack=true a",
        ):
            assert "AddCouldBeCopy" not in names(f"{BASE}ADD {source} /x/\n"), source


class TestShell:
    """The commands of a RUN."""

    @pytest.mark.parametrize(
        ("text", "wanted"),
        [
            ("a b && c || d; e | f & g", [("a", "b"), ("c",), ("d",), ("e",), ("f",), ("g",)]),
            ("A=1 B='x y' sudo -E env C=2 a \"b c\"", [("a", "b c")]),
            ("if [ -f x ]; then a; else b; fi", [("[", "-f", "x", "]"), ("a",), ("b",)]),
            ("(cd x && make) # comment; rm", [("cd", "x"), ("make",)]),
            ("echo 'a && b' \"c; d\" e\\ f", [("echo", "a && b", "c; d", "e f")]),
            ("a $(b c) `d`", [("a",), ("b", "c"), ("d",)]),
            ("a \\\n  b\nc", [("a", "b"), ("c",)]),
            ("echo a#b", [("echo", "a#b")]),
            ("'unclosed && x", [("unclosed && x",)]),
            ("a >x 2>&1 b 2> y <z &>w c", [("a", "b", "c")]),
            ("a <<< 'b' && c >&2", [("a",), ("c",)]),
            ("cat > f <<E\na b\nE\nc", [("cat",), ("c",)]),
            ("cat <<-'E' <<F | b\nx\n\tE\nE\nF\nc", [("cat",), ("b",), ("c",)]),
            ("cat <<E\nnever closed", [("cat",)]),
            ("a $((1 << 2)) \\\nb\nc", [("a", "$((1 << 2))", "b"), ("c",)]),
            ("", []),
        ],
    )
    def test_commands(self, text: str, wanted: list[tuple[str, ...]]) -> None:
        assert [command.words for command in commands(text)] == wanted

    @given(st.text(alphabet="ab '\"\\$()`;&|\n#={}!", max_size=60))
    def test_any_text(self, text: str) -> None:
        """Never raises; no command is empty."""
        assert all(command.words for command in commands(text))

    @pytest.mark.parametrize(
        "unit",
        ["'", '"', "\\", "$(", "`", "a=", "sudo ", "#", "\\\n", "&& ", '"\\', "<<A\n", "<<A ", "<<'A", "$((", ">", "$"],
    )
    def test_long_texts_are_quick(self, unit: str) -> None:
        """Linear: 1 MB of anything."""
        for _ in commands(unit * (1_000_000 // len(unit))):
            pass
