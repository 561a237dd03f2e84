"""I4, L1, L23: `why`, `history`, `plan`, `--explain` and `--expect-cached` as a user meets them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lamina as library
from support.bases import busybox_context
from support.command import Lamina

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for overlay mounts"),
    pytest.mark.skipif(shutil.which("crun") is None, reason="no crun here: apt-get install crun"),
]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A project of three steps on busybox; `app` has two files."""
    made = busybox_context(tmp_path / "ctx", "FROM base\nCOPY app /app\nRUN cat /app/a\nRUN echo last\n")
    (made / "app").mkdir()
    for name in "ab":
        (made / "app" / name).write_text(f"{name}\n")
    return made


def rows(lamina: Lamina, sql: str) -> list[Any]:
    connection = sqlite3.connect(lamina.root / "state.db")
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def records(lamina: Lamina) -> list[dict[str, Any]]:
    return json.loads(lamina("history", "ls", "--format", "json").stdout)


def test_explain_says_below_each_step_why_it_runs(lamina: Lamina, context: Path):
    lamina.build(context)
    (context / "app" / "a").write_text("changed\n")

    told = lamina.build(context, "--explain").stderr
    (context / "app" / "a").write_text("changed again\n")
    silent = lamina.build(context).stderr

    assert "not cached: app/a changed in the build context (content)\n" in told
    assert 'not cached: "[stage-1 1/3] COPY app /app" below it ran again: app/a changed' in told
    assert "not cached" not in silent


def test_why_names_every_file_and_the_last_build_of_the_directory_is_meant(
    lamina: Lamina, context: Path, tmp_path: Path
):
    lamina.build(context)
    for number in range(30):
        (context / "app" / f"{number:02}").write_text("new\n")
    (context / "app" / "b").chmod(0o600)
    lamina.build(context)
    other = busybox_context(tmp_path / "other")
    lamina.build(other, "--target=base")

    (step, *_) = json.loads(lamina("why", "--format=json", cwd=context).stdout)["steps"]
    paths = {path["path"]: path["how"] for path in step["why"]["changes"][0]["paths"]}
    text = lamina("why", "", "COPY app", cwd=context).stdout

    assert step["name"] == "[stage-1 1/3] COPY app /app"
    assert paths == {"app/b": "mode", **{f"app/{number:02}": "added" for number in range(30)}}
    assert "31 paths changed in the build context: app/00 (added)" in text and "app/29 (added)" in text


def test_why_of_a_cached_build_says_that_nothing_ran(lamina: Lamina, context: Path):
    lamina.build(context)
    lamina.build(context)

    assert "nothing ran: the same as build" in lamina("why").stdout


@pytest.mark.parametrize("words", [["--expect-cached"], ["--expect-cached=RUN cat"]])
def test_an_expected_hit_that_misses_fails_before_anything_runs(lamina: Lamina, context: Path, words: list[str]):
    """users-ask 2: exit code 1, the sentence, no result."""
    lamina.build(context)
    layers = rows(lamina, "SELECT count(*) FROM layer")
    (context / "Dockerfile").write_text((context / "Dockerfile").read_text().replace("cat /app/a", "cat /app/b"))

    done = lamina.build(context, *words, "-t", "app", check=False)

    assert done.returncode == 1
    assert "[stage-1 2/3] RUN cat /app/b was expected in the cache" in done.stderr
    assert 'the command changed: "/app/a" -> "/app/b"' in done.stderr
    assert rows(lamina, "SELECT count(*) FROM layer") == layers
    assert "app" not in lamina("images").stdout


def test_an_expected_hit_that_hits_is_an_ordinary_build(lamina: Lamina, context: Path, tmp_path: Path):
    lamina.build(context)

    lamina.build(context, "--expect-cached")
    lamina.build(context, "--expect-cached", "-o", f"type=oci,dest={tmp_path}/out.tar")
    (context / "Dockerfile").write_text((context / "Dockerfile").read_text().replace("echo last", "echo other"))
    lamina.build(context, "--expect-cached=RUN cat")


def test_a_step_that_is_expected_and_does_not_exist_is_a_mistake(lamina: Lamina, context: Path):
    done = lamina.build(context, "--expect-cached=RUN mkae", check=False)

    assert done.returncode == 2 and "no step has 'RUN mkae' in its name" in done.stderr


def test_every_build_leaves_a_record(lamina: Lamina, context: Path):
    """Also one that was cached whole, one that failed, one whose Dockerfile cannot be read, one of a base at fault."""
    lamina.build(context, "-t", "app:1")
    lamina.build(context, "-t", "app:1")
    original = (context / "Dockerfile").read_text()
    for broken in (original + "RUN exit 3\n", original + "NONSENSE\n", "FROM 127.0.0.1:1/no/such:1\n"):
        (context / "Dockerfile").write_text(broken)
        lamina.build(context, check=False)

    *failed, cached, first = records(lamina)

    assert [build["status"] for build in failed] == ["failed"] * 3
    assert "exit code: 3" in failed[2]["error"] and "NONSENSE" in failed[1]["error"]
    assert cached["same_as"] == first["id"] and cached["cached"] == cached["steps"] == first["steps"] == 4
    assert first["image"]["names"] == ["docker.io/library/app:1"]
    assert "COPY app /app" in first["dockerfile"]["text"]


