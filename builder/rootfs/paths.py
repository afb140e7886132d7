"""Paths that cannot leave a root: symlinks resolved inside it, `..` stopped at it."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from builder.errors import ImageError
from builder.rootfs.entry import FileType
from builder.rootfs.tree import Tree

LINK_LIMIT = 255

_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
# ENOSYS: before Linux 5.6; EPERM: seccomp profiles that do not know it; EAGAIN: a rename raced with `..`;
# ELOOP: the kernel stops after 40 links, Limpet after 255.
_ASK_AGAIN_BY_HAND = frozenset({errno.ENOSYS, errno.EPERM, errno.EAGAIN, errno.ELOOP})
_LIBC = ctypes.CDLL(None, use_errno=True)


def normalise(path: str) -> str:
    """`path` as `builder.rootfs.entry` writes paths: no outer slashes, no `.`, and `..` clamped at the root.

    Purely textual: `a/../b` is `b` whatever `a` is.
    """
    if "." not in path and "//" not in path:
        return path.strip("/")
    names: list[str] = []
    for name in path.split("/"):
        if name == "..":
            if names:
                names.pop()
        elif name and name != ".":
            names.append(name)
    return "/".join(names)


def join(directory: str, name: str) -> str:
    """The path of `name` in `directory` ("" is the root)."""
    return f"{directory}/{name}" if directory else name


def resolve(tree: Tree, path: str, follow_last: bool = True) -> str:
    """Where `path` leads inside `tree` when its symlinks are followed; the result need not exist.

    Absolute targets start at the root of the tree and `..` stops there. The last component is followed only with
    `follow_last`, or when a slash comes after it. Below something that is no directory nothing exists, so the rest
    is taken as it is written. Raises ImageError after 255 links.
    """
    pending = path.split("/")[::-1]
    resolved: list[str] = []
    links = 0
    while pending:
        name = pending.pop()
        if name in ("", "."):
            continue
        if name == "..":
            if resolved:
                resolved.pop()
            continue
        resolved.append(name)
        if not pending and not follow_last:
            break
        entry = tree.entry("/".join(resolved))
        if entry is None or entry.type is not FileType.SYMLINK:
            continue
        links += 1
        if links > LINK_LIMIT:
            raise ImageError(f"{path}: too many levels of symbolic links")
        if entry.target.startswith("/"):
            resolved.clear()
        else:
            resolved.pop()
        pending.extend(reversed(entry.target.split("/")))
    return "/".join(resolved)


def open_in_root(root: int, path: str, flags: int, mode: int = 0) -> int:
    """Open `path` as if directory `root` (a file descriptor) were `/`: no symlink and no `..` leads out of it.

    Uses openat2(2) with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS, and walks by hand where the kernel or a seccomp
    profile does not offer it. Returns a close-on-exec descriptor. Raises OSError as open(2) does.
    """
    flags |= os.O_CLOEXEC
    how = struct.pack("QQQ", flags, mode if flags & os.O_CREAT else 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    name = os.fsencode(path) or b"."
    fd: int = _LIBC.syscall(_OPENAT2, root, ctypes.c_char_p(name), ctypes.c_char_p(how), ctypes.c_size_t(len(how)))
    if fd >= 0:
        return fd
    code = ctypes.get_errno()
    if code in _ASK_AGAIN_BY_HAND:
        return _walk(root, path, flags, mode)
    raise OSError(code, os.strerror(code), path)


def _walk(root: int, path: str, flags: int, mode: int) -> int:
    """`open_in_root` one component at a time; every step is relative to a descriptor and follows no link."""
    stack = [os.dup(root)]  # the directories from the root to the current one
    pending = path.split("/")[::-1]
    links = 0
    try:
        while pending:
            name = pending.pop()
            last = not any(part not in ("", ".") for part in pending)
            if name in ("", "."):
                continue
            if name == "..":
                if len(stack) > 1:
                    os.close(stack.pop())
                continue
            target = None if last and flags & os.O_NOFOLLOW and not pending else _link_target(stack[-1], name)
            if target is not None:
                links += 1
                if links > LINK_LIMIT:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if target.startswith("/"):
                    while len(stack) > 1:
                        os.close(stack.pop())
                pending.extend(reversed(target.split("/")))
            elif last:
                wanted = flags | (os.O_DIRECTORY if pending else 0)
                return os.open(name, wanted | os.O_NOFOLLOW, mode, dir_fd=stack[-1])
            else:
                step = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                stack.append(os.open(name, step, dir_fd=stack[-1]))
        return os.open(".", flags & ~os.O_CREAT, dir_fd=stack[-1])
    finally:
        for fd in stack:
            os.close(fd)


def _link_target(directory: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):  # no link; nothing there
            return None
        raise
