"""What a step sees, what it may do, and what it leaves behind: real runtime, real overlay, busybox root."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.executor_fixtures import OLD, Bench, mount, open_bench, require
from lamina.cancel import Cancel
from lamina.errors import CancelledError, InputError, MachineError
from lamina.executor.names import hosts_file
from lamina.executor.step import Limits, Rootfs, StepMount, Ulimit

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module", params=["crun", "runc"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """One helper for the whole module, as one build has."""
    yield from open_bench(tmp_path_factory.mktemp("bench"), require(request.param))


@pytest.fixture
def bench(shared: Bench, tmp_path: Path) -> Bench:
    """The shared executor with a fresh upper."""
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    return Bench(shared.executor, tmp_path, shared.lower, tmp_path / "upper", tmp_path / "work")


# What a step sees


def test_exit_code_and_both_outputs_come_back(bench: Bench) -> None:
    """Standard output and error are kept apart, bytes as they are."""
    seen: dict[int, bytes] = {1: b"", 2: b""}

    def collect(fd: int, data: bytes) -> None:
        seen[fd] += data

    result = bench.executor.run(bench.step("sh", "-c", "printf 'a\\377b'; echo bad >&2; exit 7"), collect, Cancel())

    assert (result.exit_code, result.signal, result.oom) == (7, 0, False)
    assert seen == {1: b"a\xffb", 2: b"bad\n"}
    assert result.duration_s > 0


@pytest.mark.parametrize(("program", "code"), [("/no/such", 127), ("no-such", 127), ("/etc", 126)])
def test_a_program_that_cannot_start_gets_a_shells_code(bench: Bench, program: str, code: int) -> None:
    """127 not found, 126 not executable, with words; never our own failure."""
    result, _ = bench.run(program)

    assert result.exit_code == code
    assert result.message


def test_a_signal_shows_as_128_plus_its_number(bench: Bench) -> None:
    """As a shell would say it."""
    result, _ = bench.run("sh", "-c", "sh -c 'kill -TERM $$'; exit $?")

    assert (result.exit_code, result.signal) == (143, signal.SIGTERM)


def test_only_the_declared_environment_is_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the host's environment leaks in, and the runtime adds nothing but HOME."""
    monkeypatch.setenv("LAMINA_TEST_LEAK", "1")

    _, output = bench.run("env", env=("PATH=/bin", "A=b c", "EMPTY=", "HOME=/x"))

    assert sorted(output.splitlines()) == ["A=b c", "EMPTY=", "HOME=/x", "PATH=/bin"]


def test_only_descriptors_0_to_2_are_open(bench: Bench) -> None:
    """A descriptor of the host inside is a way out (CVE-2024-21626); the fourth is ls's own."""
    leak = os.open("/", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        output = bench.sh("ls /proc/self/fd")
    finally:
        os.close(leak)

    assert output.split() == ["0", "1", "2", "3"]


def test_standard_input_is_empty(bench: Bench) -> None:
    """A program that reads its input gets end of file and does not wait."""
    assert bench.sh("cat; echo done") == "done\n"


def test_user_group_and_supplementary_groups_are_as_asked(bench: Bench) -> None:
    """Numbers go straight through; there is no passwd lookup here."""
    _, output = bench.run("id", uid=1234, gid=2345, extra_gids=(10, 20))

    assert output.strip() == "uid=1234 gid=2345 groups=10,20,2345" or output.strip() == "uid=1234 gid=2345 groups=10,20"


def test_working_directory_host_name_and_umask(bench: Bench) -> None:
    """The rest of a process's surroundings."""
    output = bench.sh("pwd; cat /proc/sys/kernel/hostname; umask", cwd="/data", hostname="builder")

    assert output.split() == ["/data", "builder", "0022"]


def test_a_ulimit_and_shm_size_hold(bench: Bench) -> None:
    """Both are options of the build."""
    output = bench.sh("ulimit -n; mount | grep /dev/shm", ulimits=(Ulimit("nofile", 77, 99),), shm_size_bytes=1 << 20)

    assert output.split()[0] == "77"
    assert "size=1024k" in output


def test_no_extra_capability_and_a_filter(bench: Bench) -> None:
    """Docker's fourteen capabilities and a seccomp filter are in force, not only configured."""
    status = dict(line.split(":\t") for line in bench.sh("cat /proc/self/status").splitlines() if ":\t" in line)

    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0xA80425FB
    assert int(status["CapInh"], 16) == 0
    assert status["Seccomp"].strip() == "2"
    assert status["NoNewPrivs"].strip() == "0"


@pytest.mark.parametrize("script", ["mount -t tmpfs x /data", "mknod /disk b 8 0", "mknod /dev/disk b 8 0"])
def test_what_a_sandboxed_step_may_not_do(bench: Bench, script: str) -> None:
    """Mounting, and making a node for the machine's disk, are refused with EPERM."""
    result, output = bench.run("sh", "-c", script)

    assert result.exit_code != 0
    assert "not permitted" in output or "denied" in output


def test_a_device_node_of_a_hostile_image_does_not_open(bench: Bench, tmp_path: Path) -> None:
    """The filter does not see what came in a layer, so the root is mounted nodev."""
    evil = tmp_path / "evil"
    evil.mkdir()
    os.mknod(evil / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))

    result, output = bench.run(
        "cat", "/null", rootfs=Rootfs((str(evil), str(bench.lower)), str(bench.upper), str(bench.work))
    )

    assert result.exit_code == 1
    assert "denied" in output


