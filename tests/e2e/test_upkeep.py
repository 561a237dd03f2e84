"""Disk space as a user meets it: du, prune, the ceiling, garbage collection, a full disk."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lamina.cancel import Cancel
from lamina.engine.disk import EVERYTHING, prune_by
from lamina.engine.options import Environment
from lamina.engine.place import Place
from lamina.engine.upkeep.amounts import Amount
from lamina.engine.upkeep.collect import collect_garbage, is_due
from lamina.engine.upkeep.inventory import folder_bytes, take_inventory
from lamina.engine.upkeep.policy import Disk, Policies, Rule
from lamina.engine.upkeep.room import CeilingError, Room
from support.bases import BUSYBOX_STAGE, busybox_context
from support.command import Lamina

STEPS = """\
FROM base
RUN --mount=type=cache,target=/c dd if=/dev/zero of=/c/x bs=1024 count=500 && echo one > /one
RUN dd if=/dev/urandom of=/big bs=1024 count=1500
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A context of three layers and a cache mount."""
    return busybox_context(tmp_path / "ctx", STEPS)


def json_of(lamina: Lamina, *words: str) -> dict:
    return json.loads(lamina(*words, "--format=json").stdout)


def kinds(found: dict) -> dict[str, list[dict]]:
    by_kind: dict[str, list[dict]] = {}
    for record in found["records"]:
        by_kind.setdefault(record["kind"], []).append(record)
    return by_kind


# -- looking


def test_du_says_what_each_thing_is_and_why_it_is_kept(lamina: Lamina, context: Path):
    """H9, L20: images, steps, layers above, cache mounts; forms, sizes, parents, totals."""
    lamina.build(context, "-t", "app")
    found = json_of(lamina, "du")
    things = kinds(found)

    one, two, three = sorted(things["layer"], key=lambda record: int(record["name"]))
    assert (two["parents"], three["parents"]) == ([one["name"]], [two["name"]])
    assert "image docker.io/library/app:latest" in three["reasons"]
    assert any(reason.startswith('cache of step "') and "RUN dd" in reason for reason in three["reasons"])
    assert "below 1 other layer" in one["reasons"] and not three["in_use"]
    assert three["size_bytes"] == three["tree_bytes"] + three["blob_bytes"] + three["index_bytes"]
    assert three["shared_bytes"] == three["blob_bytes"] and three["private_bytes"] > 1500 << 10
    (mount,) = things["cache mount"]
    assert mount["type"] == "exec.cachemount" and 500 << 10 <= mount["size_bytes"] < 600 << 10 and mount["mutable"]
    totals = found["totals"]
    assert totals["total_bytes"] == totals["shared_bytes"] + totals["private_bytes"]
    assert things["history"]


def test_du_filters_and_tables(lamina: Lamina, context: Path):
    """H9: --filter, --verbose and the table of totals."""
    lamina.build(context, "-t", "app")

    only = json_of(lamina, "du", "--filter", "type=exec.cachemount")["records"]
    assert [record["kind"] for record in only] == ["cache mount"]
    verbose = lamina("du", "--verbose", "--filter", "type=regular").stdout
    assert "Forms:       tree" in verbose and "Kept for:" in verbose
    table = lamina("du").stdout
    assert all(f"\n{name}:" in table for name in ("Shared", "Private", "Reclaimable", "Total"))
    refused = lamina("du", "--filter", "colour=red", check=False)
    assert refused.returncode == 2 and "names no field" in refused.stderr


def test_du_why_leads_from_a_layer_to_what_keeps_it(lamina: Lamina, context: Path):
    """L20: the chain that pins it, with what lets go."""
    lamina.build(context, "-t", "app")
    lamina("rmi", "app")
    bottom = min(int(record["name"]) for record in kinds(json_of(lamina, "du"))["layer"])

    text = lamina("du", "--why", str(bottom)).stdout
    assert text.startswith(f"layer {bottom} ") and 'is the result of step "[base 1/1] COPY rootfs /"' in text
    assert lamina("du", "--why", "999", check=False).returncode == 2


def test_the_sizes_that_are_kept_are_those_on_the_disk(lamina: Lamina, context: Path):
    """The ceiling goes by sums; they may not drift from what is really there."""
    lamina.build(context, "-t", "app")
    with Place(Environment(lamina.root), Cancel()) as place:
        summed = place.room.used_bytes()
        found = take_inventory(place)
        trees = folder_bytes(lamina.root / "trees") - 4096

    blobs = sum(path.stat().st_size for path in (lamina.root / "oci/blobs/sha256").iterdir())
    history = found.history.bytes if found.history else 0
    assert abs(sum(layer.tree_bytes for layer in found.layers.values()) - trees) < 64 << 10
    assert sum(blob.bytes for blob in found.blobs.values()) == blobs
    assert abs(found.used_bytes - history - summed) < 32 << 10


# -- pruning


def test_a_dry_run_changes_nothing_and_keeps_its_word(lamina: Lamina, context: Path):
    """L20: what would go, how many bytes, which hits and what they cost; then the real thing frees just that."""
    lamina.build(context, "-t", "app")
    before = json_of(lamina, "du")

    told = json_of(lamina, "prune", "--all", "--dry-run")
    assert [r["name"] for r in json_of(lamina, "du")["records"]] == [r["name"] for r in before["records"]]
    assert len(told["lost_hits"]) == 3 and told["lost_seconds"] > 0
    assert "cache hits that would be lost" in lamina("prune", "--all", "--dry-run").stdout
    assert before["totals"]["reclaimable_bytes"] == told["freed_bytes"]

    done = json_of(lamina, "prune", "--all", "--force")
    assert (done["count"], done["freed_bytes"]) == (told["count"], told["freed_bytes"])
    assert json_of(lamina, "du")["totals"]["reclaimable_bytes"] == 0
    assert lamina("run", "app", "cat", "/one").stdout == "one\n"
    assert lamina("store", "check").returncode == 0


def test_a_plain_prune_loses_no_hit(lamina: Lamina, context: Path):
    """H9: the next build finds everything."""
    lamina.build(context, "-t", "app")
    lamina("prune", "--force")
    (context / "Dockerfile").write_text((context / "Dockerfile").read_text() + "ENV A=1\n")

    again = lamina.build(context, "-t", "app").stderr
    assert again.count("CACHED") == 3


def test_pruning_by_id_kind_and_limit(lamina: Lamina, context: Path):
    """H8, H9: --filter, --max-used-space with its other names, --reserved-space."""
    lamina.build(context, "-t", "app")
    lamina("prune", "--force", "--filter", "type=exec.cachemount")
    assert "cache mount" not in kinds(json_of(lamina, "du"))
    used = json_of(lamina, "du")["totals"]["total_bytes"]

    limit = used - 1000
    done = json_of(lamina, "prune", "--force", "--max-used-space", str(limit))
    assert done["limit_reached"] and json_of(lamina, "du")["totals"]["total_bytes"] <= limit
    assert json_of(lamina, "prune", "--force", "--keep-storage", "10GB")["count"] == 0
    assert json_of(lamina, "prune", "--force", "--all", "--keep-duration", "24h")["count"] == 0


def test_a_tree_whose_blob_stays_comes_back_when_a_step_needs_it(lamina: Lamina, context: Path):
    """D11, L20: the cheapest goes first, and costs an unpacking, not a step."""
    lamina.build(context, "-t", "app")
    lamina("prune", "--force", "--filter", "type=exec.cachemount")
    limit = json_of(lamina, "du")["totals"]["total_bytes"] - 1000
    lamina("prune", "--force", "--max-used-space", str(limit))
    assert any(record["tree_bytes"] == 0 for record in kinds(json_of(lamina, "du"))["layer"])
    (context / "Dockerfile").write_text((context / "Dockerfile").read_text() + "RUN cat /one /big > /both\n")

    assert lamina.build(context, "-t", "app").stderr.count("CACHED") == 3
    assert lamina("run", "app", "head", "-n1", "/both").stdout == "one\n"


def test_images_without_a_name_go_when_asked(lamina: Lamina, context: Path):
    """Rebuilding a tag leaves the old image without a name; `prune --images` takes those."""
    lamina.build(context, "-t", "app")
    (context / "Dockerfile").write_text(BUSYBOX_STAGE)
    lamina.build(context, "-t", "app")
    assert len(json.loads(lamina("images", "--format=json").stdout)) == 2

    lamina("prune", "--force", "--all", "--images")
    assert len(json.loads(lamina("images", "--format=json").stdout)) == 1
    assert lamina("store", "check").returncode == 0
    assert lamina("run", "app", "echo", "here").stdout == "here\n"


def test_a_step_that_was_pruned_says_by_which_rule(lamina: Lamina, context: Path):
    """L1, L20: the note outlives the result."""
    lamina.build(context, "-t", "app")
    lamina("prune", "--force", "--all")

    assert "dropped by `lamina prune --all`" in lamina.build(context, "--explain").stderr


def test_a_killed_prune_leaves_a_sound_store_and_no_waste(lamina: Lamina, context: Path):
    """Rows go first, files after: what lies between is swept the next time."""
    lamina.build(context, "-t", "app")
    for delay in (0.05, 0.1, 0.15, 0.2, 0.3):
        process = subprocess.Popen(
            [sys.executable, "-m", "lamina", "prune", "--all", "--force"],
            env={**os.environ, "LAMINA_ROOT": str(lamina.root)},
            stdout=subprocess.DEVNULL,
        )
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert lamina("store", "check").returncode == 0
        lamina.build(context, "-t", "app")
    (lamina.root / "trees" / "zz").mkdir()
    (lamina.root / "indexes" / "zz").write_bytes(b"x")
    lamina("prune", "--all", "--force")

    assert os.listdir(lamina.root / "trees") == [] == os.listdir(lamina.root / "indexes")
    assert os.listdir(lamina.root / "work") == []


# -- the ceiling


def test_a_build_lets_old_cache_go_rather_than_pass_the_ceiling(lamina: Lamina, context: Path):
    """L20: checked before and during the build; images stay whole."""
    lamina.build(context, "-t", "keep")
    for number in range(4):
        (context / "Dockerfile").write_text(BUSYBOX_STAGE + STEPS.replace("echo one", f"echo {number}"))
        lamina("--max-storage", "11MB", "build", "-q", "-t", "app", context)
        lamina("prune", "--images", "--force")
        assert json_of(lamina, "du", "--filter", "type!=internal")["totals"]["total_bytes"] <= 11 << 20

    assert lamina("run", "app", "cat", "/one").stdout == "3\n"
    assert lamina("run", "keep", "cat", "/one").stdout == "one\n"
    assert lamina("store", "check").returncode == 0


def test_a_build_that_cannot_fit_fails_and_says_what_holds_the_space(lamina: Lamina, context: Path):
    """L20: nothing is lost for nothing, and the store stays sound."""
    lamina.build(context, "-t", "app")
    before = json_of(lamina, "du")["totals"]["total_bytes"]
    (context / "Dockerfile").write_text(BUSYBOX_STAGE + "RUN dd if=/dev/urandom of=/huge bs=1024 count=9000\n")

    failed = lamina.build(context, "-t", "more", check=False, env={"LAMINA_MAX_STORAGE": "10MB"})

    assert failed.returncode == 3 and "the store would pass its ceiling of 10.0 MiB" in failed.stderr
    assert "image docker.io/library/app:latest" in failed.stderr and "hint: remove images" in failed.stderr
    assert json_of(lamina, "du")["totals"]["total_bytes"] < before + (1 << 20)
    assert lamina("run", "app", "cat", "/one").stdout == "one\n"
    assert lamina("store", "check").returncode == 0


def test_a_cache_mount_cannot_grow_past_the_ceiling(lamina: Lamina, tmp_path: Path):
    """L20: measured after the step that used it."""
    command = "RUN --mount=type=cache,target=/c dd if=/dev/zero of=/c/huge bs=1024 count=9000\n"
    context = busybox_context(tmp_path / "ctx", "FROM base\n" + command)

    failed = lamina.build(context, check=False, env={"LAMINA_MAX_STORAGE": "8MB"})
    assert failed.returncode == 3 and "ceiling" in failed.stderr
    (context / "Dockerfile").write_text(BUSYBOX_STAGE)
    assert lamina.build(context, env={"LAMINA_MAX_STORAGE": "8MB"}).returncode == 0, "it goes before the next build"


def test_a_ceiling_that_is_none_is_refused(lamina: Lamina, context: Path):
    failed = lamina("--max-storage", "plenty", "build", context, check=False)

    assert failed.returncode == 2 and "LAMINA_MAX_STORAGE" in failed.stderr


def test_room_is_granted_returned_and_refused(tmp_path: Path):
    """L20: what was given back may be taken again; a refused claim is not kept."""
    with Place(Environment(tmp_path / "root"), Cancel()) as place:
        room = Room(place, Amount(1 << 20))
        room.take(900 << 10)
        with pytest.raises(CeilingError):
            room.take(200 << 10)
        room.give(900 << 10)
        room.take(1 << 20)
        room.give(1 << 20)


# -- garbage collection


GIB = 1 << 30


@pytest.mark.parametrize(
    ("policies", "used", "last", "due"),
    [
        (Policies(), 1 * GIB, (0.0, 0), False),
        (Policies(), 90 * GIB, (0.0, 0), True),
        (Policies(), 90 * GIB, (0.0, 90 * GIB), False),
        (Policies(), 1 * GIB, (-90_000.0, 0), True),
        (Policies(enabled=False), 90 * GIB, (-90_000.0, 0), False),
        (Policies(rules=(Rule("r", max_used=Amount(GIB // 2)),)), 1 * GIB, (0.0, 0), True),
    ],
)
def test_when_garbage_is_collected(policies, used, last, due):
    """H8: past a limit unless the last try could do no better, by age once a day, never when switched off."""
    disk = Disk(100 * GIB, 100 * GIB - used)

    assert is_due(policies, used, disk, last, 1000.0 if last[0] == 0.0 else 0.0) is due


def test_garbage_is_collected_after_a_build_by_the_policies(lamina: Lamina, context: Path):
    """H8: and what the build itself used stays."""
    lamina.build(context, "-t", "app")
    environment = replace(Environment(lamina.root), gc=Policies(rules=(Rule("r", max_used=Amount(1 << 20)),)))
    with Place(environment, Cancel()) as place:
        node = place.state.execute("SELECT max(id) FROM node").fetchone()[0]
        chain = [row[0] for row in place.state.execute("SELECT id FROM layer ORDER BY id DESC LIMIT 1")]
        place.state.execute("UPDATE node SET used = ? WHERE id = ?", (time.time(), node))
        place.state.execute("UPDATE layer SET used = ? WHERE id = ?", (time.time(), chain[0]))
        collect_garbage(place)

    with Place(environment, Cancel()) as place:
        (row,) = place.state.execute("SELECT id, tree FROM layer WHERE id = ?", chain)
        assert row == (chain[0], 1)
        assert place.state.execute("SELECT sum(tree) FROM layer").fetchone() == (1,)
    assert lamina("store", "check").returncode == 0


def test_builds_found_again_keep_their_steps_young(lamina: Lamina, context: Path):
    """L20: a build that is answered from memory looks at no record; its steps count as used all the same."""
    lamina.build(context, "-t", "app")
    with Place(Environment(lamina.root), Cancel()) as place:
        place.state.execute("UPDATE node SET used = 1000")
    lamina.build(context, "-t", "app")

    with Place(Environment(lamina.root), Cancel()) as place:
        assert min(node.used for node in take_inventory(place).nodes.values()) > 1000


# -- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs")
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def fill(place: Path, leave_bytes: int) -> None:
    """Take all of the disk but so many bytes."""
    filler = place / "filler"
    filler.unlink(missing_ok=True)
    disk = os.statvfs(place)
    size = max(0, disk.f_bavail * disk.f_frsize - leave_bytes)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(size, 1))


def test_a_full_disk_never_loses_an_image(small_disk: Path, tmp_path: Path):
    """L20: builds, prunes and saves with no space left at random points; the images are whole after each."""
    dice = random.Random(7)
    lamina = Lamina(small_disk / "root")
    context = busybox_context(tmp_path / "ctx", STEPS)
    lamina.build(context, "-t", "first")
    lamina("save", "first", "-o", tmp_path / "first.tar")
    failures = 0
    for turn in range(9):
        fill(small_disk, dice.choice([0, 4096, 40_000, 300_000, 1_000_000, 2_500_000, 5_000_000]))
        (context / "Dockerfile").write_text(BUSYBOX_STAGE + STEPS.replace("echo one", f"echo {turn}"))
        done = lamina.build(context, "-t", "app", check=False)
        failures += done.returncode != 0
        assert done.returncode == 0 or "error: internal" not in done.stderr, done.stderr
        assert done.returncode in (0, 1, 3), done.stderr
        lamina("load", "-i", tmp_path / "first.tar", check=False)
        if turn % 3 == 0:
            lamina("prune", "--all", "--images", "--force", check=False)
        (small_disk / "filler").unlink()
        checked = lamina("store", "check", check=False)
        assert checked.returncode == 0, checked.stdout
        assert lamina("run", "first", "cat", "/one").stdout == "one\n"
        if done.returncode == 0 and turn % 3:
            assert lamina("run", "app", "cat", "/one").stdout == f"{turn}\n"

    assert 0 < failures < 9
    assert lamina.build(context, "-t", "app").returncode == 0


def test_prune_works_on_a_disk_without_a_byte_left(small_disk: Path, tmp_path: Path):
    """L20: removing rows needs space, too; ballast is given up for it."""
    lamina = Lamina(small_disk / "root")
    lamina.build(busybox_context(tmp_path / "ctx", STEPS), "-t", "app")
    fill(small_disk, 0)

    freed = json_of(lamina, "prune", "--all", "--force")["freed_bytes"]

    assert freed > 1 << 20
    assert lamina("run", "app", "cat", "/one").stdout == "one\n"
    assert lamina("store", "check").returncode == 0


def test_old_cache_makes_room_when_the_disk_fills(small_disk: Path, tmp_path: Path):
    """L20: no ceiling is set; what may go goes before the disk is full."""
    lamina = Lamina(small_disk / "root")
    context = busybox_context(tmp_path / "ctx", STEPS)
    lamina.build(context, "-t", "app")
    fill(small_disk, 2 << 20)
    (context / "Dockerfile").write_text(BUSYBOX_STAGE + "FROM base\nRUN dd if=/dev/urandom of=/b bs=1024 count=1300\n")

    assert lamina.build(context, "-t", "other").returncode == 0
    assert lamina("run", "app", "cat", "/one").stdout == "one\n"


def test_the_library_prunes_by_rules(lamina: Lamina, context: Path):
    """A plan comes back with what went."""
    lamina.build(context, "-t", "app")

    pruned = prune_by(Environment(lamina.root), [EVERYTHING])
    assert pruned.outcome.count == len(pruned.plan.removals) and pruned.plan.reached
