"""COPY: files of a tree -> changes to a root filesystem, as BuildKit makes them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace

from builder.errors import DockerfileError, ImageError, Location
from builder.rootfs import users
from builder.rootfs.entry import BytesContent, Change, Entry, FileType
from builder.rootfs.layered import LayeredTree
from builder.rootfs.paths import join, normalise, resolve
from builder.rootfs.tree import Tree
from builder.steps import chmod, sources
from builder.steps.chmod import Chmod
from builder.steps.destination import Destination, Owner, PathBlocked, parent_of
from builder.steps.sources import Found, Selection
from builder.steps.step import AddStep, CopyStep, HeredocFile


@dataclass(frozen=True, slots=True)
class CopySettings:
    """What the instruction does not say.

    `created` is the modification time (nanoseconds) of directories made on the way and of heredoc files.
    `unknown_owners_are_root` makes a `--chown` name that the image does not know 0, as BuildKit does without a word.
    """

    created: int
    unknown_owners_are_root: bool = False


def copy_changes(
    step: CopyStep, source: Tree, destination: Tree, settings: CopySettings, place: str = "the build context"
) -> list[Change]:
    """What `step` changes in `destination`: parents first, hardlinks after what they link to.

    `source` is the tree that `--from` names, owners as in the image (a build context's are 0:0); `place` is what
    errors call it. With `--link` the changes do not depend on `destination`. Contents are not read, only referred to.
    Raises DockerfileError with the step's location.
    """
    copier = Copier.of(step, destination, settings)
    selection = Selection(step.sources, step.exclude, step.parents)
    for found in sources.find(source, selection, step.location, place):
        copier.copy(sources.walk(source, found, step.exclude), found.name, step.destination, contents=True)
    copier.copy_heredocs(step.heredocs, step.destination)
    return copier.destination.changes()


class Copier:
    """Carries out the copies of one instruction, one after the other, on one destination."""

    def __init__(self, destination: Destination, owner: Owner | None, mode: Chmod, location: Location) -> None:
        self.destination = destination
        self.owner = owner  # None keeps each file's own
        self.created_owner = owner or Owner()
        self.location = location
        self._mode = mode

    @classmethod
    def of(cls, step: CopyStep | AddStep, destination: Tree, settings: CopySettings) -> Copier:
        """For `step`; `--link` writes to an empty tree, unless `--chmod` is given too (as in BuildKit)."""
        link = step.link and not step.chmod
        target = LayeredTree() if link else destination
        owner = _owner(step.chown, None if link else destination, settings, step.location) if step.chown else None
        mode = chmod.parse(step.chmod, step.location) if step.chmod else Chmod()
        return cls(Destination(target, settings.created), owner, mode, step.location)

    def copy(self, walk: Iterator[Found], name: str, destination: str, *, contents: bool) -> None:
        """Copy one source, of which `walk` is everything, to `destination`.

        `contents`: an existing directory receives what is in a source directory, not the directory itself.
        """
        try:
            top = next(walk)
            target = self._target(top.entry, name, destination, contents)
            self._place(top, target, walk)
        except (PathBlocked, ImageError) as error:
            raise DockerfileError(
                f"copying to {destination}: {error.message}",
                error.hint or "COPY and ADD replace a file by a file, never a file by a directory or the reverse",
                location=self.location,
            ) from error

    def copy_heredocs(self, heredocs: tuple[HeredocFile, ...], destination: str) -> None:
        for heredoc in heredocs:
            if "/" in heredoc.name or heredoc.name in (".", ".."):
                raise DockerfileError(
                    f"heredoc {heredoc.name} cannot be a file's name",
                    "name it without a slash, and the file by the destination",
                    location=self.location,
                )
            data = heredoc.content.encode(errors="surrogateescape")
            created = self.destination.created
            entry = Entry(heredoc.name, FileType.FILE, 0o644, 0, 0, created, len(data), content=BytesContent(data))
            self.copy(iter([Found("", entry, True)]), heredoc.name, destination, contents=False)

    def _target(self, entry: Entry, name: str, destination: str, contents: bool) -> str:
        """Where the source itself goes; the directory that it goes to exists afterwards."""
        directory, _, last = destination.rpartition("/")
        self.make_directories(resolve(self.destination, destination if last in ("", ".") else directory))
        target = resolve(self.destination, normalise(destination))
        existing = self.destination.entry(target)
        is_directory = entry.type is FileType.DIRECTORY
        if existing is not None and (
            (is_directory and not contents) or (not is_directory and existing.type is FileType.DIRECTORY)
        ):
            target = join(target, name) if name else target
        self.make_directories(target if is_directory and contents and existing is None else parent_of(target))
        return target

    def make_directories(self, path: str) -> None:
        self.destination.make_directories(path, self._mode.created_directories, self.created_owner)

    def _place(self, top: Found, target: str, walk: Iterator[Found]) -> None:
        first_names: dict[Hashable, str] = {}
        skipped: dict[str, Entry] = {}  # directories passed that are not copied unless something in them is
        self._put(top.entry, target, first_names, new_metadata=False)
        for found in walk:
            if not found.included:
                skipped[found.relative] = found.entry
                continue
            if skipped:
                self._put_parents(found.relative, target, skipped)
            self._put(found.entry, join(target, found.relative), first_names, new_metadata=True)

    def _put_parents(self, relative: str, target: str, skipped: dict[str, Entry]) -> None:
        """Make the directories above `relative` that were passed; existing ones only get the source's mode."""
        parents = []
        while (relative := parent_of(relative)) in skipped:
            parents.append(relative)
        for parent in reversed(parents):
            entry = skipped.pop(parent)
            path = join(target, parent)
            existing = self.destination.entry(path)
            if existing is None:
                self.destination.put(self._copy_of(entry, path))
            elif existing.type is not FileType.DIRECTORY:
                raise PathBlocked(f"/{path} is not a directory")
            else:
                self.destination.put(replace(existing, mode=entry.mode))

    def _put(self, entry: Entry, path: str, first_names: dict[Hashable, str], *, new_metadata: bool) -> None:
        existing = self.destination.entry(path)
        if entry.type is FileType.DIRECTORY:
            if existing is not None and existing.type is not FileType.DIRECTORY:
                raise PathBlocked(f"/{path} is not a directory")
            if existing is None or new_metadata:
                self.destination.put(self._copy_of(entry, path, existing))
            return
        if existing is not None and existing.type is FileType.DIRECTORY:
            raise PathBlocked(f"/{path} is a directory")
        if entry.link_id is not None:
            first = first_names.setdefault(entry.link_id, path)
            if first != path:
                self.destination.link(first, path)
                return
        self.destination.put(self._copy_of(entry, path))

    def _copy_of(self, entry: Entry, path: str, existing: Entry | None = None) -> Entry:
        """`entry` at `path`, with what `--chown` and `--chmod` say; `existing` keeps extended attributes of its own."""
        mode = entry.mode
        if entry.type is not FileType.SYMLINK:
            mode = self._mode.apply(mode, directory=entry.type is FileType.DIRECTORY)
        owner = self.owner
        xattrs = entry.xattrs
        if existing is not None and existing.xattrs:
            xattrs = {**existing.xattrs, **xattrs}
        return Entry(
            path=path,
            type=entry.type,
            mode=mode,
            uid=entry.uid if owner is None else owner.uid,
            gid=entry.gid if owner is None else owner.gid,
            mtime=entry.mtime,
            size=entry.size,
            target=entry.target,
            device=entry.device,
            xattrs=xattrs,
            content=entry.content,
        )


def _owner(text: str, tree: Tree | None, settings: CopySettings, location: Location) -> Owner:
    try:
        return Owner(*users.chown_owner(tree, text, unknown_is_root=settings.unknown_owners_are_root))
    except ImageError as error:
        raise DockerfileError(f"--chown={text}: {error.message}", error.hint, location=location) from error