def test_harmless_device_nodes_and_whiteouts_can_be_made(bench: Bench) -> None:
    """debootstrap and friends make them."""
    bench.sh("mknod /n c 1 3 && mknod /f p")

    assert stat.S_ISCHR((bench.upper / "n").lstat().st_mode)


def test_kernel_files_are_masked_and_read_only(bench: Bench) -> None:
    """As docker does."""
    result, output = bench.run("sh", "-c", "ls /sys/firmware; echo 1 > /proc/sys/kernel/panic")

    assert result.exit_code != 0
    assert "Read-only" in output


def test_insecure_steps_get_everything(bench: Bench) -> None:
    """A3.10: `--security=insecure` after its entitlement was granted elsewhere."""
    assert "ok" in bench.sh("mount -t tmpfs x /data && echo ok", security="insecure")


def test_network_none_has_a_loopback_of_its_own(bench: Bench) -> None:
    """A3.9: no other interface, and it is up."""
    output = bench.sh("ls /sys/class/net; ip addr show lo", network="none")

    assert output.splitlines()[0] == "lo"
    assert "UP" in output
    assert "127.0.0.1" in output


def test_network_host_is_shared(bench: Bench) -> None:
    """A3.9: the step sees the machine's interfaces."""
    seen = bench.sh("cat /proc/net/dev | grep -c :", network="host").strip()

    assert int(seen) == sum(":" in line for line in Path("/proc/net/dev").read_text().splitlines())


def test_names_come_from_the_step(bench: Bench) -> None:
    """A3.13: hosts and resolv.conf have the bytes that were passed."""
    hosts = hosts_file("me", [("db", "10.1.2.3"), ("up", "host-gateway")])

    output = bench.sh("cat /etc/hosts /etc/resolv.conf", hosts=hosts, resolv_conf=b"nameserver 192.0.2.1\n")

    assert output == hosts.decode() + "nameserver 192.0.2.1\n"


def test_a_read_only_root_takes_no_writes(bench: Bench) -> None:
    """With and without an upper, with one tree or several."""
    for fields in ({"rootfs": bench.rootfs(upper=None, work=None)}, {"readonly_root": True}):
        result, output = bench.run("touch", "/data/x", **fields)

        assert result.exit_code == 1
        assert "Read-only" in output
    assert bench.written() == []


def test_130_lowers_mount_and_the_topmost_wins(bench: Bench, tmp_path: Path) -> None:
    """Names of ordinary length, far more than a page of absolute paths."""
    trees = []
    for number in range(130):
        tree = tmp_path / "a-directory-with-a-rather-long-name" / f"layer-number-{number:04}"
        tree.mkdir(parents=True)
        (tree / "which").write_text(str(number))
        trees.append(str(tree))

    output = bench.sh("cat /which", rootfs=bench.rootfs(lowers=(*trees[::-1], str(bench.lower))))

    assert output == "129"


