"""Addresses of git repositories, as BuildKit and as kaniko write them.

    BuildKit   https://HOST/PATH.git  git+https://  git+ssh://  ssh://  git@HOST:PATH  git+file://
               [?ref=&tag=&branch=&commit=&checksum=&subdir=&keep-git-dir=&submodules=] [#REF[:SUBDIR]]
    kaniko     git://HOST/PATH[#REF[#COMMIT]], fetched by the protocol that GIT_PULL_METHOD names: https unless set

In `ADD`, as in BuildKit, git:// is git's own protocol.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

from builder.errors import ContextError, UsageError

COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
ABBREVIATED = re.compile(r"[0-9a-f]{4,63}")
SCP_LIKE = re.compile(r"(?P<user>[A-Za-z0-9_.+-]+)@(?P<host>[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\]):(?P<path>(?!//).+)")
PULL_METHODS = ("https", "http", "git", "ssh")
TRUE, FALSE = ("1", "t", "T", "true", "TRUE", "True"), ("0", "f", "F", "false", "FALSE", "False")


@dataclass(frozen=True, slots=True, kw_only=True)
class GitAddress:
    """What to check out.

    `remote` is what git is given: it holds no password, and for http(s) no user. `ref` is a branch, a tag, a commit
    or refs/..., "" for the default branch; `commit` is checked out in place of the tip of `ref`; the commit checked
    out must begin with `checksum`. `submodules` and `keep_git_dir` are None where the address does not say.
    """

    remote: str
    ref: str = ""
    commit: str = ""
    checksum: str = ""
    subdir: str = ""
    keep_git_dir: bool | None = None
    submodules: bool | None = None
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def scheme(self) -> str:
        """https, http, ssh, git or file."""
        return "ssh" if "://" not in self.remote else self.remote.partition("://")[0]

    @property
    def host(self) -> str:
        """Host and port as the URL has them, "" for a local repository."""
        if "://" in self.remote:
            return urlsplit(self.remote).netloc.rpartition("@")[2]
        match = SCP_LIKE.fullmatch(self.remote)
        return match["host"] if match else ""

    @property
    def shown(self) -> str:
        """The remote without a user, for messages and labels."""
        if "://" not in self.remote:
            return self.remote
        parts = urlsplit(self.remote)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def is_scp_like(location: str) -> bool:
    """Whether `location` is USER@HOST:PATH."""
    return SCP_LIKE.fullmatch(location.partition("#")[0]) is not None


def is_git_url(location: str) -> bool:
    """Whether an http(s) URL is a repository's: its path ends in .git (BuildKit, util/gitutil)."""
    return urlsplit(location).path.endswith(".git")


def is_git_address(location: str) -> bool:
    """Whether `ADD` takes `location` for a repository."""
    scheme = location.partition("://")[0]
    if scheme in ("git", "ssh") or scheme.startswith("git+"):
        return "://" in location
    return is_scp_like(location) or (scheme in ("http", "https") and is_git_url(location))


def parse(location: str) -> GitAddress:
    """Read an address as BuildKit does. Raises ContextError for one that cannot be read."""
    if is_scp_like(location):
        rest, _, fragment = location.partition("#")
        path, _, query = rest.partition("?")
        return _with_query(_with_fragment(GitAddress(remote=path), fragment), query, location)
    parts = urlsplit(location)
    scheme = parts.scheme.removeprefix("git+")
    if scheme not in ("https", "http", "ssh", "git", "file"):
        raise ContextError(f"{parts.scheme}:// is no address of a git repository")
    address = _remote(scheme, parts)
    return _with_query(_with_fragment(address, unquote(parts.fragment)), parts.query, address.shown)


