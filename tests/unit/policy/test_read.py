"""Policy files and messages: what is read, and what is refused at which line (H1)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.api.pb import policy_pb2
from lamina.errors import InputError
from lamina.policy.json_text import Value, parse_json
from lamina.policy.read import parse_policy, policy_of
from lamina.policy.values import Constraint, Rule

TEXT = """{
  "version": 1,
  "rules": [
    {"action": "DENY", "selector": {"identifier": "*"}},
    {
      "action": "CONVERT",
      "selector": {
        "identifier": "https://a/*", "match_type": "WILDCARD",
        "constraints": [{"key": "http.checksum", "value": "", "condition": "NOTEQUAL"}]
      },
      "updates": {"identifier": "https://b/${1}", "attrs": {"http.filename": "x"}}
    },
    {"action": 0, "selector": {"identifier": "x", "matchType": "EXACT"}}
  ]
}
"""


def test_a_file_becomes_rules_that_know_their_lines():
    """H1: the JSON that buildctl's --source-policy-file takes."""
    rules = parse_policy(TEXT, "policy.json").rules

    assert rules == (
        Rule("DENY", "*", line=4),
        Rule(
            "CONVERT",
            "https://a/*",
            constraints=(Constraint("http.checksum", "", "NOTEQUAL"),),
            to="https://b/${1}",
            attrs={"http.filename": "x"},
            updates=True,
            line=5,
        ),
        Rule("ALLOW", "x", "EXACT", line=13),
    )


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ('{\n"rules": [}', "p.json:2", "not JSON"),
        ("[]", "p.json:1", "must be an object"),
        ('{"rules": [\n{"action": "DENNY", "selector": {}}]}', "p.json:2", "unknown action 'DENNY'"),
        ('{"rules": [{"action": "DENY"}]}', "p.json:1", "without a selector"),
        ('{"rules": [{"selector": {\n"identifer": "x"}}]}', "p.json:2", "has no 'identifer'"),
        ('{"rules": [{"selector": {"identifier": "(", \n"match_type": "REGEX"}}]}', "p.json:1", "regular expression"),
        ('{"rules": [{"selector": {"identifier": "**"}}]}', "p.json:1", "'**'"),
        ('{"rules": [{"action": "CONVERT", "selector": {}}]}', "p.json:1", "without 'updates'"),
        (
            '{"rules": [\n\n{"selector": {"constraints": [{"condition": "MATCHES", "value": "a**"}]}}]}',
            "p.json:3",
            "a**",
        ),
        ('{"version": 2}', "p.json:1", "unknown version"),
        ('{"version": 1, "version": 1}', "p.json:1", "twice"),
        ('{"rules": [{"selector": {"match_type": 1, "matchType": 1}}]}', "p.json:1", "twice"),
        ("[" * 100000, "p.json", "not JSON"),
    ],
)
def test_a_bad_file_is_an_error_with_its_line(text, where, what):
    """H1: a rule that cannot be meant so is found before the build."""
    with pytest.raises(InputError) as caught:
        parse_policy(text, "p.json")
    assert caught.value.where == where
    assert what in caught.value.what


def test_messages_of_clients_are_read_and_checked():
    """H1: the message of the Solve call has the same rules; numbers that mean nothing are refused."""
    message = policy_pb2.Policy(version=1)
    message.rules.add(action=1, selector=policy_pb2.Selector(identifier="*", match_type=0))
    assert policy_of(message, "the client's policy").rules == (Rule("DENY", "*"),)

    message.rules.add(action=7, selector=policy_pb2.Selector(identifier="*"))
    with pytest.raises(InputError, match="rule 2 of the client's policy: unknown action 7"):
        policy_of(message, "the client's policy")
    del message.rules[1:]
    message.rules.add(action=2, selector=policy_pb2.Selector(identifier="*"))
    with pytest.raises(InputError, match="without 'updates'"):
        policy_of(message, "the client's policy")
    with pytest.raises(InputError, match="without a selector"):
        policy_of(policy_pb2.Policy(rules=[policy_pb2.Rule()]), "the client's policy")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=15,
)


def plain(value: Value):
    if isinstance(value.value, dict):
        return {name: plain(one) for name, one in value.value.items()}
    return [plain(one) for one in value.value] if isinstance(value.value, list) else value.value


@given(JSON, st.sampled_from([None, 1, "\t"]))
def test_json_with_lines_is_json(value, indent):
    """H1: the reader that counts lines reads what Python's reads."""
    assert plain(parse_json(json.dumps(value, indent=indent), "x")) == value


@given(st.text(alphabet='{}[]":,rulesactionDENY01 \n', max_size=80))
def test_no_text_breaks_the_reader(text):
    """H1: a file is a policy or an InputError."""
    try:
        parse_policy(text, "x")
    except InputError:
        pass
