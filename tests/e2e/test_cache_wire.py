"""Caches over connections that are counted, or break at any point: the old cache still imports, the build is right.

The places in the stream are shares of what a whole transfer comes to, from its first bytes to its last one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from e2e.cache_places import KINDS, Place, make_context, open_place, ran
from support.bases import busybox_context
from support.command import Lamina
from support.cutting import CuttingProxy, cutting_proxy

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for overlay mounts"),
    pytest.mark.skipif(shutil.which("crun") is None, reason="no crun here: apt-get install crun"),
]
JUNK, LAYERS = 2_000_000, 1_100_000
SHARES = (0.001, 0.3, 0.9, 0.97, 1.0)


@pytest.fixture(params=[kind for kind in KINDS if kind != "local"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return open_place(request, tmp_path)


@pytest.fixture
def proxy(place: Place) -> Iterator[CuttingProxy]:
    found = re.search(r"127\.0\.0\.1:(\d+)", place.to)
    assert found
    with cutting_proxy(int(found[1])) as proxy:
        yield proxy


@pytest.fixture
def through(place: Place, proxy: CuttingProxy) -> Place:
    """The same place, seen through the proxy."""
    to, from_ = (re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{proxy.port}", text) for text in (place.to, place.from_))
    return replace(place, to=to, from_=from_)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return make_context(tmp_path)


@pytest.fixture
def machine(tmp_path: Path) -> Callable[[str], Lamina]:
    return lambda name: Lamina(tmp_path / f"machine-{name}")


def test_an_export_that_is_cut_leaves_the_old_cache(place, through, proxy, context, machine, tmp_path) -> None:
    """The build whose export is cut succeeds with a warning; others find what was there, or all that was to be."""
    machine("a").build(context, "-t", "app", "--cache-to", place.to + ",mode=max")
    victim, whole = machine("victim"), 0
    other = context.parent / "other"
    other.mkdir()
    busybox_context(other, "")
    for number, share in enumerate((None, None, *SHARES)):
        step = f"RUN echo {number} > /n && dd if=/dev/urandom of=/junk bs=1M count=1"
        (other / "Dockerfile").write_text(f"FROM scratch\nCOPY rootfs /\n{step}\n")
        proxy.moved, proxy.limit = 0, None if share is None else max(1, int(whole * share) - 1)
        done = victim.build(other, "-t", "x", "--cache-to", through.to + ",mode=max")
        whole = proxy.moved if share is None else whole  # of the second: the layer below is there by then
        assert share is None or proxy.is_down
        assert share is None or "cache" in done.stderr
    proxy.limit = None
    done = machine("b").build(context, "-t", "app", "--cache-from", place.from_)

    assert ran(done.stderr) == []
    again = victim.build(other, "-t", "x", "--cache-to", place.to + ",mode=max")
    assert "WARN" not in again.stderr.upper()
    assert ran(machine("c").build(other, "-t", "x", "--cache-from", place.from_).stderr) == []


def test_an_import_that_is_cut_costs_time_only(place, through, proxy, context, machine) -> None:
    """What cannot be fetched is built; nothing half-written is left in the store."""
    machine("a").build(context, "-t", "app", "--cache-to", place.to + ",mode=max")
    whole = 0
    for share in (None, *SHARES):
        b = machine(f"b{share}")
        proxy.moved, proxy.limit = 0, None if share is None else max(1, int(whole * share) - 1)
        out = context.parent / f"out{share}"
        done = b.build(context, "-o", f"type=local,dest={out}", "--cache-from", through.from_)
        whole = whole or proxy.moved
        assert share is not None or ran(done.stderr) == []
        assert share is None or proxy.is_down
        assert (out / "out.txt").read_text() == "one"
        assert (out / "done").read_text() == "done\n"
        assert b("store", "check").returncode == 0


def test_a_connection_that_breaks_once_is_made_again(place, through, proxy, context, machine) -> None:
    """A reset in the middle of the layers is mended by asking again: everything is a hit, and comes."""
    machine("a").build(context, "-t", "app", "--cache-to", place.to + ",mode=max")
    archive, meta = context.parent / "app.tar", context.parent / "meta.json"
    words = ("-o", f"type=oci,dest={archive}", "--metadata-file", meta, "--cache-from", through.from_)
    machine("whole").build(context, *words)
    whole, wanted = proxy.moved, json.loads(meta.read_text())["containerimage.digest"]
    for share in (0.4, 0.8):
        b = machine(f"b{share}")
        proxy.once, proxy.limit, proxy.moved = True, int(whole * share), 0
        done = b.build(context, *words)
        assert proxy.limit is None, "it was not cut"
        assert ran(done.stderr) == []
        assert json.loads(meta.read_text())["containerimage.digest"] == wanted, done.stderr


def test_only_what_is_needed_moves(place, through, proxy, context, machine) -> None:
    """D3, B19, C10: counted on the wire. Of the layers only the image's come, once; what is there is not sent again."""
    a, b = machine("a"), machine("b")
    counts = []
    for lamina, words in (
        (a, ("--cache-to", through.to + ",mode=max")),
        (a, ("--cache-to", through.to + ",mode=max")),
        (b, ("--cache-from", through.from_)),
        (b, ("--cache-from", through.from_)),
    ):
        proxy.moved = 0
        lamina.build(context, "-t", "app", *words)
        counts.append(proxy.moved)
    sent, again, taken, last = counts

    assert sent > JUNK + LAYERS
    assert LAYERS < taken < LAYERS + 200_000
    assert max(again, last) < 60_000
