"""Repositories made to run something on the machine that builds, or to write outside of the context.

git refuses to make most of them: their trees are written object by object.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from builder.errors import ContextError
from context_sources import GitOptions
from tests.context_sources.conftest import Fetcher, git

FILE, LINK, SUBMODULE = "100644", "120000", "160000"
COMMIT = "1" * 40


@pytest.fixture
def surroundings(tmp_path: Path) -> dict[str, str]:
    """Whatever runs can make the file that MARK names."""
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "MARK": str(tmp_path / "mark")}


def hostile(root: Path, entries: dict[str, tuple[str, str]]) -> str:
    """The address of a repository with the tree `entries`: a mode and the content, or a commit, for each path."""
    root.mkdir()
    git("init", "-q", "-b", "main", cwd=root)
    git("update-ref", "refs/heads/main", git("commit-tree", written(root, entries), "-m", "1", cwd=root), cwd=root)
    return f"git+file://{root}"


def written(root: Path, entries: dict[str, tuple[str, str]]) -> str:
    tree = b""
    for name, (mode, content) in entries.items():
        first, slash, rest = name.partition("/")
        if slash:
            mode, first, found = "40000", first, written(root, {rest: (mode, content)})
        elif mode == SUBMODULE:
            found = content
        else:
            found = stored(root, "blob", content.encode())
        tree += f"{mode} {first}\0".encode() + bytes.fromhex(found)
    return stored(root, "tree", tree)


def stored(root: Path, kind: str, data: bytes) -> str:
    command = ["git", "hash-object", "-w", "-t", kind, "--literally", "--stdin"]
    return subprocess.run(command, input=data, cwd=root, check=True, capture_output=True).stdout.decode().strip()


def with_submodule(root: Path, *lines: str, path: str = "lib") -> str:
    modules = "\n\t".join(['[submodule "lib"]', f"path = {path}", *lines]) + "\n"
    return hostile(root, {".gitmodules": (FILE, modules), path: (SUBMODULE, COMMIT)})


@pytest.mark.parametrize(
    "name",
    [
        ".git/config",
        ".GIT/config",
        ".git/hooks/post-checkout",
        "sub/.git/config",
        ".git./config",
        "git~1/config",
        "../outside",
        "sub/../../outside",
        ".git",
    ],
)
def test_paths_that_git_would_read_or_that_lead_out(
    name: str, tmp_path: Path, surroundings: dict[str, str], fetcher: Fetcher
) -> None:
    location = hostile(tmp_path / "hostile", {name: (FILE, '[core]\n\tfsmonitor = touch "$MARK"\n')})
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(ContextError, match=f"invalid path '{name}'"):
        fetcher(location, surroundings)
    assert sorted({*os.listdir(tmp_path)} - {"fetched"}) == sorted({*before} - {"fetched"})


def test_nothing_is_written_through_a_symbolic_link(
    tmp_path: Path, surroundings: dict[str, str], fetcher: Fetcher
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    location = hostile(tmp_path / "hostile", {"a": (LINK, str(outside)), "a/file": (FILE, "x")})
    try:
        fetcher(location, surroundings)
    except ContextError:
        pass
    assert os.listdir(outside) == []


def test_a_subdirectory_cannot_be_a_link_out(tmp_path: Path, surroundings: dict[str, str], fetcher: Fetcher) -> None:
    location = hostile(tmp_path / "hostile", {"a": (LINK, "/etc"), "b": (LINK, "../..")})
    for name in "ab":
        with pytest.raises(ContextError, match="leads out of the repository"):
            fetcher(f"{location}#main:{name}", surroundings)


@pytest.mark.parametrize("name", [".gitmodules", ".gitattributes"])
def test_gits_own_files_are_not_read_through_links(
    name: str, tmp_path: Path, surroundings: dict[str, str], fetcher: Fetcher
) -> None:
    (tmp_path / "pointed").write_text('[submodule "lib"]\n\tpath = lib\n\turl = https://127.0.0.1:1/x.git\n* ident\n')
    entries = {name: (LINK, str(tmp_path / "pointed")), "file": (FILE, "$Id$\n")}
    try:
        fetched = fetcher(hostile(tmp_path / "hostile", entries), surroundings)
    except ContextError as error:
        assert f"invalid path '{name}'" in str(error)
    else:
        assert (fetched.path / "file").read_text() == "$Id$\n"


@pytest.mark.parametrize(
    "address",
    [
        'ext::sh -c touch% "$MARK"',
        "file:///etc",
        "/etc",
        '--upload-pack=touch "$MARK"',
        "ssh://-oProxyCommand=touch$IFS$MARK/x",
        "-oProxyCommand=touch$IFS$MARK:x",
        "fd::3",
    ],
)
@pytest.mark.parametrize("depth", [1, 0])
def test_addresses_of_submodules_run_nothing(
    address: str, depth: int, tmp_path: Path, surroundings: dict[str, str], fetcher: Fetcher
) -> None:
    quoted = address.replace('"', '\\"')
    location = with_submodule(tmp_path / "hostile", f'url = "{quoted}"')
    with pytest.raises(ContextError):
        fetcher(location, surroundings, git=GitOptions(depth=depth))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("line", "path"),
    [('update = "!touch \\"$MARK\\""', "lib"), ('branch = "--upload-pack=touch $MARK"', "lib"), ("", "-lib")],
)
def test_other_settings_of_submodules_run_nothing(
    line: str, path: str, tmp_path: Path, surroundings: dict[str, str], fetcher: Fetcher
) -> None:
    location = with_submodule(tmp_path / "hostile", "url = ./nowhere", line, path=path)
    with pytest.raises(ContextError):
        fetcher(location, surroundings)
    assert not (tmp_path / "mark").exists()


def test_attributes_run_only_what_the_user_has_configured(
    tmp_path: Path, surroundings: dict[str, str], fetcher: Fetcher
) -> None:
    entries = {
        ".gitattributes": (FILE, "* filter=own diff=own merge=own\n"),
        ".gitconfig": (FILE, '[filter "own"]\n\tsmudge = touch "$MARK"\n'),
        "file": (FILE, "x"),
    }
    fetched = fetcher(hostile(tmp_path / "hostile", entries), surroundings)
    assert (fetched.path / "file").read_text() == "x"
    assert not (tmp_path / "mark").exists()