def test_names_too_long_for_a_page_mount_too(bench: Bench, tmp_path: Path) -> None:
    """130 names of 60 characters, one lower at a time by the new mount API."""
    trees = []
    for number in range(130):
        tree = tmp_path / "trees" / f"{number:060}"
        tree.mkdir(parents=True)
        trees.append(str(tree))
    (tmp_path / "trees" / f"{129:060}" / "which").write_text("129")

    result = bench.sh("cat /which", rootfs=bench.rootfs(lowers=(*trees[::-1], str(bench.lower))))

    assert result == "129"


def test_a_lower_with_an_odd_name_mounts(bench: Bench, tmp_path: Path) -> None:
    """Colon, comma and backslash mean something in mount options."""
    tree = tmp_path / "a:b,c\\d"
    tree.mkdir()
    (tree / "which").write_text("odd")

    assert bench.sh("cat /which", rootfs=bench.rootfs(lowers=(str(tree), str(bench.lower)))) == "odd"


def test_a_control_group_parent_is_honoured_and_cleaned_up(bench: Bench) -> None:
    """A3.13: the step runs in a group below it, which is gone afterwards; the helper is back in its own."""
    parent = "builds-of-a-test"
    try:
        inside = bench.sh("cat /proc/self/cgroup", cgroup_parent=parent)
    except MachineError as error:
        if "crun" in str(error) or "cannot use control group" in str(error):
            pytest.skip(str(error))
        raise
    after = bench.sh("cat /proc/self/cgroup")

    assert f"/{parent}/lamina-" in inside
    assert parent not in after
    made = [path for path in Path("/sys/fs/cgroup").glob(f"**/{parent}") if path.is_dir()]
    assert all(not list(path.glob("lamina-*")) for path in made)
    for path in made:
        path.rmdir()


# What a step leaves behind


def test_a_step_that_writes_nothing_leaves_nothing(bench: Bench) -> None:
    """A3.12: every mount point was missing, and not one of them, nor a copied-up parent, is in the layer."""
    source = bench.new_dir("source")
    other = bench.new_dir("other")
    mounts = (
        mount("/cache/deep/er", "bind", source=str(source)),
        mount("/var/run/tmp", "tmpfs"),
        mount("/run/secrets/token", "secret", data=b"x"),
        mount("/etc/app/conf.d", "chain", rootfs=Rootfs((str(other),)), readonly=True),
        mount("/etc/ro", "bind", source=str(source), readonly=True),
        mount("/dev/shm/inner", "tmpfs"),
    )

    output = bench.sh(
        "cat /run/tmp/x /run/secrets/token; mount | grep -c /etc/; stat -c '%a %Y' / /etc /run",
        mounts=(*mounts, mount("/run/tmp/x", "secret", data=b"y")),
        hosts=b"",
        resolv_conf=b"",
        cwd="/data",
    )

    assert output.splitlines()[0].startswith("yx")
    assert f"2751 {OLD}" in output
    assert f"755 {OLD}" in output
    assert bench.written() == []
    assert list(bench.work.iterdir()) == []
    assert sorted(path.name for path in source.iterdir()) == []


def test_a_write_beside_a_stub_copies_the_true_parent(bench: Bench) -> None:
    """The parent's mode, owner and xattrs come from the image although the stub layer hid it."""
    os.chown(bench.lower / "etc", 5, 6)
    (bench.lower / "etc").chmod(0o2751)
    os.utime(bench.lower / "etc", (OLD, OLD))

    bench.sh("touch /etc/mine", hosts=b"", resolv_conf=b"")

    status = (bench.upper / "etc").stat()
    assert bench.written() == ["etc", "etc/mine"]
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (5, 6, 0o2751)


def test_the_upper_has_exactly_what_was_written(bench: Bench) -> None:
    """New, changed and deleted; a deletion is a whiteout."""
    bench.sh("echo new > /new; mkdir /dir; rm -r /data", hosts=b"")

    assert bench.written() == ["data", "dir", "new"]
    assert (bench.upper / "data").lstat().st_rdev == 0
    assert stat.S_ISCHR((bench.upper / "data").lstat().st_mode)


def test_a_second_step_goes_on_with_the_same_upper(bench: Bench) -> None:
    """What one step wrote is there for the next, as are mount points that the image lacks."""
    bench.sh("mkdir -p /late/dir")
    bench.sh("touch /late/dir/x", mounts=(mount("/late/dir", "tmpfs"), mount("/var/z", "tmpfs")), hosts=b"")

    assert bench.written() == ["late", "late/dir"]


