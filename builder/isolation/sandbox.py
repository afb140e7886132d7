"""The program that becomes the process of a RUN step.

`builder.isolation.launch` starts a Python that imports this file as its only module, without Limpet's packages, with
the arguments SPEC_FD REPORT_FD [LISTENER_FD]; Limpet itself never imports it. It may use the standard library only,
and little of that, since every RUN waits for its start (json, typing and socket would be a third of it). SPEC_FD is a
pipe with one marshalled dict (see `builder.isolation.specification`, which makes it); secrets come this way and no
other. To REPORT_FD it writes `exit CODE` when the command ran, `error TEXT` when the sandbox could not be made; where
"wait" is true, before that a line `ready`, and nothing more is done before SPEC_FD has a line `go`. LISTENER_FD is a
unix socket that gets the descriptor of the seccomp filter, when the specification has one.

Three processes take part:

    parent    stays outside; passes signals on; in the end kills everything that is still below it
    init      inside the new namespaces: mounts, changes the root; pid 1 where there is a pid namespace
    command   drops what it may not keep and executes the step's argv
"""

from __future__ import annotations

import ctypes
import errno
import marshal
import os
import stat
import sys
from binascii import a2b_base64

TYPE_CHECKING = False  # what the typing module, which takes milliseconds to load, would say
if TYPE_CHECKING:
    import signal
    import socket
    from collections.abc import Callable
    from typing import Any, NoReturn

    Spec = dict[str, Any]
else:
    import _signal as signal  # the same without the enums, which take milliseconds, too

libc = ctypes.CDLL(None, use_errno=True)

# linux/mount.h, linux/sched.h, linux/prctl.h, linux/capability.h, linux/landlock.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 4096, 8192, 16384, 1 << 18
MNT_DETACH = 2
AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = -100, 0x8000, 1
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWCGROUP = 0x10000000, 0x20000000, 0x40000000, 0x02000000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_READ, PR_CAPBSET_DROP = 1, 4, 23, 24
PR_GET_NO_NEW_PRIVS = 39
PR_SET_CHILD_SUBREAPER, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 36, 47, 4
CAPABILITY_VERSION_3 = 0x20080522
SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER = 1, 1 << 3
LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, LANDLOCK_SCOPE_SIGNAL = 1, 2
# Numbers of system calls that libc has no function for; those above 400 are the same on every architecture.
SYS_SECCOMP = {"x86_64": 317, "aarch64": 277, "riscv64": 277, "ppc64le": 358, "s390x": 348}
SYS_MOUNT_SETATTR, SYS_LANDLOCK_CREATE_RULESET, SYS_LANDLOCK_RESTRICT_SELF = 442, 444, 446
# add_key, request_key and keyctl, by what linux/audit.h calls the architecture: each machine's own, and those of 32
# bits (and x32) whose programs it runs as well.
KEY_CALLS: dict[str, dict[int, tuple[int, ...]]] = {
    "x86_64": {0xC000003E: (248, 249, 250, 248 | 1 << 30, 249 | 1 << 30, 250 | 1 << 30), 0x40000003: (286, 287, 288)},
    "aarch64": {0xC00000B7: (217, 218, 219), 0x40000028: (309, 310, 311)},
    "riscv64": {0xC00000F3: (217, 218, 219)},
    "ppc64le": {0xC0000015: (269, 270, 271)},
    "s390x": {0x80000016: (278, 279, 280)},
}
KEYCTL_JOIN_SESSION_KEYRING = 1

