"""The parser against the official Go parser (PyPI `dockerfile`), and against noise."""

import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lamina.dockerfile.parser import parse
from lamina.errors import InputError
from support.official import compare_all, judge_is_current

BODIES = {
    "RUN": [
        "make all",
        "--mount=type=cache,target=/x --network=none make",
        '--mount="type=bind,target=/a b" make',
        "-- --x",
        '["a", "b c"]',
        "[ -f x ] && y",
        "['a']",
        '["a", "\\u00e9\\n"]',
        "echo '<<EOF' \"<<EOF\"",
        "cat <<<word",
        "a && \\\n  b",
        "a \\\n# comment\n\n  && b",
        "echo \\\\\\\\",
        "<<EOF\na\n  b\n# c\nEOF",
        "<<-EOF\n\ta\n\tEOF",
        "<<'EOF' cat\n$a\nEOF",
        'cat <<"A" 3<<-B > /x\n1\nA\n\t2\n\tB',
        "<<EOF bash -e\nx\nEOF",
        "x \\\n <<EOF\n y\nEOF",
        "é \t ü",
    ],
    "COPY": [
        "a b",
        "--from=x --chown=1:2 --link a b/ c/",
        '["a b", "c"]',
        "--exclude='*.x y' --exclude=z a b",
        "<<EOF /x\nhi\nEOF",
        "<<A b <<-'B' /d/\n1\nA\n\t2\n\tB",
        "a\\ b c",
        "  a \t b  ",
    ],
    "ADD": ["https://a/b /c", "--checksum=sha256:1 --unpack=false a b", "<<E /x\n$a\nE"],
    "ENV": [
        "a=b",
        "a b  c",
        "a='x y' b=\"z 'q'\" c=d\\ e",
        "a=$b\\\n c=d",
        'a="x \\" y" b=',
        "a='x",
        "a=b\\",
        "k \t v",
    ],
    "LABEL": ["a=b", '"a b"=c d="e f"', "a b", 'a.b-c="x\\\n y"'],
    "ARG": ["a", "a=b c", "a='x y' b", 'a="" b='],
    "CMD": ["a b", '["a","b"]', "[]", "", "[a]", '["a", ]', '[ "a" ]  ', "[NaN]"],
    "ENTRYPOINT": ['["a"]', "a $b", ""],
    "EXPOSE": ["80", "80/tcp 90-95  7/udp", "$p"],
    "VOLUME": ["/a", "/a /b", '["/a b"]'],
    "WORKDIR": ["/a", "a b", "$x/y"],
    "USER": ["u", "u:g", "$u"],
    "STOPSIGNAL": ["SIGTERM", "9"],
    "SHELL": ['["/bin/sh", "-c"]'],
    "MAINTAINER": ["a b <c>"],
    "HEALTHCHECK": ["NONE", "CMD a b", '--interval=1s --retries=2 CMD ["a"]', "cmd   x"],
    "ONBUILD": ["RUN a", "copy --link a b", "RUN <<E\nx\nE", 'CMD ["a"]', "ENV a=b"],
    "FROM": ["a", "a:1 AS b", "--platform=linux/arm64 a@sha256:x as C", "scratch"],
}
BETWEEN = ["", "", "\n", "# comment\n", "  # indented\n", "\n\n", "#\n"]
HEADS = ["", "", "# syntax=docker/dockerfile:1\n", "# escape=\\\n", "# hello\n# escape=`\n", "\n", "ARG v=1\n"]


def generate(seed: int) -> str:
    """One Dockerfile, the same for the same seed."""
    dice = random.Random(seed)
    parts = [dice.choice(HEADS), "FROM base\n"]
    for _ in range(dice.randint(1, 12)):
        keyword = dice.choice(list(BODIES))
        written = dice.choice([keyword, keyword, keyword, keyword.lower(), keyword.title()])
        gap = dice.choice([" ", " ", "  ", "\t", " \\\n  "])
        parts.append(dice.choice(BETWEEN) + dice.choice(["", "", " ", "\t"]) + written + gap)
        parts.append(dice.choice(BODIES[keyword]) + "\n")
    text = "".join(parts)
    return text.replace("\n", "\r\n") if dice.random() < 0.1 else text