def test_a_mount_point_hidden_by_an_old_upper_is_refused(bench: Bench) -> None:
    """A stub cannot show through a deletion above it; making it in the upper would leave it in the layer."""
    bench.sh("rm -r /var")

    with pytest.raises(InputError, match="empty"):
        bench.run("true", mounts=(mount("/var/z", "tmpfs"),))

    assert bench.written() == ["var"]


def test_stub_of_a_link_target_that_does_not_exist(bench: Bench, tmp_path: Path) -> None:
    """Ubuntu's /etc/resolv.conf points to a file that no image has."""
    (bench.lower / "data" / "link").symlink_to("../run/systemd/resolve/stub.conf")

    output = bench.sh("cat /run/systemd/resolve/stub.conf", mounts=(mount("/data/link", "secret", data=b"here"),))

    assert output == "here"
    assert bench.written() == []
    (bench.lower / "data" / "link").unlink()


@pytest.mark.parametrize(
    ("target", "kind"), [("/data/file", "tmpfs"), ("/data", "secret"), ("/", "tmpfs"), ("/data/file/x", "tmpfs")]
)
def test_a_mount_that_does_not_fit_its_target_is_refused(bench: Bench, target: str, kind: str) -> None:
    """Said by us in our words, before the runtime starts."""
    with pytest.raises(InputError, match="mount"):
        bench.run("true", mounts=(mount(target, kind),))


# Mounts


def test_binds_are_writable_or_not(bench: Bench) -> None:
    """A cache takes writes, a read-only bind refuses them."""
    cache = bench.new_dir("cache")
    fixed = bench.new_dir("fixed")
    (fixed / "f").write_text("fixed")

    output = bench.sh(
        "echo kept > /c/k; cat /f/f; touch /f/new 2>&1 || true",
        mounts=(mount("/c", "bind", source=str(cache)), mount("/f", "bind", source=str(fixed), readonly=True)),
    )

    assert (cache / "k").read_text() == "kept\n"
    assert output.startswith("fixed")
    assert "Read-only" in output


def test_a_subpath_cannot_leave_its_source(bench: Bench) -> None:
    """A link planted in a cache is resolved with the cache as root (CVE-2024-23651)."""
    cache = bench.new_dir("cache")
    (cache / "etc").mkdir()
    (cache / "etc" / "hostname").write_text("inside")
    (cache / "evil").symlink_to("/etc")

    output = bench.sh("cat /m/hostname", mounts=(mount("/m", "bind", source=str(cache), subpath="evil"),))

    assert output == "inside"


def test_a_secret_is_only_in_memory(bench: Bench) -> None:
    """Mode and owner as asked, on a memory file system, read-only, gone after."""
    secret = StepMount("/run/secrets/s", "secret", data=b"canary-4711", mode=0o440, uid=7, gid=8)

    output = bench.sh(
        "stat -c '%a %u %g' /run/secrets/s; cat /run/secrets/s; grep secrets /proc/mounts", mounts=(secret,)
    )

    assert output.startswith("440 7 8\ncanary-4711")
    assert "tmpfs ro,nosuid,nodev,noexec" in output
    assert "canary" not in repr(secret)
    for path in bench.base.rglob("*"):
        assert not path.is_file() or b"canary-4711" not in path.read_bytes()


def test_a_tmpfs_has_its_size(bench: Bench) -> None:
    """A3.6: a write beyond it fails and nothing of it stays."""
    result, output = bench.run(
        "sh", "-c", "dd if=/dev/zero of=/t/x bs=1M count=3", mounts=(mount("/t", "tmpfs", size_bytes=2 << 20),)
    )

    assert result.exit_code == 1
    assert "No space left" in output
    assert bench.written() == []


