"""Source policies judge as BuildKit judges (H1): order, last match, conversions, circles, attributes."""

import pytest

from lamina.policy.evaluate import evaluate
from lamina.policy.normal import normal_source
from lamina.policy.values import Constraint, Policy, PolicyError, Rule, Source, SourceDeniedError

ALPINE = Source("docker-image://docker.io/library/alpine:latest")
FILE = Source("https://example.com/file.txt", {"http.checksum": "sha256:aa"})


def policy(*rules: Rule, name: str = "policy.json") -> Policy:
    return Policy(rules, name)


def allow(pattern: str, match: str = "WILDCARD", *constraints: Constraint) -> Rule:
    return Rule("ALLOW", pattern, match, constraints)


def deny(pattern: str, match: str = "WILDCARD", *constraints: Constraint, line: int = 0) -> Rule:
    return Rule("DENY", pattern, match, constraints, line=line)


def convert(pattern: str, to: str = "", match: str = "WILDCARD", **attrs: str) -> Rule:
    given = {name.replace("_", "."): value for name, value in attrs.items()}
    return Rule("CONVERT", pattern, match, (), to, given, updates=True)


def is_denied(source: Source, *rules: Rule) -> bool:
    try:
        evaluate([policy(*rules)], source)
    except SourceDeniedError:
        return True
    return False


def test_what_no_rule_speaks_of_is_allowed():
    """H1: policies list what is special; nothing is denied by silence."""
    assert evaluate([], ALPINE) == ALPINE
    assert evaluate([policy(deny("git://*"))], ALPINE) == ALPINE


def test_the_last_rule_that_matches_decides():
    """H1: of several ALLOW and DENY in one policy the last one counts."""
    assert is_denied(ALPINE, allow("docker-image://*"), deny("docker-image://*"))
    assert not is_denied(ALPINE, deny("docker-image://*"), allow("docker-image://docker.io/*"))


def test_every_policy_has_to_agree():
    """H1: what one policy denies, a later policy cannot allow."""
    with pytest.raises(SourceDeniedError):
        evaluate([policy(deny("docker-image://*")), policy(allow("docker-image://*"))], ALPINE)


@pytest.mark.parametrize(
    ("pattern", "match", "matched"),
    [
        ("docker-image://docker.io/library/alpine:latest", "EXACT", True),
        ("docker-image://docker.io/library/alpine", "EXACT", False),
        ("docker-image://docker.io/*", "EXACT", False),
        ("docker-image://docker.io/*", "WILDCARD", True),
        ("docker-image://*/alpine:*", "WILDCARD", True),
        ("docker.io/*", "WILDCARD", False),
        ("docker-image://docker.io/library/alpine?latest", "WILDCARD", False),
        ("library/alp.ne", "REGEX", True),
        ("^alpine", "REGEX", False),
        ("(?i)ALPINE:latest$", "REGEX", True),
    ],
)
def test_selectors(pattern, match, matched):
    """H1: EXACT is equality, WILDCARD covers the whole identifier, REGEX finds its pattern anywhere in it."""
    assert is_denied(ALPINE, deny(pattern, match)) is matched


@pytest.mark.parametrize(
    ("constraint", "matched"),
    [
        (Constraint("http.checksum", "sha256:aa", "EQUAL"), True),
        (Constraint("http.checksum", "sha256:bb", "EQUAL"), False),
        (Constraint("http.checksum", "sha256:bb", "NOTEQUAL"), True),
        (Constraint("http.checksum", "^sha256:a+$", "MATCHES"), True),
        (Constraint("http.checksum", "^a+$", "MATCHES"), False),
        (Constraint("http.filename", "", "EQUAL"), True),
        (Constraint("http.filename", "", "NOTEQUAL"), False),
    ],
)
def test_constraints_on_attributes(constraint, matched):
    """H1: a rule matches only where its attributes hold; one that is not there is empty."""
    assert is_denied(FILE, deny("https://*", "WILDCARD", constraint)) is matched


def test_conversion_by_wildcard_regex_and_exact():
    """H1: `${1}` stands for what a star or a group matched; EXACT takes the identifier as it is."""
    pinned = evaluate(
        [policy(convert("docker-image://docker.io/library/alpine:*", "docker-image://m.test/a:${1}"))], ALPINE
    )
    assert pinned.identifier == "docker-image://m.test/a:latest"

    mirrored = evaluate([policy(convert(r"docker\.io/(\w+)/", "mirror.test/$1/", "REGEX"))], ALPINE)
    assert mirrored.identifier == "docker-image://mirror.test/library/alpine:latest"

    exact = evaluate([policy(convert(ALPINE.identifier, "docker-image://x.test/${1}:1", "EXACT"))], ALPINE)
    assert exact.identifier == "docker-image://x.test/${1}:1"


