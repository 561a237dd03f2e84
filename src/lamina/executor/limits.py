"""Limits of one step as the files of its control group. Pure, but for `write`; the helper imports this module.

Source: the kernel's documentation of control groups, v1 (memory, cpu, cpuset) and v2; the conversion of shares into
weights is the runtime spec's (config-linux, "cgroup v2 resources").
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_CONTROLLERS = ("memory", "cpu", "cpuset")


def files_v1(limits: Mapping[str, Any]) -> dict[str, str]:
    """Return file names and what to write; each lies in the hierarchy of its controller, the word before the dot."""
    found = {
        "memory.limit_in_bytes": limits["memory"],
        "memory.memsw.limit_in_bytes": limits["memory_swap"],
        "cpu.shares": limits["cpu_shares"],
        "cpu.cfs_period_us": limits["cpu_period"],
        "cpu.cfs_quota_us": limits["cpu_quota"],
        "cpuset.cpus": limits["cpuset_cpus"],
        "cpuset.mems": limits["cpuset_mems"],
    }
    return {name: str(value) for name, value in found.items() if value}


def files_v2(limits: Mapping[str, Any]) -> dict[str, str]:
    """Return file names and what to write, all in one directory."""
    memory, swap = limits["memory"], limits["memory_swap"]
    shares, period, quota = limits["cpu_shares"], limits["cpu_period"], limits["cpu_quota"]
    found = {
        "memory.max": str(memory) if memory else "",
        "memory.swap.max": "max" if swap < 0 else str(max(0, swap - memory)) if swap and memory else "",
        "cpu.weight": str(1 + (max(2, shares) - 2) * 9999 // 262142) if shares else "",
        "cpu.max": f"{quota if quota > 0 else 'max'} {period or 100_000}" if quota or period else "",
        "cpuset.cpus": limits["cpuset_cpus"],
        "cpuset.mems": limits["cpuset_mems"],
    }
    return {name: value for name, value in found.items() if value}


def controllers(limits: Mapping[str, Any]) -> list[str]:
    """Return which controllers the limits need."""
    names = {name.partition(".")[0] for name in files_v1(limits)}
    return [name for name in _CONTROLLERS if name in names]


def write(directory: str, files: Mapping[str, str]) -> None:
    """Set limits of a group.

    Raises:
        OSError: the kernel does not take one.
    """
    for name, value in files.items():
        with open(os.path.join(directory, name), "w") as file:
            file.write(value)
