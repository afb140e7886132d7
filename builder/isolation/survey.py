"""What every isolation says of this machine, and what a pod's YAML would have to say for those that do not work."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from builder.isolation.choose import Candidate
from builder.isolation.confinement import Confinement, confinement
from builder.isolation.enter import IdMap
from builder.isolation.probe import NamespacesProbe, probe_chroot, probe_in_place, probe_namespaces

# What a build as root uses of its capabilities; task/ gives its steps the same.
ROOT_CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "SETFCAP", "SETGID", "SETUID", "SYS_CHROOT"),
)
_MAPPING = frozenset(("SETFCAP", "SETGID", "SETUID"))  # what the kernel asks of root for a map of many ids


@dataclass(frozen=True, slots=True)
class Survey:
    """`candidates` are in the order in which `auto` prefers them; the last, none, always works.

    `no_overlay` and `uid_map` are known only where namespaces work; `no_overlay` is "" where the work directory can
    carry an overlay.
    """

    confinement: Confinement
    candidates: tuple[Candidate, ...]
    no_overlay: str | None = None
    uid_map: IdMap = ()

    def taken(self, requested: str = "auto") -> Candidate:
        """What a build with `--isolation=requested` uses; it need not work when it is not auto."""
        if requested == "auto":
            return next(candidate for candidate in self.candidates if candidate.works)
        refused = Candidate(requested, False, "it is not available")
        return next((candidate for candidate in self.candidates if candidate.name == requested), refused)

    def better(self, taken: Candidate) -> tuple[Candidate, ...]:
        """Those that auto would prefer to `taken`, if they worked."""
        return self.candidates[: self.candidates.index(taken)]


def survey(work_dir: Path) -> Survey:
    """Try every isolation in child processes. No thread may exist; `work_dir` is as empty afterwards as before."""
    found = confinement()
    namespaces = probe_namespaces(work_dir)
    candidates = (
        _namespaces(namespaces, found),
        _of_root("in-place", probe_in_place(work_dir, os.environ)[1], found),
        _of_root("chroot", probe_chroot(work_dir), found),
        Candidate("none", True, "for Dockerfiles without RUN"),
    )
    if not namespaces.works:
        return Survey(found, candidates)
    return Survey(found, candidates, namespaces.no_overlay, namespaces.uid_map)


def _namespaces(probe: NamespacesProbe, found: Confinement) -> Candidate:
    if probe.works:
        return Candidate("namespaces", True)
    wanted: dict[str, Any] = {}
    if found.seccomp == "filter":
        wanted["seccompProfile"] = {"type": "Unconfined"}
    if found.security_module.endswith("(enforce)"):  # as AppArmor writes it
        wanted["appArmorProfile"] = {"type": "Unconfined"}
    if found.uid == 0 and not set(found.capabilities) >= _MAPPING:
        wanted |= _capabilities()
    reason = "; ".join(filter(None, (probe.failure, probe.hint)))
    return Candidate("namespaces", False, reason, _security_context(wanted))


def _of_root(name: str, failure: str, found: Confinement) -> Candidate:
    """An isolation that needs uid 0 and the capabilities of `ROOT_CAPABILITIES`, nothing else of the pod."""
    if not failure:
        return Candidate(name, True)
    wanted: dict[str, Any] = {}
    if found.uid != 0:
        wanted = {"runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": False}
    if found.uid != 0 or not set(ROOT_CAPABILITIES) <= set(found.capabilities):
        wanted |= _capabilities()
    return Candidate(name, False, failure, _security_context(wanted))


def _capabilities() -> dict[str, Any]:
    return {"capabilities": {"drop": ["ALL"], "add": list(ROOT_CAPABILITIES)}}


def _security_context(wanted: dict[str, Any]) -> str:
    """Lines of a container's YAML; "" when nothing that the pod says would help."""
    return yaml.safe_dump({"securityContext": wanted}, sort_keys=False) if wanted else ""
