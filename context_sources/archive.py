"""The one unpacker of contexts: a stream of bytes becomes a tree, with no copy of the archive anywhere.

Up to three parts work side by side: reading, decompressing, and writing the tree. It keeps modes, links and
modification times; owners, which only root could set and a context does not have, and extended attributes are dropped.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from builder.errors import ContextError
from context_sources import tar_format
from context_sources.compression import Plain, decompressed
from context_sources.read_ahead import read_ahead
from context_sources.source import FetchSettings, Limits, dockerfile_path
from context_sources.tar_format import Member, Stream
from context_sources.tree_writer import TreeWriter

UNCHECKED_EXPANSION = 256 << 20
WHITEOUT, OPAQUE = b".wh.", b".wh..wh..opq"  # OCI image-spec, layer.md


@dataclass(slots=True)
class Budget:
    """What has been used of `limits`. Raises ContextError when there is no more."""

    limits: Limits
    name: str
    size: int = 0
    entries: int = 0
    received: int = 0
    expanded: int = 0

    def entry(self, size: int) -> None:
        """One more entry, with `size` bytes of content: asked before anything is written."""
        self.entries += 1
        self.size += size
        if self.limits.entries is not None and self.entries > self.limits.entries:
            raise ContextError(f"{self.name} has more than {self.limits.entries} entries", "keep files out of it")
        if self.limits.size is not None and self.size > self.limits.size:
            raise ContextError(
                f"{self.name} has more than {self.limits.size} bytes of files",
                "keep files out of the context, or allow more by --context-max-size",
            )

    def expand(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """`chunks` of decompressed data, as long as they are in proportion."""
        most = self.limits.expansion
        for chunk in chunks:
            self.expanded += len(chunk)
            if most is not None and self.expanded > UNCHECKED_EXPANSION and self.expanded > most * self.received:
                raise ContextError(
                    f"{self.name} expands to more than {most:g} times its size",
                    "state the size that the context may have by --context-max-size",
                )
            yield chunk


def unpack(
    chunks: Iterable[bytes],
    into: Path,
    settings: FetchSettings,
    *,
    name: str,
    total: int = 0,
    whiteouts: bool = False,
    budget: Budget | None = None,
) -> Budget:
    """Unpack a tar archive, plain or compressed, that arrives as `chunks` into the directory `into`.

    `name` is what errors call it, `total` its size in bytes for the progress, 0 if not known. With `whiteouts` it is a
    layer of an image: `.wh.` entries remove what earlier layers wrote. A `budget` goes on counting where an earlier
    archive of the same context stopped. Returns when the whole stream has been read.

    Raises ContextError when it is no archive, is damaged or cut, leads out of `into`, holds devices or pipes, or is
    larger than `settings.limits`; what was written stays and is the caller's to remove.
    """
    budget = budget or Budget(settings.limits, name)
    budget.name = name
    counted = receive(chunks, budget, settings, total)
    with read_ahead(counted) as received, expanded(received, budget, name) as plain, TreeWriter(into, name) as tree:
        stream = Stream(plain, name)
        attributes = 0
        layer = Layer(tree) if whiteouts else None
        dockerfile = os.fsencode(dockerfile_path(settings))
        for member in tar_format.read_members(stream):
            budget.entry(member.real_size if member.type == tar_format.FILE else 0)
            attributes += member.has_xattrs
            if layer is not None and layer.is_whiteout(member.name):
                stream.skip(member.size)
            else:
                write(member, stream, tree)
                if dockerfile and member.name.removeprefix(b"./") == dockerfile and member.type == tar_format.FILE:
                    tree.settle()
                    settings.dockerfile_seen(into / os.fsdecode(dockerfile))
        tree.finish()
    if attributes:
        settings.log("warning", f"{name}: extended attributes of {attributes} entries are not kept in a context")
    settings.log("debug", f"{name}: {budget.entries} entries, {budget.size} bytes of files")
    return budget


@contextmanager
def expanded(received: Iterator[bytes], budget: Budget, name: str) -> Iterator[Iterator[bytes]]:
    """The archive within `received`. Decompression has a thread of its own; without any there is nothing to share."""
    chunks = decompressed(received, name)
    if isinstance(chunks, Plain):
        yield budget.expand(chunks)
        return
    with read_ahead(budget.expand(chunks)) as ahead:
        yield ahead


def receive(chunks: Iterable[bytes], budget: Budget, settings: FetchSettings, total: int) -> Iterator[bytes]:
    """`chunks`, counted and reported."""
    done = 0
    for chunk in chunks:
        budget.received += len(chunk)
        done += len(chunk)
        settings.progress(done, total)
        yield chunk


def write(member: Member, stream: Stream, tree: TreeWriter) -> None:
    """Put one member into the tree, taking its bytes from the stream."""
    if member.type == tar_format.FILE:
        if member.segments is None:
            tree.file(member.name, member.mode, member.mtime, stream.pieces(member.size))
        else:
            parts = ((offset, stream.pieces(length)) for offset, length in member.segments)
            if sum(length for _, length in member.segments) != member.size:
                raise ContextError(f"{stream.name} is damaged: a sparse map does not fit its file")
            tree.sparse_file(member.name, member.mode, member.mtime, member.real_size, parts)
    elif member.type == tar_format.DIRECTORY:
        tree.directory(member.name, member.mode, member.mtime)
    elif member.type == tar_format.SYMLINK:
        tree.symlink(member.name, member.link, member.mtime)
    elif member.type == tar_format.HARDLINK:
        tree.hardlink(member.name, member.link)
    else:
        raise ContextError(
            f"{stream.name}: {os.fsdecode(member.name)} is {tar_format.NAMES[member.type]}",
            "a context holds files, directories and links; leave it out of the archive",
        )


class Layer:
    """Whiteouts of one layer of an image: they hide what earlier layers wrote, never what this one writes."""

    def __init__(self, tree: TreeWriter) -> None:
        self._tree = tree
        self._own: set[bytes] = set()

    def is_whiteout(self, name: bytes) -> bool:
        """Carry the whiteout `name` out; False when it is an ordinary name."""
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        if not parts or not parts[-1].startswith(WHITEOUT):
            self._own.update(b"/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
            return False
        above = b"/".join(parts[:-1])
        if parts[-1] == OPAQUE:
            self._prune(above)
        else:
            hidden = b"/".join([*parts[:-1], parts[-1].removeprefix(WHITEOUT)])
            if hidden not in self._own:
                self._tree.remove(hidden)
        return True

    def _prune(self, directory: bytes) -> None:
        for name in self._tree.names(directory):
            path = directory + b"/" + name if directory else name
            if path not in self._own:
                self._tree.remove(path)
            elif self._tree.is_directory(path):
                self._prune(path)
