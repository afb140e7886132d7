"""git repositories, by the git program."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from builder.errors import ContextError, UsageError
from context_sources import git_address
from context_sources.git_address import ABBREVIATED, COMMIT, GitAddress
from context_sources.git_failure import BY_SHA, SHALLOW, explained, is_transient
from context_sources.git_program import Git, GitFailed
from context_sources.retry import retried
from context_sources.source import Fetched, FetchSettings, Limits

# Lines of `git ls-tree -r -l`: MODE TYPE OBJECT SIZE<tab>PATH, the size "-" for a submodule, the path quoted at need.
BLOB_SIZE = re.compile(rb"^[0-7]+ blob [0-9a-f]+ +([0-9]+)\t", re.MULTILINE)
BRINGS_MORE = re.compile(rb"\.git(?:attributes|modules)\"?$", re.MULTILINE)
LONGEST_LINE = 1 << 16  # PATH_MAX is 4096 bytes, each of four characters when it is quoted


@dataclass(frozen=True, slots=True)
class Checkout:
    """`path` is the address's subdirectory, or the whole tree; `commit` the full SHA of what was checked out."""

    path: Path
    commit: str
    time: int


class GitSource:
    """Contexts in git; `--git` options go before what the address says."""

    def fetch(self, location: str, into: Path, settings: FetchSettings) -> Fetched:
        address = git_address.parse_context(location, settings.environment)
        if address.scheme == "http" and not settings.allow_http and not location.startswith("git://"):
            raise UsageError(
                f"--context {address.shown}: plain http can be read and changed on its way", "pass --context-allow-http"
            )
        options = settings.git
        keep = options.keep_git_dir if options.keep_git_dir is not None else bool(address.keep_git_dir)
        submodules = options.recurse_submodules
        if submodules is None:
            submodules = address.submodules is not False
        done = checkout(address, into, settings, keep_git_dir=keep, submodules=submodules)
        return Fetched(
            path=done.path, source=address.shown, revision=done.commit, revision_kind="commit", time=done.time
        )


def checkout(
    address: GitAddress, into: Path, settings: FetchSettings, *, keep_git_dir: bool = False, submodules: bool = True
) -> Checkout:
    """Check `address` out into the empty directory `into`.

    Shallow unless `settings.git.depth` says otherwise. `.git`, also of submodules, stays only with `keep_git_dir`, and
    holds no credential then. Raises ContextError: nothing there, not allowed, not the checksum's commit, too large.
    """
    with tempfile.TemporaryDirectory(prefix="limpet-git-") as scratch:
        git = Git(address, settings, Path(scratch))
        try:
            return _checkout(git, into, Path(scratch), keep_git_dir, submodules)
        except GitFailed as failure:
            raise explained(failure, address, git.credential) from failure


def tip_of(address: GitAddress, settings: FetchSettings) -> str:
    """The object (commit or annotated tag) that `address` names on the server now, found without fetching it.

    Raises ContextError.
    """
    with tempfile.TemporaryDirectory(prefix="limpet-git-") as scratch:
        git = Git(address, settings, Path(scratch))
        try:
            wanted = _wanted(git, Path(scratch))
        except GitFailed as failure:
            raise explained(failure, address, git.credential) from failure
    return wanted.ref if wanted.is_commit else wanted.tip