@pytest.mark.parametrize("block", range(10))
def test_same_as_the_official_parser(block):
    """A corpus of Dockerfiles that must be taken, and taken alike: keyword, flags, values, lines, here-documents."""
    taken = sum(compare_all(generate(seed)) for seed in range(block * 100, block * 100 + 100))

    assert taken > 60  # the others hold a body that is wrong for its instruction


FRAGMENTS = [
    "FROM a\n", "RUN ", "COPY ", "ENV ", "LABEL ", "CMD ", "ONBUILD ", "ARG ", "HEALTHCHECK ", "a", "b=c",
    " ", "\t", "\n", "\\\n", "\\", "'", '"', "<<", "<<-", "<<A\n", "A\n", "#", "# x\n", "[", "]", ",", '"a"',
    "$", "${a", "}", "--", "--x=y ", "--mount=", "CMD", "é", "\r\n", "=", "-", "<", "1<<B\nB\n", "\n\n",
    "# escape=`\n", "`", "`\n",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join))
@example("# escape=`\nFROM a\nRUN a `\n b\n")
@example("FROM a\nCOPY <<A <<B /x/\nA\nB\n")
def test_noise_made_of_the_language(noise):
    """Where the official parser takes a text, and we do, both say the same; where it does not, nor do we."""
    if judge_is_current(noise):
        compare_all("FROM base\n" + noise)
        compare_all(noise)


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.binary(max_size=400), st.text(max_size=400)))
def test_any_bytes_give_a_value_or_an_input_error(noise):
    """Nothing else comes out, and the error points into the file."""
    data = noise if isinstance(noise, bytes) else noise.encode("utf-8", "surrogatepass")
    for text in (data, b"FROM a\nRUN " + data, b"FROM a\nCOPY <<A /x\n" + data + b"\nA\n", b"FROM a\n" + data):
        try:
            parse(text)
        except InputError as error:
            assert error.diagnostics()


HOSTILE = {
    "quotes": "FROM a\nENV a=" + "'\"" * 200_000,
    "escapes": "FROM a\nRUN " + "\\" * 500_000,
    "continuations": "FROM a\nRUN " + "\\\n" * 300_000,
    "continued blanks": "FROM a\nRUN " + "\\ " * 300_000,
    "empty continued": "FROM a\nRUN a \\" + "\n" * 300_000,
    "comments": "# a\n" * 200_000,
    "brackets": "FROM a\nCMD " + "[" * 300_000,
    "nested JSON": "FROM a\nCMD " + "[" * 300_000 + "]" * 300_000,
    "less-than": "FROM a\nRUN " + "<" * 300_000,
    "marks": "FROM a\nRUN " + "<<A " * 100_000,
    "heredoc lines": "FROM a\nRUN <<A\n" + "B\n" * 500_000,
    "digits": "FROM a\nRUN " + "1" * 100_000 + "<<A\nA\n",
    "braces": "FROM a\nRUN <<" + "${" * 100_000,
    "flags": "FROM a\nRUN " + "--mount=target=/x " * 50_000 + "a",
    "mount keys": "FROM a\nRUN --mount=" + "target=/x," * 50_000 + "ro a",
    "mount quotes": "FROM a\nRUN --mount=" + '\\"' * 200_000 + " a",
    "duration": "FROM a\nHEALTHCHECK --interval=" + "1h" * 100_000 + " CMD a",
    "retries": "FROM a\nHEALTHCHECK --retries=" + "1" * 100_000 + " CMD a",
    "keyword": "FROM a\n" + "x" * 500_000,
    "stages": "FROM a\n" * 20_000,
    "words": "FROM a\nEXPOSE " + "1 " * 300_000,
    "directive": "#" + "a" * 300_000 + "=" + " " * 300_000,
    "directive blanks": "# escape =" + " " * 300_000 + "x",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_shapes_end_soon(text):
    """Half a megabyte of anything is read in about linear time; a quadratic step would run into the time limit."""
    try:
        parse(text)
    except InputError:
        pass
