"""`--fix` on every Dockerfile of the corpora, and on noise: the image stays what it is (F1).

The proof that `engine.fix` demands before it takes a fix is left out here, so that what the rules propose has to be
right by itself; the judge is a conversion of both versions.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.checks.fixing import Fixed, fix_all, unified_diff
from lamina.checks.run import run_checks
from lamina.checks.values import Finding
from lamina.checks.view import CheckOptions
from lamina.dockerfile.convert import ConvertOptions, ResolvedBase, convert
from lamina.dockerfile.parser import parse
from lamina.errors import InputError
from lamina.oci.platform import Platform
from support import corpus, dockerfile_corpus
from support.git_server import needs_git

AMD64 = Platform("linux", "amd64")
BASE: Mapping[str, Any] = {
    "architecture": "amd64",
    "os": "linux",
    "config": {"Env": ["PATH=/bin", "FROM_BASE=1"], "WorkingDir": "/srv", "Cmd": ["sh"]},
}
CONVERT = ConvertOptions(platform=AMD64, build_platform=AMD64)


def taken(text: str) -> bool:
    try:
        parse(text.encode())
    except InputError:
        return False
    return True


TEXTS = {
    f"{kind}-{case.name}": case.text
    for kind, module in (("checks", corpus), ("language", dockerfile_corpus))
    for case in module.cases()
    if taken(case.text)
}


def findings(data: bytes) -> tuple[Finding, ...]:
    return run_checks(
        parse(data), CheckOptions(platform=AMD64, build_platform=AMD64, base_config=lambda _name, _platform: BASE)
    )


def mended(data: bytes) -> Fixed:
    """Everything that rules propose, without any proof."""
    return fix_all(data, findings, lambda _one, _other, _config: True)


def image(data: bytes, *, loose: bool) -> list[Any]:
    """Graph and config of every stage; or why there is none."""
    dockerfile = parse(data)
    return [stage_image(data, stage.number, loose=loose) for stage in dockerfile.stages]


def stage_image(data: bytes, number: int, *, loose: bool) -> Any:
    try:
        made = convert(
            parse(data),
            replace(CONVERT, target=str(number)),
            lambda name, _platform: ResolvedBase(name, "sha256:" + "0" * 64, BASE),
        )
    except InputError as error:
        return error.what.lower()
    config = normal(made.image_config) if loose else made.image_config
    return list(getattr(made.definition, "def")), config


def normal(config: Mapping[str, Any]) -> Any:
    """The config with its author as a label, and commands as the words that a shell would make of them."""
    inner = dict(config.get("config") or {})
    labels = dict(inner.get("Labels") or {})
    if author := config.get("author"):
        labels.setdefault("org.opencontainers.image.authors", author)
    inner["Labels"] = labels
    for name in ("Cmd", "Entrypoint"):
        shell, _, line = (inner.get(name) or ["", "", ""])[:3] if len(inner.get(name) or ()) == 3 else ("", "", "")
        if shell == "/bin/sh" and not set(line) & set("\"'\\"):
            inner[name] = line.removeprefix("exec ").split()
    return {name: value for name, value in config.items() if name not in ("history", "author")} | {"config": inner}


def check(data: bytes) -> Fixed:
    """What must hold of any file."""
    fixed = mended(data)
    loose = any(finding.fix is not None and finding.fix.config for finding in fixed.done)
    assert image(fixed.data, loose=loose) == image(data, loose=loose)
    again = mended(fixed.data)
    assert (again.data, again.done) == (fixed.data, ())
    assert not [finding for finding in findings(fixed.data) if finding.fix is not None]
    assert (fixed.data == data) is (not fixed.done)
    return fixed


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_the_image_stays_what_it_is(text: str) -> None:
    """F1: graph and config of every stage; a second time changes nothing; nothing that could be mended is left."""
    check(text.encode())


CHANGED = {name: text for name, text in TEXTS.items() if mended(text.encode()).done}

FORMS: dict[str, Callable[[bytes], bytes]] = {
    "CRLF": lambda data: data.replace(b"\n", b"\r\n"),
    "BOM": lambda data: b"\xef\xbb\xbf" + data,
    "no line end at the end": lambda data: data.rstrip(b"\n"),
    "blanks at line ends": lambda data: re.sub(rb"(?<![\\`\s])\n", b" \t\n", data),
    "indented": lambda data: re.sub(rb"(?m)^(?=[A-Z])", b"  \t", data),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_what_no_fix_names_stays_byte_for_byte(form: Callable[[bytes], bytes]) -> None:
    """F1: line ends, a byte order mark, blanks, the end of the file."""
    for text in CHANGED.values():
        data = form(text.encode())
        if not taken(data.decode()):
            continue
        fixed = check(data)
        assert fixed.data.startswith(b"\xef\xbb\xbf") is data.startswith(b"\xef\xbb\xbf")
        assert fixed.data.endswith(b"\n") is data.endswith(b"\n")
        if b"\r" in data:
            assert not re.search(rb"(?<!\r)\n", fixed.data)
        before, after = data.decode().split("\n"), [text for _, text in fixed.lines]
        named = {text.strip() for text in before} - {text.strip() for text in after}
        assert all(text in before or text.strip() not in named for text in after)


@pytest.mark.parametrize("form", [lambda data: data, FORMS["no line end at the end"]], ids=["as it is", "no end"])
def test_git_takes_the_diff(form: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """F1: the old file and the diff give the new one, by git's own judgement."""
    needs_git()
    for text in CHANGED.values():
        old = form(text.encode())
        fixed = mended(old)
        (tmp_path / "f").write_bytes(old)
        diff = unified_diff("f", old, fixed).encode("utf-8", "surrogateescape")
        done = subprocess.run(
            ["patch", "-s", "-p0", "-F0", "f"], cwd=tmp_path, input=diff, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout) == (0, b"")
        assert (tmp_path / "f").read_bytes() == fixed.data


WORDS = st.sampled_from(
    ["a", "$a", "${a:-$b}", "'", '"', '"a b"', r"a\ b", "=", "a=$b", "/x", "x/../y", "80/TCP", "1.2.3.4:80:80/Udp",
     "--from=Base", "--platform=$TARGETPLATFORM", "--mount=type=bind,from=Base,target=/x", "as", "As", "Base",
     "scratch", "<<E", '["a"]', "\\", "\\\n", "\\\n\n", "\\\n#c\n", "`", "é", "\r", "\t", "exec", "sh"]
)  # fmt: skip
KEYWORDS = st.sampled_from(
    ["FROM", "from", "From", "ARG", "Env", "ENV", "COPY", "RUN", "run", "CMD", "ENTRYPOINT", "EXPOSE", "WORKDIR",
     "LABEL", "ONBUILD", "MAINTAINER", "#", "E", "# a", ""]
)  # fmt: skip
LINES = st.builds(lambda keyword, words: " ".join([keyword, *words]), KEYWORDS, st.lists(WORDS, max_size=4))
HEADS = st.sampled_from(["", "# escape=`\n", "#syntax=x\n# a\n", "\ufeff", "ARG a=x\n"])
FILES = st.builds(
    lambda head, lines, end: "\n".join([head + "FROM --platform=$TARGETPLATFORM scratch As Base", *lines]) + end,
    *(
        HEADS,
        st.lists(LINES.filter(lambda line: taken("FROM scratch\n" + line)), max_size=8),
        st.sampled_from(["", "\n"]),
    ),
)


@settings(max_examples=400, deadline=None)
@given(FILES)
def test_noise(text: str) -> None:
    """F1: whatever parses: the same image, and nothing left to mend."""
    if taken(text):
        check(text.encode())
