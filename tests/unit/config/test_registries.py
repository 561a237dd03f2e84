"""H15: registry tables as buildkitd.toml has them; every fault is named with its key, file and line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.config.document import parse_document
from lamina.config.registries import KEYS, RegistryConfig, parse_gc, parse_lamina_config
from lamina.errors import InputError

WHOLE = """\
# a comment
[registry."docker.io"]
  mirrors = ["mirror.example:5000", "https://hub.example/proxy"]

[registry."mirror.example:5000"]
  http = true
  insecure = true
  ca = ["ca.pem"]
  tlsconfigdir = ["/etc/certs"]
  [[registry."mirror.example:5000".keypair]]
    key = "key.pem"
    cert = "cert.pem"
  [[registry."mirror.example:5000".keypair]]
    key = "other.key"
    cert = "other.crt"
"""


def test_every_key_that_buildkit_knows():
    assert parse_lamina_config(WHOLE, "f") == {
        "docker.io": RegistryConfig(mirrors=("mirror.example:5000", "https://hub.example/proxy")),
        "mirror.example:5000": RegistryConfig(
            http=True,
            insecure=True,
            ca=("ca.pem",),
            keypairs=(("cert.pem", "key.pem"), ("other.crt", "other.key")),
            tls_dirs=("/etc/certs",),
        ),
    }


def test_an_empty_file_says_nothing():
    assert parse_lamina_config("# nothing\n", "f") == {}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("debug = true\n", 1, "unknown key 'debug'"),
        ('[registry."a"]\nhttp = true\n\n[registri."b"]\n', 4, "unknown key 'registri'"),
        ('[registry."a"]\n  mirors = []\n', 2, "unknown key 'mirors' in registry.a"),
        ('[registry."a.b"]\nhttp = true\n  tls = 1\n', 3, "unknown key 'tls' in registry.\"a.b\""),
        ('registry."a".nope = 1\n', 1, "unknown key 'nope'"),
        ('[registry]\n"a".http = 1\n', 2, "'http' is not true or false"),
        ('[registry."a"]\nhttp = "yes"\n', 2, "'http' is not true or false"),
        ('[registry."a"]\nmirrors = "b"\n', 2, "'mirrors' is not a list"),
        ('[registry."a"]\nmirrors = [\n  "b",\n  3,\n]\n', 2, "'mirrors' holds something that is not a text"),
        ('[registry."a"]\nmirrors = ["ftp://b"]\n', 2, "not a mirror: 'ftp://b'"),
        ('[registry."a"]\nca = [""]\n', 2, "'ca' holds something"),
        ('\n[registry."https://a/b"]\nhttp = true\n', 2, "is not a registry's host[:port]"),
        ("[registry]\na = 1\n", 2, "registry.a is not a table"),
        ("registry = 1\n", 1, "'registry' is not a table"),
        ('[registry.a]\n[[registry.a.keypair]]\nkey="k"\ncert="c"\n[[registry.a.keypair]]\nkey="k"\n', 5, "both key"),
        ('[registry.a]\n[[registry.a.keypair]]\nkey="k"\ncert="c"\n[[registry.a.keypair]]\nkye="k"\n', 6, "'kye'"),
        ('[registry.a]\n\nkeypair = [{ key = "k", crt = "c" }]\n', 3, "unknown key 'crt'"),
        ('[registry.a]\n# """\nx = """\nhttp = 1\n"""\n', 3, "unknown key 'x'"),
        ('[registry."[::1]:5000"]\nport = 1\n', 2, "unknown key 'port'"),
        ("[registry\n", 1, "not TOML"),
        ("[registry.a]\nhttp = true\nhttp = true\n", 3, "not TOML"),
    ],
)
def test_a_fault_names_the_key_and_its_line(text: str, line: int, words: str):
    with pytest.raises(InputError) as caught:
        parse_lamina_config(text, "/etc/lamina/lamina.toml")

    report = caught.value.diagnostics()
    assert words in report, report
    assert f"/etc/lamina/lamina.toml:{line}" in report, report


def test_a_slip_gets_the_word_that_was_meant():
    with pytest.raises(InputError) as caught:
        parse_lamina_config('[registry."a"]\ninsecur = true\n', "f")
    assert caught.value.hint == "did you mean 'insecure'?"


@given(st.text(max_size=200))
def test_any_text_is_values_or_an_input_error(text: str):
    try:
        parse_lamina_config(text, "f")
    except InputError as error:
        assert error.diagnostics()


_WORDS = st.sampled_from(["registry", "a", '"b.c:5"', "keypair", "key", "http", "mirrors", "'x y'", "nope"])


@given(
    st.lists(
        st.one_of(
            st.lists(_WORDS, min_size=1, max_size=4).map(lambda words: f"[{'.'.join(words)}]"),
            st.lists(_WORDS, min_size=1, max_size=4).map(lambda words: f"[[{'.'.join(words)}]]"),
            st.tuples(_WORDS, st.sampled_from(["true", '"x"', '["x"]', "{ a = 1 }", "[{ nope = 2 }]"])).map(" = ".join),
        ),
        max_size=12,
    )
)
def test_any_toml_is_values_or_an_error_with_a_line(lines: list[str]):
    """Whatever the shape, the line named is one of the text's."""
    text = "\n".join(lines)
    try:
        found = parse_lamina_config(text, "f")
    except InputError as error:
        assert error.source is not None and 1 <= error.source.start <= max(1, len(lines))
    else:
        assert all(isinstance(config, RegistryConfig) for config in found.values())


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9](:[1-9][0-9]{0,3})?", fullmatch=True),
        st.tuples(st.booleans(), st.booleans(), st.lists(st.sampled_from(["m", "n:1/p", "http://o"]), max_size=3)),
        max_size=4,
    )
)
def test_what_is_written_is_read(tables: dict[str, tuple[bool, bool, list[str]]]):
    lines = []
    for host, (http, insecure, mirrors) in tables.items():
        lines += [f'[registry."{host}"]', f"http = {str(http).lower()}", f"insecure = {str(insecure).lower()}"]
        lines.append(f"mirrors = {mirrors}")

    found = parse_lamina_config("\n".join(lines), "f")

    expected = {host: RegistryConfig(tuple(mirrors), http, insec) for host, (http, insec, mirrors) in tables.items()}
    assert found == expected


def test_the_daemons_file_may_hold_more_than_registries():
    """A reader of buildkitd.toml checks its own top level and uses the same tables."""
    from lamina.config.registries import parse_registries

    document = parse_document('debug = true\n[worker.oci]\nrootless = true\n[registry."a"]\nhttp = true\n', "f")
    assert parse_registries(document.root) == {"a": RegistryConfig(http=True)}


def test_the_keys_are_buildkits():
    assert set(KEYS) == {"mirrors", "http", "insecure", "ca", "keypair", "tlsconfigdir"}


def test_policies_of_garbage_collection_stand_in_the_same_file():
    """H8: BuildKit's keys, in a table of its own."""
    text = '[gc]\nenabled = true\nmaxUsedSpace = "60%"\n'
    text += '[[gc.gcpolicy]]\nkeepDuration = "48h"\nfilters = ["type==source.local"]\n'

    found = parse_gc(text, "lamina.toml")
    assert (found["gc"], found["maxUsedSpace"], found["gcpolicy"][0]["keepDuration"]) == (True, "60%", "48h")
    assert parse_lamina_config(text, "lamina.toml") == {}
    with pytest.raises(InputError, match="unknown key 'maxUsed'"):
        parse_gc('[gc]\nmaxUsed = "1GB"\n', "lamina.toml")
