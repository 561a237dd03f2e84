"""Sizes, ages, filters and policies as BuildKit's options and configuration write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.engine.upkeep.amounts import MOST_BYTES, Amount, parse_amount, parse_seconds
from lamina.engine.upkeep.filters import parse_filters
from lamina.engine.upkeep.policy import Disk, Policies, Rule, default_rules, parse_policies, parse_rule
from lamina.engine.upkeep.records import CACHE_MOUNT, GIT, REGULAR, Record
from lamina.errors import InputError

GIB = 1 << 30


def record(name: str = "12", **values: object) -> Record:
    """Return a record with everything plain but what is given."""
    plain: dict[str, object] = {
        "kind": "layer", "type": REGULAR, "description": "", "size_bytes": 0, "shared_bytes": 0, "tree_bytes": 0,
        "blob_bytes": 0, "index_bytes": 0, "created": 0.0, "used": 0.0, "uses": 0, "in_use": False, "mutable": False,
        "parents": (), "reasons": (),
    }  # fmt: skip
    return Record(name=name, **{**plain, **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("", 0), ("512", 512), ("10GB", 10 * GIB), ("10g", 10 * GIB), ("1.5 KiB", 1536), ("512M", 512 << 20)],
)
def test_sizes_are_read_as_docker_reads_them(text, size):
    """H8: binary units, with or without the B."""
    assert parse_amount(text, "--max-used-space") == Amount(size)


def test_a_share_of_the_disk_becomes_bytes_when_the_disk_is_known():
    """H8: bytes or per cent."""
    assert parse_amount("20%", "x").of(50 * GIB) == 10 * GIB


@pytest.mark.parametrize("text", ["x", "-1", "101%", "1..5G", "10 apples", "9" * 30, "٣"])
def test_what_is_no_size_is_refused_by_the_option_s_name(text):
    with pytest.raises(InputError, match="--max-used-space"):
        parse_amount(text, "--max-used-space")


@given(st.integers(0, MOST_BYTES))
def test_a_number_of_bytes_means_itself(size):
    assert parse_amount(size, "x") == parse_amount(str(size), "x") == Amount(size)


@pytest.mark.parametrize(
    ("text", "seconds"), [("24h", 86_400), ("1h30m", 5400), ("7d", 604_800), ("172800", 172_800), (172800, 172_800)]
)
def test_ages_are_go_durations_days_or_seconds(text, seconds):
    """H8: keepDuration is text or a number of seconds."""
    assert parse_seconds(text, "x") == seconds


@pytest.mark.parametrize("text", ["-1h", "1 fortnight", "h"])
def test_what_is_no_age_is_refused(text):
    with pytest.raises(InputError):
        parse_seconds(text, "--keep-duration")


NOW = 1000 * 86_400.0


@pytest.mark.parametrize(
    ("text", "matching", "other"),
    [
        ("id=12", record("12"), record("123")),
        ("id=sha256:abcd", record("sha256:abcd" + "0" * 60), record("sha256:abc0" + "0" * 60)),
        ("id=abcd", record("abcd" + "0" * 60), record("0abcd" + "0" * 59)),
        ("id~=^1[0-9]$", record("12"), record("2")),
        ("id!=12", record("13"), record("12")),
        ("type=exec.cachemount", record(type=CACHE_MOUNT), record()),
        ("type!=exec.cachemount", record(), record(type=CACHE_MOUNT)),
        ("type==exec.cachemount,type==source.git.checkout", record(type=GIT), record()),
        ("description~=npm", record(description="RUN npm ci"), record(description="RUN make")),
        ("parents=7", record(parents=("7",)), record(parents=("8",))),
        ("parents", record(parents=("7",)), record()),
        ("inuse", record(in_use=True), record()),
        ("inuse!=true", record(), record(in_use=True)),
        ("mutable", record(mutable=True), record()),
        ("immutable", record(), record(mutable=True)),
        ("shared", record(size_bytes=2, shared_bytes=1), record()),
        ("private", record(), record(size_bytes=2, shared_bytes=1)),
        ("private=false", record(size_bytes=2, shared_bytes=1), record()),
        ("until=24h", record(used=NOW - 90_000), record(used=NOW - 3600)),
        ("unused-for=24h", record(used=NOW - 90_000), record(used=NOW - 3600)),
        ("mutable,until=24h", record(mutable=True, used=0.0), record(used=0.0)),
    ],
)
def test_each_condition_of_buildkit_s_filters(text, matching, other):
    """H9: until id parents description inuse mutable immutable shared private type, with =, ==, != and ~=."""
    wanted = parse_filters([text])

    assert wanted.matches(matching, NOW) and not wanted.matches(other, NOW)


def test_several_filters_all_hold():
    """H9: as buildx has it."""
    wanted = parse_filters(["mutable", "type=exec.cachemount"])

    assert wanted.matches(record(mutable=True, type=CACHE_MOUNT), NOW)
    assert not wanted.matches(record(mutable=True, type=GIT), NOW)


@pytest.mark.parametrize(
    "text", ["size=3", "id~=(", "type=image", "inuse=maybe", "until", "inuse~=x", "=x", "x" * 5000]
)
def test_filters_that_cannot_be_meant_are_refused(text):
    """H9: a typing error never widens what goes."""
    with pytest.raises(InputError, match="--filter"):
        parse_filters([text])


@given(st.text(max_size=60))
def test_any_text_is_a_filter_or_a_clear_error(text):
    try:
        parse_filters([text]).matches(record(), NOW)
    except InputError:
        pass


DISK = Disk(total_bytes=100 * GIB, free_bytes=30 * GIB)


@pytest.mark.parametrize(
    ("limits", "used", "kept"),
    [
        ({}, 50, None),
        ({"max_used": "40GB"}, 50, 40),
        ({"reserved": "20GB"}, 50, 20),
        ({"min_free": "40GB"}, 50, 40),
        ({"min_free": "20GB"}, 50, 50),
        ({"max_used": "40GB", "min_free": "45GB"}, 50, 35),
        ({"max_used": "40GB", "min_free": "90GB", "reserved": "10GB"}, 50, 10),
        ({"max_used": "40%"}, 50, 40),
    ],
)
def test_how_much_a_rule_keeps(limits, used, kept):
    """H8: at most maxUsedSpace, less for minFreeSpace, never less than reservedSpace."""
    rule = Rule("r", **{name: parse_amount(text, name) for name, text in limits.items()})

    assert rule.keep_bytes(used * GIB, DISK) == (None if kept is None else kept * GIB)


def test_the_policies_of_a_buildkitd_toml():
    """H8: the tables of BuildKit's documentation mean here what they mean there."""
    found = parse_policies(
        {
            "gc": True,
            "reservedSpace": "30%",
            "maxStorage": "60GB",
            "gcpolicy": [
                {"reservedSpace": "512MB", "keepDuration": "48h", "filters": ["type==source.local", "type==regular"]},
                {"all": True, "keepBytes": 1024, "maxUsedSpace": "1GB", "minFreeSpace": "10GB"},
            ],
        }
    )

    first, second = found.rules
    assert found.max_storage == Amount(60 * GIB)
    assert first.keep_s == 48 * 3600 and len(first.filters) == 2 and not first.all
    assert first.matches(record(used=0.0), NOW) and not first.matches(record(type=CACHE_MOUNT), NOW)
    assert second.all and second.reserved == Amount(1024) and second.min_free == Amount(10 * GIB)


