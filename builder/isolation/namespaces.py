"""Isolation by namespaces: each step in a container of its own, which Limpet makes itself."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from builder.events import Listener, Message, Silent, worked
from builder.isolation import Process, Root, syscalls
from builder.isolation.enter import Entered
from builder.isolation.implied import restore_implied
from builder.isolation.launch import Running, launch
from builder.isolation.mount_points import MountPoints
from builder.isolation.overlay import MAX_LOWERS, OverlayKind, OverlayRoot
from builder.isolation.owners import Owners, RealOwners, RecordedOwners
from builder.isolation.plain import PlainRoot
from builder.isolation.probe import try_overlay_on
from builder.isolation.removal import remove_tree
from builder.isolation.specification import Abilities, specification
from builder.isolation.store import KeptLayers, LayerStore, Observer, observed, unpack_layer
from builder.isolation.untouched import Exchanged
from builder.layer.overlay import NeedsLayersBelow
from builder.oci.image import Image, Layer
from builder.rootfs.entry import Entry

# linux/capability.h: CHOWN, FOWNER, FSETID, SYS_ADMIN (trusted.*), MKNOD, SETFCAP
_UNPACKING = frozenset((0, 3, 4, 21, 27, 31))


@dataclass(frozen=True, slots=True)
class Ground:
    """What the namespaces can do here, as `builder.isolation.probe` found out.

    `overlay`: the work directory can carry an overlay. `fresh_proc`: a new pid namespace can have its own /proc.
    """

    entered: Entered
    overlay: bool
    fresh_proc: bool


class Kept(Protocol):
    """Unpacked layers in `directory`, which builds share."""

    @property
    def directory(self) -> Path: ...

    def layers(self, form: str) -> KeptLayers:
        """Those that are laid down alike, whatever distinguishes the machines and users that do it."""
        ...


class Namespaces:
    """The isolation; this process has to be in the namespaces (`builder.isolation.enter`) already."""

    name = "namespaces"
    concurrent = True

    def __init__(
        self,
        work_dir: Path,
        ground: Ground,
        not_applied: Callable[[Entry, str], None],
        kept: Kept | None = None,
        listener: Listener | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._work_dir = work_dir
        self._ground = ground
        self._not_applied = not_applied
        self._listener = listener or Silent()
        self._observer = observer
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._kind = OverlayKind("trusted" if ground.entered.initial else "user")
        faked = RecordedOwners() if ground.entered.single_id else None
        self._owners: Owners = faked or RealOwners()
        self._runner = NamespaceRunner(abilities(ground, self._kind), faked)
        layers = None
        if kept is not None:
            reason = self._why_not_shared(kept.directory)
            if reason and listener is not None:
                text = f"unpacked layers of {kept.directory} are not used: {reason}"
                listener.tell(Message(text))
            layers = kept.layers(_form(ground.entered, self._kind)) if not reason else None
        self._keeps = layers is not None
        self.shares_layers = ground.overlay
        self._store = LayerStore(work_dir, self._kind.xattr, self._owners, not_applied, layers, listener, observer)

    def keep(self, image: Image) -> bool:
        """See Isolation."""
        if not self._keeps or len(image.layers) >= MAX_LOWERS:
            return False
        try:
            self._store.unpack([layer for layer in _each_once(image.layers) if not self._store.is_of_this_build(layer)])
            return True
        except NeedsLayersBelow:
            return False

    def _why_not_shared(self, directory: Path) -> str:
        """Why layers in `directory` cannot be lower directories of roots in the work directory, "" when they can."""
        if not self._ground.overlay:
            return "the work directory cannot carry an overlay"
        if self._owners.recorded and os.stat(directory).st_dev != os.stat(self._work_dir).st_dev:
            # See RecordedOwners: inode numbers of two file systems could be the same.
            return "with one user id only, the work directory has to be on the same file system"
        return try_overlay_on(directory, self._work_dir, self._kind)

    @contextmanager
    def open_root(self, image: Image) -> Iterator[Root]:
        with self._lock:
            directory = self._work_dir / f"root{next(self._numbers)}"
        directory.mkdir()
        try:
            root = self._open(image, directory)
        except BaseException:
            remove_tree(directory)
            raise
        try:
            yield root
        finally:
            root.close()

    def _open(self, image: Image, directory: Path) -> OverlayRoot | PlainRoot:
        if self._ground.overlay and len(image.layers) < MAX_LOWERS:
            try:
                stored = self._store.unpack(_each_once(image.layers))
                lowers = [layer.path for layer in stored]
                lowers += restore_implied(stored, directory / "implied", self._kind.xattr)
            except NeedsLayersBelow:
                pass
            else:
                return OverlayRoot(directory, lowers, self._kind, self._runner, self._owners)
        unpack_plain(image, directory / "root", self._owners, self._not_applied, self._listener, self._observer)
        return PlainRoot(directory, self._runner, self._owners)


def _form(entered: Entered, kind: OverlayKind) -> str:
    """What decides how a layer lies on the disk: the attributes of overlayfs, who the ids are, what can be made."""
    able = sorted(syscalls.effective_capabilities() & _UNPACKING)
    text = json.dumps([kind.xattr, entered.uid_map, entered.gid_map, entered.initial, able])
    return f"{kind.xattr}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _each_once(layers: Sequence[Layer]) -> list[Layer]:
    """`layers` without those that come again further up: overlayfs refuses (ELOOP) to have one directory twice.

    The upper of two same layers decides every path that the lower one could.
    """
    topmost = {layer.diff_id: number for number, layer in enumerate(layers)}
    return [layer for number, layer in enumerate(layers) if topmost[layer.diff_id] == number]


def unpack_plain(
    image: Image,
    root: Path,
    owners: Owners,
    not_applied: Callable[[Entry, str], None],
    listener: Listener,
    observer: Observer | None = None,
) -> None:
    """Unpack all layers of `image`, in their order, into the new directory `root`."""
    root.mkdir(mode=0o755)
    os.chmod(root, 0o755)
    for layer in image.layers:
        with (
            observed(layer, observer, made_here=not layer.origin) as seen,
            worked(listener, "unpack", layer.descriptor.digest),
        ):
            unpack_layer(layer, root, "plain", "trusted", owners.set if owners.recorded else None, not_applied, seen)


def abilities(ground: Ground, kind: OverlayKind) -> Abilities:
    """What a step's sandbox may use.

    Where a step shares the pid namespace and /proc with Limpet, it gets a user namespace of its own, in which no
    capability counts for Limpet's processes or those of other steps: /proc/PID/{root,environ,mem} and ptrace of
    them are refused by the kernel (ptrace(2), "Ptrace access mode checking").
    """
    options = kind.options if ground.overlay else None
    if ground.fresh_proc:
        return Abilities(True, options)

    def same(ids: tuple[tuple[int, int, int], ...]) -> str:
        return "".join(f"{inside} {inside} {count}\n" for inside, _, count in ids)

    return Abilities(False, options, same(ground.entered.uid_map), same(ground.entered.gid_map))


@dataclass(frozen=True, slots=True)
class NamespaceRunner:
    """Runs processes by the sandbox program, each in new namespaces."""

    abilities: Abilities
    faked: RecordedOwners | None = None  # with one id only

    def run(self, process: Process, root: Path, directory: Path, running: Running, exchanged: Exchanged) -> None:
        directory.mkdir()
        try:
            with ExitStack() as stack:
                points = stack.enter_context(MountPoints(root))
                stack.callback(lambda: exchanged.add((), points.directories))
                spec = specification(process, points, directory, self.abilities, stack)
                listener = None
                if self.faked is not None:
                    from builder.isolation.fake_ids import faked_ids  # most pods have all ids
                    from builder.isolation.seccomp import filter_program

                    listener = stack.enter_context(faked_ids(process, root, self.faked))
                    spec["filter"] = filter_program()
                launch(running, spec, process.output, listener)
        finally:
            remove_tree(directory)
