"""Contexts in object stores: one object that is an archive, or a tree of objects below a prefix."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from builder.errors import ContextError
from context_sources.archive import Budget, unpack
from context_sources.file_program import CREATE_FILE
from context_sources.retry import Body, opened, resumed
from context_sources.source import Fetched, FetchSettings, Wanted
from context_sources.tree_writer import TreeWriter, components

IN_PARALLEL = 16
DEFAULT_OBJECT = "context.tar.gz"  # kaniko's name where a bucket is given without one


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object of a listing. `version` is what changes with its content; `mtime` is in nanoseconds."""

    key: str
    size: int
    mtime: int
    version: str


# A request for an object of the listing, from an offset on.
OpenObject = Callable[[StoredObject, int], Body]


def fetch_archive(
    open_at: Callable[[int], Body], name: str, revision: str, revision_kind: str, into: Path, settings: FetchSettings
) -> Fetched:
    """Unpack an object while it arrives."""
    return unpack_archive(opened(open_at, name, settings), open_at, name, revision, revision_kind, into, settings)


def unpack_archive(
    body: Body,
    open_at: Callable[[int], Body],
    name: str,
    revision: str,
    revision_kind: str,
    into: Path,
    settings: FetchSettings,
) -> Fetched:
    """Unpack an object of which `body` is there already; `open_at` gives more of it where that breaks off."""
    with closing(resumed(body, open_at, name, settings)) as chunks:
        unpack(chunks, into, settings, name=name, total=body.total)
    return Fetched(path=into, source=name, revision=revision, revision_kind=revision_kind)


def fetch_tree(
    listing: Iterable[StoredObject],
    prefix: str,
    open_object: OpenObject,
    name: str,
    into: Path,
    settings: FetchSettings,
) -> Fetched:
    """Fetch every object below `prefix` that the context's .dockerignore does not exclude, several at a time.

    Objects are files of mode 0644 with the time of their last change; one whose key ends in a slash is a directory. The
    revision is a digest over keys, sizes and versions of what was fetched.
    """
    found = below_sub_path(listing, prefix, settings)
    if not found:
        raise ContextError(
            f"{name}: no object begins with this prefix", "check bucket and prefix, or upload the context"
        )
    files = {path: stored for path, stored in found.items() if not path.endswith("/")}
    wanted = ignore_filter(files, open_object, name, settings)
    fetched = {path: stored for path, stored in files.items() if wanted(path)}
    if len(fetched) < len(files):
        settings.log("info", f"{name}: {len(files) - len(fetched)} objects are left out by the .dockerignore")
    budget = Budget(settings.limits, name)
    for stored in fetched.values():
        budget.entry(stored.size)
    root = normal(settings.sub_path)
    directories = [path for path in found if path.endswith("/")] if len(fetched) == len(files) else []
    make_directories([*fetched, *directories], root, into, name)
    download_all(fetched, into / root, open_object, name, budget.size, settings)
    listed = "".join(f"{path}\0{stored.size}\0{stored.version}\n" for path, stored in sorted(fetched.items()))
    digest = hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()
    return Fetched(path=into, source=name, revision=f"sha256:{digest}", revision_kind="digest")


def normal(sub_path: str) -> str:
    """`sub_path` without empty and `.` parts. With `..` it cannot narrow a listing: "" then, and `fetch` judges it."""
    parts = [part for part in sub_path.split("/") if part not in ("", ".")]
    return "" if ".." in parts else "/".join(parts)


def below_sub_path(listing: Iterable[StoredObject], prefix: str, settings: FetchSettings) -> dict[str, StoredObject]:
    """The objects of the context by their path in it."""
    root = normal(settings.sub_path)
    start = prefix + (root + "/" if root else "")
    return {
        stored.key[len(start) :]: stored for stored in listing if stored.key.startswith(start) and stored.key != start
    }