# What container runtimes leave to a container: CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP
# NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD AUDIT_WRITE SETFCAP.
KEPT_CAPABILITIES = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31})
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KILL_NOW = signal.SIGUSR1  # to the parent: do not wait for the command any more
FORWARDED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
DEVICE_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
# A fresh /proc shows and obeys the whole machine: the same parts are hidden or read-only as in every container.
MASKED = (
    *("acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug"),
    "scsi",
)
READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")
# What containers do not see of /sys, and file systems that hosts mount there and containers do not.
MASKED_SYS = (
    *("firmware", "devices/virtual/powercap", "kernel/debug", "kernel/tracing", "kernel/security", "kernel/config"),
    *("fs/bpf", "fs/pstore", "fs/selinux", "fs/fuse/connections"),
)
MAX_LINKS = 40  # as the kernel's MAXSYMLINKS


class SandboxError(Exception):
    """The sandbox cannot be made; the text says which part of it, and why."""


def check(result: int, what: str) -> int:
    """`result` of a libc function, or SandboxError saying that `what` failed."""
    if result < 0:
        raise SandboxError(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def prctl(option: int, argument: int) -> int:
    return int(libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0))


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    result = libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None
    )
    check(result, f"mount {kind or 'bind'} {source} on {target}")


# ---- paths inside the new root


def resolve(root: str, path: str) -> str:
    """`path` of the new root as a path from here: its links are followed inside `root`, which nothing leaves.

    Nothing runs in the root yet, so what was resolved stays so.
    """
    pending = [name for name in path.split("/") if name][::-1]
    done: list[str] = []
    links = 0
    while pending:
        name = pending.pop()
        if name in (".", ".."):
            if name == ".." and done:
                done.pop()
            continue
        here = "/".join((root, *done, name))
        try:
            target = os.readlink(here)
        except OSError:
            done.append(name)
            continue
        links += 1
        if links > MAX_LINKS:
            raise SandboxError(f"mount target {path}: too many levels of symbolic links")
        if target.startswith("/"):
            done.clear()
        pending.extend([part for part in target.split("/") if part][::-1])
    return "/".join((root, *done))


