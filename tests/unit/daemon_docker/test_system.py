"""What the daemon tells of itself, and what it has not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lamina.daemon.docker.failures import ApiError
from lamina.daemon.docker.routes import Routes
from lamina.daemon.docker.server import DockerServer
from lamina.daemon.docker.system import System, prune_request
from lamina.engine.options import Environment
from unit.daemon_docker.support import Shelf, Wire

# the fields that docker 20.10.24 answers with, but for those of containers, plugins and its own parts
VERSION = {"Platform", "Components", "Version", "ApiVersion", "MinAPIVersion", "GitCommit", "GoVersion", "Os", "Arch", "KernelVersion"}  # noqa: E501 # fmt: skip
INFO = {
    "ID", "Containers", "Images", "Driver", "DriverStatus", "Plugins", "SystemTime", "LoggingDriver", "CgroupDriver",
    "CgroupVersion", "KernelVersion", "OperatingSystem", "OSType", "Architecture", "IndexServerAddress",
    "RegistryConfig", "NCPU", "MemTotal", "DockerRootDir", "Name", "Labels", "ServerVersion", "Runtimes",
    "DefaultRuntime", "Swarm", "SecurityOptions", "Warnings",
}  # fmt: skip
USAGE = {"LayersSize", "Images", "Containers", "Volumes", "BuildCache", "BuilderSize"}


@pytest.fixture
def ask(tmp_path: Path):
    routes = Routes()
    proxies = {"http_proxy": "http://ann:hush@proxy:1"}
    System(Environment(tmp_path, proxies=proxies, insecure_registries=("host:5000",))).register(routes)

    def asked(method: str, path: str) -> tuple[int, dict[str, str], Any]:
        client = Wire(DockerServer(routes, []))
        try:
            client.send(f"{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n".encode())
            head, _, body = client.rest().partition(b"\r\n\r\n")
        finally:
            client.close()
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        is_json = headers.get("content-type") == "application/json"
        return int(first.split(" ")[1]), headers, json.loads(body) if is_json else body.decode()

    return asked


@pytest.mark.parametrize(("method", "body"), [("GET", "OK"), ("HEAD", "")])
def test_a_ping_tells_what_a_client_chooses_its_builder_by(ask, method: str, body: str):
    status, headers, answer = ask(method, "/_ping")

    assert (status, answer) == (200, body)
    assert (headers["builder-version"], headers["api-version"], headers["ostype"]) == ("2", "1.47", "linux")
    assert headers["content-length"] == str(len(body))


def test_version_and_info_have_the_fields_of_dockers(ask):
    assert set(ask("GET", "/version")[2]) >= VERSION
    info = ask("GET", "/v1.41/info")[2]
    assert set(info) >= INFO
    assert info["RegistryConfig"]["IndexConfigs"]["host:5000"]["Secure"] is False


def test_passwords_of_proxies_are_not_told(ask):
    assert "hush" not in json.dumps(ask("GET", "/info")[2])


def test_disk_usage_has_the_fields_of_dockers(ask, tmp_path: Path):
    Shelf(tmp_path).add("docker.io/library/a:1", "docker.io/library/b:1")
    usage = ask("GET", "/system/df")[2]

    assert set(usage) == USAGE
    assert len(usage["Images"]) == 1
    assert usage["LayersSize"] > 0
    assert "BuildCache" not in ask("GET", "/system/df?type=image")[2]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/containers/json?all=1", 200),
        ("GET", "/containers/x/json", 404),
        ("GET", "/containers/host:5000/a/b/json", 404),
        ("GET", "/networks/x", 404),
        ("GET", "/volumes/a/b", 404),
        ("POST", "/containers/create", 501),
        ("POST", "/containers/x/start", 501),
        ("POST", "/containers/prune", 200),
        ("POST", "/commit", 501),
        ("GET", "/networks", 501),
        ("GET", "/events", 501),
        ("GET", "/images/search?term=x", 501),
        ("POST", "/swarm/init", 501),
    ],
)
def test_what_there_is_not(ask, method: str, path: str, status: int):
    assert ask(method, path)[0] == status


def test_a_prune_without_filters_is_buildkits():
    message = prune_request({}, False, 0)

    assert (message.all, message.keepDuration, message.reservedSpace, list(message.filter)) == (False, 0, 0, [])


def test_filters_of_a_prune_are_told_in_buildkits_words():
    message = prune_request(
        {"until": ("24h",), "type": ("regular",), "id": ("ab",), "parent": ("cd",), "inuse": ()}, True, 5
    )

    assert (message.all, message.reservedSpace, message.keepDuration) == (True, 5, 24 * 3600 * 10**9)
    assert sorted(message.filter) == ["id~=ab", "inuse", "parents~=cd", "type==regular"]


@pytest.mark.parametrize(
    "filters",
    [{"until": ("1h", "2h")}, {"until": ("1h",), "unused-for": ("1h",)}, {"until": ("soon",)}, {"label": ("x",)}],
)
def test_filters_that_make_no_sense_are_refused(filters: dict[str, tuple[str, ...]]):
    with pytest.raises(ApiError) as found:
        prune_request(filters, False, 0)
    assert found.value.status == 400