def _checkout(git: Git, into: Path, scratch: Path, keep_git_dir: bool, submodules: bool) -> Checkout:
    address, limits = git.address, git.settings.limits
    wanted = _wanted(git, scratch)
    _initialise(git, into, wanted)
    fetched = _fetch(git, into, wanted)
    shown = ("--no-show-signature", "--format=%H %ct", f"{fetched}^{{commit}}", "--")
    commit, time = git.run("log", "-1", *shown, directory=into).split()
    if address.checksum and not commit.startswith(address.checksum) and not _is(git, into, fetched, address.checksum):
        raise ContextError(
            f"git {address.shown}: {address.ref or 'the default branch'} is commit {commit}, not {address.checksum}",
            "the ref has moved, or the checksum is another ref's",
        )
    complete = _check_tree(git, into, commit, limits)
    _retried(git, "checkout", "-q", "--force", "--detach", commit, directory=into)
    if submodules and (into / ".gitmodules").is_file():
        depth = () if git.settings.git.depth == 0 else ("--depth", str(git.settings.git.depth or 1))
        _retried(git, "submodule", "update", "--init", "--recursive", "--jobs", "4", *depth, directory=into)
    if not keep_git_dir:
        _drop_git_directories(into)
    if not complete:
        _measure(into, limits, address)
    return Checkout(_subdirectory(into, address), commit, int(time))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to ask the server for: `ref` a full name, HEAD or a commit; `tip` its object, "" if it is not known."""

    ref: str
    tip: str = ""

    @property
    def is_commit(self) -> bool:
        return COMMIT.fullmatch(self.ref) is not None


def _wanted(git: Git, scratch: Path) -> Wanted:
    """Find what the address means on the server."""
    address, branch = git.address, git.settings.git.branch
    named = address.commit or ("" if branch else address.ref)
    if COMMIT.fullmatch(named.lower()):
        return Wanted(named.lower())
    if address.commit:
        return Wanted(_full_commit(git, address.commit, scratch))
    if branch:
        candidates = [f"refs/heads/{branch}", f"refs/tags/{branch}"]
    elif named in ("", "HEAD"):
        candidates = ["HEAD"]
    else:
        # git's own order of guesses (gitrevisions(7)), without what only exists in a clone
        candidates = [named] if named.startswith("refs/") else [f"refs/{named}", f"refs/tags/{named}"]
        candidates += [] if named.startswith("refs/") else [f"refs/heads/{named}"]
    found = _remote_refs(git, scratch, *candidates)
    for candidate in candidates:
        if candidate in found:
            return Wanted(candidate, found[candidate])
    if ABBREVIATED.fullmatch(named.lower()):
        return Wanted(_full_commit(git, named.lower(), scratch))
    if not named and not branch:
        raise ContextError(f"git {address.shown}: the repository has no commit", "name a branch: #BRANCH")
    raise ContextError(
        f"git {address.shown}: no branch, tag or commit is called {branch or named}", "check --context and --git branch"
    )


def _remote_refs(git: Git, directory: Path, *patterns: str) -> dict[str, str]:
    """Names and objects of the server's refs."""
    listed = _retried(git, "ls-remote", "--quiet", git.address.remote, *patterns, directory=directory)
    return {name: sha for sha, _, name in (line.partition("\t") for line in listed.splitlines())}


def _full_commit(git: Git, abbreviated: str, scratch: Path) -> str:
    """The commit that begins so: a tip, or anything in the history, of which only the commits are fetched."""
    address = git.address
    tips = {sha for sha in _remote_refs(git, scratch).values() if sha.startswith(abbreviated)}
    if len(tips) == 1:
        return tips.pop()
    history = scratch / "history"
    history.mkdir()
    git.run("init", "-q", "--bare", directory=history)
    refspecs = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
    git.settings.log("debug", f"git {address.shown}: looking for {abbreviated} in the history")
    _retried(git, "fetch", "-q", "--filter=tree:0", address.remote, *refspecs, directory=history)
    try:
        return git.run("rev-parse", "--verify", f"{abbreviated}^{{commit}}", directory=history).strip()
    except GitFailed as failure:
        if "ambiguous" in failure.text:
            raise ContextError(f"git {address.shown}: {abbreviated} is ambiguous", "name more digits") from failure
        raise ContextError(
            f"git {address.shown}: no branch, tag or commit is called {abbreviated}",
            "check the address; a commit must be in the history of a branch or tag",
        ) from failure


def _initialise(git: Git, into: Path, wanted: Wanted) -> None:
    object_format = "sha256" if len(wanted.tip or wanted.ref) == 64 else "sha1"
    git.run("init", "-q", f"--object-format={object_format}", "--initial-branch=main", ".", directory=into)
    git.run("remote", "add", "origin", git.address.remote, directory=into)


def _fetch(git: Git, into: Path, wanted: Wanted) -> str:
    """Fetch into the repository; a name for what arrived. Servers that cannot do less are asked for everything."""
    options = git.settings.git
    depth = () if options.depth == 0 else (f"--depth={options.depth or 1}",)
    everything = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
    refspecs: tuple[str, ...] = (_refspec(wanted.ref),)
    if options.depth == 0 and not options.single_branch:
        refspecs += everything
    try:
        _fetch_refspecs(git, into, depth, refspecs)
    except GitFailed as failure:
        if SHALLOW.search(failure.text) and depth:
            _fetch_refspecs(git, into, (), refspecs)
        elif wanted.is_commit and BY_SHA.search(failure.text):
            git.settings.log("debug", "the server gives no single commits; fetching the whole history")
            return _fetch_history(git, into, wanted.ref, everything)
        else:
            raise
    return "FETCH_HEAD"


