"""Isolation in place: each step in this container itself, with the image's root in the place of the container's own.

For root in a pod that may make no namespace and mount nothing, and that is thrown away afterwards. A step has the
pod's /proc, /sys and /dev. It is not hidden from Limpet: docs/isolation.md says what it can see.
"""

from __future__ import annotations

import fcntl
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from builder.errors import IsolationError
from builder.events import Listener, Message
from builder.isolation import AgentSocket, Process, ProcessMount, Root, SecretFile
from builder.isolation.chroot import ChrootRunner
from builder.isolation.container import OWN_PREFIX, Place, is_below
from builder.isolation.credential_files import taken_away
from builder.isolation.launch import Running, launch
from builder.isolation.lay_in import CacheLocks, lay_in
from builder.isolation.namespaces import unpack_plain
from builder.isolation.owners import RealOwners
from builder.isolation.plain import PlainRoot
from builder.isolation.removal import remove_tree
from builder.isolation.specification import command, network_files
from builder.isolation.store import Observer
from builder.isolation.swap import Swap, is_directory, spine, undo
from builder.isolation.untouched import Exchanged
from builder.oci.image import Image
from builder.rootfs.directory import DirectoryTree
from builder.rootfs.entry import Entry, FileType
from builder.rootfs.paths import resolve

# What every runtime puts over an image: that the image's own is not seen says nothing.
_RUNTIMES_OWN = frozenset(("proc", "sys", "dev", "etc/resolv.conf", "etc/hosts", "etc/hostname", "run/.containerenv"))


class InPlace:
    """The isolation. Needs uid 0; see `builder.isolation.probe.probe_in_place` for what else."""

    name = "in-place"
    concurrent = False
    shares_layers = False

    def __init__(
        self,
        place: Place,
        not_applied: Callable[[Entry, str], None],
        listener: Listener,
        observer: Observer | None = None,
    ) -> None:
        """Swaps once to see that it works. Raises IsolationError when not; then everything is as before."""
        self._place = place
        self._not_applied = not_applied
        self._observer = observer
        self._listener = listener
        self._turn = threading.Lock()
        _try_to_swap(place)

    def keep(self, image: Image) -> bool:
        """See Isolation: every root here is unpacked for itself."""
        return False

    @contextmanager
    def open_root(self, image: Image) -> Iterator[Root]:
        with _base() as base:
            directory = base / "stage"
            directory.mkdir()
            owners = RealOwners()
            unpack_plain(image, directory / "root", owners, self._not_applied, self._listener, self._observer)
            runner = InPlaceRunner(self._place, base / "aside", self._turn, self._listener)
            root = PlainRoot(directory, runner, owners)
            try:
                yield root
            finally:
                root.close()