def place(root: str, target: str, directory: bool) -> str:
    """The path from here of mount point `target`, made if it is missing (inside an earlier mount)."""
    path = resolve(root, target)
    try:
        if directory:
            os.makedirs(path, exist_ok=True)
        elif not os.path.lexists(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except OSError as error:
        raise SandboxError(f"mount target {target}: {error.strerror}") from error
    return path


# ---- mounts


class MountAttr(ctypes.Structure):
    """struct mount_attr of linux/mount.h."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def make_read_only(path: str) -> None:
    """The mount at `path` and everything mounted below it."""
    attr = MountAttr(attr_set=MOUNT_ATTR_RDONLY)
    size = ctypes.c_size_t(ctypes.sizeof(attr))
    done = libc.syscall(
        SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(path), ctypes.c_uint(AT_RECURSIVE), ctypes.byref(attr), size
    )
    if done == 0:
        return
    if ctypes.get_errno() != errno.ENOSYS:
        check(-1, f"make {path} read-only")
    for point in mounts_below(path):  # before Linux 5.12
        # Flags that were set from outside the user namespace are locked and have to be given again.
        kept = os.statvfs(point).f_flag & (MS_NOSUID | MS_NODEV | MS_NOEXEC | 1024 | 2048 | (1 << 21))
        mount("none", point, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | kept)


def mounts_below(path: str) -> list[str]:
    """The mount points at and below `path`, from /proc/self/mountinfo, where blanks are octal escapes."""
    found = []
    with open("/proc/self/mountinfo", "rb") as lines:
        for line in lines:
            point = os.fsdecode(line.split()[4].decode("unicode_escape").encode("latin-1"))
            if point == path or point.startswith(path + "/"):
                found.append(point)
    return found


def mount_bind(root: str, spec: Spec) -> None:
    """{"source", "target", "read_only"}: a directory or file of outside."""
    source = spec["source"]
    try:
        directory = stat.S_ISDIR(os.stat(source).st_mode)
    except OSError as error:
        raise SandboxError(f"bind {source} on {spec['target']}: {error.strerror}") from error
    target = place(root, spec["target"], directory)
    mount(source, target, flags=MS_BIND | MS_REC)
    if spec["read_only"]:
        make_read_only(target)


def mount_discard(root: str, spec: Spec) -> None:
    """{"source", "target", "upper", "work", "options", "memory"}: a directory; what is written to it goes to upper."""
    target = place(root, spec["target"], directory=True)
    # Names of our own, so that nothing in a path has to be escaped.
    os.mkdir(spec["memory"])
    os.chdir(spec["memory"])
    for name in ("source", "upper", "work"):
        os.symlink(spec[name], name)
    mount("overlay", target, "overlay", data="lowerdir=source,upperdir=upper,workdir=work" + spec["options"])
    os.chdir("/")


def mount_tmpfs(root: str, spec: Spec) -> None:
    """{"target", "size", "mode"}; size in bytes, 0 for the kernel's default."""
    target = place(root, spec["target"], directory=True)
    size = f",size={spec['size']}" if spec["size"] else ""
    mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={spec['mode']:o}{size}")


def mount_file(root: str, spec: Spec) -> None:
    """{"target", "data", "uid", "gid", "mode", "memory"}: a file in memory, read-only; data is base64."""
    file = spec["memory"]
    with open(file, "xb") as stream:
        stream.write(a2b_base64(spec["data"]))
    try:
        os.chown(file, spec["uid"], spec["gid"])
    except OSError as error:
        if error.errno != errno.EINVAL:  # an id that this user namespace does not know: nobody can be it
            raise
    os.chmod(file, spec["mode"])
    target = place(root, spec["target"], directory=False)
    mount(file, target, flags=MS_BIND)
    make_read_only(target)


MOUNTS: dict[str, Callable[[str, Spec], None]] = {
    "bind": mount_bind,
    "discard": mount_discard,
    "tmpfs": mount_tmpfs,
    "file": mount_file,
}


def mount_dev(root: str) -> None:
    """A /dev with the devices that every program expects, and nothing of the machine's."""
    dev = place(root, "/dev", directory=True)
    mount("tmpfs", dev, "tmpfs", MS_NOSUID, "mode=755,size=65536k")
    for name in DEVICES:
        if os.path.exists("/dev/" + name):
            os.close(os.open(f"{dev}/{name}", os.O_CREAT | os.O_WRONLY, 0o666))
            mount("/dev/" + name, f"{dev}/{name}", flags=MS_BIND)
    for name, target in DEVICE_LINKS:
        os.symlink(target, f"{dev}/{name}")
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(f"{dev}/{name}")
    flags = MS_NOSUID | MS_NOEXEC
    try:
        # Group 5 is tty in every distribution; without it (one id only) terminals belong to the group of their user.
        mount("devpts", dev + "/pts", "devpts", flags, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    except SandboxError:
        mount("devpts", dev + "/pts", "devpts", flags, "newinstance,ptmxmode=0666,mode=0620")
    mount("shm", dev + "/shm", "tmpfs", flags | MS_NODEV, "mode=1777,size=65536k")
    try:
        mount("mqueue", dev + "/mqueue", "mqueue", flags | MS_NODEV)
    except SandboxError:
        os.rmdir(dev + "/mqueue")  # a kernel without POSIX message queues


def mount_proc(root: str, fresh: bool, restricted: bool) -> None:
    """The /proc of the new pid namespace, or the pod's with whatever the pod's runtime masked in it."""
    proc = place(root, "/proc", directory=True)
    if not fresh:
        mount("/proc", proc, flags=MS_BIND | MS_REC)
        return
    mount("proc", proc, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if not restricted:
        return
    for name in MASKED:
        path = f"{proc}/{name}"
        if os.path.isdir(path):
            mount("tmpfs", path, "tmpfs", MS_RDONLY, "size=0k")
        elif os.path.exists(path):
            mount("/dev/null", path, flags=MS_BIND)
    for name in READ_ONLY:
        path = f"{proc}/{name}"
        if os.path.exists(path):
            mount(path, path, flags=MS_BIND | MS_REC)
            make_read_only(path)


def mount_sys(root: str, restricted: bool) -> None:
    """The machine's /sys, read-only if `restricted`."""
    if not os.path.isdir("/sys/kernel"):
        return
    path = place(root, "/sys", directory=True)
    mount("/sys", path, flags=MS_BIND | MS_REC)
    if not restricted:
        return
    make_read_only(path)
    for name in MASKED_SYS:
        if os.path.isdir(f"{path}/{name}"):
            mount("tmpfs", f"{path}/{name}", "tmpfs", MS_RDONLY, "size=0k")


def enter_root(spec: Spec) -> None:
    """Make every mount and let the new root be /; nothing of the old one can be reached afterwards."""
    root, scratch = spec["root"], spec["scratch"]
    os.umask(0o022)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount(root, root, flags=MS_BIND)
    mount("tmpfs", scratch, "tmpfs", MS_NOSUID | MS_NODEV, "mode=700")
    mount_proc(root, fresh=spec["pid_namespace"], restricted=not spec["insecure"])
    mount_sys(root, restricted=not spec["insecure"])
    mount_dev(root)
    for number, item in enumerate(spec["mounts"]):
        MOUNTS[item["kind"]](root, {**item, "memory": f"{scratch}/{number}"})
    os.chdir(root)
    leave_old_root()
    os.chdir("/")


def leave_old_root() -> None:
    """Let the working directory, a mount point, be / of this mount namespace.

    Runtimes' seccomp profiles refuse pivot_root even where CAP_SYS_ADMIN lets mount pass. Then the root is moved over
    the old one, as switch_root does: ".." does not lead below it, setns arrives on it, and who may not unmount cannot
    take it away.
    """
    if libc.pivot_root(b".", b".") == 0:
        check(libc.umount2(b".", MNT_DETACH), "leave the old root")
        return
    if ctypes.get_errno() != errno.EPERM:
        check(-1, "pivot_root")
    mount(".", "/", flags=MS_MOVE)
    os.chroot(".")


def bring_up_loopback() -> None:
    """SIOCSIFFLAGS on lo of a new network namespace."""
    import fcntl  # only RUN --network=none needs these
    import socket
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 1)  # struct ifreq with IFF_UP
        try:
            fcntl.ioctl(control, 0x8914, request)
        except OSError as error:
            # Outside of a user namespace of its own, SYS_ADMIN alone makes a network namespace and no more.
            raise SandboxError(f"bring up lo: {error.strerror} (does the pod lack CAP_NET_ADMIN?)") from error


# ---- what the command may do


class CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class CapabilityData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def limit_capabilities() -> None:
    """Leave the bounding set with what containers have, and nothing to inherit: the rest goes with execve."""
    for number in range(64):
        if number not in KEPT_CAPABILITIES and prctl(PR_CAPBSET_READ, number) == 1:
            check(prctl(PR_CAPBSET_DROP, number), f"drop capability {number}")
    prctl_ambient = libc.prctl(PR_CAP_AMBIENT, ctypes.c_ulong(PR_CAP_AMBIENT_CLEAR_ALL), 0, 0, 0)
    if prctl_ambient < 0 and ctypes.get_errno() != errno.EINVAL:
        check(-1, "clear the ambient capabilities")
    header = CapabilityHeader(CAPABILITY_VERSION_3, 0)
    data = (CapabilityData * 2)()
    check(libc.capget(ctypes.byref(header), data), "capget")
    data[0].inheritable = data[1].inheritable = 0
    check(libc.capset(ctypes.byref(header), data), "capset")


class LandlockRuleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


def stay_inside() -> None:
    """No signal and no abstract socket leads out, also where the pid and network namespaces are shared (Linux 6.12).

    Older kernels refuse the rule set. There a step can talk to whoever listens on an abstract socket of its network
    and, where it shares the pid namespace, end the build that it belongs to.
    """
    rules = LandlockRuleset(scoped=LANDLOCK_SCOPE_SIGNAL | LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET)
    size = ctypes.c_size_t(ctypes.sizeof(rules))
    ruleset = libc.syscall(SYS_LANDLOCK_CREATE_RULESET, ctypes.byref(rules), size, 0)
    if ruleset >= 0:
        check(libc.syscall(SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0), "landlock")
        os.close(ruleset)


class FilterInstruction(ctypes.Structure):
    """struct sock_filter of linux/filter.h."""

    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(FilterInstruction)))