def _is(git: Git, into: Path, name: str, checksum: str) -> bool:
    """Whether `name` is the object that begins so: an annotated tag has a checksum besides its commit's."""
    return git.run("rev-parse", "--verify", name, directory=into).startswith(checksum)


def _fetch_history(git: Git, into: Path, commit: str, refspecs: tuple[str, ...]) -> str:
    ref = git.address.ref
    extra = (ref,) if ref.startswith("refs/") else ()
    _fetch_refspecs(git, into, (), (*extra, *refspecs))
    try:
        return git.run("rev-parse", "--verify", f"{commit}^{{commit}}", directory=into).strip()
    except GitFailed as failure:
        raise ContextError(
            f"git {git.address.shown}: commit {commit} is not in the repository, or in no branch or tag of it"
        ) from failure


def _fetch_refspecs(git: Git, into: Path, depth: tuple[str, ...], refspecs: tuple[str, ...]) -> None:
    fixed = ("--progress", "--no-tags", "--no-recurse-submodules", "--no-auto-maintenance")
    _retried(git, "fetch", *fixed, *depth, "origin", *refspecs, directory=into)


def _refspec(ref: str) -> str:
    """`ref`, stored under its usual name, so that a `.git` that is kept knows branch and tag."""
    if ref.startswith("refs/heads/"):
        return f"+{ref}:refs/remotes/origin/{ref.removeprefix('refs/heads/')}"
    return f"+{ref}:{ref}" if ref.startswith("refs/tags/") else ref


def _retried(git: Git, *arguments: str, directory: Path) -> str:
    def transient(error: Exception) -> bool:
        return isinstance(error, GitFailed) and is_transient(error)

    what = f"git {git.address.shown}"
    return retried(lambda: git.run(*arguments, directory=directory), transient, what, git.settings)


def _check_tree(git: Git, into: Path, commit: str, limits: Limits) -> bool:
    """Count what a checkout would write before it does: a few objects can describe billions of files.

    False when there will be more than that: submodules, or attributes, by which files come from LFS.
    """
    entries, size, complete, rest = 0, 0, True, b""
    with closing(git.blocks("ls-tree", "-r", "-l", "--full-tree", commit, directory=into)) as blocks:
        for block in blocks:
            # Whole lines: reading them one by one costs more than git's work.
            lines, newline, rest = (rest + block).rpartition(b"\n")
            entries += lines.count(b"\n") + len(newline)
            size += sum(map(int, BLOB_SIZE.findall(lines)))
            complete = complete and not BRINGS_MORE.search(lines)
            _check_limits(entries, size, limits, git.address)
            if len(rest) > LONGEST_LINE:
                raise ContextError(f"git {git.address.shown}: the tree has a path that no file system takes")
    return complete


def _check_limits(entries: int, size: int, limits: Limits, address: GitAddress) -> None:
    if limits.entries is not None and entries > limits.entries:
        raise ContextError(f"git {address.shown}: the tree has more than {limits.entries} entries")
    if limits.size is not None and size > limits.size:
        raise ContextError(
            f"git {address.shown}: the tree has more than {limits.size} bytes", "allow more by --context-max-size"
        )


def _measure(into: Path, limits: Limits, address: GitAddress) -> None:
    """The same count over what is there: LFS and submodules bring more than the tree says."""
    size = 0
    for entries, status in enumerate(_statuses(into), 1):
        size += status.st_size
        _check_limits(entries, size, limits, address)


def _statuses(directory: Path) -> Iterator[os.stat_result]:
    with os.scandir(directory) as found:
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                if entry.name != ".git":
                    yield from _statuses(Path(entry.path))
            else:
                yield entry.stat(follow_symlinks=False)


def _drop_git_directories(into: Path) -> None:
    """Remove .git: a directory at the root, in submodules a file that names the root's."""
    shutil.rmtree(into / ".git")
    if not (into / ".gitmodules").is_file():
        return
    for directory, names, files in os.walk(into):
        if ".git" in files:
            os.unlink(os.path.join(directory, ".git"))
        if ".git" in names:
            names.remove(".git")
            shutil.rmtree(os.path.join(directory, ".git"))


def _subdirectory(into: Path, address: GitAddress) -> Path:
    """The address's subdirectory; symbolic links in it lead no further than the repository."""
    if not address.subdir:
        return into
    root = Path(os.path.realpath(into))
    found = Path(os.path.realpath(root / address.subdir))
    if found != root and root not in found.parents:
        raise ContextError(f"git {address.shown}: {address.subdir} leads out of the repository")
    if not found.is_dir():
        raise ContextError(f"git {address.shown}: {address.subdir} is not a directory of the repository")
    return found
