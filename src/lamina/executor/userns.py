"""Let an ordinary user be root in a user namespace, which the process enters before the engine starts.

It goes on there as another program (usually itself).

The process that the user started becomes that program: same pid, so signals, job control and the exit code need
nobody to pass them on, and nothing is left over. Only the id maps are written from outside, by newuidmap and
newgidmap in a short-lived child, because the kernel lets nobody write more than one id for himself.
Uid 0 inside is the user; 1 and up are his ranges of /etc/subuid and /etc/subgid. Without ranges there is uid 0 only:
steps then run as root alone, and packages that own files by other users do not install.
See user_namespaces(7), subuid(5). The calling process must have a single thread.

    python -m lamina.executor.userns -- lamina build .
"""

from __future__ import annotations

import os
import shutil
import sys

from lamina.errors import MachineError
from lamina.executor import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
_MAX_RANGES = 100
_MAX_FILE_BYTES = 1 << 20
SINGLE_ID_WARNING = (
    "no subordinate ids for this user: steps can only run as root, files of other users become root's; "
    "mend: apt-get install uidmap && usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER"
)


def parse_ranges(text: str, user: str, uid: int) -> list[tuple[int, int]]:
    """Return the (first id, count) ranges of a user in the text of /etc/subuid or /etc/subgid; bad lines are passed."""
    ranges: list[tuple[int, int]] = []
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) != 3 or fields[0] not in (user, str(uid)):
            continue
        if fields[1].isdecimal() and fields[2].isdecimal() and int(fields[2]) > 0:
            ranges.append((int(fields[1]), int(fields[2])))
    return ranges[:_MAX_RANGES]


def map_arguments(own: int, ranges: Sequence[tuple[int, int]]) -> list[str]:
    """Return newuidmap's arguments: the user himself as 0, his ranges one after the other from 1."""
    arguments = ["0", str(own), "1"]
    inside = 1
    for first, count in ranges:
        arguments += [str(inside), str(first), str(count)]
        inside += count
    return arguments


def read_ranges() -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return this user's ranges of user ids and of group ids."""
    import pwd

    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    return (parse_ranges(_text("/etc/subuid"), user, uid), parse_ranges(_text("/etc/subgid"), user, uid))


def enter_user_namespace() -> str:
    """Make this process root in a new user namespace with a mount namespace of its own.

    Returns:
        A warning to show, or "": the single-id fallback was taken.

    Raises:
        MachineError: the kernel or its policy does not allow user namespaces.
    """
    uid, gid = os.getuid(), os.getgid()
    go_read, go_write = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        os.close(go_write)
        _write_maps_from_outside(os.getppid(), go_read, uid, gid)
    os.close(go_read)
    try:
        kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
        os.write(go_write, b"go")
    except OSError as error:
        raise MachineError(
            f"cannot make a user namespace: {error.strerror}",
            hint="sysctl -w user.max_user_namespaces=65536 kernel.apparmor_restrict_unprivileged_userns=0",
        ) from error
    finally:
        os.close(go_write)
        status = os.waitpid(child, 0)[1]
    warning = ""
    if os.waitstatus_to_exitcode(status) != 0:
        _write_single_maps(uid, gid)
        warning = SINGLE_ID_WARNING
    else:
        os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    return warning


def exec_in_user_namespace(argv: Sequence[str], env: Mapping[str, str] | None = None) -> NoReturn:
    """Enter a user namespace and become `argv` there, with `env` as the whole environment (None: the present one).

    Raises:
        MachineError: no user namespace, or the program cannot be executed.
    """
    warning = enter_user_namespace()
    if warning:
        os.write(2, f"warning: {warning}\n".encode())
    try:
        if env is None:
            os.execvp(argv[0], list(argv))
        os.execvpe(argv[0], list(argv), dict(env))
    except OSError as error:
        raise MachineError(f"cannot execute {argv[0]}: {error.strerror}") from error


def spawn_arguments(argv: Sequence[str], python: str = sys.executable) -> list[str]:
    """Return the arguments of a process that runs `argv` in a user namespace, for those who must not become it."""
    package_root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    launch = "import sys; sys.path.insert(0, sys.argv.pop(1)); from lamina.executor import userns; userns.main()"
    return [python, "-I", "-S", "-c", launch, package_root, "--", *argv]


def main() -> NoReturn:
    """Run the program after `--` in a user namespace, with this process's environment."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["--"]:
        arguments = arguments[1:]
    if not arguments:
        os.write(2, b"usage: python -m lamina.executor.userns -- PROGRAM [ARGUMENT...]\n")
        os._exit(2)
    try:
        exec_in_user_namespace(arguments)
    except MachineError as error:
        os.write(2, (error.diagnostics() + "\n").encode("utf-8", "surrogateescape"))
        os._exit(error.exit_code)


def _write_maps_from_outside(pid: int, go: int, uid: int, gid: int) -> NoReturn:
    """In the child: wait until the parent has its namespace, then map; exit code 0 when both maps stand."""
    code = 1
    try:
        if os.read(go, 2) == b"go":
            users, groups = read_ranges()
            if users and groups:
                done = _run("newuidmap", [str(pid), *map_arguments(uid, users)])
                code = 0 if done and _run("newgidmap", [str(pid), *map_arguments(gid, groups)]) else 1
    finally:
        os._exit(code)


def _run(program: str, arguments: list[str]) -> bool:
    path = shutil.which(program, path=_SYSTEM_PATH)
    if path is None:
        return False
    pid = os.posix_spawn(path, [program, *arguments], {})
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _write_single_maps(uid: int, gid: int) -> None:
    for name, text in (("uid_map", f"0 {uid} 1"), ("setgroups", "deny"), ("gid_map", f"0 {gid} 1")):
        try:
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        except PermissionError:
            # newuidmap may have written the uid map before newgidmap failed.
            if name != "uid_map":
                raise


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_MAX_FILE_BYTES)
    except OSError:
        return ""


if __name__ == "__main__":
    main()