def new_session_keyring() -> None:
    """The kernel's keys (session-keyring(7)) of whoever started Limpet stay with Limpet. A pod may forbid keyrings."""
    calls = KEY_CALLS.get(os.uname().machine)
    if calls is not None:
        keyctl = next(iter(calls.values()))[2]
        libc.syscall(keyctl, KEYCTL_JOIN_SESSION_KEYRING, None)


def refuse_keys() -> None:
    """Nothing of the kernel's keys at all, as container runtimes have it.

    A user's keyring (user-keyring(7)) can be reached by every process of the same number, whatever its namespaces.
    """
    calls = KEY_CALLS.get(os.uname().machine)
    if calls is None:
        return
    load, equal, leave = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K of linux/bpf_common.h
    refuse, allow = 0x00050000 | errno.EPERM, 0x7FFF0000  # SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW
    program = []
    for architecture, numbers in calls.items():
        count = len(numbers)
        program += [[load, 0, 0, 4], [equal, 0, count + 3, architecture], [load, 0, 0, 0]]
        program += [[equal, count - place, 0, number] for place, number in enumerate(numbers)]
        program += [[leave, 0, 0, allow], [leave, 0, 0, refuse]]
    set_filter([*program, [leave, 0, 0, allow]], 0)


def set_filter(program: list[list[int]], flags: int) -> int:
    """seccomp(2) with lines of struct sock_filter; what it returns."""
    instructions = (FilterInstruction * len(program))(*(FilterInstruction(*line) for line in program))
    value = FilterProgram(len(program), instructions)
    number = SYS_SECCOMP.get(os.uname().machine)
    if number is None:
        raise SandboxError(f"no seccomp filter for {os.uname().machine} machines")
    return check(libc.syscall(number, SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(value)), "install a seccomp filter")