def parse_context(location: str, environment: Mapping[str, str]) -> GitAddress:
    """Read the address of a context: git:// as kaniko does, and without submodules as there; the rest as `parse`."""
    if not location.startswith("git://"):
        return parse(location)
    method = environment.get("GIT_PULL_METHOD", "") or "https"
    if method not in PULL_METHODS:
        raise UsageError(f"GIT_PULL_METHOD={method}", f"use one of {', '.join(PULL_METHODS)}")
    url, *fragments = location.split("#")
    address = _remote(method, urlsplit(url))
    if len(fragments) > 2:
        raise ContextError(f"context {address.shown}: more than two parts after #", "use git://HOST/PATH#REF#COMMIT")
    if fragments:
        address = _with_fragment(address, fragments[0])
    if len(fragments) == 2:
        commit = fragments[1].lower()
        if not ABBREVIATED.fullmatch(commit) and not COMMIT.fullmatch(commit):
            raise ContextError(f"context {address.shown}: {commit} is no commit", "use git://HOST/PATH#REF#COMMIT")
        address = replace(address, commit=commit)
    return replace(address, submodules=False)


def _remote(scheme: str, parts: SplitResult) -> GitAddress:
    """The address without its ref. The user stays in an ssh URL; a password stays in none."""
    userinfo, _, host = parts.netloc.rpartition("@")
    user, _, password = (unquote(part) for part in userinfo.partition(":"))
    if scheme == "ssh":
        netloc = f"{user}@{host}" if user else host
        return GitAddress(remote=urlunsplit((scheme, netloc, parts.path, "", "")))
    if not host and scheme != "file":
        raise ContextError(f"{scheme}://{parts.path} names no host")
    remote = f"{scheme}://{host}{parts.path}"
    return GitAddress(remote=remote, user=user, password=password)


def _with_fragment(address: GitAddress, fragment: str) -> GitAddress:
    ref, _, subdir = fragment.partition(":")
    return replace(address, ref=_checked_ref(ref), subdir=_cleaned(subdir))


def _checked_ref(ref: str) -> str:
    if ref.startswith("-") or any(character.isspace() for character in ref):
        raise ContextError(f"{ref!r} is no name of a git ref")
    return ref


def _cleaned(subdir: str) -> str:
    return posixpath.normpath("/" + subdir).lstrip("/")


def _with_query(address: GitAddress, query: str, shown: str) -> GitAddress:
    """The query form. A key that says something else than the fragment is an error, as is one that is not known."""
    names: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key in names:
            raise ContextError(f"{shown}: the query has {key} twice")
        if not value and key not in ("submodules", "keep-git-dir"):
            raise ContextError(f"{shown}: {key} in the query has no value")
        names[key] = value
    if "tag" in names and "branch" in names:
        raise ContextError(f"{shown}: the query has both a tag and a branch")
    refs = {address.ref} - {""}
    for key, prefix in (("ref", ""), ("tag", "refs/tags/"), ("branch", "refs/heads/")):
        if value := names.pop(key, ""):
            refs.add(_checked_ref(value if value.startswith(prefix) else prefix + value))
    subdirs = {address.subdir, _cleaned(names.pop("subdir", ""))} - {""}
    checksums = {names.pop("checksum", ""), names.pop("commit", "")} - {""}
    if len(refs) > 1 or len(subdirs) > 1 or len(checksums) > 1:
        raise ContextError(f"{shown}: the address names two different {'refs' if len(refs) > 1 else 'values'}")
    address = replace(
        address,
        ref=next(iter(refs), ""),
        subdir=next(iter(subdirs), ""),
        checksum=next(iter(checksums), "").lower(),
        keep_git_dir=_boolean(names, "keep-git-dir", shown),
        submodules=_boolean(names, "submodules", shown),
    )
    if names:
        raise ContextError(f"{shown}: {sorted(names)[0]} in the query is not known")
    return address


def _boolean(names: dict[str, str], key: str, shown: str) -> bool | None:
    if key not in names:
        return None
    value = names.pop(key)
    if value and value not in (*TRUE, *FALSE):
        raise ContextError(f"{shown}: {key}={value} in the query is neither true nor false")
    return value in TRUE or not value
