"""A stream in chunks: nothing is lost, sizes are bounded, an insertion moves only what is near it. L3."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.layer.chunks import LARGEST, SMALLEST, cut


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


def text(size: int, seed: int) -> bytes:
    chance = random.Random(seed)
    words = [b"%x" % chance.randrange(1 << 24) for _ in range(500)]
    return b" ".join(chance.choice(words) for _ in range(size // 6))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 3 << 20), st.integers(0, 99), st.integers(1, 1 << 20), st.sampled_from([noise, text]))
def test_the_same_stream_has_the_same_cuts(size: int, seed: int, piece: int, make) -> None:
    """However it is handed over."""
    data = make(size, seed)
    chunks = list(cut([data]))

    assert b"".join(chunks) == data
    assert all(SMALLEST <= len(chunk) <= LARGEST for chunk in chunks[:-1])
    assert list(cut(data[at : at + piece] for at in range(0, len(data), piece))) == chunks


@pytest.mark.parametrize("make", [noise, text])
def test_an_insertion_stays_where_it_is(make) -> None:
    """Of 24 MiB with eight bytes put in, one or two chunks are new."""
    data = make(24 << 20, 7)
    changed = data[: 9 << 20] + b"inserted" + data[9 << 20 :]

    assert 1 <= len(set(cut([changed])) - set(cut([data]))) <= 2


def test_what_never_matches_is_cut_all_the_same() -> None:
    """Zeros."""
    assert [len(chunk) for chunk in cut([bytes(20 << 20)])] == [LARGEST, LARGEST, 4 << 20]


def test_nothing() -> None:
    """No chunk of nothing."""
    assert list(cut([])) == list(cut([b"", b""])) == []