def install_filter(program: list[list[int]], listener: socket.socket) -> None:
    """Hand the system calls that `program` selects to whoever has the other end of `listener`."""
    import socket  # main loaded it, for the listener

    notify = set_filter(program, SECCOMP_FILTER_FLAG_NEW_LISTENER)
    socket.send_fds(listener, [b"f"], [notify])
    os.close(notify)
    listener.close()


def drop_privileges(spec: Spec, listener: socket.socket | None) -> None:
    if not spec["insecure"]:
        limit_capabilities()
    new_session_keyring()
    if spec["kind"] == "namespaces":
        stay_inside()
        if not spec["insecure"]:
            refuse_keys()
    if spec["kind"] == "in-place" and prctl(PR_GET_NO_NEW_PRIVS, 0) == 1:
        # Landlock asks for no_new_privs, which would take setuid programs away where the pod still has them. A domain
        # also keeps the command from looking into processes outside of it: /proc/PID/environ, mem, root.
        stay_inside()
    if listener is not None:
        # One id only: everybody is root here, and who the command believes to be is the filter's business.
        install_filter(spec["filter"], listener)
        return
    try:
        os.setgroups(spec["groups"])
        os.setresgid(spec["gid"], spec["gid"], spec["gid"])
        os.setresuid(spec["uid"], spec["uid"], spec["uid"])
    except OSError as error:
        raise SandboxError(f"become {spec['uid']}:{spec['gid']}: {error.strerror}") from error


# ---- the command


