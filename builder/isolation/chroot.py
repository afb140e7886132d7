"""Isolation by chroot: for a root that may mount nothing. No /proc, and a step is not hidden from much."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from builder.errors import IsolationError
from builder.events import Listener
from builder.isolation import Process, Root
from builder.isolation.launch import Running, launch
from builder.isolation.lay_in import DEVICES, CacheLocks, lay_in
from builder.isolation.namespaces import unpack_plain
from builder.isolation.owners import RealOwners
from builder.isolation.plain import PlainRoot
from builder.isolation.removal import remove_tree
from builder.isolation.specification import command, network_files
from builder.isolation.store import Observer
from builder.isolation.untouched import Exchanged
from builder.oci.image import Image
from builder.rootfs.entry import Entry


class Chroot:
    """The isolation. Needs uid 0 with CAP_SYS_CHROOT."""

    name = "chroot"
    concurrent = True
    shares_layers = False

    def __init__(
        self,
        work_dir: Path,
        not_applied: Callable[[Entry, str], None],
        listener: Listener,
        observer: Observer | None = None,
    ) -> None:
        self._work_dir = work_dir
        self._listener = listener
        self._observer = observer
        self._not_applied = not_applied
        self._runner = ChrootRunner(CacheLocks())
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def keep(self, image: Image) -> bool:
        """See Isolation: every root here is unpacked for itself."""
        return False

    @contextmanager
    def open_root(self, image: Image) -> Iterator[Root]:
        with self._lock:
            directory = self._work_dir / f"root{next(self._numbers)}"
        directory.mkdir()
        try:
            owners = RealOwners()
            unpack_plain(image, directory / "root", owners, self._not_applied, self._listener, self._observer)
            root = PlainRoot(directory, self._runner, owners)
        except BaseException:
            remove_tree(directory)
            raise
        try:
            yield root
        finally:
            root.close()


class ChrootRunner:
    """Runs processes by the sandbox program, which changes the root directory and nothing else."""

    def __init__(self, caches: CacheLocks) -> None:
        self._caches = caches

    def run(self, process: Process, root: Path, directory: Path, running: Running, exchanged: Exchanged) -> None:
        if process.network == "none":
            raise IsolationError(
                "RUN --network=none needs a network namespace, which --isolation=chroot does not have",
                "run where user namespaces are allowed: `limpet doctor` shows how",
            )
        directory.mkdir()
        try:
            with ExitStack() as stack:
                mounts = [*network_files(process), *process.mounts]
                lay_in(mounts, DEVICES, root, directory, self._caches, stack, exchanged)
                spec: dict[str, Any] = {**command(process), "kind": "chroot", "root": str(root)}
                spec |= {"pid_namespace": False, "nested": None, "filter": None}
                launch(running, spec, process.output)
        finally:
            remove_tree(directory)
