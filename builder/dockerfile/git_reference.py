"""Git addresses as ADD and build contexts write them: `https://host/repo.git#ref:subdir` or with a query.

Only text is looked at; what a reference names is found out by whoever fetches it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, cast
from urllib.parse import SplitResult, parse_qs, urlsplit

from builder.dockerfile.literals import parse_truth
from builder.dockerfile.quoting import quote
from builder.errors import DockerfileError

_SCHEME = re.compile(r"([a-zA-Z0-9]+)://")
_SCP = re.compile(r"([a-zA-Z0-9\-_]+@[a-zA-Z0-9\-.]+:.*?)(?:\?(.*?))?(?:#(.*))?", re.DOTALL)
_SCHEMES = frozenset({"http", "https", "ssh", "git"})
_TRUTHS = ("keep-git-dir", "submodules", "fetch-by-commit")
_MTIMES = ("checkout", "commit")


@dataclass(frozen=True, slots=True, kw_only=True)
class GitReference:
    """`remote` is what git is given: no fragment, no query, but user and password if there are any."""

    remote: str
    short_name: str  # the repository's name without .git
    ref: str = ""  # branch, tag or commit; "" for the default branch
    checksum: str = ""  # a commit, or the beginning of one, that the ref must be
    subdir: str = ""
    like_local_path: bool = False  # `github.com/...` without scheme: a path for ADD, an address for a build context
    unencrypted: bool = False
    keep_git_dir: bool | None = None
    submodules: bool | None = None
    mtime: Literal["", "checkout", "commit"] = ""
    fetch_by_commit: bool = False


def parse_git_reference(text: str) -> GitReference | None:
    """`text` as a git address, None when it is not one (http addresses must end in .git).

    Raises DockerfileError, without location, for a git address with a query that contradicts itself or is unknown.
    """
    if text.startswith(("./", "../")):
        return None
    if text.startswith("github.com/"):
        address = _split(f"https://{text}")
        return address and replace(address, remote=address.remote.removeprefix("https://"), like_local_path=True)
    scheme = _SCHEME.match(text)
    if not scheme:
        return _scp_style(text)
    name = scheme[1].lower()
    if name not in _SCHEMES:
        return None
    address = _split(text, suffix=".git" if name in ("http", "https") else "")
    return address and replace(address, unencrypted=name in ("http", "git"))


def _scp_style(text: str) -> GitReference | None:
    match = _SCP.fullmatch(text)
    return _reference(match[1], match[2] or "", match[3] or "") if match else None


def _split(url: str, suffix: str = "") -> GitReference | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if not parts.path.endswith(suffix):
        return None
    bare = SplitResult(parts.scheme, parts.netloc, parts.path, "", "")
    return _reference(bare.geturl(), parts.query, parts.fragment)


def _reference(remote: str, query: str, fragment: str) -> GitReference:
    ref, _, subdir = fragment.partition(":")
    reference = GitReference(
        remote=remote, short_name=remote.rpartition("/")[2].removesuffix(".git"), ref=ref, subdir=subdir
    )
    return _with_query(reference, query)


def _with_query(reference: GitReference, query: str) -> GitReference:
    options = _options(query)
    truths = {name: _truth(name, options[name]) for name in _TRUTHS if name in options}
    if options.get("tag") and options.get("branch"):
        raise DockerfileError("branch conflicts with tag", "give one of them")
    ref = reference.ref
    for name, prefix in (("ref", ""), ("tag", "refs/tags/"), ("branch", "refs/heads/")):
        if name in options:
            ref = _agreeing("ref", ref, prefix + options[name].removeprefix(prefix))
    checksum = options.get("checksum") or options.get("commit") or ""
    fetch_by_commit = truths.get("fetch-by-commit", False)
    return replace(
        reference,
        # A commit alone says what to check out.
        ref=ref or ("" if fetch_by_commit else checksum),
        checksum=checksum,
        subdir=_agreeing("subdir", reference.subdir, options.get("subdir", reference.subdir)),
        keep_git_dir=truths.get("keep-git-dir"),
        submodules=truths.get("submodules"),
        mtime=_mtime(options.get("mtime", "")),
        fetch_by_commit=fetch_by_commit,
    )


def _options(query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    known = ("ref", "tag", "branch", "subdir", "checksum", "commit", "mtime", *_TRUTHS)
    for name, values in parse_qs(query, keep_blank_values=True).items():
        if name not in known:
            raise DockerfileError(f"unexpected query {quote(name)}", f"known in git addresses: {', '.join(known)}")
        if len(values) > 1:
            raise DockerfileError(f"query {quote(name)} has multiple values", "give one")
        if not values[0] and name not in _TRUTHS:
            raise DockerfileError(f"query {quote(name)} has no value", f"write {name}=VALUE")
        options[name] = values[0]
    return options


def _truth(name: str, value: str) -> bool:
    try:
        return parse_truth(value or "true")
    except ValueError:
        raise DockerfileError(f"invalid {name} value: {quote(value)}", "true or false") from None


def _agreeing(name: str, first: str, second: str) -> str:
    if first and first != second:
        raise DockerfileError(f"{name} conflicts: {quote(first)} vs {quote(second)}", "give one of them")
    return second


def _mtime(value: str) -> Literal["", "checkout", "commit"]:
    if value not in ("", *_MTIMES):
        raise DockerfileError(f"invalid mtime value: {quote(value)}", f"one of {', '.join(_MTIMES)}")
    return cast(Literal["", "checkout", "commit"], value)