def test_conversion_of_attributes_alone():
    """H1: without an identifier a CONVERT changes attributes and keeps the source."""
    found = evaluate([policy(convert("https://example.com/*", "", http_checksum="sha256:bb"))], FILE)

    # the pattern itself is the template: its star stands for itself, as in BuildKit
    assert found.attrs["http.checksum"] == "sha256:bb"
    exact = evaluate([policy(convert(FILE.identifier, "", "EXACT", http_checksum="sha256:bb"))], FILE)
    assert exact == Source(FILE.identifier, {"http.checksum": "sha256:bb"})


def test_what_comes_out_of_a_conversion_is_judged_again():
    """H1: a conversion does not get around a DENY, and one that came earlier in the policy is no longer asked of."""
    rules = [deny("docker-image://evil.test/*"), convert(ALPINE.identifier, "docker-image://evil.test/a:1")]
    assert is_denied(ALPINE, *rules)
    assert not is_denied(
        ALPINE, deny("docker-image://docker.io/*"), convert(ALPINE.identifier, "docker-image://ok.test/a:1")
    )


def test_circles_end_with_an_error():
    """H1: a to b to a is told, with the way it went."""
    circle = [convert("https://a.test/", "https://b.test/"), convert("https://b.test/", "https://a.test/")]
    with pytest.raises(PolicyError, match="too many conversions") as caught:
        evaluate([policy(*circle)], Source("https://a.test/"))
    assert caught.value.source_denied == "https://a.test/"


def test_twenty_conversions_are_not_too_many():
    """H1: BuildKit's bound: twenty-one in a row are a circle, twenty are not."""
    chain = [convert(f"https://n.test/{n}", f"https://n.test/{n + 1}", "EXACT") for n in range(22)]
    assert evaluate([policy(*chain[:20])], Source("https://n.test/0")).identifier == "https://n.test/20"
    with pytest.raises(PolicyError):
        evaluate([policy(*chain)], Source("https://n.test/0"))


def test_the_error_names_the_rule_the_line_and_the_source_without_credentials():
    """H1: whoever is refused learns by which rule; passwords in a URL are not repeated."""
    rules = [allow("*"), deny("https://*", line=7)]
    with pytest.raises(SourceDeniedError) as caught:
        evaluate([policy(*rules)], Source("https://me:secret@example.com/x"))
    assert caught.value.what == (
        "source 'https://example.com/x' denied by policy: policy.json:7 (DENY WILDCARD 'https://*')"
    )


def test_a_converted_repository_is_fetched_from_where_it_was_converted_to():
    """H1: the attribute with the full address would still lead to the old one."""
    source = normal_source(
        Source("git://github.com/a/b", {"git.fullurl": "https://github.com/a/b", "git.checksum": "ab"})
    )
    found = evaluate([policy(convert("git://github.com/*", "git://git.test/${1}"))], source)
    assert found == Source("git://git.test/a/b", {"git.checksum": "ab"})


@pytest.mark.parametrize(
    ("written", "attrs", "normal"),
    [
        ("docker-image://alpine", {}, "docker-image://docker.io/library/alpine:latest"),
        ("git://innocent.test/x", {"git.fullurl": "https://u@evil.test/y.git"}, "git://evil.test/y.git"),
        ("git://git.test/a/b#main:sub/../dir", {}, "git://git.test/a/b#main:dir"),
        ("https://example.com/a?b", {}, "https://example.com/a?b"),
        ("local://context", {}, "local://context"),
        ("nonsense", {}, "nonsense"),
        ("docker-image://NOT A NAME", {}, "docker-image://NOT A NAME"),
    ],
)
def test_sources_are_known_by_one_name(written, attrs, normal):
    """H1: a policy sees what is really used, however the op writes it."""
    assert normal_source(Source(written, attrs)).identifier == normal


def test_a_hostile_pattern_ends():
    """H1: what would take Python's own engine for ever is judged in linear time."""
    source = Source("https://example.com/" + "a" * 3000 + "!")
    assert not is_denied(source, deny(r"/((a+)+)+$", "REGEX"))
    with pytest.raises(PolicyError, match="too long to be matched"):
        evaluate([policy(*[deny(f"(a?){{300}}b{n}", "REGEX") for n in range(50)])], source)
