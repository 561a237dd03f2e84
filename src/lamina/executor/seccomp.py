"""The seccomp filter of a sandboxed step: an allow-list in the manner of docker's default.

Pure. What is not listed fails: with EPERM when it is a known privileged call, with ENOSYS otherwise, so that
programs that try a newer call first fall back (glibc does so on ENOSYS only). Device nodes may be made only when
they are harmless (null, zero ...): steps are not confined by a device control group, so the filter is what keeps a
step from making the machine's disk appear in its /dev; everything else it sees is mounted `nodev`.
Spec: OCI runtime-spec config-linux.md, "Seccomp".
"""

from __future__ import annotations

Rule = dict[str, object]

_EPERM, _ENOSYS = 1, 38

_FILES = """
access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync
fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64
futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
ioctl lchown lchown32 lgetxattr link linkat listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat
lstat64 memfd_create memfd_secret mkdir mkdirat name_to_handle_at _newselect newfstatat open openat openat2 pipe pipe2
poll ppoll ppoll_time64 pread64 preadv preadv2 pselect6 pselect6_time64 pwrite64 pwritev pwritev2 quotactl_fd read
readahead readdir readlink readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir select sendfile
sendfile64 setxattr setxattrat splice stat stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range
arm_sync_file_range sync_file_range2 syncfs tee truncate truncate64 ugetrlimit umask unlink unlinkat utime utimensat
utimensat_time64 utimes vmsplice write writev chroot
"""
_MEMORY = """
brk cachestat futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_mempolicy get_robust_list madvise
map_shadow_stack membarrier mbind mincore mlock mlock2 mlockall mmap mmap2 modify_ldt mprotect mremap mseal msync
munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages set_mempolicy
set_mempolicy_home_node set_robust_list
"""
_PROCESSES = """
alarm arch_prctl arm_fadvise64_64 breakpoint cacheflush capget capset execve execveat exit exit_group fork getegid
getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid getpriority getresgid
getresgid32 getresuid getresuid32 getrlimit getrusage getsid gettid getuid getuid32 get_thread_area ioprio_get
ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lsm_get_self_attr lsm_list_modules
lsm_set_self_attr pause pidfd_open pidfd_send_signal pidfd_getfd prctl prlimit64 process_vm_readv process_vm_writev
ptrace restart_syscall riscv_flush_icache riscv_hwprobe rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max
sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp
setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setpgid setpriority setregid setregid32
setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setuid setuid32 set_thread_area
set_tid_address set_tls sigaction sigaltstack signal signalfd signalfd4 sigpending sigprocmask sigreturn sigsuspend
tgkill time times tkill vfork wait4 waitid waitpid getcpu getrandom sysinfo uname
"""
_NETWORK = """
accept accept4 bind connect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
epoll_wait_old eventfd eventfd2 getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64
recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair
"""
_IPC_AND_TIME = """
clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
clock_nanosleep_time64 adjtimex getitimer gettimeofday io_cancel io_destroy io_getevents io_pgetevents
io_pgetevents_time64 io_setup io_submit ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64
mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd nanosleep semctl semget semop semtimedop
semtimedop_time64 setitimer shmat shmctl shmdt shmget timer_create timer_delete timer_getoverrun timer_gettime
timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
timerfd_settime64
"""
# Known and refused: a program learns that it may not, not that the kernel is old.
_PRIVILEGED = """
acct add_key bpf clock_settime clock_settime64 create_module delete_module fanotify_init finit_module fsconfig fsmount
fsopen fspick get_kernel_syms init_module
io_uring_enter io_uring_register io_uring_setup iopl ioperm kcmp kexec_file_load
kexec_load keyctl lookup_dcookie mount mount_setattr move_mount move_pages migrate_pages nfsservctl open_by_handle_at
open_tree perf_event_open pivot_root process_madvise query_module quotactl reboot request_key setdomainname sethostname
setns settimeofday stime swapoff swapon syslog umount umount2 unshare uselib userfaultfd vhangup vm86 vm86old
"""

_S_IFMT, _S_IFCHR, _S_IFBLK = 0o170000, 0o020000, 0o060000
_PLAIN_KINDS = (0, 0o100000, 0o010000, 0o140000)  # nothing said (a file), file, fifo, socket
# (major << 8) | minor: null, zero, full, random, urandom, tty, console, ptmx, and 0:0, which overlayfs calls a whiteout
_HARMLESS_DEVICES = (0x103, 0x105, 0x107, 0x108, 0x109, 0x500, 0x501, 0x502, 0)
_NEW_NAMESPACES = 0x7E020080  # every CLONE_NEW* flag, CLONE_NEWTIME included
_PERSONALITIES = (0x0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)
_AF_ALG, _AF_VSOCK = 38, 40

_ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    "armv7l": ["SCMP_ARCH_ARM"],
    "ppc64le": ["SCMP_ARCH_PPC64LE"],
    "s390x": ["SCMP_ARCH_S390X", "SCMP_ARCH_S390"],
    "riscv64": ["SCMP_ARCH_RISCV64"],
}


def profile(machine: str) -> Rule | None:
    """Return the filter for runtime-spec `linux.seccomp`, or None for a machine whose calls we do not know.

    Args:
        machine: as uname(2) calls it, such as "x86_64".
    """
    architectures = _ARCHITECTURES.get(machine)
    if architectures is None:
        return None
    allowed = " ".join((_FILES, _MEMORY, _PROCESSES, _NETWORK, _IPC_AND_TIME)).split()
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _ENOSYS,
        "architectures": architectures,
        "syscalls": [
            {"names": allowed, "action": "SCMP_ACT_ALLOW"},
            {"names": _PRIVILEGED.split(), "action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM},
            *_special_rules(machine),
        ],
    }


def _special_rules(machine: str) -> list[Rule]:
    flags_index = 1 if machine == "s390x" else 0
    rules: list[Rule] = [
        # clone3 hides its flags behind a pointer: it is not listed, looks absent, and libc then uses clone.
        _allow(["clone"], _masked(flags_index, _NEW_NAMESPACES, 0)),
        # AF_ALG and AF_VSOCK reach beyond the network namespace; every other family is the namespace's business.
        _allow(["socket"], _compare(0, _AF_ALG, "SCMP_CMP_LT")),
        _allow(["socket"], _compare(0, _AF_ALG + 1, "SCMP_CMP_EQ")),
        _allow(["socket"], _compare(0, _AF_VSOCK, "SCMP_CMP_GT")),
    ]
    rules += [_allow(["personality"], _compare(0, value, "SCMP_CMP_EQ")) for value in _PERSONALITIES]
    for name, mode in (("mknod", 1), ("mknodat", 2)):
        rules += [_allow([name], _masked(mode, _S_IFMT, kind)) for kind in _PLAIN_KINDS]
        device = mode + 1
        rules += [
            _allow([name], _masked(mode, _S_IFMT, _S_IFCHR), _compare(device, number, "SCMP_CMP_EQ"))
            for number in _HARMLESS_DEVICES
        ]
        refused: Rule = {"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM}
        rules.append({**refused, "args": [_masked(mode, _S_IFMT, _S_IFBLK)]})
    return rules


def _allow(names: list[str], *conditions: Rule) -> Rule:
    return {"names": names, "action": "SCMP_ACT_ALLOW", "args": list(conditions)}


def _compare(index: int, value: int, op: str) -> Rule:
    return {"index": index, "value": value, "op": op}


def _masked(index: int, mask: int, value: int) -> Rule:
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
