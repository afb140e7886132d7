"""Addresses of repositories, as BuildKit and as kaniko read them."""

from __future__ import annotations

import pytest

from builder.errors import ContextError, UsageError
from context_sources.git_address import GitAddress, is_git_address, parse, parse_context

SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("https://h/x.git", GitAddress(remote="https://h/x.git")),
        ("https://h/x.git#main", GitAddress(remote="https://h/x.git", ref="main")),
        ("https://h/x.git#main:a/b", GitAddress(remote="https://h/x.git", ref="main", subdir="a/b")),
        ("https://h/x.git#:a", GitAddress(remote="https://h/x.git", subdir="a")),
        ("https://h/x.git#main:/", GitAddress(remote="https://h/x.git", ref="main")),
        ("https://h/x.git#v1:../../etc", GitAddress(remote="https://h/x.git", ref="v1", subdir="etc")),
        ("https://h/x.git?ref=v1", GitAddress(remote="https://h/x.git", ref="v1")),
        ("https://h/x.git?tag=v1", GitAddress(remote="https://h/x.git", ref="refs/tags/v1")),
        ("https://h/x.git?branch=b&subdir=d", GitAddress(remote="https://h/x.git", ref="refs/heads/b", subdir="d")),
        ("https://h/x.git?commit=" + SHA, GitAddress(remote="https://h/x.git", checksum=SHA)),
        (
            f"https://h/x.git?checksum={SHA[:8]}&keep-git-dir&submodules=false#main",
            GitAddress(remote="https://h/x.git", ref="main", checksum=SHA[:8], keep_git_dir=True, submodules=False),
        ),
        ("git+https://h:8443/x", GitAddress(remote="https://h:8443/x")),
        ("https://u:p%40@h/x.git", GitAddress(remote="https://h/x.git", user="u", password="p@")),
        ("https://token@h/x.git", GitAddress(remote="https://h/x.git", user="token")),
        ("ssh://git@h:2222/x#v1", GitAddress(remote="ssh://git@h:2222/x", ref="v1")),
        ("git+ssh://h/x", GitAddress(remote="ssh://h/x")),
        ("ssh://git:password@h/x", GitAddress(remote="ssh://git@h/x")),
        ("git@h:org/x.git#main:d", GitAddress(remote="git@h:org/x.git", ref="main", subdir="d")),
        ("git@h:org/x.git?branch=b", GitAddress(remote="git@h:org/x.git", ref="refs/heads/b")),
        ("git+file:///srv/x.git#v1", GitAddress(remote="file:///srv/x.git", ref="v1")),
        ("git://h/x.git#v1", GitAddress(remote="git://h/x.git", ref="v1")),
    ],
)
def test_buildkit(location: str, expected: GitAddress) -> None:
    assert parse(location) == expected


@pytest.mark.parametrize(
    ("location", "method", "expected"),
    [
        ("git://h/x", "", GitAddress(remote="https://h/x", submodules=False)),
        ("git://h/x.git", "http", GitAddress(remote="http://h/x.git", submodules=False)),
        ("git://h/x", "git", GitAddress(remote="git://h/x", submodules=False)),
        ("git://git@h/x", "ssh", GitAddress(remote="ssh://git@h/x", submodules=False)),
        ("git://h/x#main", "", GitAddress(remote="https://h/x", ref="main", submodules=False)),
        ("git://h/x#refs/pull/7/head", "", GitAddress(remote="https://h/x", ref="refs/pull/7/head", submodules=False)),
        (f"git://h/x#main#{SHA}", "", GitAddress(remote="https://h/x", ref="main", commit=SHA, submodules=False)),
        (f"git://h/x##{SHA}", "", GitAddress(remote="https://h/x", commit=SHA, submodules=False)),
        ("git://u:p@h/x", "", GitAddress(remote="https://h/x", user="u", password="p", submodules=False)),
        ("https://h/x.git", "ssh", GitAddress(remote="https://h/x.git")),
    ],
)
def test_kaniko(location: str, method: str, expected: GitAddress) -> None:
    assert parse_context(location, {"GIT_PULL_METHOD": method}) == expected


@pytest.mark.parametrize(
    "location",
    [
        "https://h/x.git?ref=a#b",
        "https://h/x.git?tag=a&branch=b",
        "https://h/x.git?ref=a&ref=b",
        "https://h/x.git?subdir=a#main:b",
        "https://h/x.git?depth=1",
        "https://h/x.git?ref=",
        "https://h/x.git?submodules=maybe",
        "https://h/x.git#--upload-pack=evil",
        "https://h/x.git?ref=-x",
        "https://h/x.git#a b",
        "git+ftp://h/x",
    ],
)
def test_contradictions_are_refused(location: str) -> None:
    with pytest.raises(ContextError):
        parse(location)


def test_kaniko_refusals() -> None:
    with pytest.raises(UsageError, match="GIT_PULL_METHOD=svn"):
        parse_context("git://h/x", {"GIT_PULL_METHOD": "svn"})
    with pytest.raises(ContextError, match="is no commit"):
        parse_context("git://h/x#main#dev", {})
    with pytest.raises(ContextError, match="more than two parts"):
        parse_context("git://h/x#a#b#c", {})


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("https://h/x.git", True),
        ("https://h/x.git#v1:sub", True),
        ("https://h/x.tar.gz", False),
        ("git@h:x", True),
        ("ssh://h/x", True),
        ("git://h/x", True),
        ("git+https://h/x", True),
        ("github.com/x/y", False),
        ("github.com/x/y.git", False),
        ("./git@h", False),
        ("src/", False),
    ],
)
def test_what_add_takes_for_a_repository(location: str, expected: bool) -> None:
    assert is_git_address(location) is expected


def test_passwords_stay_out_of_what_is_shown() -> None:
    address = parse("https://user:secret-secret@h/x.git#main")
    assert "secret" not in f"{address!r} {address.remote} {address.shown}"
    assert (address.host, address.scheme) == ("h", "https")
    assert (parse("git@h:x").host, parse("git@h:x").scheme) == ("h", "ssh")
