"""Quotes, escapes and variables in words, as the Dockerfile reference and BuildKit read them."""

import pytest

from lamina.dockerfile import words
from lamina.dockerfile.words import Words
from lamina.errors import InputError, SourceRange

ENV = {"a": "x", "empty": "", "home": "/root", "path": "/usr/local/bin", "two": "one two", "file": "app.tar.gz"}

PLAIN = {
    "no variable": ("plain", "plain"),
    "name": ("$a", "x"),
    "braces": ("${a}b", "xb"),
    "unset is empty": ("<$no>", "<>"),
    "dollar alone": ("a$ b$", "a$ b$"),
    "escaped dollar": (r"\$a", "$a"),
    "escape drops itself": (r"a\bc\\", "abc\\"),
    "escape at the end": ("ab\\", "ab"),
    "single quotes keep everything": (r"'$a\'", r"$a" + "\\"),
    "double quotes expand": ('"$a b"', "x b"),
    "double quotes keep other escapes": (r'"\a\$a\""', r'\a$a"'),
    "escape at the end of double quotes": ('"a\\\\"', "a\\"),
    "digits are a name": ("$12ab", "ab"),
    "special names are single": ("$@@", "@"),
    "letters of any script": ("${straße:-y}", "y"),
    "name ends at a dash": ("$a-b", "x-b"),
}

MODIFIERS = {
    ":- unset": ("${no:-w}", "w"),
    ":- empty": ("${empty:-w}", "w"),
    ":- set": ("${a:-w}", "x"),
    "- empty counts as set": ("${empty-w}", ""),
    "- unset": ("${no-w}", "w"),
    ":+ set": ("${a:+w}", "w"),
    ":+ empty": ("${empty:+w}", ""),
    "+ empty counts as set": ("${empty+w}", "w"),
    "+ unset": ("${no+w}", ""),
    ":? set": ("${a:?gone}", "x"),
    "? empty counts as set": ("${empty?gone}", ""),
    "nested": ("${no:-${a:+${home}}/y}", "/root/y"),
    "quotes inside": ("${no:-'} \"'}", '} "'),
    "# shortest": ("${path#*/}", "usr/local/bin"),
    "## longest": ("${path##*/}", "bin"),
    "% shortest": ("${file%.*}", "app.tar"),
    "%% longest": ("${file%%.*}", "app"),
    "# without match": ("${file#zzz}", "app.tar.gz"),
    "question mark": ("${file#???}", ".tar.gz"),
    "escaped star is a star": (r"${no:-x}${file#\*}", "xapp.tar.gz"),
    "pattern from a variable": ("${path#$empty/usr}", "/local/bin"),
    "/ first": ("${path/\\//_}", "_usr/local/bin"),
    "// every": ("${path//\\//_}", "_usr_local_bin"),
    "/ longest": ("${path/\\/*\\//_}", "_bin"),
    "// with nothing": ("${file//.}", None),
    "// removes": ("${file//./}", "apptargz"),
    "// no empty match after a match": ("${a//*/y}", "y"),
    "// dollar is a dollar": ("${a//x/\\$1}", "\\$1"),
}


@pytest.mark.parametrize(("text", "expected"), [*PLAIN.values(), *MODIFIERS.values()], ids=[*PLAIN, *MODIFIERS])
def test_word(text, expected):
    """A1.7 to A1.10: every form, one word out."""
    if expected is None:
        with pytest.raises(InputError):
            Words().word(text, ENV)
        return

    assert Words().word(text, ENV).text == expected


SPLIT = {
    "at blanks": ("a  b\tc", ("a", "b", "c")),
    "quoted blanks stay": ('a" b "c', ("a b c",)),
    "escaped blank stays": (r"a\ b", ("a b",)),
    "values are split": ("$two", ("one", "two")),
    "quoted values are not": ('"$two"', ("one two",)),
    "values join what stands beside": ("x$two-y", ("xone", "two-y")),
    "empty words are dropped": ("'' a \"\"", ("a",)),
    "what precedes a default is kept": ("80${no:-80}", ("8080",)),
    "a separator byte is no blank": ("a\x1cb", ("a\x1cb",)),
}


@pytest.mark.parametrize(("text", "expected"), SPLIT.values(), ids=SPLIT)
def test_split(text, expected):
    """EXPOSE and its like: words after expansion."""
    assert Words().word(text, ENV).words == expected


WRONG = {
    "open brace": ("${a", "'}' is missing"),
    "open brace with default": ("${a:-x", "'}' is missing"),
    "no name": ("${}", "a name is missing"),
    "brace in brace": ("${{a}", "a name is missing"),
    "assignment": ("${a:=x}", "unsupported modifier (:=)"),
    "colon and hash": ("${a:#x}", "unsupported modifier (:#)"),
    "slash without second": ("${a/x}", "'/' is missing"),
    "single quote": ("'a", "single quote is not closed"),
    "double quote": ('"a', "double quote is not closed"),
    "pattern escape": (r"${a#\b}", "bad escape"),
    "demanded, unset": ("${no:?say who}", "no: say who"),
    "demanded, empty": ("${empty:?}", "empty: it must not be empty"),
    "demanded, unset, no words": ("${no?}", "no: it must be set"),
    "demanded inside an unused default": ("${a:-${no:?gone}}", "no: gone"),
    "nested too deep": ("${a:-" * 100 + "}" * 100, "nested more than"),
}


@pytest.mark.parametrize(("text", "expected"), WRONG.values(), ids=WRONG)
def test_wrong_words_are_explained(text, expected):
    """The message says what is wrong, and the lines are those of the instruction."""
    source = SourceRange("Dockerfile", 3)

    with pytest.raises(InputError) as caught:
        Words().word(text, ENV, source)

    assert expected in str(caught.value)
    assert caught.value.source == source


def test_names_are_reported():
    """Checks want to know which variables were read, found or not."""
    expansion = Words().word("$a ${no:-$home} ${empty}", ENV)

    assert expansion.used == {"a", "home", "empty"}
    assert expansion.missing == {"no"}


def test_backtick_escapes():
    """With `# escape=` a backslash is an ordinary character."""
    expansion = Words("`").word(r"C:\app\`$a `", ENV)

    assert expansion.text == r"C:\app\$a "


def test_document_keeps_quotes():
    """In a here-document quotes stand for themselves; variables and backslashes do not."""
    expansion = Words().document("echo '$a' \"$two\" \\$a it's", ENV)

    assert expansion.text == "echo 'x' \"one two\" $a it's"


def test_doubling_ends_with_an_error():
    """`ENV a=$a$a` repeated is stopped before it fills the memory."""
    env = {"a": "x" * 1000}

    with pytest.raises(InputError, match="expands to more than"):
        for _ in range(40):
            env["a"] = Words().word("$a$a", env).text
    assert len(env["a"]) <= words.MAX_EXPANDED


def test_total_is_bounded(monkeypatch):
    """Many words below the cap are too much together."""
    monkeypatch.setattr(words, "MAX_TOTAL", 5000)
    lexer = Words()

    with pytest.raises(InputError, match="expand to more than"):
        for _ in range(100):
            lexer.word("$a", {"a": "x" * 1000})


def test_replacement_is_bounded():
    """`${v//x/yyyy}` cannot multiply without end."""
    with pytest.raises(InputError, match="gives more than"):
        Words().word("${v//x/$v}", {"v": "x" * 5000})
