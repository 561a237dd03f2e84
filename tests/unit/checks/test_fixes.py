"""What `--fix` makes of each rule's findings, and what it leaves alone (F1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from lamina.checks.fixing import MAX_ROUNDS, fix_all, unified_diff
from lamina.checks.run import run_checks
from lamina.checks.values import Edit, Finding, Fix, Rule
from lamina.checks.view import CheckOptions
from lamina.dockerfile.parser import parse
from lamina.errors import SourceRange
from lamina.oci.platform import Platform

AMD64 = Platform("linux", "amd64")
CONFIGS: dict[str, Mapping[str, Any]] = {
    "plain": {"config": {"WorkingDir": "/srv"}},
    "with-entrypoint": {"config": {"Entrypoint": ["/init"]}},
    "with-shell": {"config": {"Shell": ["/bin/bash", "-c"]}},
}


def findings(data: bytes) -> tuple[Finding, ...]:
    options = CheckOptions(
        platform=AMD64, build_platform=AMD64, base_config=lambda name, _platform: CONFIGS.get(name.partition(":")[0])
    )
    return run_checks(parse(data), options)


def mended(text: str) -> str:
    return fix_all(text.encode(), findings, lambda _one, _other, _config: True).data.decode()


MENDED = {
    "AS as FROM": ("FROM a As b\nfrom a AS c\n", "FROM a AS b\nFROM a AS c\n"),
    "as as from": ("from a AS b\nrun x\n", "from a as b\nrun x\n"),
    "a stage's name, and who mentions it": (
        "FROM a AS Build\nFROM Build AS two\nCOPY --from=BUILD --link /x /y\nCOPY --from=two /x /y\n"
        "RUN --mount=type=bind,from=Build,target=/b --mount=from=build,target=/c ls Build\n",
        "FROM a AS build\nFROM build AS two\nCOPY --from=build --link /x /y\nCOPY --from=two /x /y\n"
        "RUN --mount=type=bind,from=build,target=/b --mount=from=build,target=/c ls Build\n",
    ),
    "an image of the same name as its stage": ("FROM Build:1 AS Build\n", "FROM Build:1 AS build\n"),
    "keywords": ("FROM a\nrun run\nRUN y\nCopy a \\\n b\n", "FROM a\nRUN run\nRUN y\nCOPY a \\\n b\n"),
    "the keyword only": ("FROM a\nonbuild run x\n", "FROM a\nONBUILD run x\n"),
    "empty lines": (
        "FROM a\nRUN x \\\n\n  # c\n\n \t\n y \\\n\n z\n\nRUN <<E \\\n\n z\n\n\nE\n",
        "FROM a\nRUN x \\\n  # c\n y \\\n z\n\nRUN <<E \\\n z\n\n\nE\n",
    ),
    "MAINTAINER": (
        'FROM a\nMAINTAINER Me "I" <a\\b@c> $X\n',
        'FROM a\nLABEL org.opencontainers.image.authors="Me \\"I\\" <a\\\\b@c> \\$X"\n',
    ),
    "MAINTAINER in lower case": ("from a\nmaintainer x\n", 'from a\nlabel org.opencontainers.image.authors="x"\n'),
    "ENV": (
        "FROM a\nENV A b\nENV B  c  d $A\nLABEL l 'c  d'\nENV C a\\ b\n",
        "FROM a\nENV A=b\nENV B=\"c  d $A\"\nLABEL l='c  d'\nENV C=a\\ b\n",
    ),
    "ENV over several lines": ("FROM a\nENV A b \\\n# c\n  c\n", 'FROM a\nENV A="b \\\n# c\n  c"\n'),
    "escape=`": ("# escape=`\nFROM a\nENV A C:\\x y\n", '# escape=`\nFROM a\nENV A="C:\\x y"\n'),
    "CMD": ("FROM plain\nCMD python3  app.py --x=1\n", 'FROM plain\nCMD ["python3", "app.py", "--x=1"]\n'),
    "ENTRYPOINT with exec": ("FROM plain\nENTRYPOINT exec /app\n", 'FROM plain\nENTRYPOINT ["/app"]\n'),
    "ENTRYPOINT clears the base's": (
        "FROM with-entrypoint\nENTRYPOINT x\n",
        'FROM with-entrypoint\nENTRYPOINT ["x"]\n',
    ),
    "WORKDIR": ("FROM plain\nWORKDIR app\nWORKDIR b\n", "FROM plain\nWORKDIR /srv/app\nWORKDIR b\n"),
    "WORKDIR on scratch": ("FROM scratch\nWORKDIR ./app\n", "FROM scratch\nWORKDIR /app\n"),
    "--platform": (
        "FROM --platform=$TARGETPLATFORM a\nFROM --platform=${TARGETPLATFORM} \\\n  a\n",
        "FROM a\nFROM \\\n  a\n",
    ),
    "ports": ("FROM a\nEXPOSE 80/TCP \\\n 81/Udp 82\n", "FROM a\nEXPOSE 80/tcp \\\n 81/udp 82\n"),
    "ports of the host": ("FROM a\nEXPOSE 1.2.3.4:8080:80 8081:81/UDP\n", "FROM a\nEXPOSE 80 81/udp\n"),
    "several in one line": ("FROM --platform=$TARGETPLATFORM a As B\n", "FROM a AS b\n"),
}


@pytest.mark.parametrize(("text", "wanted"), MENDED.values(), ids=MENDED)
def test_mended(text: str, wanted: str) -> None:
    """F1: the rewrite, and that it has nothing left to do."""
    assert mended(text) == wanted
    assert mended(wanted) == wanted


LEFT_ALONE = {
    "a keyword that goes on in the next line": "FROM a\nRUN x\nru\\\nn y\n",
    "a label that says it already": "FROM a\nLABEL org.opencontainers.image.authors=x\nMAINTAINER y\n",
    "two MAINTAINERs": "FROM a\nMAINTAINER x\nMAINTAINER y\n",
    "MAINTAINER over two lines": "FROM a\nMAINTAINER x \\\n y\n",
    "a value with quotes inside": 'FROM a\nENV A b "c d"\n',
    "a value with a backslash inside": "FROM a\nENV A b\\\\ c d\n",
    "a value that begins in the next line": "FROM a\nENV A \\\n b c\n",
    "an unknown base image may have an ENTRYPOINT": "FROM other\nCMD x y\n",
    "a base image with an ENTRYPOINT": "FROM with-entrypoint\nCMD x y\n",
    "a base image with a shell of its own": "FROM with-shell\nCMD x y\n",
    "CMD and ENTRYPOINT": "FROM plain\nENTRYPOINT /x\nCMD y\n",
    "a trigger that sets ENTRYPOINT": 'FROM plain\nONBUILD ENTRYPOINT ["x"]\nCMD y\n',
    **{
        f"the shell is needed: {line}": f"FROM plain\nCMD {line}\n"
        for line in (
            *("cd /x", "x $Y", "x && y", "x | y", "x; y", "x > y", "x *.py", "x ~", "A=b x", "x 'y z'", "x \\$y"),
            *("source x", "exec -a x y", "echo hi", "x &", "x {a,b}", "`x`", "#x", "[ x ]", "x ?", "! x", "exec"),
        )
    },
    "WORKDIR on an unknown base": "FROM other\nWORKDIR app\n",
    "WORKDIR with a variable": "FROM plain\nARG a=b\nWORKDIR $a\n",
    "a port from a variable": "FROM a\nARG p=80/TCP\nEXPOSE $p 81/TCP\n",
    "ports that history would name in another order": "FROM a\nEXPOSE 80 9000:70\n",
    "a trigger, which is text in the config": "FROM a\nONBUILD ENV A b\n",
    "what is to be left alone": "FROM a\n# check=skip=LegacyKeyValueFormat\nENV A b\n",
}


@pytest.mark.parametrize("text", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_left_alone(text: str) -> None:
    """F1: where the rewrite would not be exact, or cannot be proved to be, there is none."""
    assert mended(text) == text


FAKE = Rule("Fake", "a rule", lambda _view: iter(()))


def finding(*edits: Edit, config: bool = False) -> Finding:
    return Finding(FAKE, "m", SourceRange("f", edits[0].start), fix=Fix("d", edits, config))


class TestRounds:
    """F1: how fixes are applied."""

    def test_fixes_that_touch_wait_for_the_next_round(self) -> None:
        """Only one edits a line in a round; the other is found anew in the new text."""

        def find(data: bytes) -> list[Finding]:
            line = data.decode()
            return [finding(Edit(1, 1, line.replace(old, new))) for old, new in (("a", "b"), ("c", "d")) if old in line]

        assert fix_all(b"a c", find, lambda *_: True).data == b"b d"

    def test_one_that_breaks_the_file_is_left_out(self) -> None:
        """Taken together they fail, so each is tried alone; the good ones count."""

        def find(data: bytes) -> list[Finding]:
            lines = data.decode().split("\n")
            return [finding(Edit(n, n, text.upper())) for n, text in enumerate(lines, 1) if text != text.upper()]

        fixed = fix_all(b"a\nbad\nc", find, lambda _one, other, _config: b"BAD" not in other)

        assert fixed.data == b"A\nbad\nC"
        assert len(fixed.done) == 2

    def test_two_that_are_right_alone_but_not_together(self) -> None:
        """One of them counts."""

        def find(data: bytes) -> list[Finding]:
            lines = data.decode().split("\n")
            return [finding(Edit(n, n, "x")) for n, text in enumerate(lines, 1) if text != "x"]

        assert fix_all(b"a\nb", find, lambda _one, other, _config: other != b"x\nx").data == b"x\nb"

    def test_the_proof_is_told_whether_the_config_may_change(self) -> None:
        """Only fixes that say so may change it."""
        seen = []

        def same(_one: bytes, _other: bytes, config: bool) -> bool:
            seen.append(config)
            return True

        def find(data: bytes) -> list[Finding]:
            return {b"a": [finding(Edit(1, 1, "b"))], b"b": [finding(Edit(1, 1, "c"), config=True)]}.get(data, [])

        assert fix_all(b"a", find, same).data == b"c"
        assert seen == [False, True]

    def test_fixes_that_turn_in_circles_end(self) -> None:
        """A rule that undoes another."""
        done = fix_all(b"a", lambda data: [finding(Edit(1, 1, "b" if data == b"a" else "a"))], lambda *_: True).done
        assert len(done) == MAX_ROUNDS

    def test_bytes_that_are_not_text_are_kept(self) -> None:
        """They may stand in comments and here-documents; a line that has them is never rewritten."""
        data = b"\xef\xbb\xbf# \xff\nFROM a As b\r\nRUN <<E\n\xfe\0\nE\n"

        fixed = fix_all(data, findings, lambda *_: True)

        assert fixed.data == data.replace(b"As", b"AS")
        assert fix_all(b"\xff", lambda _data: [finding(Edit(1, 1, "x"))], lambda *_: True).data == b"\xff"


def diff(old: str) -> str:
    return unified_diff("Dockerfile", old.encode(), fix_all(old.encode(), findings, lambda *_: True))


class TestDiff:
    """F1: the change as `patch` and `git apply` take it (they do, see tests/property/test_fixes.py)."""

    def test_hunks(self) -> None:
        """Three lines around; changes that are near each other share a hunk."""
        lines = ["FROM a As b", *(f"# {number}" for number in range(10)), "Run x", "RUN y", "Run z"]
        assert diff("\n".join(lines) + "\n") == (
            "--- Dockerfile\n+++ Dockerfile\n@@ -1,4 +1,4 @@\n-FROM a As b\n+FROM a AS b\n # 0\n # 1\n # 2\n"
            "@@ -9,6 +9,6 @@\n # 7\n # 8\n # 9\n-Run x\n+RUN x\n RUN y\n-Run z\n+RUN z\n"
        )

    def test_without_a_line_end_at_the_end(self) -> None:
        """Both versions are said to have none."""
        assert diff("FROM a As b").endswith(
            "-FROM a As b\n\\ No newline at end of file\n+FROM a AS b\n\\ No newline at end of file\n"
        )

    def test_nothing(self) -> None:
        """No change, no text."""
        assert diff("FROM a\n") == ""
