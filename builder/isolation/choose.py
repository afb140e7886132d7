"""Which isolation a build takes, and why not a better one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from builder.errors import IsolationError, UsageError
from builder.events import Listener, Message, Silent
from builder.isolation import Isolation, syscalls
from builder.isolation.credential_files import stay
from builder.isolation.enter import enter
from builder.isolation.namespaces import Ground, Kept, Namespaces
from builder.isolation.none import NoIsolation
from builder.isolation.probe import NamespacesProbe, probe_chroot, probe_in_place, probe_namespaces
from builder.isolation.store import Observer
from builder.rootfs.entry import Entry

NAMES = ("namespaces", "in-place", "chroot", "none")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One isolation: whether it works here, why not, and the lines of a pod's YAML that would allow it."""

    name: str
    works: bool
    reason: str = ""
    yaml: str = ""


@dataclass(frozen=True, slots=True)
class InPlaceSettings:
    """What in-place has to know: the `environ` that Limpet was started with, files that no RUN should find, and
    whether it may be used `anywhere`, not only in a container that is thrown away."""

    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    credentials: tuple[Path, ...] = ()
    anywhere: bool = False


def choose(
    requested: str,
    work_dir: Path,
    listener: Listener | None = None,
    kept: Kept | None = None,
    in_place: InPlaceSettings | None = None,
    observer: Observer | None = None,
) -> Isolation:
    """The isolation called `requested`, or for "auto" the best that works here. It may use unpacked layers of `kept`,
    and tells `observer` what is in layers that it unpacks.

    Enters namespaces where that is what is chosen, so no thread may exist yet. Afterwards this process's memory,
    environment and root directory are hidden from processes of the same user. Raises UsageError for an unknown
    name and IsolationError, with the reason, when the one asked for does not work.
    """
    listener = listener or Silent()
    if requested not in ("auto", *NAMES):
        raise UsageError(f"--isolation={requested} is not an isolation", f"use auto, {', '.join(NAMES)}")
    if requested == "none":
        return NoIsolation()
    work_dir.mkdir(parents=True, exist_ok=True)
    isolation: Isolation | None = None
    reasons = []
    if requested in ("auto", "namespaces"):
        probe = probe_namespaces(work_dir)
        if probe.works:
            isolation = _namespaces(work_dir, probe, listener, kept, observer)
        reasons.append(f"namespaces: {probe.failure}")
    if isolation is None and requested in ("auto", "in-place"):
        isolation = _in_place(work_dir, reasons, listener, in_place or InPlaceSettings(os.environ), observer)
    if isolation is None and requested in ("auto", "chroot"):
        failure = probe_chroot(work_dir)
        if not failure:
            isolation = _chroot(work_dir, reasons, listener, observer)
        reasons.append(f"chroot: {failure}")
    if isolation is None and requested == "auto":
        return NoIsolation("no isolation works here (" + "; ".join(reasons) + "); `limpet doctor` shows what to change")
    if isolation is None:
        raise IsolationError(f"--isolation={requested} does not work here: {reasons[-1].partition(': ')[2]}")
    syscalls.hide_from_tracers()
    return isolation


def _namespaces(
    work_dir: Path, probe: NamespacesProbe, listener: Listener, kept: Kept | None, observer: Observer | None
) -> Isolation:
    ground = Ground(enter(), overlay=not probe.no_overlay, fresh_proc=probe.fresh_proc)
    listener.tell(Message("isolation: namespaces", "debug"))
    if probe.no_overlay:
        text = f"the work directory {work_dir} is slow: {probe.no_overlay}; an emptyDir volume is faster"
        listener.tell(Message(text, "warning"))
    return Namespaces(work_dir, ground, _NotApplied(listener), kept, listener, observer)


def _in_place(
    work_dir: Path,
    reasons: list[str],
    listener: Listener,
    settings: InPlaceSettings,
    observer: Observer | None,
) -> Isolation | None:
    """None with one more of `reasons` where it does not work.

    Raises IsolationError when another build was killed and what it left cannot be undone: nothing works then.
    """
    from builder.isolation.in_place import InPlace, recover  # few pods need it, and it takes long to load

    place, failure = probe_in_place(work_dir, settings.environ, settings.anywhere)
    failure = failure or recover()
    if place is None or failure:
        reasons.append(f"in-place: {failure}")
        return None
    # Only where nothing is lost when a kill leaves them away.
    place = replace(place, credentials=() if settings.anywhere else settings.credentials)
    try:
        isolation = InPlace(place, _NotApplied(listener), listener, observer)
    except IsolationError as error:
        reasons.append(f"in-place: {error.message}")
        return None
    for reason in reasons:
        listener.tell(Message(f"not isolated by {reason}"))
    readable = [place.home, *stay(settings.credentials, place.points)]
    listener.tell(
        Message(
            "isolation: in-place. RUN runs in this container itself; as root it can read what this pod mounts"
            + "".join(f", {path}" for path in filter(None, readable)),
            "warning",
        )
    )
    return isolation


def _chroot(work_dir: Path, reasons: list[str], listener: Listener, observer: Observer | None) -> Isolation:
    from builder.isolation.chroot import Chroot  # few pods need it, and it takes long to load

    for reason in reasons:
        listener.tell(Message(f"not isolated by {reason}"))
    listener.tell(
        Message(
            "isolation: chroot. RUN has no /proc (programs that ask /proc/self, bash's <( ) and /dev/stdout fail) "
            "and is not hidden from this pod",
            "warning",
        )
    )
    return Chroot(work_dir, _NotApplied(listener), listener, observer)


class _NotApplied:
    """Tells once of each kind of thing that layers have and this machine does not allow to be made."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._told: set[str] = set()

    def __call__(self, entry: Entry, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            text = f"base layers have things that cannot be made here: {what} of /{entry.path}, perhaps others"
            self._listener.tell(Message(text + "; RUN does not see them, the image keeps them", "warning"))
