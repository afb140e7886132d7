"""Trees and typed instructions of Dockerfiles found in other projects."""

from __future__ import annotations

from typing import Any

import pytest

from builder.dockerfile import parse
from builder.dockerfile.parser import parse_tree
from builder.errors import DockerfileError
from tests.conformance.dockerfile_forms import dump, empty_continuations, encode, tree_node, typed_file

# Not compared: the names of the flags used, and mounts before expansion (Limpet keeps their text).
_LEFT_OUT = ("flags_used", "mounts_unexpanded")


@pytest.mark.vectors("parser_corpus")
def test_tree(case: dict[str, Any]) -> None:
    data = encode(case["dockerfile"])
    if "parse_error" in case:
        with pytest.raises(DockerfileError) as caught:
            parse_tree(data, "Dockerfile")
        assert caught.value.location is not None
        return
    tree = parse_tree(data, "Dockerfile")
    assert [tree_node(node) for node in tree.nodes] == case["instructions"]
    assert "\n".join(map(dump, tree.nodes)) == case["dump"]
    assert tree.lines.escape == case["escape"]
    assert empty_continuations(tree.nodes) == (case["warnings"] or [])


@pytest.mark.vectors("parser_corpus")
def test_instructions(case: dict[str, Any]) -> None:
    data = encode(case["dockerfile"])
    if "typed" not in case:
        with pytest.raises(DockerfileError) as caught:
            parse(data, "Dockerfile")
        assert caught.value.location is not None
        return
    assert typed_file(parse(data, "Dockerfile")) == _comparable(case["typed"])


def _comparable(typed: dict[str, Any]) -> dict[str, Any]:
    """Null and the empty list are one thing."""
    stages = [
        stage | {"commands": [_without_derived(command) for command in stage["commands"] or []] or None}
        for stage in typed["stages"] or []
    ]
    return typed | {"stages": stages or None}


def _without_derived(command: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in command.items() if name not in _LEFT_OUT}
    if "cmdline" in kept:
        kept["cmdline"] = kept["cmdline"] or None
    return kept
