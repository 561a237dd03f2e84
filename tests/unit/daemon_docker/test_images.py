"""J1: images as docker's API shows, names and removes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from unit.daemon_docker.support import Shelf

# the fields that docker 20.10.24 answers with (API 1.41)
LISTED = {
    "Containers", "Created", "Id", "Labels", "ParentId", "RepoDigests", "RepoTags", "SharedSize", "Size", "VirtualSize",
}  # fmt: skip
SHOWN = {
    "Id", "RepoTags", "RepoDigests", "Parent", "Comment", "Created", "Container", "ContainerConfig", "DockerVersion",
    "Author", "Config", "Architecture", "Os", "Size", "VirtualSize", "GraphDriver", "RootFS", "Metadata",
}  # fmt: skip
CONFIG = {
    "Hostname", "Domainname", "User", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce",
    "Env", "Cmd", "Image", "Volumes", "WorkingDir", "Entrypoint", "OnBuild", "Labels",
}  # fmt: skip
STEP = {"Comment", "Created", "CreatedBy", "Id", "Size", "Tags"}
APP, HOSTED = "docker.io/library/app:latest", "host:5000/team/app:1"


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def listed(shelf: Shelf, version: str = "v1.41", **filters: list[str]) -> list[dict[str, Any]]:
    text = json.dumps({name: dict.fromkeys(values, True) for name, values in filters.items()})
    status, rows = shelf.ask("GET", f"/{version}/images/json?filters={quote(text)}")
    assert status == 200, rows
    return rows


def tags(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(tag for row in rows for tag in row["RepoTags"])


def test_a_list_has_the_fields_of_dockers(shelf: Shelf):
    image_id = shelf.add(APP, HOSTED, labels={"a": "b"})
    (row,) = listed(shelf)

    assert set(row) == LISTED
    assert (row["Id"], row["RepoTags"], row["Labels"]) == (image_id, ["app:latest", "host:5000/team/app:1"], {"a": "b"})
    assert row["Created"] == 1767323045
    assert row["RepoDigests"][0].startswith("app@sha256:")


def test_images_without_a_name_are_shown_as_each_version_expects(shelf: Shelf):
    shelf.add()

    assert listed(shelf)[0]["RepoTags"] == ["<none>:<none>"]
    assert listed(shelf, "v1.43")[0]["RepoTags"] == []
    assert "VirtualSize" not in listed(shelf, "v1.44")[0]


def test_the_newest_comes_first(shelf: Shelf):
    shelf.add("docker.io/library/old:1", created="2020-01-01T00:00:00Z")
    shelf.add("docker.io/library/new:1", created="2025-01-01T00:00:00Z")

    assert [row["RepoTags"] for row in listed(shelf)] == [["new:1"], ["old:1"]]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"reference": ["app"]}, ["app:1", "app:2"]),
        ({"reference": ["app:2"]}, ["app:2"]),
        ({"reference": ["a*"]}, ["app:1", "app:2"]),
        ({"reference": ["*"]}, ["app:1", "app:2"]),
        ({"reference": ["host:5000/*/*"]}, ["host:5000/t/x:1"]),
        ({"reference": ["nope"]}, []),
        ({"label": ["k"]}, ["app:1", "host:5000/t/x:1"]),
        ({"label": ["k=v"]}, ["app:1"]),
        ({"label": ["k=v", "other"]}, []),
        ({"dangling": ["false"]}, ["app:1", "app:2", "host:5000/t/x:1"]),
        ({"dangling": ["true"]}, ["<none>:<none>"]),
        ({"before": ["app:2"]}, ["app:1"]),
        ({"since": ["app:2"]}, ["<none>:<none>", "host:5000/t/x:1"]),
        ({"until": ["2021-06-01T00:00:00Z"]}, ["app:1", "app:2"]),
    ],
)
def test_filters(shelf: Shelf, filters: dict[str, list[str]], expected: list[str]):
    shelf.add("docker.io/library/app:1", labels={"k": "v"}, created="2020-01-01T00:00:00Z")
    shelf.add("docker.io/library/app:2", created="2021-01-01T00:00:00Z")
    shelf.add("host:5000/t/x:1", labels={"k": "w"}, created="2022-01-01T00:00:00Z")
    shelf.add(created="2023-01-01T00:00:00Z")

    assert tags(listed(shelf, **filters)) == expected


def test_a_reference_filter_hides_other_names_of_the_same_image(shelf: Shelf):
    shelf.add("docker.io/library/a:1", "docker.io/library/b:1")

    assert tags(listed(shelf, reference=["b"])) == ["b:1"]


def test_a_filter_that_is_not_known_is_refused(shelf: Shelf):
    filters = quote('{"nope":{"x":true}}')
    assert shelf.ask("GET", f"/images/json?filters={filters}")[0] == 400


def test_an_image_is_shown_with_the_fields_of_dockers(shelf: Shelf):
    image_id = shelf.add(APP)
    for name in ("app", "app:latest", "docker.io/library/app", image_id, image_id[7:19]):
        status, shown = shelf.ask("GET", f"/v1.41/images/{name}/json")
        assert status == 200, shown

    assert set(shown) >= SHOWN
    assert set(shown["Config"]) >= CONFIG
    assert shown["Id"] == image_id
    assert shown["RepoTags"] == ["app:latest"]
    assert len(shown["RootFS"]["Layers"]) == 2
    assert shown["Config"]["Cmd"] == ["/bin/hello"]


def test_history_names_the_image_once(shelf: Shelf):
    image_id = shelf.add(APP)
    status, steps = shelf.ask("GET", "/images/app/history")

    assert status == 200
    assert all(set(step) == STEP for step in steps)
    assert [step["Id"] for step in steps] == [image_id, "<missing>", "<missing>"]
    assert [step["CreatedBy"] for step in steps] == ["COPY a", "ENV X", "COPY base"]
    assert [step["Tags"] for step in steps] == [["app:latest"], None, None]


@pytest.mark.parametrize(
    ("name", "shown"), [("nope", "nope:latest"), ("a/b@sha256:" + "0" * 64, None), ("UPPER", None)]
)
@pytest.mark.parametrize(
    ("method", "end"), [("GET", "/json"), ("GET", "/history"), ("DELETE", ""), ("POST", "/tag?repo=x")]
)
def test_what_is_not_there_is_404(shelf: Shelf, method: str, end: str, name: str, shown: str | None):
    status, answer = shelf.ask(method, f"/images/{name}{end}")

    assert status == 404
    assert answer == {"message": f"No such image: {shown or name}"}


def test_a_name_is_given(shelf: Shelf):
    image_id = shelf.add(APP)

    assert shelf.ask("POST", "/images/app/tag?repo=host%3A5000%2Fx&tag=2") == (201, None)
    assert shelf.ask("POST", f"/images/{image_id}/tag?repo=y")[0] == 201
    assert tags(listed(shelf)) == ["app:latest", "host:5000/x:2", "y:latest"]
    assert shelf.ask("POST", "/images/app/tag?repo=UPPER")[0] == 400
    assert shelf.ask("POST", "/images/app/tag?repo=x@sha256:" + "0" * 64)[0] == 400


def test_a_name_that_moves_leaves_the_old_image_without_one(shelf: Shelf):
    shelf.add(APP)
    shelf.add("docker.io/library/other:1", text=b"other")
    shelf.ask("POST", "/images/other:1/tag?repo=app")

    assert tags(listed(shelf)) == ["<none>:<none>", "app:latest", "other:1"]


def test_the_last_name_takes_the_image_along(shelf: Shelf):
    image_id = shelf.add(APP, HOSTED)

    assert shelf.ask("DELETE", f"/images/{HOSTED}") == (200, [{"Untagged": HOSTED}])
    assert shelf.ask("DELETE", "/images/app") == (200, [{"Untagged": "app:latest"}, {"Deleted": image_id}])
    assert listed(shelf) == []


def test_an_id_with_names_in_several_repositories_needs_force(shelf: Shelf):
    image_id = shelf.add(APP, HOSTED)
    status, answer = shelf.ask("DELETE", f"/images/{image_id}")

    assert status == 409
    assert answer["message"] == (
        f"conflict: unable to delete {image_id[7:19]} (must be forced) - image is referenced in multiple repositories"
    )
    status, gone = shelf.ask("DELETE", f"/images/{image_id[7:19]}?force=1")
    assert status == 200
    assert gone == [{"Untagged": "app:latest"}, {"Untagged": HOSTED}, {"Deleted": image_id}]


def test_an_id_with_names_in_one_repository_does_not(shelf: Shelf):
    image_id = shelf.add(APP, "docker.io/library/app:2")

    assert shelf.ask("DELETE", f"/images/{image_id}")[0] == 200
    assert listed(shelf) == []


def test_pruning_takes_images_without_a_name(shelf: Shelf):
    shelf.add(APP)
    nameless = shelf.add(text=b"nameless")
    status, pruned = shelf.ask("POST", "/images/prune")

    assert (status, pruned["ImagesDeleted"]) == (200, [{"Deleted": nameless}])
    assert tags(listed(shelf)) == ["app:latest"]


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ({"dangling": ["false"]}, []),
        ({"dangling": ["false"], "until": ["2020-06-01T00:00:00Z"]}, ["keep:1"]),
        ({"dangling": ["false"], "label": ["k"]}, ["app:1"]),
        ({"dangling": ["false"], "label!": ["k"]}, ["keep:1"]),
    ],
)
def test_pruning_all_can_be_narrowed(shelf: Shelf, filters: dict[str, list[str]], left: list[str]):
    shelf.add("docker.io/library/app:1", created="2020-01-01T00:00:00Z")
    shelf.add("docker.io/library/keep:1", labels={"k": "v"}, created="2021-01-01T00:00:00Z")

    assert shelf.ask("POST", f"/images/prune?filters={quote(json.dumps(filters))}")[0] == 200
    assert tags(listed(shelf)) == left


def test_a_damaged_image_is_listed_and_can_be_removed(shelf: Shelf):
    shelf.add(APP)
    digest = shelf.store.images()[0].descriptor.digest
    shelf.store.path(digest).write_bytes(b"{}")

    assert tags(listed(shelf)) == ["app:latest"]
    assert shelf.ask("DELETE", "/images/app")[0] == 200
    assert listed(shelf) == []