def test_a_chain_shows_its_layers_and_takes_writes_only_with_an_upper(bench: Bench) -> None:
    """Stage mounts: read-only view, or writes that go to a directory to be thrown away."""
    for name in ("low", "high", "up", "wk"):
        bench.new_dir(name)
    (bench.base / "low" / "sub").mkdir()
    (bench.base / "low" / "sub" / "a").write_text("low")
    (bench.base / "high" / "sub").mkdir()
    (bench.base / "high" / "sub" / "b").write_text("high")
    lowers = (str(bench.base / "high"), str(bench.base / "low"))

    view = mount("/v", "chain", rootfs=Rootfs(lowers), subpath="sub")
    writable = mount(
        "/w", "chain", rootfs=Rootfs(lowers, str(bench.base / "up"), str(bench.base / "wk")), subpath="/sub"
    )
    output = bench.sh("cat /v/a /v/b /w/a; echo x > /w/new; touch /v/x 2>&1 || true", mounts=(view, writable))

    assert output.startswith("lowhighlow")
    assert "Read-only" in output
    assert (bench.base / "up" / "sub" / "new").read_text() == "x\n"
    assert bench.written() == []


def test_a_chain_of_one_tree_is_not_writable(bench: Bench) -> None:
    """It is bound, not stacked; the tree is shared and must not change."""
    tree = bench.new_dir("tree")

    result, _ = bench.run("touch", "/v/x", mounts=(mount("/v", "chain", rootfs=Rootfs((str(tree),))),))

    assert result.exit_code == 1
    assert list(tree.iterdir()) == []


def test_a_single_file_can_be_bound_from_a_chain(bench: Bench) -> None:
    """`--mount=type=bind,from=stage,source=/requirements.txt,target=...`."""
    tree = bench.new_dir("tree")
    (tree / "req").write_text("flask")

    mounts = (mount("/app/requirements.txt", "chain", rootfs=Rootfs((str(tree),)), subpath="req"),)

    assert bench.sh("cat /app/requirements.txt", mounts=mounts) == "flask"
    assert bench.written() == []


@pytest.mark.parametrize("kind", ["chain", "bind"])
def test_a_cache_inside_a_read_only_mount_finds_its_place(bench: Bench, kind: str) -> None:
    """`bind /app` with `cache /app/node_modules`: the tree cannot get a directory, so a stub layer has it."""
    tree = bench.new_dir("tree")
    cache = bench.new_dir("cache")
    (tree / "package.json").write_text("{}")
    outer = {"chain": {"rootfs": Rootfs((str(tree),))}, "bind": {"source": str(tree), "readonly": True}}[kind]

    mounts = (mount("/app/node_modules", "bind", source=str(cache)), mount("/app", kind, **outer))
    output = bench.sh("cat /app/package.json; echo x > /app/node_modules/m; touch /app/y 2>&1 || true", mounts=mounts)

    assert output.startswith("{}")
    assert "Read-only" in output
    assert (cache / "m").exists()
    assert [path.name for path in tree.iterdir()] == ["package.json"]
    assert bench.written() == []


def test_a_link_in_a_cache_does_not_lead_a_mount_into_the_layer(bench: Bench) -> None:
    """Another build may have planted it; following it would make the mount point in the image."""
    cache = bench.new_dir("cache")
    (cache / "out").symlink_to("/data/planted")

    with pytest.raises(InputError, match="link"):
        bench.run("true", mounts=(mount("/c", "bind", source=str(cache)), mount("/c/out/x", "tmpfs")))

    assert bench.written() == []


def test_a_socket_can_be_bound(bench: Bench) -> None:
    """The SSH agent's."""
    import socket

    path = f"{bench.base}/s"[-100:]
    os.chdir(bench.base)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s")
        os.chdir("/")
        output = bench.sh("ls -l /run/agent", mounts=(mount("/run/agent", "bind", source=str(bench.base / "s")),))

    assert output.startswith("s"), path
    assert bench.written() == []


# Life and death