def test_show_logs_export_and_rm(lamina: Lamina, context: Path, tmp_path: Path):
    lamina.build(context, "-t", "app")
    name = records(lamina)[0]["id"]

    shown = lamina("history", "show", name[:5]).stdout
    vertices = json.loads(lamina("history", "show", name, "--format=json").stdout)["vertices"]
    lamina("history", "export", name, "-o", tmp_path / "out.jsonl")
    exported = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]

    assert f"build: {name}" in shown and "[stage-1 2/3] RUN cat /app/a" in shown
    assert {step["status"] for step in vertices} == {"ran"}
    assert lamina("history", "logs", name, "RUN echo").stdout == "last\n"
    assert "==> " in lamina("history", "logs").stdout
    assert exported[0]["build"]["id"] == name
    assert "last\n" in [line["log"]["data"] for line in exported if "log" in line]
    assert lamina("history", "rm", name).stdout == "removed 1 record\n"
    assert records(lamina) == [] and not list((lamina.root / "builds").glob(f"{name}*"))
    assert "RUN /bin/sh -c echo last" in lamina("history", "app", "--no-trunc").stdout, "docker's meaning stays"


def test_a_log_is_kept_whole(lamina: Lamina, tmp_path: Path):
    """users-ask 20: no limit of a MiB."""
    context = busybox_context(tmp_path / "ctx", "FROM base\nRUN seq 1 400000; exit 1\n")
    lamina.build(context, "--progress=quiet", check=False)

    lines = lamina("history", "logs", "", "RUN").stdout.splitlines()

    assert lines == [str(number) for number in range(1, 400001)]