def home(uid: int) -> str:
    """Of `uid` in the new root's /etc/passwd; / when it has none, as runc does."""
    try:
        with open("/etc/passwd", "rb") as lines:
            for line in lines:
                fields = line.rstrip(b"\n").split(b":")
                if len(fields) >= 6 and fields[2] == str(uid).encode():
                    return os.fsdecode(fields[5]) or "/"
    except OSError:
        pass  # no passwd file, or none that can be read
    return "/"


def give_up(code: int, text: str) -> NoReturn:
    os.write(2, os.fsencode(text + "\n"))
    os._exit(code)


def execute(argv: list[str], env: dict[str, str]) -> NoReturn:
    """execve(2) of `argv`, looked up in the PATH of `env`. Ends with 127 when it is not there, else 126, like sh."""
    name = argv[0]
    directories = [""] if "/" in name else env.get("PATH", DEFAULT_PATH).split(":")
    failure: OSError | None = None
    for directory in directories:
        path = os.path.join(directory, name) if directory else name
        try:
            os.execve(path, argv, env)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                give_up(126, f"{path}: {error.strerror}")
            if error.errno == errno.EACCES:
                failure = error
            elif os.path.lexists(path):
                give_up(127, f"{path}: it is there, but its interpreter or loader is not")
    if failure is not None:
        give_up(126, f"{name}: {failure.strerror}")
    if "/" in name:
        give_up(127, f"{name}: no such file or directory")
    give_up(127, f"{name}: not found in PATH ({env.get('PATH', DEFAULT_PATH)})")


def run_command(spec: Spec, report: int, listener: socket.socket | None, mapped: tuple[int, int] | None) -> NoReturn:
    """The command process, up to its execve."""
    try:
        os.setsid()
        if mapped is not None:
            nest_user_namespace(*mapped)
            if spec["insecure"]:
                # Only in a mount namespace of that user namespace do its capabilities allow to mount.
                check(libc.unshare(CLONE_NEWNS), "nested mount namespace")
        if spec["kind"] == "chroot":
            os.chroot(spec["root"])
        os.umask(0o022)
        env = spec["env"]
        env.setdefault("HOME", home(spec["uid"]))
        try:
            os.makedirs(spec["cwd"], exist_ok=True)
            os.chdir(spec["cwd"])
        except OSError as error:
            raise SandboxError(f"working directory {spec['cwd']}: {error.strerror}") from error
        drop_privileges(spec, listener)
    except (SandboxError, OSError) as error:
        tell(report, "error", str(error))
        os._exit(1)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    for number in range(1, signal.NSIG):
        if number not in (signal.SIGKILL, signal.SIGSTOP) and not 32 <= number < signal.SIGRTMIN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    execute(spec["argv"], env)


def nest_user_namespace(ready: int, go: int) -> None:
    """A user namespace with the same ids: no capability in it counts for a process outside of it."""
    check(libc.unshare(CLONE_NEWUSER), "nested user namespace")
    os.write(ready, b"u")
    if os.read(go, 1) != b"m":
        raise SandboxError("nested user namespace: its ids could not be mapped")


def map_nested(pid: int, spec: Spec) -> None:
    """The same ids inside as outside; where setgroups is denied it stays so."""
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{pid}/{name}", "w") as file:
            file.write(spec["nested"][name])


# ---- init and parent


def tell(report: int, kind: str, value: int | str) -> None:
    os.write(report, f"{kind} {value}".encode(errors="surrogateescape"))


def exit_code(status: int) -> int:
    """As a shell says it: 128+n for signal n."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def forward_signals(to: int, group: bool) -> None:
    """From now on what asks this process to end asks `to` (the process group, with `group`)."""

    def forward(number: int, _: object) -> None:
        try:
            (os.killpg if group else os.kill)(to, number)
        except ProcessLookupError:
            pass  # it has just ended

    for number in FORWARDED_SIGNALS:
        signal.signal(number, forward)


def wait_for(child: int) -> int:
    """Reap everything that ends until `child` does; its wait status."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            return status


