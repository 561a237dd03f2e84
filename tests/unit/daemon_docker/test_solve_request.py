"""E1: what docker's client asks for by `POST /build` is the Solve request that docker's own daemon would make of it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from lamina.daemon.docker.failures import ApiError
from lamina.daemon.docker.routes import Query
from lamina.daemon.docker.solve_request import BuildQuery, build_query
from lamina.errors import InputError

# what docker 20.10.24 sends for `docker build .`
PLAIN = {
    "buildargs": "{}", "buildid": "0123", "cachefrom": "[]", "cgroupparent": "", "cpuperiod": "0", "cpuquota": "0",
    "cpusetcpus": "", "cpusetmems": "", "cpushares": "0", "dockerfile": "", "labels": "{}", "memory": "0",
    "memswap": "0", "networkmode": "default", "remote": "client-session", "rm": "1", "session": "se", "shmsize": "0",
    "target": "", "ulimits": "null", "version": "2",
}  # fmt: skip


REPEATED = ("t", "extrahosts", "securityopt")


def parse(**fields: Any) -> BuildQuery:
    encoded = {
        name: value if isinstance(value, str) or name in REPEATED else json.dumps(value)
        for name, value in fields.items()
    }
    found = {**PLAIN, **encoded}
    return build_query(Query(urlencode(found, doseq=True)), "ref")


def told(query: BuildQuery) -> dict[str, Any]:
    return MessageToDict(query.request)


def test_a_plain_build():
    query = parse()

    assert told(query) == {
        "Ref": "ref",
        "Session": "se",
        "Frontend": "dockerfile.v0",
        "FrontendAttrs": {"image-resolve-mode": "default"},
        "Exporters": [{"Type": "moby"}],
    }
    assert (query.version, query.build_id, query.remote, query.quiet, query.makes_image) == ("2", "0123", "client-session", False, True)  # noqa: E501 # fmt: skip


def test_everything_at_once():
    query = parse(
        t=["app", "host:5000/app:2"], buildargs={"A": "1", "B": None, "BUILDKIT_INLINE_CACHE": "1"}, labels={"l": "v"},
        dockerfile="sub/Dockerfile", target="t", platform="linux/arm64", networkmode="host", nocache="1", pull="1",
        q="1", extrahosts=["h:1.2.3.4", "six:[::1]", "me:host-gateway"], shmsize="1024", cgroupparent="/p",
        cachefrom=["host:5000/c", "d"],
        ulimits=[{"Name": "nofile", "Soft": 10, "Hard": 20}], memory="5",
    )  # fmt: skip

    assert told(query) == {
        "Ref": "ref",
        "Session": "se",
        "Frontend": "dockerfile.v0",
        "FrontendAttrs": {
            "build-arg:A": "1",
            "build-arg:BUILDKIT_INLINE_CACHE": "1",
            "label:l": "v",
            "filename": "sub/Dockerfile",
            "target": "t",
            "platform": "linux/arm64",
            "force-network-mode": "host",
            "no-cache": "",
            "image-resolve-mode": "pull",
            "add-hosts": "h=1.2.3.4,six=::1,me=host-gateway",
            "shm-size": "1024",
            "cgroup-parent": "/p",
            "cache-from": "host:5000/c,d",
            "ulimit": "nofile=10:20",
        },
        "Exporters": [{"Type": "moby", "Attrs": {"name": "docker.io/library/app:latest,host:5000/app:2"}}],
        "Entitlements": ["network.host"],
        "Cache": {"Exports": [{"Type": "inline"}]},
    }
    assert query.quiet
    assert query.ignored == ("memory",)


def test_a_context_elsewhere_is_the_frontends_to_fetch():
    assert (
        told(parse(remote="https://example.com/r.git#main"))["FrontendAttrs"]["context"]
        == "https://example.com/r.git#main"
    )


@pytest.mark.parametrize("remote", ["", "client-session", "upload-request"])
def test_a_context_that_is_brought_is_not(remote: str):
    assert "context" not in told(parse(remote=remote))["FrontendAttrs"]


def test_an_output_of_the_clients_makes_no_image():
    query = parse(t=["app"], outputs=[{"Type": "local", "Attrs": {}}])

    assert told(query)["Exporters"] == [{"Type": "local"}]
    assert not query.makes_image


def test_a_build_may_end_in_the_cache():
    assert "Exporters" not in told(parse(outputs=[{"Type": "cacheonly"}]))


def test_without_a_version_it_is_the_classic_builder():
    assert parse(version="").version == "1"


@pytest.mark.parametrize(
    "fields",
    [
        {"version": "3"},
        {"squash": "1"},
        {"securityopt": ["seccomp=x"]},
        {"networkmode": "container:x"},
        {"extrahosts": ["x"]},
        {"extrahosts": ["a,b:1.2.3.4"]},
        {"outputs": [{"Type": "local"}, {"Type": "tar"}]},
        {"outputs": ["x"]},
        {"outputs": {"Type": "local"}},
        {"ulimits": [{"Name": "a=b", "Soft": 1}]},
        {"ulimits": [{"Name": "nofile", "Soft": "1"}]},
        {"buildargs": ["a"]},
        {"buildargs": {"a": 1}},
        {"buildargs": "{"},
        {"cachefrom": ["a,b"]},
        {"shmsize": "many"},
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any]):
    with pytest.raises(ApiError) as found:
        parse(**fields)
    assert found.value.status == 400


@pytest.mark.parametrize("fields", [{"t": ["UPPER"]}, {"platform": "linux/arm64/v8/x"}])
def test_names_are_checked(fields: dict[str, Any]):
    with pytest.raises(InputError):
        parse(**fields)


@given(st.sampled_from(sorted(PLAIN)), st.one_of(st.text(max_size=30), st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
).map(json.dumps)))  # fmt: skip
def test_any_field_is_taken_or_refused(name: str, value: str):
    try:
        parse(**{name: value})
    except InputError:
        pass
    except ApiError as error:
        assert error.status == 400