def test_a_killed_build_left_its_log_and_the_next_one_says_so(lamina: Lamina, tmp_path: Path):
    command = "[ -e /run/secrets/go ] || { echo waiting; sleep 300; }"
    context = busybox_context(tmp_path / "ctx", f"FROM base\nRUN --mount=type=secret,id=go {command}\n")
    words = [sys.executable, "-m", "lamina", "build", "--progress=plain", str(context)]
    process = subprocess.Popen(
        words, env={**os.environ, "LAMINA_ROOT": str(lamina.root)}, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    with process.stderr:
        assert any(line.rstrip().endswith(" waiting") for line in process.stderr)
        process.send_signal(signal.SIGKILL)
        process.wait()

    (died,) = records(lamina)
    log = lamina("history", "logs", died["id"]).stdout
    (tmp_path / "go").write_text("yes")
    told = lamina.build(context, "--explain", f"--secret=id=go,src={tmp_path}/go").stderr

    assert died["status"] == "died" and log.endswith("waiting\n")
    assert f"not cached: it did not finish: build {died['id']} was killed while it ran" in told
    assert "killed" in lamina("history", "show", died["id"]).stdout


def test_a_secret_is_in_no_log(lamina: Lamina, tmp_path: Path):
    context = busybox_context(tmp_path / "ctx", "FROM base\nRUN --mount=type=secret,id=s cat /run/secrets/s; exit 1\n")
    (tmp_path / "s").write_text("correct horse battery\n")

    done = lamina.build(context, f"--secret=id=s,src={tmp_path}/s", check=False)

    everything = done.stderr + lamina("history", "logs").stdout + lamina("history", "export").stdout
    assert "horse" not in everything and "***" in everything
    found = subprocess.run(["grep", "-rl", "correct horse", lamina.root], capture_output=True, text=True, check=False)
    assert found.stdout == ""


def test_plan_says_what_would_run_and_runs_nothing(lamina: Lamina, context: Path):
    before = lamina("plan", context).stdout
    lamina.build(context)
    cached = lamina("plan", context).stdout
    (context / "app" / "a").write_text("changed\n")
    nodes = rows(lamina, "SELECT count(*) FROM node")
    found = json.loads(lamina("plan", context, "--format=json").stdout)

    assert "4 of 4 steps would run" in before and "(4 without one)" in before
    assert cached.endswith("all 4 steps are cached\n")
    assert [step["status"] for step in found["steps"]] == ["cached", "run", "run", "run"]
    assert [step["from"] for step in found["steps"]] == ["local", "", "", ""]
    assert found["steps"][1]["why"]["sentence"] == "app/a changed in the build context (content)"
    assert all(step["seconds"] > 0 for step in found["steps"][1:])
    assert found["expected_seconds"] == pytest.approx(sum(s["seconds"] for s in found["steps"][1:]), abs=0.01)
    assert rows(lamina, "SELECT count(*) FROM node") == nodes
    assert len(records(lamina)) == 1, "a plan is no build"


def test_plan_does_not_pretend_to_know_what_a_step_will_make(lamina: Lamina, tmp_path: Path):
    context = busybox_context(
        tmp_path / "ctx", "FROM base AS make\nCOPY src /src\nRUN wc /src > /out\nFROM base\nCOPY --from=make /out /\n"
    )
    (context / "src").write_text("one\n")
    lamina.build(context)
    (context / "src").write_text("two\n")

    found = json.loads(lamina("plan", context, "--format=json").stdout)

    assert [step["status"] for step in found["steps"]] == ["cached", "run", "run", "perhaps"]


def test_plan_pulls_no_layer(lamina: Lamina, context: Path, tmp_path: Path, registry: str):
    lamina.build(context, "-t", f"{registry}/app:1", "--push")
    other = Lamina(tmp_path / "other-root")
    project = tmp_path / "project"
    project.mkdir()
    (project / "Dockerfile").write_text(
        f"FROM {registry}/app:1 AS app\nRUN true\nFROM scratch\nCOPY --from=app /app /\n"
    )

    text = other("plan", project).stdout

    assert ("perhaps" in text and "RUN true" not in text.split("perhaps")[0]) or "runs" in text
    blobs = list((other.root / "oci" / "blobs" / "sha256").iterdir())
    assert all(blob.stat().st_size < 20_000 for blob in blobs), "manifest and config at most"


def test_a_hit_from_elsewhere_says_from_where(lamina: Lamina, context: Path, tmp_path: Path):
    lamina.build(context, f"--cache-to=type=local,dest={tmp_path}/cache,mode=max")
    other = Lamina(tmp_path / "other-root")
    words = f"--cache-from=type=local,src={tmp_path}/cache"

    planned = json.loads(other("plan", context, words, "--format=json").stdout)
    fresh = Lamina(tmp_path / "third-root")
    fresh.build(context, words)
    vertices = json.loads(fresh("history", "show", "--format=json").stdout)["vertices"]

    assert {step["status"] for step in planned["steps"]} == {"cached"}
    assert any("local" in step["from"] and step["from"] != "local" for step in planned["steps"])
    assert any(step["from"] not in ("", "local") for step in vertices)


def test_the_library_tells_why(tmp_path: Path, context: Path):
    root = tmp_path / "root"
    library.build(context, root=root)
    (context / "app" / "a").write_text("changed\n")
    reasons: dict[str, str] = {}

    def watch(event: Any) -> None:
        if getattr(event, "reason", ""):
            reasons[event.name] = event.reason

    result = library.build(context, root=root, progress=watch)
    first = result.explanations[0]

    assert (first.cause, first.root) == ("files", "[stage-1 1/3] COPY app /app")
    assert [path.path for path in first.changes[0].paths] == ["app/a"]
    assert library.why(result.build, root=root).explanations == result.explanations
    assert reasons == {told.step: told.sentence for told in result.explanations}


def test_the_graph_of_a_build_stays_with_its_record(lamina: Lamina, context: Path):
    """I4: also of one that fails; a build that found everything again shows the graph of the one it is the same as."""
    (context / "Dockerfile").write_text("FROM scratch\nARG API_KEY\nCOPY app /app\nRUN echo\n")
    lamina.build(context, "--build-arg=API_KEY=k3yk3yk3y", check=False)
    failed = json.loads(lamina("history", "show", "--definition", cwd=context).stdout)
    exported = [json.loads(line) for line in lamina("history", "export", cwd=context).stdout.splitlines()]
    (context / "Dockerfile").write_text("FROM scratch\nCOPY app /app\n")
    lamina.build(context)
    lamina.build(context)

    again = json.loads(lamina("history", "show", "--definition", cwd=context).stdout)

    assert {kind for op in failed["def"].values() for kind in op} >= {"exec", "file", "source"}
    assert not any(b"k3yk3yk3y" in path.read_bytes() for path in (lamina.root / "builds").rglob("*") if path.is_file())
    assert "k3yk3yk3y" not in json.dumps(failed)
    assert any("definition" in line for line in exported)
    assert records(lamina)[0]["same_as"] and {kind for op in again["def"].values() for kind in op} >= {"file", "source"}


def test_records_are_dropped_by_condition_age_and_number(lamina: Lamina, context: Path):
    """I4: and `rm` without any of them drops nothing."""
    (context / "Dockerfile").write_text("FROM scratch\nCOPY app /app\n")
    for number in range(3):
        (context / "app" / "a").write_text(f"{number}\n")
        lamina.build(context)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY nothing /\n")
    lamina.build(context, check=False)
    lamina("history", "rm", check=False)
    assert [record["status"] for record in records(lamina)] == ["failed", *["completed"] * 3]

    lamina("history", "rm", "--filter=status=failed")
    lamina("history", "rm", "--older=1h")
    lamina("history", "rm", "--keep=2")

    assert [record["status"] for record in records(lamina)] == ["completed"] * 2
    assert len([path for path in (lamina.root / "builds").iterdir() if path.is_dir()]) == 2