def init(spec: Spec, report: int, listener: socket.socket | None) -> NoReturn:
    """The process inside the namespaces: makes them a container, starts the command, reaps."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        if spec["kind"] == "namespaces":
            check(libc.unshare(CLONE_NEWNS), "mount namespace")
            set_hostname(os.fsencode(spec["hostname"]))
            if spec["network"] == "none":
                bring_up_loopback()
            enter_root(spec)
        ready, ready_end = os.pipe()
        go_end, go = os.pipe()
        signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED_SIGNALS)
        command = os.fork()
        if command == 0:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            run_command(spec, report, listener, (ready_end, go_end) if spec["nested"] else None)
        os.close(ready_end)
        if spec["nested"] and os.read(ready, 1):
            map_nested(command, spec)
            os.write(go, b"m")
        os.close(go)
    except (SandboxError, OSError) as error:
        tell(report, "error", str(error))
        os._exit(1)
    forward_signals(command, group=True)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED_SIGNALS)
    status = wait_for(command)
    tell(report, "exit", exit_code(status))
    os._exit(0)


def set_hostname(name: bytes) -> None:
    """Where the pod's seccomp profile allows namespaces and refuses this (CRI-O's, podman's), the pod's name stays."""
    if libc.sethostname(name, ctypes.c_size_t(len(name))) < 0 and ctypes.get_errno() != errno.EPERM:
        raise SandboxError(f"hostname: {os.strerror(ctypes.get_errno())}")


def kill_descendants() -> None:
    """Kill and reap until no process is left below this one, to which orphans come (PR_SET_CHILD_SUBREAPER)."""
    while True:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
            if not ended:  # some child lives: only then all processes of the machine are looked through
                kill_all(descendants(os.getpid()))
                os.waitpid(-1, 0)
        except ChildProcessError:
            return


def kill_all(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # ended by itself


def descendants(of: int) -> list[int]:
    """Process ids below `of`, from the ppid column of /proc/PID/stat (after the last parenthesis)."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
            except OSError:
                pass  # ended meanwhile
    found = {of}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return [pid for pid in found if pid != of]
        found |= more


def unshare_flags(spec: Spec) -> int:
    flags = CLONE_NEWIPC | CLONE_NEWUTS
    if spec["pid_namespace"]:
        flags |= CLONE_NEWPID
    if spec["network"] == "none":
        flags |= CLONE_NEWNET
    return flags


def main() -> int:
    """The parent."""
    spec_fd, report, *rest = map(int, sys.argv[1:])
    # Nothing that runs as the same user may read this process's memory, which has the secrets in it.
    prctl(PR_SET_DUMPABLE, 0)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    with open(spec_fd, "rb") as stream:
        spec = marshal.load(stream)  # noqa: S302 -- Limpet itself wrote it
        if spec["wait"]:
            os.write(report, b"ready\n")
            if stream.readline() != b"go\n":
                return 1
    os.set_inheritable(report, False)
    listener = None
    if rest:
        import socket  # now: in the new root there is no Python

        listener = socket.socket(fileno=rest[0])
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED_SIGNALS)
    if spec["kind"] == "namespaces":
        # Hides the names of the pod's control groups; a kernel without it has none to hide.
        libc.unshare(CLONE_NEWCGROUP)
    if spec["kind"] == "namespaces" and libc.unshare(unshare_flags(spec)) < 0:
        tell(report, "error", f"new namespaces: {os.strerror(ctypes.get_errno())}")
        return 1
    child = os.fork()
    if child == 0:
        init(spec, report, listener)
    if listener is not None:
        listener.close()
    forward_signals(child, group=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED_SIGNALS)
    signal.signal(KILL_NOW, lambda *_: os.kill(child, signal.SIGKILL))
    wait_for(child)
    kill_descendants()
    return 0