def test_steps_run_at_once(bench: Bench, tmp_path: Path) -> None:
    """Each of two steps waits for the other to have started: one after the other, they would never end."""
    meeting = bench.new_dir("meeting")
    results: dict[str, int] = {}

    def go(mine: str, other: str) -> None:
        rootfs = Rootfs((str(bench.lower),), str(bench.new_dir(f"u{mine}")), str(bench.new_dir(f"w{mine}")))
        script = f"touch /m/{mine}; while [ ! -e /m/{other} ]; do sleep 0.01; done"
        step = bench.step("sh", "-c", script, rootfs=rootfs, mounts=(mount("/m", "bind", source=str(meeting)),))
        results[mine] = bench.executor.run(step, lambda *_: None, Cancel()).exit_code

    threads = [threading.Thread(target=go, args=pair) for pair in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == {"a": 0, "b": 0}


def test_cancel_kills_the_step_and_its_children_promptly(bench: Bench) -> None:
    """Even those that ignore every signal that can be ignored."""
    cancel = Cancel()
    step = bench.step("sh", "-c", "trap '' TERM INT HUP; (trap '' TERM; sleep 4711) & echo ready; sleep 4711")

    with pytest.raises(CancelledError):
        bench.executor.run(step, lambda *_: cancel.cancel(), cancel)

    assert not _running("4711")
    assert bench.sh("echo still works") == "still works\n"


def test_an_error_in_the_reader_kills_the_step(bench: Bench) -> None:
    """A consumer that fails must not leave a step running unread."""

    def fail(_: int, __: bytes) -> None:
        raise RuntimeError("reader")

    with pytest.raises(RuntimeError, match="reader"):
        bench.executor.run(bench.step("sh", "-c", "echo x; exec sleep 4712"), fail, Cancel())

    bench.sh("true")  # the helper answers in order: by now it has dealt with the hang-up
    assert not _running("4712")


def test_a_cancelled_token_starts_nothing(bench: Bench) -> None:
    """Checked before anything is made."""
    cancel = Cancel()
    cancel.cancel()

    with pytest.raises(CancelledError):
        bench.executor.run(bench.step("touch", "/x"), lambda *_: None, cancel)

    assert bench.written() == []


def test_background_processes_end_with_the_step(bench: Bench) -> None:
    """A daemon that a RUN started neither keeps the step nor outlives it, though it holds the output."""
    bench.sh("sleep 4713 & echo started")

    assert not _running("4713")


def test_much_output_arrives_whole(bench: Bench) -> None:
    """No limit, no loss, on both pipes at once."""
    sizes = {1: 0, 2: 0}

    def count(fd: int, data: bytes) -> None:
        sizes[fd] += len(data)

    script = "dd if=/dev/zero bs=64k count=128 2>/dev/null; dd if=/dev/zero bs=64k count=128 >&2 2>/dev/null"
    bench.executor.run(bench.step("sh", "-c", script), count, Cancel())

    assert sizes == {1: 8 << 20, 2: 8 << 20}


def test_an_unknown_lower_is_our_error_and_the_next_step_works(bench: Bench) -> None:
    """The helper survives every bad request."""
    with pytest.raises(MachineError, match="no-such"):
        bench.run("true", rootfs=bench.rootfs(lowers=(str(bench.base / "no-such"), str(bench.lower))))

    bench.sh("true")


def test_forty_steps_leak_nothing(bench: Bench) -> None:
    """Descriptors of this process, mounts and directories of the helper."""
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(40):
        bench.sh("true", mounts=(mount("/t", "tmpfs"),), hosts=b"x")

    assert len(os.listdir("/proc/self/fd")) == before
    assert bench.sh("grep -c . /proc/self/mountinfo").strip() == bench.sh("grep -c . /proc/self/mountinfo").strip()


def _running(argument: str) -> bool:
    """Tell whether any process of this machine has `argument` on its command line, as a whole word."""
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if argument.encode() in words:
                return True
    return False


LIMITS = Limits(
    memory=64 << 20, memory_swap=64 << 20, cpu_shares=512, cpu_period=50_000, cpu_quota=25_000, cpuset_cpus="0"
)


def test_limits_hold_and_leave_no_group(bench: Bench) -> None:
    """H5: where groups cannot be had the step runs without, and says so."""
    script = "echo in; cat /proc/self/cgroup; head -c 100000000 /dev/zero | tail -c 100000000 | wc -c"
    _result, output = bench.run("sh", "-c", script, limits=LIMITS)

    made = [path for path in Path("/sys/fs/cgroup").glob("**/lamina-*") if path.is_dir()]
    assert made == []
    if "cannot be set" in output:
        assert output.splitlines()[-1] == "100000000"
        pytest.skip(output.splitlines()[0])
    assert "/lamina-" in output
    assert "100000000" not in output, "it had more memory than it was given"


def test_steps_after_one_with_limits_have_none(bench: Bench) -> None:
    bench.run("true", limits=LIMITS)

    assert "/lamina-" not in bench.sh("cat /proc/self/cgroup")
