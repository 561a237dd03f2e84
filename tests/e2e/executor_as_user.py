"""Run as an ordinary user inside a user namespace by test_executor_userns.py: a few steps, facts as JSON on stdout."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from executor_fixtures import Bench, make_root, mount

from lamina.executor.cdi import DeviceNode
from lamina.executor.executor import Executor
from lamina.executor.names import hosts_file
from lamina.executor.runtime import find_runtime


def main() -> None:
    base = Path(sys.argv[1])
    (base / "cache").mkdir()
    other = base / "other"
    other.mkdir()
    (other / "f").write_text("other")
    lower = make_root(base / "lower")
    for name in ("upper", "work", "exec"):
        (base / name).mkdir()
    full = "65536" in Path("/proc/self/uid_map").read_text()
    with Executor(find_runtime("/usr/bin", sys.argv[2]), base / "exec", python=sys.executable) as executor:
        bench = Bench(executor, base, lower, base / "upper", base / "work")

        def sh(script: str, **fields: object) -> str:
            result, output = bench.run("sh", "-c", script, rootfs=bench.rootfs(userxattr=True), **fields)
            return output if result.exit_code == 0 else f"exit {result.exit_code}: {output}"

        facts: dict[str, object] = {"id": sh("id"), "maps": Path("/proc/self/uid_map").read_text().split()}
        mounts = (
            mount("/c", "bind", source=str(base / "cache")),
            mount("/run/secrets/s", "secret", data=b"s3", uid=7 if full else 0),
            mount("/t", "tmpfs"),
            mount("/etc/ro", "bind", source=str(other), readonly=True),
        )
        facts["reads"] = sh("cat /run/secrets/s /etc/ro/f; touch /c/kept /t/x", mounts=mounts, hosts=hosts_file("h"))
        facts["writes"] = sh("touch /made; rm -r /data")
        facts["upper"] = bench.written()
        facts["whiteout"] = (bench.upper / "data").lstat().st_rdev == 0
        facts["none"] = sh("ls /sys/class/net", network="none")
        facts["host"] = sh("ls /sys/class/net | grep -c .", network="host")
        facts["failing"] = sh("exit 9")
        zero = DeviceNode("/dev/lamina/zero", "/dev/zero", "c", 1, 5, 0o666, "", 0, 0)
        facts["device"] = sh("head -c 3 /dev/lamina/zero | wc -c; stat -c %t:%T /dev/lamina/zero", devices=(zero,))
        if full:
            facts["other"] = (
                sh(
                    "id; touch /c/by-other",
                    uid=1000,
                    gid=1000,
                    extra_gids=(5,),
                    mounts=(mount("/c", "bind", source=str(base / "cache")),),
                )
                if os.chmod(base / "cache", 0o777) is None
                else ""
            )
    print(json.dumps(facts))


main()
