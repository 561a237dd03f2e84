"""H5: limits of a step as the files of control groups."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from lamina.errors import InputError
from lamina.executor.limits import controllers, files_v1, files_v2
from lamina.executor.step import Limits
from lamina.llb.pb import ops_pb2 as pb
from lamina.ops.limits import limits_of


@pytest.mark.parametrize(
    ("limits", "v1", "v2"),
    [
        (Limits(), {}, {}),
        (Limits(memory=5), {"memory.limit_in_bytes": "5"}, {"memory.max": "5"}),
        (
            Limits(memory=5, memory_swap=8),
            {"memory.limit_in_bytes": "5", "memory.memsw.limit_in_bytes": "8"},
            {"memory.max": "5", "memory.swap.max": "3"},
        ),
        (
            Limits(memory=5, memory_swap=-1),
            {"memory.limit_in_bytes": "5", "memory.memsw.limit_in_bytes": "-1"},
            {"memory.max": "5", "memory.swap.max": "max"},
        ),
        (Limits(cpu_shares=1024), {"cpu.shares": "1024"}, {"cpu.weight": "39"}),
        (Limits(cpu_shares=2), {"cpu.shares": "2"}, {"cpu.weight": "1"}),
        (Limits(cpu_shares=262144), {"cpu.shares": "262144"}, {"cpu.weight": "10000"}),
        (Limits(cpu_quota=7), {"cpu.cfs_quota_us": "7"}, {"cpu.max": "7 100000"}),
        (Limits(cpu_period=9), {"cpu.cfs_period_us": "9"}, {"cpu.max": "max 9"}),
        (
            Limits(cpuset_cpus="0-2", cpuset_mems="1"),
            {"cpuset.cpus": "0-2", "cpuset.mems": "1"},
            {"cpuset.cpus": "0-2", "cpuset.mems": "1"},
        ),
    ],
)
def test_files_of_both_layouts(limits: Limits, v1: dict[str, str], v2: dict[str, str]) -> None:
    assert files_v1(asdict(limits)) == v1
    assert files_v2(asdict(limits)) == v2


def test_only_the_controllers_that_are_needed_are_asked_for() -> None:
    assert controllers(asdict(Limits(cpu_quota=1, memory=1))) == ["memory", "cpu"]


def test_a_vertex_says_what_its_step_may_use() -> None:
    assert limits_of(pb.OpMetadata(), None) is None
    assert limits_of(pb.OpMetadata(linux_resources=pb.LinuxResources()), None) is None
    found = limits_of(pb.OpMetadata(linux_resources=pb.LinuxResources(memory=1, cpusetCpus="0-2,5")), None)
    assert found == Limits(memory=1, cpuset_cpus="0-2,5")


@pytest.mark.parametrize(
    "wanted",
    [{"memory": -1}, {"memorySwap": -2}, {"cpuQuota": -2}, {"cpusetCpus": "0\n1"}, {"cpusetMems": "../x"}],
)
def test_what_makes_no_sense_is_refused(wanted: dict[str, object]) -> None:
    with pytest.raises(InputError):
        limits_of(pb.OpMetadata(linux_resources=pb.LinuxResources(**wanted)), None)
