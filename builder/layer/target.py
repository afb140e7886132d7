"""The directory that a layer is unpacked into, written without ever leaving it.

Every step is relative to a directory descriptor and follows no symlink: links in an archive's paths are followed
by hand, inside the root. Nobody else may write to the directory meanwhile.

What makes it fast: descriptors of parent directories are kept, files are created with their final mode, nothing is
said twice to the kernel (owner, mode), and directories get their metadata at the end, when nothing will be written
into them any more.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from builder.errors import BuildError, ImageError
from builder.layer.contents import write_pieces
from builder.rootfs.directory import is_image_xattr
from builder.rootfs.entry import Entry, FileType
from builder.rootfs.paths import LINK_LIMIT, join, open_in_root

# (descriptor of the parent directory, name in it, entry with its real path): called instead of chown
SetOwner = Callable[[int, str, Entry], object]
# (entry with its real path, what this machine does not allow: "device", "owner" or "xattr NAME")
NotApplied = Callable[[Entry, str], None]

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LONGEST_PATH = 4095
_OPEN_DIRECTORIES = 128
_REFUSED = (errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOTSUP)
_DEVICES = {FileType.CHARACTER_DEVICE: stat.S_IFCHR, FileType.BLOCK_DEVICE: stat.S_IFBLK}


@dataclass(slots=True)
class _Directory:
    fd: int
    setgid: bool  # new files get the directory's group


class Target:
    """`into`, an existing directory, while one layer is being written into it.

    Paths given to its methods are an archive's: normalised, but perhaps leading through symlinks. "Real" paths
    lead through none. A context manager; `finish` completes the work, without it directories lack their metadata.
    """

    def __init__(self, into: Path, set_owner: SetOwner | None, not_applied: NotApplied | None) -> None:
        self._root = os.open(into, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._set_owner = set_owner
        self._not_applied = not_applied
        self._own = (os.geteuid(), os.getegid())
        self._umask = _umask()
        self._open: dict[str, _Directory] = {}
        self._real: dict[str, str] = {"": ""}  # archive's directory -> real directory
        self._before: dict[str, os.stat_result] = {}  # existing directories that were entered, as they were
        self._directories: dict[str, Entry] = {}  # real path -> metadata to give at the end
        self._existing: set[str] = set()  # of those, the ones that were there when their entry came
        self._written: set[str] = set()  # real paths that this layer brought, and the directories above them
        self._covering: set[str] = set()  # directories (real paths) in the place of something else of this layer
        self._implied: dict[str, None] = {}  # directories (real paths) that were made without an entry of their own
        self._took_implied_away = False
        self._not_made: list[str] = []  # devices (real paths) that the machine does not allow

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        self._forget_open("")
        os.close(self._root)

    @property
    def implied(self) -> tuple[str, ...]:
        """The directories (real paths) that were made without an entry of their own."""
        return tuple(path for path in self._implied if path not in self._covering)

    @property
    def not_made(self) -> tuple[str, ...]:
        """Where devices would be (real paths) that the machine does not allow; what is below them is hidden."""
        return tuple(self._not_made)

    @property
    def took_implied_away(self) -> bool:
        """Whether a directory that was made without an entry had to make way for something else of this layer."""
        return self._took_implied_away

    @property
    def covering(self) -> frozenset[str]:
        """Directories that took the place of something that was none: what layers below have inside stays hidden."""
        return frozenset(self._covering)

    # -- what a layer does

    def put(self, entry: Entry, data: Iterable[tuple[int, memoryview]]) -> None:
        """Create `entry`, replacing what is there; a directory stays and gets new metadata. `data` is for a FILE."""
        parent, _, name = entry.path.rpartition("/")
        if not name:
            self._put_root(entry)
            return
        self._trim()
        real_parent = self._real.get(parent)
        if real_parent is None:
            real_parent = self.enter(parent)
        real = f"{real_parent}/{name}" if real_parent else name
        if real != entry.path:
            entry = replace(entry, path=real)
        directory = self._open.get(real_parent) or self._open_directory(real_parent)
        if entry.type is FileType.FILE:
            self._put_file(directory, name, entry, data)
        elif entry.type is FileType.DIRECTORY:
            self._put_directory(directory, name, entry)
        elif entry.type is FileType.HARDLINK:
            self._put_link(name, entry)
        elif not self._put_special(directory, name, entry):
            self._not_made.append(real)
            return
        self._mark(real)

    def enter(self, path: str) -> str:
        """The real path of directory `path`; what is missing of it is made, what is no directory makes way."""
        real = self._resolve(path, make=True)
        assert real is not None
        return real

    def real(self, path: str) -> str | None:
        """The real path of `path`, whose last component is not followed; None if its parent is no directory."""
        parent, _, name = path.rpartition("/")
        real_parent = self._resolve(parent, make=False)
        return None if real_parent is None else join(real_parent, name)

    def wrote(self, real: str) -> bool:
        """Whether this layer brought `real`, or something inside it."""
        return real in self._written

    def is_directory(self, real: str) -> bool:
        """Whether `real` is there and a directory."""
        status = self._stat(real)
        return status is not None and stat.S_ISDIR(status.st_mode)

    def hide(self, real: str) -> None:
        """Remove `real` as far as layers below brought it."""
        if real in self._written:
            self.hide_inside(real)
        elif self._stat(real) is not None:
            self._remove(real)

    def hide_inside(self, real: str) -> None:
        """Remove what layers below brought into directory `real`; if it is none, nothing."""
        pending = [real]
        while pending:
            self._trim()
            directory = pending.pop()
            if not self.is_directory(directory):
                continue
            for name in self._list(directory):
                path = join(directory, name)
                if path in self._written:
                    pending.append(path)
                else:
                    self._remove(path)

    def is_made_for_nothing(self, real: str) -> bool:
        """Whether all that this layer has at `real` are directories made without an entry."""
        if real not in self._implied:
            return False
        below = real + "/"
        return all(path in self._implied for path in self._written if path.startswith(below))

    def whiteout(self, real: str) -> None:
        """Make overlayfs's whiteout at `real`, where nothing is: character device 0:0."""
        parent, _, name = real.rpartition("/")
        os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=self._directory(parent).fd)

    def finish(self, opaque: Iterable[str] = (), opaque_xattr: str = "") -> None:
        """Give all directories their metadata; those in `opaque` (real paths) also overlayfs's mark."""
        opaque = set(opaque)
        for real in sorted(self._directories, key=lambda path: path.count("/"), reverse=True):
            self._trim()
            self._finish_directory(real, self._directories[real], opaque_xattr if real in opaque else "")
        for real, status in list(self._before.items()):
            if real not in self._directories:
                self._trim()
                fd = self._open_to_read(real)
                try:
                    os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
                    if not self._can_enter(status):
                        os.fchmod(fd, stat.S_IMODE(status.st_mode))
                finally:
                    os.close(fd)

    # -- kinds of entries

    def _put_root(self, entry: Entry) -> None:
        if entry.type is not FileType.DIRECTORY:
            raise ImageError(f"a layer makes the root directory a {entry.type.value}")
        self._directory("")
        self._directories[""] = entry
        self._existing.add("")

    def _put_file(self, directory: _Directory, name: str, entry: Entry, data: Iterable[tuple[int, memoryview]]) -> None:
        mode = entry.mode
        try:
            fd = os.open(name, _NEW_FILE, mode & 0o777, dir_fd=directory.fd)
        except FileExistsError:
            self._remove(entry.path)
            fd = os.open(name, _NEW_FILE, mode & 0o777, dir_fd=directory.fd)
        try:
            if entry.size:
                write_pieces(fd, data, entry.size)
            # chown(2) clears the setuid and setgid bits and a file's capabilities: it comes first.
            self._chown(fd, directory, name, entry)
            if mode & (self._umask | 0o7000):
                os.fchmod(fd, mode)
            if entry.xattrs:
                self._set_xattrs(fd, entry)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _put_directory(self, directory: _Directory, name: str, entry: Entry) -> None:
        real = entry.path
        try:
            # Nobody needs its final mode before the end; it might keep its owner from filling it.
            os.mkdir(name, 0o700, dir_fd=directory.fd)
        except FileExistsError:
            if self.is_directory(real):
                self._directory(real)  # remembers how it was
                self._existing.add(real)
            else:
                self._remove(real)
                os.mkdir(name, 0o700, dir_fd=directory.fd)
                self._covering.add(real)
        self._directories[real] = entry
        self._implied.pop(real, None)
        self._real[real] = real

    def _put_link(self, name: str, entry: Entry) -> None:
        target = self.real(entry.target)
        found = self._stat(target) if target else None
        if target is None or found is None:
            raise MissingLinkTarget(f"hardlink {entry.path}: its target {entry.target} is not there")
        if stat.S_ISDIR(found.st_mode) or target.startswith(entry.path + "/"):
            raise ImageError(f"hardlink {entry.path}: its target {entry.target} cannot be linked there")
        there = self._stat(entry.path)
        if there is not None:
            if os.path.samestat(there, found):
                return
            self._remove(entry.path)
        parent, _, target_name = target.rpartition("/")
        source = self._directory(parent)
        directory = self._directory(entry.path.rpartition("/")[0])
        os.link(target_name, name, src_dir_fd=source.fd, dst_dir_fd=directory.fd, follow_symlinks=False)

    def _put_special(self, directory: _Directory, name: str, entry: Entry) -> bool:
        """Whether it was made: devices may not be."""
        if self._stat(entry.path) is not None:
            self._remove(entry.path)
        if entry.type is FileType.SYMLINK:
            os.symlink(entry.target, name, dir_fd=directory.fd)
        elif entry.type is FileType.FIFO:
            os.mkfifo(name, entry.mode & 0o777, dir_fd=directory.fd)
        else:
            try:
                os.mknod(name, _DEVICES[entry.type] | 0o600, os.makedev(*entry.device), dir_fd=directory.fd)
            except PermissionError:
                self._refused(entry, "device")
                return False
        self._chown(None, directory, name, entry)
        if entry.type is not FileType.SYMLINK:
            os.chmod(name, entry.mode, dir_fd=directory.fd)
        if entry.xattrs:
            self._set_xattrs(f"/proc/self/fd/{directory.fd}/{name}", entry)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=directory.fd, follow_symlinks=False)
        return True

    def _finish_directory(self, real: str, entry: Entry, opaque_xattr: str) -> None:
        parent, _, name = real.rpartition("/")
        up = self._directory(parent) if real else _Directory(self._root, False)
        fd = self._open_to_read(real)
        try:
            status = os.fstat(fd)
            if self._set_owner or (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
                self._chown(fd, _Directory(up.fd, True), name or ".", entry)
            if real in self._existing:
                for old in os.listxattr(fd):
                    if is_image_xattr(old) and old not in entry.xattrs:
                        os.removexattr(fd, old)
            if entry.xattrs:
                self._set_xattrs(fd, entry)
            if opaque_xattr:
                os.setxattr(fd, opaque_xattr, b"y")
            os.fchmod(fd, entry.mode)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    # -- metadata

    def _chown(self, fd: int | None, directory: _Directory, name: str, entry: Entry) -> None:
        if self._set_owner is not None:
            self._set_owner(directory.fd, name, entry)
            return
        if (entry.uid, entry.gid) == self._own and not directory.setgid:
            return
        try:
            if fd is None:
                os.chown(name, entry.uid, entry.gid, dir_fd=directory.fd, follow_symlinks=False)
            else:
                os.fchown(fd, entry.uid, entry.gid)
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            self._refused(entry, "owner")

    def _set_xattrs(self, where: int | str, entry: Entry) -> None:
        for name, value in entry.xattrs.items():
            if name.startswith(("trusted.overlay.", "user.overlay.")):
                continue  # would be read as overlayfs's own
            try:
                if isinstance(where, int):
                    os.setxattr(where, name, value)
                else:
                    os.setxattr(where, name, value, follow_symlinks=False)
            except OSError as error:
                if error.errno not in _REFUSED:
                    raise
                self._refused(entry, f"xattr {name}")

    def _refused(self, entry: Entry, what: str) -> None:
        if self._not_applied is None:
            raise BuildError(f"cannot unpack {entry.path}: this machine does not allow its {what}", "run as root")
        self._not_applied(entry, what)

    # -- directories

    def _mark(self, real: str) -> None:
        while real and real not in self._written:
            self._written.add(real)
            real = real.rpartition("/")[0]

    def _resolve(self, path: str, make: bool) -> str | None:
        """`enter`; without `make`, None where there is no directory."""
        known = self._real.get(path)
        if known is not None:
            return known
        pending = path.split("/")[::-1]
        real = ""
        links = 0
        while pending:
            self._trim()
            name = pending.pop()
            if name in ("", "."):
                continue
            if name == "..":
                real = real.rpartition("/")[0]
                continue
            step = join(real, name)
            if len(os.fsencode(step)) > _LONGEST_PATH:
                raise ImageError(f"{path[:80]}...: leads to a path that is too long")
            target = self._step(step, make)
            if target is None:
                return None
            if not target:
                real = step
                continue
            links += 1
            if links > LINK_LIMIT:
                raise ImageError(f"{path}: too many levels of symbolic links")
            if target.startswith("/"):
                real = ""
            pending.extend(reversed(target.split("/")))
        self._real[path] = real
        return real

    def _step(self, real: str, make: bool) -> str | None:
        """Where `real` leads if it is a symlink; "" if it is a directory or was made one; else None."""
        if real in self._directories or real in self._open:
            return ""
        status = self._stat(real)
        if status is not None and stat.S_ISDIR(status.st_mode):
            return ""
        parent, _, name = real.rpartition("/")
        if status is not None and stat.S_ISLNK(status.st_mode):
            return os.readlink(name, dir_fd=self._directory(parent).fd)
        if not make:
            return None
        if status is not None:
            self._remove(real)
            self._covering.add(real)
        os.mkdir(name, 0o700, dir_fd=self._directory(parent).fd)
        self._directories[real] = Entry(real, FileType.DIRECTORY, 0o755)
        self._implied[real] = None
        self._mark(real)
        return ""

    def _stat(self, real: str) -> os.stat_result | None:
        parent, _, name = real.rpartition("/")
        try:
            return os.stat(name or ".", dir_fd=self._directory(parent).fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def _directory(self, real: str) -> _Directory:
        return self._open.get(real) or self._open_directory(real)

    def _open_directory(self, real: str) -> _Directory:
        parent, _, name = real.rpartition("/")
        above = self._open.get(parent)
        if above is not None and name:
            fd = os.open(name, _DIRECTORY, dir_fd=above.fd)
        else:
            fd = open_in_root(self._root, real, _DIRECTORY)
        status = os.fstat(fd)
        self._open[real] = directory = _Directory(fd, bool(status.st_mode & stat.S_ISGID))
        if real not in self._before:
            self._before[real] = status
        if not self._can_enter(status):
            os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(status.st_mode) | 0o700)
        return directory

    def _trim(self) -> None:
        """Close descriptors that are too many. Only where no method up the stack holds one of them."""
        while len(self._open) > _OPEN_DIRECTORIES:
            oldest = next(iter(self._open))
            os.close(self._open.pop(oldest).fd)

    def _can_enter(self, status: os.stat_result) -> bool:
        return self._own[0] == 0 or status.st_mode & 0o700 == 0o700

    def _open_to_read(self, real: str) -> int:
        flags = os.O_DIRECTORY | os.O_NOFOLLOW
        try:
            return open_in_root(self._root, real, flags | os.O_RDONLY)
        except PermissionError:
            fd = open_in_root(self._root, real, flags | os.O_PATH)
            os.chmod(f"/proc/self/fd/{fd}", 0o700)
            os.close(fd)
            return open_in_root(self._root, real, flags | os.O_RDONLY)

    def _list(self, real: str) -> list[str]:
        self._directory(real)  # remembers how it was
        fd = self._open_to_read(real)
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)

    # -- removal

    def _remove(self, real: str) -> None:
        """Remove `real`, which exists, and everything in it."""
        parent, _, name = real.rpartition("/")
        status = self._stat(real)
        assert status is not None
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=self._directory(parent).fd)
            if stat.S_ISLNK(status.st_mode):
                self._real = {"": ""}  # some of them may have led through it
            self._written.discard(real)
            return
        doomed = [real]
        for directory in doomed:
            fd = self._open_to_read(directory)
            try:
                with os.scandir(fd) as listing:
                    items = [(item.name, item.is_dir(follow_symlinks=False)) for item in listing]
                for child, is_directory in items:
                    if is_directory:
                        doomed.append(join(directory, child))
                    else:
                        os.unlink(child, dir_fd=fd)
            finally:
                os.close(fd)
        for directory in reversed(doomed):
            os.rmdir(directory, dir_fd=self._root)
        self._forget(real)

    def _forget(self, real: str) -> None:
        self._real = {"": ""}
        self._forget_open(real)
        below = real + "/"
        tables: list[dict[str, os.stat_result] | dict[str, Entry]] = [self._before, self._directories]
        for table in tables:
            for path in [path for path in table if path == real or path.startswith(below)]:
                del table[path]
        if real in self._written:
            self._written = {path for path in self._written if path != real and not path.startswith(below)}
            self._existing &= self._directories.keys()
            left = {path: None for path in self._implied if path in self._directories}
            self._took_implied_away |= len(left) < len(self._implied)
            self._implied = left

    def _forget_open(self, real: str) -> None:
        below = real + "/" if real else ""
        for path in [path for path in self._open if path == real or path.startswith(below)]:
            os.close(self._open.pop(path).fd)


class MissingLinkTarget(ImageError):
    """A hardlink to something that is not in the directory."""


def _umask() -> int:
    """The process's umask, read without changing it: other threads are creating files."""
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith("Umask:"):
                    return int(line.split()[1], 8)
    except OSError:
        pass  # no /proc
    return 0o777
