"""Heredocs, directives, JSON arguments, git addresses, working directories."""

from __future__ import annotations

from typing import Any

import pytest

from builder.dockerfile.directives import detect_directive
from builder.dockerfile.git_reference import GitReference, parse_git_reference
from builder.dockerfile.heredoc import heredoc_of_word, heredocs_of_line
from builder.dockerfile.parser import parse_tree, takes_heredocs
from builder.dockerfile.words import WordError
from builder.dockerfile.workdir import join_workdir
from builder.errors import DockerfileError
from tests.conformance.dockerfile_forms import encode, heredoc


@pytest.mark.vectors("small_tables", section="heredoc_words")
def test_heredoc_word(case: dict[str, Any]) -> None:
    if "error" in case:
        with pytest.raises(WordError):
            heredoc_of_word(case["input"])
        return
    found = heredoc_of_word(case["input"])
    assert (heredoc(found) if found else None) == case["heredoc"]


@pytest.mark.vectors("small_tables", section="heredoc_lines")
def test_heredoc_line(case: dict[str, Any]) -> None:
    line = case["line"]
    found = heredocs_of_line(line) if takes_heredocs(line, "\\") else ()
    assert [heredoc.name for heredoc in found] == case["heredoc_names"]


@pytest.mark.vectors("small_tables", section="directives")
def test_directives(case: dict[str, Any]) -> None:
    data = encode(case["text"])
    for name, field, value in (
        ("syntax", "syntax", "ref"),
        ("check", "check", "value"),
        ("escape", "escape_directive", "value"),
    ):
        found = detect_directive(name, data)
        form = found and {"cmdline": found.text, "line": found.line, value: found.value}
        assert form == case[field]
    if case["parse_error"]:
        with pytest.raises(DockerfileError):
            parse_tree(data, "Dockerfile")
    else:
        assert parse_tree(data, "Dockerfile").lines.escape == case["escape_effective"]


@pytest.mark.vectors("small_tables", section="json_args")
def test_json_arguments(case: dict[str, Any]) -> None:
    data = encode(f"CMD {case['input']}\n")
    if "error" in case:
        with pytest.raises(DockerfileError):
            parse_tree(data, "Dockerfile")
        return
    node = parse_tree(data, "Dockerfile").nodes[0]
    assert node.is_json is case["json"]
    assert list(node.arguments) == case["args"]


@pytest.mark.vectors("small_tables", section="git_refs")
def test_git_reference(case: dict[str, Any]) -> None:
    text = case["input"]
    if "ref" in case:
        found = parse_git_reference(text)
        assert found is not None
        assert git_form(found) == case["ref"]
    elif case["is_git"]:
        with pytest.raises(DockerfileError):
            parse_git_reference(text)
    else:
        assert parse_git_reference(text) is None


def git_form(reference: GitReference) -> dict[str, Any]:
    return {
        "Remote": reference.remote,
        "ShortName": reference.short_name,
        "Ref": reference.ref,
        "Checksum": reference.checksum,
        "SubDir": reference.subdir,
        "IndistinguishableFromLocal": reference.like_local_path,
        "UnencryptedTCP": reference.unencrypted,
        "KeepGitDir": reference.keep_git_dir,
        "Submodules": reference.submodules,
        "MTime": reference.mtime,
        "FetchByCommit": reference.fetch_by_commit,
    }


@pytest.mark.vectors("small_tables", section="workdir")
def test_workdir(case: dict[str, Any]) -> None:
    assert join_workdir(case["current"], case["path"]) == case["workdir"]
