"""What a cached thing is worth: the order in which things go when space is short. Pure.

    worth = (cost + 0.02 s) * (1 + log2(1 + uses)) * 2^(-age / 7 days) / bytes

`cost` is what it takes to have the thing again, in seconds: for the result of a step how long the step took, plus the
download where a base image was fetched for it; for an unpacked tree whose blob is here the unpacking; for a cache
mount and a repository the download. `bytes` is what becomes free, at least one block. What is worth least goes first:
the cheapest to make again per byte, the longest unused, the least used. A week without use halves the worth.
Compared as a logarithm, so that no age is too great for a number.
"""

from __future__ import annotations

import math

UNPACK_BYTES_PER_S = 300e6
DOWNLOAD_BYTES_PER_S = 10e6
HALF_LIFE_S = 7 * 86_400.0
_FLOOR_S = 0.02
_BLOCK_BYTES = 4096


def worth(cost_s: float, uses: int, age_s: float, size_bytes: int) -> float:
    """Return the binary logarithm of what a thing is worth per byte; the smallest goes first.

    Args:
        cost_s: seconds to have it again, from 0 on.
        uses: how often it was relied on.
        age_s: seconds since it was last relied on.
        size_bytes: what becomes free when it goes.
    """
    cost = math.log2(max(cost_s, 0.0) + _FLOOR_S)
    used = math.log2(1 + math.log2(1 + max(uses, 0)))
    return cost + used - max(age_s, 0.0) / HALF_LIFE_S - math.log2(max(size_bytes, _BLOCK_BYTES))


def unpack_s(size_bytes: int) -> float:
    """Return about how long a tree of that size takes to unpack."""
    return size_bytes / UNPACK_BYTES_PER_S


def download_s(size_bytes: int) -> float:
    """Return about how long that many bytes take to come from elsewhere."""
    return size_bytes / DOWNLOAD_BYTES_PER_S
