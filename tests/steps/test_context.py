"""The build context: ignore files, owners, what is shown of excluded directories."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.dockerfile.patterns import PatternMatcher
from builder.errors import BuildError
from builder.rootfs.entry import FileType
from builder.steps.context import ContextTree, IgnoreFile, find_ignore_file
from builder.steps.copy import copy_changes
from tests.steps.trees import SETTINGS, copy_step, listing, tree


def write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            (root / path).mkdir(exist_ok=True)
        else:
            (root / path).write_text(path)


def shown(root: Path, *patterns: str) -> set[str]:
    return set(listing(ContextTree(root, IgnoreFile(".dockerignore", patterns))))


class TestIgnoreFile:
    def test_the_one_beside_the_dockerfile_comes_first(self, tmp_path: Path) -> None:
        write(tmp_path, "context/.dockerignore", "docker/prod.Dockerfile.dockerignore")
        found = find_ignore_file(tmp_path / "context", tmp_path / "docker" / "prod.Dockerfile")
        assert found is not None
        assert found == IgnoreFile("prod.Dockerfile.dockerignore", ("docker/prod.Dockerfile.dockerignore",))

    def test_the_one_of_the_context(self, tmp_path: Path) -> None:
        (tmp_path / ".dockerignore").write_text("# comment\n/a/\n!b\n")
        assert find_ignore_file(tmp_path, tmp_path / "Dockerfile") == IgnoreFile(".dockerignore", ("a", "!b"))
        assert find_ignore_file(tmp_path, None) == IgnoreFile(".dockerignore", ("a", "!b"))

    def test_none(self, tmp_path: Path) -> None:
        (tmp_path / ".dockerignore").mkdir()
        assert find_ignore_file(tmp_path, tmp_path / "Dockerfile") is None

    def test_a_malformed_pattern(self, tmp_path: Path) -> None:
        with pytest.raises(BuildError, match=r"\[a"):
            ContextTree(tmp_path, IgnoreFile(".dockerignore", ("[a",)))


class TestTree:
    @pytest.mark.root
    @pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away: needs uid 0")
    def test_everything_belongs_to_root_and_keeps_its_time(self, tmp_path: Path) -> None:
        write(tmp_path, "d/f")
        for name in ("d", "d/f"):
            os.chown(tmp_path / name, 1234, 2345)
            os.utime(tmp_path / name, ns=(5, 1_500_000_000_123_456_789))
        for entry in listing(ContextTree(tmp_path)).values():
            assert (entry.uid, entry.gid, entry.mtime) == (0, 0, 1_500_000_000_123_456_789)

    def test_parents_of_what_is_not_excluded_are_there(self, tmp_path: Path) -> None:
        write(tmp_path, "a/b/keep", "a/b/drop", "a/drop", "other/drop")
        (tmp_path / "a").chmod(0o710)
        assert shown(tmp_path, "*", "!a/b/keep") == {"a", "a/b", "a/b/keep"}
        found = ContextTree(tmp_path, IgnoreFile("", ("*", "!a/b/keep"))).entry("a")
        assert found is not None
        assert found.mode == 0o710

    def test_an_excluded_directory_without_anything_in_it(self, tmp_path: Path) -> None:
        write(tmp_path, "a/x", "empty/")
        assert shown(tmp_path, "*", "!*/y") == set()

    def test_what_cannot_matter_is_not_listed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, "node_modules/x/y", "src/x", "src/keep")
        listed: list[str] = []
        scandir = os.scandir
        monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or scandir(path))
        assert shown(tmp_path, "node_modules", "src", "!src/keep") == {"src", "src/keep"}
        assert not [path for path in listed if "node_modules" in path]

    def test_a_further_name_of_an_excluded_file_is_a_file(self, tmp_path: Path) -> None:
        write(tmp_path, "1")
        for name in ("2", "3"):
            os.link(tmp_path / "1", tmp_path / name)
        source = ContextTree(tmp_path, IgnoreFile("", ("1",)))
        changes = copy_changes(copy_step(".", to="/o/"), source, tree(), SETTINGS)
        assert [(change.path, change.type) for change in changes] == [  # type: ignore[union-attr]
            ("o", FileType.DIRECTORY),
            ("o/2", FileType.FILE),
            ("o/3", FileType.HARDLINK),
        ]

    def test_as_on_disk(self, tmp_path: Path) -> None:
        write(tmp_path, "a/x", "a/y", "b/x", "c/x")
        for path in (tmp_path, *tmp_path.rglob("*")):
            os.chown(path, 0, 0) if os.geteuid() == 0 else None
        if os.geteuid() != 0:
            pytest.skip("needs files of uid 0")
        context = ContextTree(tmp_path, IgnoreFile("", ("a/y", "c", "!c/x")))
        assert [context.is_as_on_disk(path) for path in ("", "a", "a/x", "a/y", "b", "c")] == [
            False, False, True, False, True, True,
        ]  # fmt: skip
        os.chown(tmp_path / "b" / "x", 5, 0)
        assert not context.is_as_on_disk("b")


NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
PATTERNS = st.builds(
    lambda negated, parts: ("!" if negated else "") + "/".join(parts),
    st.booleans(),
    st.lists(st.sampled_from(["a", "b", "*", "**", "?", "[ab]"]), min_size=1, max_size=3),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(paths=st.sets(PATHS, min_size=1, max_size=8), patterns=st.lists(PATTERNS, max_size=4))
def test_what_is_shown_is_what_no_pattern_excludes(
    tmp_path_factory: pytest.TempPathFactory, paths: set[str], patterns: list[str]
) -> None:
    """A path is there if it is not excluded, or if it is a directory with something in it that is not."""
    root = tmp_path_factory.mktemp("context")
    for path in paths:
        (root / path).mkdir(parents=True, exist_ok=True)
    everything = {str(path.relative_to(root)) for path in root.rglob("*")}
    matcher = PatternMatcher(patterns)
    verdicts = {"": PatternMatcher.NOTHING}
    for path in sorted(everything):
        verdicts[path] = matcher.match(path, verdicts[path.rpartition("/")[0]])
    kept = {path for path in everything if not verdicts[path].excluded}
    wanted = {path for path in everything if path in kept or any(k.startswith(f"{path}/") for k in kept)}
    context = ContextTree(root, IgnoreFile("", tuple(patterns)))
    assert set(listing(context)) == wanted
    assert {path for path in everything if context.entry(path)} == wanted