def ignore_filter(
    files: dict[str, StoredObject], open_object: OpenObject, name: str, settings: FetchSettings
) -> Wanted:
    """What the Dockerfile's own ignore file says, else .dockerignore. These and the Dockerfile always come along."""
    candidates = [f"{settings.dockerfile}.dockerignore", ".dockerignore"]
    ignore_file = next((path for path in candidates if path in files), None)
    if settings.make_filter is None or ignore_file is None:
        return lambda path: True
    with closing(content(files[ignore_file], open_object, f"{name}{ignore_file}", settings)) as chunks:
        chosen = settings.make_filter(b"".join(chunks).decode("utf-8", "replace"))
    needed = {settings.dockerfile, *candidates}
    return lambda path: path in needed or chosen(path)


def content(
    stored: StoredObject, open_object: OpenObject, what: str, settings: FetchSettings
) -> Generator[bytes, None, None]:
    """The bytes of an object, resumed where they break off; an empty one is not asked for."""
    if stored.size:
        open_at = partial(open_object, stored)
        yield from resumed(opened(open_at, what, settings), open_at, what, settings)


def make_directories(paths: Iterable[str], root: str, into: Path, name: str) -> None:
    """All directories of the tree. Raises ContextError for keys that are no path below it."""
    above: set[bytes] = {os.fsencode(root)} if root else set()
    files: set[bytes] = set()
    for path in paths:
        encoded = os.fsencode(f"{root}/{path}" if root else path)
        parts = components(encoded, name)
        if b"/".join(parts) != encoded.rstrip(b"/") or b"\0" in encoded:
            raise ContextError(f"{name}: the object {path!r} cannot be a file of that name")
        if not encoded.endswith(b"/"):
            files.add(encoded)
            parts = parts[:-1]
        if parts:
            above.add(b"/".join(parts))
    with TreeWriter(into, name) as tree:
        for directory in sorted(above):
            tree.directory(directory, 0o755, -1)
            while directory:
                if directory in files:
                    raise ContextError(f"{name}: {os.fsdecode(directory)} is an object and a prefix of others")
                directory = directory.rpartition(b"/")[0]
        tree.finish()


def download_all(
    fetched: dict[str, StoredObject],
    root: Path,
    open_object: OpenObject,
    name: str,
    total: int,
    settings: FetchSettings,
) -> None:
    """Fetch the objects in parallel, before them the Dockerfile; the first that fails ends it all."""
    done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size  # a progress that is a chunk behind harms nobody
        settings.progress(done, total)

    first = fetched.get(settings.dockerfile)
    if first is not None:
        dockerfile = settings.dockerfile
        download(first, root / dockerfile, open_object, f"{name}{dockerfile}", count, settings)
        settings.dockerfile_seen(root / dockerfile)
        fetched = {path: stored for path, stored in fetched.items() if path != dockerfile}
    left = deque(fetched.items())

    def download_what_is_left() -> None:
        while True:
            try:
                path, stored = left.popleft()
            except IndexError:
                return
            download(stored, root / path, open_object, f"{name}{path}", count, settings)

    with ThreadPoolExecutor(IN_PARALLEL, "context-object") as pool:
        # One job for each object would take 2 KB of memory for each.
        jobs = [pool.submit(download_what_is_left) for _ in range(min(IN_PARALLEL, len(left)))]
        try:
            finished, _ = wait(jobs, return_when=FIRST_EXCEPTION)
            for job in finished:
                job.result()
        finally:
            left.clear()


def download(
    stored: StoredObject,
    path: Path,
    open_object: OpenObject,
    what: str,
    count: Callable[[int], None],
    settings: FetchSettings,
) -> None:
    """Write one object. There is no link in the tree that could lead elsewhere: all of it is made of objects."""
    descriptor = os.open(path, CREATE_FILE, 0o644)
    try:
        os.fchmod(descriptor, 0o644)
        written = 0
        with closing(content(stored, open_object, what, settings)) as chunks:
            for chunk in chunks:
                written += len(chunk)
                if written > stored.size:
                    raise ContextError(f"{what} is larger than its listing said", "start the build again")
                rest = memoryview(chunk)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
                count(len(chunk))
        os.utime(descriptor, ns=(stored.mtime, stored.mtime))
    except OSError as error:
        raise ContextError(f"{what}: {error.strerror} while writing the context") from error
    finally:
        os.close(descriptor)
