"""What the kernel holds this process to, as /proc says it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from builder.isolation import syscalls

# linux/capability.h, in the order of their numbers.
CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
    *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
    "CHECKPOINT_RESTORE",
)
_SECCOMP = {"0": "off", "1": "strict", "2": "filter"}


@dataclass(frozen=True, slots=True)
class Confinement:
    """Ids are the effective ones. `seccomp` is off, strict, filter or unknown; `security_module` the label of
    AppArmor or SELinux, "" where there is none; `user_namespaces` how many may exist, None when not known.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    capabilities: tuple[str, ...]
    no_new_privileges: bool
    seccomp: str
    security_module: str = ""
    user_namespaces: int | None = None


def confinement() -> Confinement:
    """This process's."""
    status = dict(line.split(":", 1) for line in _read("/proc/self/status").splitlines() if ":" in line)
    limit = _read("/proc/sys/user/max_user_namespaces")
    return Confinement(
        os.geteuid(),
        os.getegid(),
        tuple(sorted(os.getgroups())),
        tuple(_name(number) for number in sorted(syscalls.effective_capabilities())),
        status.get("NoNewPrivs", "0").strip() == "1",
        _SECCOMP.get(status.get("Seccomp", "").strip(), "unknown"),
        _read("/proc/self/attr/current").rstrip("\0"),
        int(limit) if limit.isdigit() else None,
    )


def _name(number: int) -> str:
    return CAPABILITIES[number] if number < len(CAPABILITIES) else f"capability {number}"


def _read(path: str) -> str:
    """A file of /proc; "" when it is not there or, as the label without a security module, cannot be read."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
