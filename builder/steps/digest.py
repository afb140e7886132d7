"""Digests of what steps read, for cache keys.

What counts: names, types, modes, owners, link targets, device numbers, extended attributes, which names are one
file, and every byte. What does not: modification times, inode numbers, where the tree is. A context's owners are
0:0, so whose checkout it is does not count either. Every field is prefixed by its length: no two trees run into
one digest.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from builder.errors import ContextError, Location
from builder.rootfs.entry import Entry, FileType
from builder.rootfs.paths import normalise, resolve
from builder.rootfs.tree import Tree
from builder.steps import sources
from builder.steps.sources import Found, Selection, Source

# Below this a file is hashed on the spot: handing it to a thread costs more.
_LARGE_FILE = 256 << 10
_PIECE = 1 << 20
_THREADS = 4
_WAITING = 64  # large files under way; results are used in order


def digest(tree: Tree, *paths: str, mode_mask: int = 0o7777) -> str:
    """`sha256:...` of what is at `paths`, symlinks followed, with everything below; nothing there counts too.

    `mode_mask` is the part of modes that counts.
    """
    state = _Digest(mode_mask)
    for path in paths:
        followed = resolve(tree, normalise(path))
        entry = tree.entry(followed)
        state.field("path", path)
        if entry is not None:
            state.add(sources.walk(tree, Source(followed, "", entry), ()))
    return state.result()


def selection_digest(
    tree: Tree, selection: Selection, location: Location | None, place: str, mode_mask: int = 0o7777
) -> str:
    """`sha256:...` of what a COPY of `selection` reads; raises what `sources.find` raises."""
    state = _Digest(mode_mask)
    for source in sources.find(tree, selection, location, place):
        state.field("source", source.name)
        state.add(sources.walk(tree, source, selection.exclude))
    return state.result()


class _Digest:
    def __init__(self, mode_mask: int) -> None:
        self._state = hashlib.sha256(b"limpet-files-1")
        self._mode_mask = mode_mask

    def field(self, *values: str | bytes | int) -> None:
        for value in values:
            data = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
            self._state.update(len(data).to_bytes(8, "big"))
            self._state.update(data)

    def add(self, walk: Iterable[Found]) -> None:
        """Everything that a walk finds included, and the directories that it needs for that."""
        first_names: dict[Hashable, str] = {}
        with ThreadPoolExecutor(_THREADS) as pool:
            waiting: deque[tuple[Found, str | Future[str]]] = deque()
            for found in _needed(walk):
                entry = found.entry
                content: str | Future[str] = ""
                if entry.type is FileType.FILE:
                    first = first_names.setdefault(entry.link_id, found.relative) if entry.link_id is not None else None
                    if first is not None and first != found.relative:
                        content = f"same file as {first}"
                    elif entry.size >= _LARGE_FILE:
                        content = pool.submit(_content_digest, entry)
                    else:
                        content = _content_digest(entry)
                waiting.append((found, content))
                while waiting and (len(waiting) > _WAITING or isinstance(waiting[0][1], str)):
                    self._finish(*waiting.popleft())
            while waiting:
                self._finish(*waiting.popleft())
        self.field("end")

    def _finish(self, found: Found, content: str | Future[str]) -> None:
        entry = found.entry
        mode = 0 if entry.type is FileType.SYMLINK else entry.mode & self._mode_mask
        self.field(found.relative, found.included, entry.type.value, mode, entry.uid, entry.gid)
        self.field(entry.target, *entry.device, len(entry.xattrs))
        for name in sorted(entry.xattrs):
            self.field(name, entry.xattrs[name])
        self.field(content if isinstance(content, str) else content.result())

    def result(self) -> str:
        return "sha256:" + self._state.hexdigest()


def _needed(walk: Iterable[Found]) -> Iterator[Found]:
    """What is included, each after the directories above it that are not."""
    skipped: dict[str, Found] = {}
    for found in walk:
        if not found.included:
            skipped[found.relative] = found
            continue
        parents = []
        parent = found.relative.rpartition("/")[0]
        while skipped and parent in skipped:
            parents.append(skipped.pop(parent))
            parent = parent.rpartition("/")[0]
        yield from reversed(parents)
        yield found


def _content_digest(entry: Entry) -> str:
    assert entry.content is not None, f"{entry.path} has no content to digest"
    try:
        with entry.content.open() as stream:
            state = hashlib.sha256()
            while piece := stream.read(_PIECE):
                state.update(piece)
            return state.hexdigest()
    except OSError as error:
        raise ContextError(f"cannot read /{entry.path}: {error.strerror}") from error
