"""ADD: files of the context, archives, URLs and git repositories -> changes to a root filesystem."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from builder.dockerfile.git_reference import GitReference, parse_git_reference
from builder.errors import BuildError, ContextError, DockerfileError, ImageError
from builder.rootfs.entry import Change, Entry, FileContent, FileType
from builder.rootfs.paths import normalise, resolve
from builder.rootfs.tree import Tree
from builder.steps import archive, sources
from builder.steps.context import ContextTree
from builder.steps.copy import Copier, CopySettings
from builder.steps.destination import PathBlocked
from builder.steps.download import Downloads, download, file_name
from builder.steps.sources import Found, Selection, Source
from builder.steps.step import AddStep

# The tree to copy, in a directory of its own that nobody changes: `.git` is in it only if `keep_git_dir` says so,
# `subdir` is applied, `checksum` is verified.
FetchGit = Callable[[GitReference], Path]

_DIRECTORY_MODE = 0o755
_URL_MODE = 0o600
_PLACE = "the build context"


@dataclass(frozen=True, slots=True)
class AddSettings:
    """`work_dir` takes downloads and the contents of archives; they have to stay as long as the changes."""

    work_dir: Path
    fetch_git: FetchGit | None = None
    downloads: Downloads | None = None  # what is in there is not fetched again


def add_changes(
    step: AddStep, context: Tree, destination: Tree, settings: CopySettings, add_settings: AddSettings
) -> list[Change]:
    """What `step` changes in `destination`: parents first, hardlinks after what they link to.

    Raises DockerfileError and ContextError.
    """
    adder = _Adder(step, context, Copier.of(step, destination, settings), add_settings)
    for source in step.sources:
        adder.add(source)
    adder.copier.copy_heredocs(step.heredocs, step.destination)
    return adder.copier.destination.changes()


class _Adder:
    def __init__(self, step: AddStep, context: Tree, copier: Copier, settings: AddSettings) -> None:
        self._step = step
        self._context = context
        self._settings = settings
        self.copier = copier

    def add(self, source: str) -> None:
        git = self._git_reference(source)
        if git is not None:
            self._add_git(source, git)
        elif source.startswith(("http://", "https://")):
            self._add_url(source)
        else:
            selection = Selection((source,), self._step.exclude)
            for found in sources.find(self._context, selection, self._step.location, _PLACE):
                self._add_found(found)

    def _git_reference(self, source: str) -> GitReference | None:
        try:
            reference = parse_git_reference(source)
        except DockerfileError as error:
            raise DockerfileError(f"ADD {source}: {error.message}", error.hint, location=self._step.location) from error
        if reference is None or reference.like_local_path:
            return None
        keep = self._step.keep_git_dir
        return replace(
            reference,
            keep_git_dir=reference.keep_git_dir if keep is None else keep,
            checksum=self._step.checksum or reference.checksum,
        )

    def _add_git(self, source: str, reference: GitReference) -> None:
        if self._settings.fetch_git is None:
            raise ContextError(f"ADD {source}: git repositories cannot be fetched here")
        tree = ContextTree(self._settings.fetch_git(reference))
        top = tree.entry("")
        assert top is not None
        walk = sources.walk(tree, Source("", "", top), self._step.exclude)
        self.copier.copy(walk, "", self._step.destination, contents=False)

    def _add_url(self, url: str) -> None:
        downloads = self._settings.downloads
        fetched = downloads.known(url) if downloads is not None and not self._step.checksum else None
        if fetched is None:
            fetched = download(url, self._new_directory() / "download", self._step.checksum)
        name = file_name(url)
        entry = Entry(
            name, FileType.FILE, _URL_MODE, 0, 0, fetched.mtime, fetched.size, content=FileContent(str(fetched.path))
        )
        if not (self._step.unpack and self._unpack(entry)):
            self.copier.copy(iter([Found("", entry, True)]), name, self._step.destination, contents=False)

    def _add_found(self, source: Source) -> None:
        unpack = self._step.unpack is not False
        if not (unpack and source.entry.type is FileType.FILE and self._unpack(source.entry)):
            walk = sources.walk(self._context, source, self._step.exclude)
            self.copier.copy(walk, source.name, self._step.destination, contents=True)

    def _unpack(self, entry: Entry) -> bool:
        """Unpack `entry` at the destination, if it is an archive."""
        assert entry.content is not None
        destination, owner = self.copier.destination, self.copier.owner
        try:
            with archive.opened(entry.content) as reader:
                if reader is None:
                    return False
                directory = resolve(destination, normalise(self._step.destination))
                destination.make_directories(directory, _DIRECTORY_MODE, self.copier.created_owner)
                archive.unpack(reader, destination, directory, owner, self._new_directory())
                return True
        except (ImageError, PathBlocked) as error:
            raise self._failed(entry, error) from error
        except OSError as error:
            raise ContextError(f"unpacking {entry.path}: {error.strerror}") from error

    def _failed(self, entry: Entry, error: BuildError) -> DockerfileError:
        return DockerfileError(
            f"unpacking {entry.path} to {self._step.destination}: {error.message}",
            error.hint or "ADD --unpack=false copies an archive as it is",
            location=self._step.location,
        )

    def _new_directory(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="add-", dir=self._settings.work_dir))
