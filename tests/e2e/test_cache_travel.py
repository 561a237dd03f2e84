"""Caches that travel between stores: D1-D3, D7-D9, B19, L4. Real builds, a real registry, real directories."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.cache_places import KINDS, RUNS, Place, digest, make_context, open_place, ran
from lamina.store.store import Store
from support.bases import busybox_context
from support.command import Lamina

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for overlay mounts"),
    pytest.mark.skipif(shutil.which("crun") is None, reason="no crun here: apt-get install crun"),
]


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A cache in a directory, in a registry in either form, or in one of the stores."""
    return open_place(request, tmp_path)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return make_context(tmp_path)


@pytest.fixture
def machine(tmp_path: Path) -> Callable[[str], Lamina]:
    """Stores that share nothing, by name."""
    return lambda name: Lamina(tmp_path / f"machine-{name}")


def test_an_empty_store_has_every_hit_and_takes_only_what_it_needs(place, context, machine) -> None:
    """D2, D3, D7, B19: with mode=max nothing runs elsewhere, and the image is the same to the byte."""
    a, b = machine("a"), machine("b")
    first = a.build(context, "-t", "app", "--cache-to", place.to + ",mode=max")
    second = b.build(context, "-t", "app", "--cache-from", place.from_)

    assert len(ran(first.stderr)) == RUNS
    assert ran(second.stderr) == []
    assert digest(b) == digest(a)
    kept = [path.stat().st_size for path in (b.root / "oci" / "blobs" / "sha256").iterdir()]
    assert not any(size > 2_000_000 for size in kept), "the build stage's junk came along"


def test_only_what_depends_on_a_change_runs_again(place, context, machine) -> None:
    """D2, D3, B16: the other stage's step comes from the cache although the target has changed."""
    machine("a").build(context, "-t", "app", "--cache-to", place.to + ",mode=max")
    (context / "app.txt").write_text("two")
    done = machine("b").build(context, "-o", f"type=local,dest={context}/out", "--cache-from", place.from_)

    again = ran(done.stderr)
    assert len(again) == 2 and not any("/base" in name for name in again), again
    assert (context / "out" / "out.txt").read_text() == "two"
    assert (context / "out" / "base").read_text() == "base\n"


def test_an_unchanged_result_of_a_changed_step_goes_on_by_content(place, context, machine) -> None:
    """B16: only the index of the cached stage is needed to see that what is copied has not changed."""
    a = machine("a")
    a.build(context, "-t", "app", "--cache-to", place.to + ",mode=max")
    dockerfile = context / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text().replace("WORKDIR /src", "ENV unused=1\nWORKDIR /src"))
    done = machine("b").build(context, "-t", "app", "--cache-from", place.from_)

    assert len(ran(done.stderr)) == 1, "the step whose environment changed, not the ones that copy its result"


def test_min_holds_what_the_image_consists_of(place, context, machine) -> None:
    """D7: the build stage is not in it, the final stage is."""
    machine("a").build(context, "-t", "app", "--cache-to", place.to + ",mode=min")
    (context / "app.txt").write_text("two")
    done = machine("b").build(context, "-t", "app", "--cache-from", place.from_)

    assert [name for name in ran(done.stderr) if "/base" in name] == []
    assert len(ran(done.stderr)) == 2


def test_exports_add_up(place, context, machine) -> None:
    """L4, D9: a second machine's export keeps what the first one's brought."""
    machine("a").build(context, "-t", "app", "--cache-to", place.to + ",mode=max")
    other = context.parent / "other"
    other.mkdir()
    busybox_context(other, "FROM base\nRUN echo other > /other\n")
    machine("b").build(other, "-t", "other", "--cache-to", place.to + ",mode=max")
    c = machine("c")

    assert ran(c.build(context, "-t", "app", "--cache-from", place.from_).stderr) == []
    assert ran(c.build(other, "-t", "other", "--cache-from", place.from_).stderr) == []


def test_a_fresh_machine_names_the_file_that_changed(place, context, machine) -> None:
    """L1: the lists of files travel with the cache; what stands on the changed step is told by it."""
    machine("a").build(context, "-t", "app", "--cache-to", place.to + ",mode=max")
    (context / "app.txt").write_text("two")
    b = machine("b")
    done = b.build(context, "-t", "app", "--explain", "--cache-from", place.from_)
    why = json.loads(b("why", "--format", "json").stdout)

    assert "app.txt changed" in done.stderr
    told = {step["name"].split("] ", 1)[-1]: step["why"] for step in why["steps"]}
    copied = told["COPY app.txt ."]
    assert [change["paths"][0]["path"] for change in copied["changes"] if change["paths"]] == ["app.txt"]
    assert "(first build here; compared with the cache from " in copied["sentence"]
    run = next(step for name, step in told.items() if name.startswith("RUN cat"))
    assert '"[build 2/3] COPY app.txt ." below it ran again: ' in run["sentence"]
    assert "app.txt" in run["sentence"]


