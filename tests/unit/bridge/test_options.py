"""Options of BuildKit's Dockerfile frontend, as the words of `lamina build`."""

import json

import pytest

from lamina.bridge.options import options_of, unknown_options
from lamina.errors import InputError, NotYetError


def test_every_option_that_clients_send():
    attrs = {
        "build-arg:A": "1",
        "build-arg:SOURCE_DATE_EPOCH": "1700000000",
        "label:l": "v",
        "context:more": "local:more",
        "target": "t",
        "platform": "linux/amd64, linux/arm64",
        "add-hosts": "a=1.2.3.4,b=::1",
        "image-resolve-mode": "pull",
        "force-network-mode": "none",
        "shm-size": "1024",
        "ulimit": "nofile=1:2",
        "hostname": "h",
        "cgroup-parent": "/c",
        "no-cache": "x,y",
        "cache-from": "r/a:1",
        "cache-imports": json.dumps([{"Type": "registry", "Attrs": {"ref": "r/b:1"}}]),
        "filename": "Other",
        "vcs:source": "https://host/r",
    }
    found = options_of(attrs)

    assert found["build_args"] == {"A": "1", "SOURCE_DATE_EPOCH": "1700000000"}
    assert (found["labels"], found["build_contexts"], found["target"]) == ({"l": "v"}, {"more": "local:more"}, "t")
    assert found["platforms"] == ["linux/amd64", "linux/arm64"]
    assert found["add_hosts"] == ["a=1.2.3.4", "b=::1"]
    assert (found["pull"], found["network"], found["shm_size"]) == (True, "none", 1024)
    assert (found["ulimits"], found["hostname"], found["cgroup_parent"]) == (["nofile=1:2"], "h", "/c")
    assert (found["no_cache"], found["no_cache_filter"]) == (False, ["x", "y"])
    assert found["source_date_epoch"] == 1700000000
    assert found["cache_from"] == ["type=registry,ref=r/a:1", "type=registry,ref=r/b:1"]
    assert unknown_options(attrs) == []


def test_no_cache_without_stages_is_for_all():
    assert options_of({"no-cache": ""})["no_cache"] is True
    assert "no_cache" not in options_of({})


def test_what_nobody_looks_at_is_named():
    assert unknown_options({"target": "", "colour": "red", "attest:sbom": "", "frontend.caps": "x"}) == ["colour"]


@pytest.mark.parametrize(
    "attrs",
    [
        {"shm-size": "1g"},
        {"shm-size": "-1"},
        {"add-hosts": "a"},
        {"force-network-mode": "bridge"},
        {"build-arg:SOURCE_DATE_EPOCH": "tomorrow"},
        {"cache-imports": "{"},
        {"cache-imports": '[{"Attrs": {}}]'},
        {"cache-imports": '"x"'},
    ],
)
def test_what_makes_no_sense_is_refused(attrs: dict[str, str]):
    with pytest.raises(InputError):
        options_of(attrs)


def test_the_time_of_the_context_waits():
    with pytest.raises(NotYetError):
        options_of({"build-arg:SOURCE_DATE_EPOCH": "context"})