def recover() -> str:
    """Undo swaps of Limpets that were killed. Says who else swaps in this container now, "" when nobody does.

    Raises IsolationError when something cannot be undone.
    """
    for name in os.listdir("/"):
        if not name.startswith(OWN_PREFIX):
            continue
        descriptor = os.open(f"/{name}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            undo("/", f"/{name}/aside")
            remove_tree(f"/{name}")
        except BlockingIOError:
            return f"another build uses this container's root directory (/{name})"
        finally:
            os.close(descriptor)
    return ""


@contextmanager
def _base() -> Iterator[Path]:
    """A new directory in / for one root, locked as long as it is in use. Raises IsolationError."""
    try:
        base = Path(tempfile.mkdtemp(prefix=OWN_PREFIX, dir="/"))
    except OSError as error:
        raise IsolationError(f"the root directory cannot be written: {error.strerror}") from error
    descriptor = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        (base / "aside").mkdir()
        yield base
    finally:
        # With originals in it that could not be put back, it stays.
        if not os.listdir(base / "aside"):
            remove_tree(base)
        os.close(descriptor)


def _try_to_swap(place: Place) -> None:
    """Swap with an empty tree; no signal may cut it off. Afterwards everything that is moved can be moved whole."""
    with _base() as base:
        (base / "stage").mkdir()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        try:
            swap = Swap("/", str(base / "aside"), place.kept())
            swap.show(str(base / "stage"))
            swap.hide()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class InPlaceRunner:
    """Runs processes by the sandbox program while the root is swapped with the container's own: who has the `turn`.

    A step that would not see all of its root, because this pod has something in the same place, runs in a chroot.
    """

    def __init__(self, place: Place, aside: Path, turn: threading.Lock, listener: Listener) -> None:
        self._place = place
        self._aside = aside
        self._turn = turn
        self._listener = listener
        self._caches = CacheLocks()
        self._chroot = ChrootRunner(self._caches)
        self._told: set[str] = set()

    def run(self, process: Process, root: Path, directory: Path, running: Running, exchanged: Exchanged) -> None:
        with self._turn:
            self._run(process, root, directory, running, exchanged)

    def _run(self, process: Process, root: Path, directory: Path, running: Running, exchanged: Exchanged) -> None:
        if process.network == "none":
            raise IsolationError(
                "RUN --network=none needs a network namespace, which --isolation=in-place does not have",
                "run where user namespaces are allowed: `limpet doctor` shows how",
            )
        kept = self._place.kept()
        reason = covered(process, root, kept)
        if reason:
            self._tell(f"RUN is carried out in a chroot, without /proc: {reason}")
            self._chroot.run(process, root, directory, running, exchanged)
            return
        directory.mkdir()
        try:
            with ExitStack() as stack:
                in_dev = [
                    mount
                    for mount in process.mounts
                    if isinstance(mount, SecretFile) and mount.target.startswith("/dev/")
                ]
                mounts = [_reachable(mount, stack) for mount in process.mounts if mount not in in_dev]
                mounts += [file for file in network_files(process) if file.target.lstrip("/") not in kept]
                lay_in(mounts, {}, root, directory, self._caches, stack, exchanged)
                spec: dict[str, Any] = {**command(_interpreted(process, in_dev)), "kind": "in-place"}
                spec |= {"pid_namespace": False, "nested": None, "filter": None}
                shown = self._shown(root, kept, in_dev, exchanged)
                launch(running, spec, process.output, around=shown)
        finally:
            remove_tree(directory)

    @contextmanager
    def _shown(
        self, root: Path, kept: Collection[str], in_dev: Collection[SecretFile], exchanged: Exchanged
    ) -> Iterator[None]:
        """Inside the context, / is `root`, and what a step should not see is as far away as it can be."""
        swap = Swap("/", str(self._aside), kept)
        with ExitStack() as stack:
            stack.enter_context(taken_away(self._place.credentials))
            stack.enter_context(self._watched())
            stack.enter_context(_restored(path for path in self._place.points if path.lstrip("/") in _FILES))
            if self._place.home:
                stack.enter_context(_closed(self._place.home))
            for file in in_dev:
                stack.enter_context(_in_dev(file))
            swap.show(str(root))
            stack.callback(lambda: exchanged.renewed.append(swap.hide()))
            yield
        lost = [path for path in sorted(kept) if not os.path.lexists(f"/{path}")]
        if lost:
            raise IsolationError(
                f"the step moved /{lost[0]}, which is this pod's and not the image's", "use --isolation=chroot"
            )

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Tells of volumes of this pod that a step wrote to: no layer has that."""
        own = ("/proc", "/sys", "/dev", *filter(None, [self._place.home]))
        points = [point for point in self._place.points if not any(is_below(point, other) for other in own)]
        before = {point: os.stat(point).st_mtime_ns for point in points if os.path.isdir(point)}
        yield
        for point, mtime in before.items():
            if os.path.isdir(point) and os.stat(point).st_mtime_ns != mtime:
                self._tell(f"RUN changed {point}, which is a volume of this pod: that is in no layer")

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._listener.tell(Message(text, "warning"))


_FILES = frozenset(("etc/resolv.conf", "etc/hosts", "etc/hostname"))


def covered(process: Process, root: Path, kept: Collection[str]) -> str:
    """Why `process` would not see all of its `root` while `kept` paths stay in place, "" when it does."""
    tree = DirectoryTree(root)
    own = [path for path in kept if not any(is_below(path, other) for other in _RUNTIMES_OWN)]
    for directory in spine(kept):
        if os.path.lexists(root / directory) and not is_directory(str(root), directory):
            return f"/{directory} is no directory in the image, and this pod has a mount below it"
    for path in own:
        entry = tree.entry(path)
        if entry is not None and (entry.type is not FileType.DIRECTORY or tree.names(path)):
            return f"the image has a /{path}, and this pod another one"
    for target, what in ((process.cwd, "its working directory"), *((m.target, "a mount") for m in process.mounts)):
        resolved = resolve(tree, target)
        for path in own:
            if is_below(resolved, path):
                return f"{what} {target} is in this pod's /{path}"
    for mount in process.mounts:
        if not is_below(resolve(tree, mount.target), "dev"):
            continue
        if not isinstance(mount, SecretFile):
            return f"{mount.target} cannot be made in this pod's /dev"
    return ""


def _interpreted(process: Process, files: Collection[SecretFile]) -> Process:
    """With the interpreter that the kernel would start for a script in /dev, which pods have mounted noexec.

    A heredoc's script is the last argument, of a shell's -c or alone.
    """
    script = next((file for file in files if file.target == process.argv[-1]), None)
    if script is None or not script.data.startswith(b"#!") or not os.statvfs("/dev").f_flag & os.ST_NOEXEC:
        return process
    interpreter = os.fsdecode(script.data[2:].partition(b"\n")[0]).strip().split(None, 1)
    return replace(process, argv=(*interpreter, script.target))


def _reachable(mount: ProcessMount, stack: ExitStack) -> ProcessMount:
    """An agent's socket by a descriptor: its path may lead nowhere while another root is shown."""
    if not isinstance(mount, AgentSocket):
        return mount
    descriptor = os.open(mount.source, os.O_PATH | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return replace(mount, source=Path(f"/proc/self/fd/{descriptor}"))


@contextmanager
def _in_dev(file: SecretFile) -> Iterator[None]:
    """`file` in the pod's own /dev, which no layer has."""
    made = []
    for parent in reversed(Path(file.target).parents):
        if not parent.exists():
            parent.mkdir(mode=0o755)
            made.append(parent)
    descriptor = os.open(file.target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as stream:
            stream.write(file.data)
            stream.flush()
            os.fchown(descriptor, file.uid, file.gid)
            os.fchmod(descriptor, file.mode)
        yield
    finally:
        Path(file.target).unlink(missing_ok=True)
        for parent in reversed(made):
            remove_tree(parent)


@contextmanager
def _closed(directory: str) -> Iterator[None]:
    """Only root can enter `directory` inside the context."""
    mode = os.stat(directory).st_mode & 0o7777
    os.chmod(directory, 0o700)
    try:
        yield
    finally:
        os.chmod(directory, mode)


@contextmanager
def _restored(paths: Iterator[str]) -> Iterator[None]:
    """What a step writes into these files of the pod is gone with it, as everywhere."""
    before = {path: Path(path).read_bytes() for path in paths}
    try:
        yield
    finally:
        for path, data in before.items():
            if Path(path).read_bytes() != data:
                Path(path).write_bytes(data)