def test_exporting_again_sends_nothing(place, context, machine) -> None:
    """C10: what is there is not sent twice, and an export without news writes nothing."""
    a = machine("a")
    a.build(context, "-t", "app", "--cache-to", place.to + ",mode=max")
    done = a.build(context, "-t", "app", "--cache-to", place.to + ",mode=max")

    assert "0 of them new" in done.stderr and "sent" not in done.stderr.split("exporting cache", 1)[1]


def test_a_cache_that_lost_its_layers_costs_time_only(place, context, machine) -> None:
    """L4: promised layers that are gone are built again, with a warning; the next export mends the cache."""
    a, b = machine("a"), machine("b")
    a.build(context, "-t", "app", "--cache-to", place.to + ",mode=max")
    place.lose_layers()
    done = b.build(context, "-t", "app", "--cache-from", place.from_)

    assert "WARN" in done.stderr.upper() and "built again" in done.stderr
    assert digest(b) != digest(a), "what the steps made up at random was made up anew"
    assert b("store", "check").returncode == 0


def test_a_killed_export_leaves_the_old_cache(place, context, machine, tmp_path) -> None:
    """Kill the exporter at random moments: what was there still imports."""
    machine("a").build(context, "-t", "app", "--cache-to", place.to + ",mode=max")
    chance = random.Random(4)
    for number in range(6):
        other = tmp_path / f"other{number}"
        other.mkdir()
        busybox_context(other, f"FROM base\nRUN echo {number} > /n && dd if=/dev/urandom of=/junk bs=1M count=3\n")
        victim = machine("victim")
        process = subprocess.Popen(
            [sys.executable, "-m", "lamina", "build", "-q", "-t", "x", "--cache-to", place.to + ",mode=max", other],
            env={**os.environ, "LAMINA_ROOT": str(victim.root)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        threading.Timer(chance.uniform(0.1, 0.9), lambda p=process: p.send_signal(signal.SIGKILL)).start()
        process.wait()
    done = machine("b").build(context, "-t", "app", "--cache-from", place.from_)

    assert ran(done.stderr) == []


def test_an_image_holds_its_cache(context, machine, registry) -> None:
    """D1: the image that was pushed is the cache, and building it again gives the same image."""
    name = f"{registry}/app:inline"
    a, b = machine("a"), machine("b")
    first = a.build(context, "-t", name, "--push", "--cache-to", "type=inline", "--metadata-file", context / "meta")
    assert len(ran(first.stderr)) == RUNS
    again = a.build(context, "-t", name, "--push", "--cache-to", "type=inline", "--metadata-file", context / "meta2")
    (context / "app.txt").write_text("two")
    done = b.build(context, "-t", "app", "--cache-from", name)

    assert ran(again.stderr) == []
    digests = [json.loads((context / file).read_text())["containerimage.digest"] for file in ("meta", "meta2")]
    assert digests[0] == digests[1]
    assert not any("/base" in name for name in ran(done.stderr))


def test_a_pushed_image_of_cached_layers_does_not_come_here(context, machine, registry) -> None:
    """C10, B19: layers are lent from the cache's repository to the image's, on the registry."""
    cache = f"type=registry,ref={registry}/app:cache"
    machine("a").build(context, "-t", "app", "--cache-to", cache + ",mode=max")
    b, c = machine("b"), machine("c")
    done = b.build(context, "-t", f"{registry}/other/app", "--push", "--cache-from", cache)
    c("pull", f"{registry}/other/app")

    assert ran(done.stderr) == []
    assert sum(path.stat().st_size for path in (b.root / "oci" / "blobs" / "sha256").iterdir()) < 50_000
    assert c("run", f"{registry}/other/app", "cat", "/base").stdout == "base\n"


def test_several_sources_and_targets(context, machine, registry, tmp_path) -> None:
    """D8: every target is written, every source asked."""
    machine("a").build(
        context, "-t", "app",
        "--cache-to", f"type=local,dest={tmp_path}/one,mode=max",
        "--cache-to", f"type=registry,ref={registry}/two:cache",
    )  # fmt: skip
    for source in (f"type=local,src={tmp_path}/one", f"{registry}/two:cache"):
        done = machine(source[:12]).build(
            context, "-t", "app", "--cache-from", f"type=local,src={tmp_path}/none", "--cache-from", source
        )
        assert ran(done.stderr) == []


def test_layers_are_compressed_as_asked(context, machine, tmp_path) -> None:
    """D2: new layers with `compression`, all of them with `force-compression`."""
    a, cache = machine("a"), tmp_path / "cache"
    a.build(context, "-t", "app", "--cache-to", f"type=local,dest={cache},mode=max,compression=uncompressed")
    assert media_types(cache) == {"application/vnd.oci.image.layer.v1.tar"}
    forced = f"type=local,dest={cache}2,mode=max,compression=zstd,force-compression=true"
    a.build(context, "-t", "app", "--cache-to", forced)
    assert media_types(Path(f"{cache}2")) == {"application/vnd.oci.image.layer.v1.tar+zstd"}

    done = machine("b").build(context, "-t", "app", "--cache-from", f"type=local,src={cache}2")
    assert ran(done.stderr) == []


def media_types(cache: Path) -> set[str]:
    store = Store(cache, create=False)
    manifest = json.loads(store.read(store.images()[0].descriptor.digest))
    return {blob["mediaType"] for blob in manifest["layers"] if "image.layer" in blob["mediaType"]}


MOUNTED = """\
FROM base
COPY app.txt deps.lock /
RUN --mount=type=cache,id=pip,target=/cache cat /app.txt >> /cache/log && cat /cache/log > /out && ls /cache > /names
"""


def test_cache_mounts_travel(place, context, machine) -> None:
    """L3, D10: what a step kept on one machine is there on another, when its step runs."""
    dockerfile = context / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text().partition("FROM base AS build")[0] + MOUNTED)
    (context / "deps.lock").write_text("1")
    a = machine("a")
    to = place.to + ",mode=max,mounts=pip@deps.lock"
    a.build(context, "-t", "app", "--cache-to", to)
    big = next((a.root / "caches").glob("*")) / "wheels"
    big.write_bytes(random.Random(1).randbytes(20_000_000))
    (context / "app.txt").write_text("two")
    second = a.build(context, "-t", "app", "--cache-to", to).stderr
    (context / "app.txt").write_text("three")
    out = context / "out"
    b = machine("b")
    b.build(context, "-o", f"type=local,dest={out}", "--cache-from", place.from_, "--cache-to", to)

    assert (out / "out").read_text() == "onetwothree"
    assert (out / "names").read_text() == "log\nwheels\n"
    assert sent(second) > 20_000_000
    (context / "app.txt").write_text("four")
    third = b.build(context, "-o", f"type=local,dest={out}", "--cache-from", place.from_, "--cache-to", to).stderr
    assert sent(third) < 6_000_000, "most of the mount was there already"


def test_cache_mounts_that_are_not_there(place, context, machine) -> None:
    """L3: a wrong id is a warning; a cache that lost the chunks leaves the mount empty."""
    done = machine("a").build(context, "-t", "app", "--cache-to", place.to + ",mounts=nobody")
    assert "there is none of that id" in done.stderr


def sent(output: str) -> int:
    """Return how many bytes an export sent."""
    found = re.search(r"sent \d+ blobs of ([\d,]+) bytes", output)
    return int(found[1].replace(",", "")) if found else 0


def test_failures_are_warnings_unless_asked(context, machine) -> None:
    """A cache that cannot be reached never fails the build; `ignore-error=false` asks for that."""
    nowhere = "type=registry,ref=127.0.0.1:1/x:cache"
    done = machine("a").build(context, "-t", "app", "--cache-to", nowhere, "--cache-from", nowhere)
    refused = machine("a").build(context, "-t", "app", "--cache-to", nowhere + ",ignore-error=false", check=False)

    assert "is not used" in done.stderr and "was not exported" in done.stderr
    assert refused.returncode != 0 and "127.0.0.1:1" in refused.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cache-to", "type=tape"], "unknown type"),
        (["--cache-to", "type=local"], "needs dest="),
        (["--cache-from", "type=local,src=x,colour=red"], "no attribute 'colour'"),
        (["--cache-to", "type=inline,mode=max"], "inline"),
        (["--cache-to", "type=registry,ref=x,mode=most"], "min or max"),
    ],
)
def test_what_makes_no_sense_is_refused(context, machine, words, said) -> None:
    """Before anything runs, with what would be right."""
    done = machine("a").build(context, *words, check=False)

    assert done.returncode != 0 and said in done.stderr
