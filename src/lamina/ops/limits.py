"""What one step may use, as its vertex says (`OpMetadata.linux_resources`). Never a part of a key."""

from __future__ import annotations

import re
from typing import Any

from lamina.errors import InputError, SourceRange
from lamina.executor.step import Limits

_SET = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?){0,200}\Z")


def limits_of(metadata: Any, source: SourceRange | None) -> Limits | None:
    """Return a vertex's limits, None when it has none.

    Raises:
        InputError: one of them makes no sense.
    """
    if not metadata.HasField("linux_resources"):
        return None
    wanted = metadata.linux_resources
    if wanted.memory < 0 or wanted.memorySwap < -1 or wanted.cpuQuota < -1:
        raise InputError("a limit of a step cannot be negative", source=source)
    for text in (wanted.cpusetCpus, wanted.cpusetMems):
        if text and not _SET.match(text):
            raise InputError(f"not a set of processors or memory nodes: {text[:80]!r}", source=source, hint="0-2,4")
    limits = Limits(
        memory=wanted.memory,
        memory_swap=wanted.memorySwap,
        cpu_shares=wanted.cpuShares,
        cpu_period=wanted.cpuPeriod,
        cpu_quota=wanted.cpuQuota,
        cpuset_cpus=wanted.cpusetCpus,
        cpuset_mems=wanted.cpusetMems,
    )
    return limits if limits != Limits() else None
