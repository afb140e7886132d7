"""Kinds of pods: security contexts as Kubernetes has them, and containers that come with them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.task.conftest import shared
from tests.task.definitions import tekton

# What Kubernetes leaves to a container that asks for nothing.
DEFAULT_CAPABILITIES = (
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW"),
    *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
)
UNCONFINED, CONFINED = {"type": "Unconfined"}, {"type": "RuntimeDefault"}
OF_TASK: dict[str, Any] = tekton("limpet")["spec"]["steps"][0]["securityContext"]
OF_ANYONE = {
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}


@dataclass(frozen=True)
class PodKind:
    """A container with the security context `security`, and what docs/pods.md calls it.

    `host_users` as in a pod's specification: without them root of the container is nobody on the machine.
    """

    name: str
    title: str
    security: Mapping[str, Any]
    host_users: bool = True

    def __str__(self) -> str:
        return self.name

    def changed(self, yaml: Mapping[str, Any]) -> PodKind:
        """With the lines of another security context."""
        return replace(self, security={**self.security, **yaml})

    def run(
        self,
        image: str,
        argv: Sequence[str],
        volumes: Mapping[Path, str],
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `argv`, its first word the program, in the executor image; `volumes` maps directories to their places."""
        podman = ["podman", "--runtime", "/usr/sbin/runc", "run", "--rm", "--network", "host", "--pull", "never"]
        podman += ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000", "--cap-drop", "all"]
        capabilities = self.security.get("capabilities", {"add": DEFAULT_CAPABILITIES})
        podman += [f"--cap-add={each}" for each in capabilities.get("add", ())]
        podman += ["--user", f"{self.security.get('runAsUser', 0)}:{self.security.get('runAsGroup', 0)}"]
        if self.security.get("allowPrivilegeEscalation") is False:
            podman += ["--security-opt", "no-new-privileges"]
        if not self.host_users:
            podman += ["--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536"]
        confined = self.security.get("seccompProfile") == CONFINED
        podman += ["--security-opt", f"seccomp={shared('tools/pod-seccomp.json') if confined else 'unconfined'}"]
        for directory, place in volumes.items():
            podman += ["-v", f"{directory}:{place}"]
        for name, value in (env or {}).items():
            podman += ["-e", f"{name}={value}"]
        return subprocess.run([*podman, "--entrypoint", argv[0], image, *argv[1:]], capture_output=True, text=True)


KINDS = (
    PodKind("root", "root, default capabilities, no seccomp profile", {"seccompProfile": UNCONFINED}),
    PodKind(
        "root of the Task",
        "root, the Task's security context, no seccomp profile",
        {**OF_TASK, "seccompProfile": UNCONFINED},
    ),
    PodKind("confined root", "root, default capabilities, seccomp RuntimeDefault", {"seccompProfile": CONFINED}),
    PodKind(
        "confined root of the Task",
        "root, the Task's security context, seccomp RuntimeDefault",
        {**OF_TASK, "seccompProfile": CONFINED},
    ),
    PodKind("uid 1000", "uid 1000, no capability, no seccomp profile", {**OF_ANYONE, "seccompProfile": UNCONFINED}),
    PodKind(
        "restricted",
        "uid 1000, no capability, seccomp RuntimeDefault (`restricted`)",
        {**OF_ANYONE, "seccompProfile": CONFINED},
    ),
    PodKind(
        "root without capabilities",
        "root, no capability, seccomp RuntimeDefault",
        {"capabilities": {"drop": ["ALL"]}, "seccompProfile": CONFINED},
    ),
    PodKind(
        "root without users of the host",
        "`hostUsers: false`, root, default capabilities, no seccomp profile",
        {"seccompProfile": UNCONFINED},
        host_users=False,
    ),
    PodKind(
        "confined root without users of the host",
        "`hostUsers: false`, root, default capabilities, seccomp RuntimeDefault",
        {"seccompProfile": CONFINED},
        host_users=False,
    ),
    PodKind(
        "administrator without users of the host",
        "`hostUsers: false`, root, default capabilities and SYS_ADMIN, seccomp RuntimeDefault",
        {"capabilities": {"add": [*DEFAULT_CAPABILITIES, "SYS_ADMIN"]}, "seccompProfile": CONFINED},
        host_users=False,
    ),
)