def test_without_policies_there_are_buildkit_s_tiers():
    """H8: easily made things after two days, unused ones after sixty, then what is too much, then all of it."""
    tiers = default_rules()

    assert [tier.keep_s / 86_400 for tier in tiers] == [2, 60, 0, 0]
    assert [tier.all for tier in tiers] == [False, False, False, True]
    assert [tier.max_used.of(1000 * GIB) for tier in tiers] == [512 * 10**6] + [100 * 10**9] * 3
    assert tiers[1].reserved.of(50 * GIB) == 5 * GIB and tiers[1].min_free.of(50 * GIB) == 10 * GIB
    assert Policies().rules == tiers and Policies().enabled


def test_limits_without_policies_go_into_the_tiers():
    """H8: reservedSpace and its kin beside gc."""
    found = parse_policies({"gckeepstorage": 1000, "maxUsedSpace": "5GB"})

    assert [rule.max_used.bytes for rule in found.rules[1:]] == [5 * GIB] * 3
    assert found.rules[2].reserved == Amount(1000) and not found.rules[2].min_free


@pytest.mark.parametrize(
    "table",
    [
        {"gc": "yes"},
        {"gcpolicy": {}},
        {"gcpolicy": [{"filter": []}]},
        {"gcpolicy": [{"filters": "type==x"}]},
        {"gcpolicy": [{"filters": ["size=1"]}]},
        {"gcpolicy": [{"all": 1}]},
        {"maxUsedSpace": "lots"},
        {"reservedSpace": []},
    ],
)
def test_tables_with_faults_are_refused(table):
    with pytest.raises(InputError, match="gc"):
        parse_policies(table)


def test_a_prune_without_options_takes_only_what_nothing_needs():
    """H9: with any option the cache is meant."""
    assert parse_rule(name="p").unneeded_only
    assert not parse_rule(name="p", filters=["until=24h"]).unneeded_only
    assert not parse_rule(name="p", max_used_space="1GB").unneeded_only
