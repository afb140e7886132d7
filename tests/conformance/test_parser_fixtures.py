"""Trees of BuildKit's parser fixtures, and the files that it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from builder.dockerfile import parse
from builder.dockerfile.parser import parse_tree
from builder.errors import DockerfileError
from tests.conformance.dockerfile_forms import dump, empty_continuations, encode, tree_node


@pytest.mark.vectors("parser_fixtures", section="positive")
def test_tree(case: dict[str, Any]) -> None:
    tree = parse_tree(encode(case["dockerfile"]), "Dockerfile")
    assert [tree_node(node) for node in tree.nodes] == case["instructions"]
    assert "\n".join(map(dump, tree.nodes)) == case["expected_dump"]
    assert tree.lines.escape == case["escape"]
    assert empty_continuations(tree.nodes) == case["warnings"]


@pytest.mark.vectors("parser_fixtures", section="negative")
def test_refused(case: dict[str, Any]) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(encode(case["dockerfile"]), "Dockerfile")
    assert caught.value.location is not None
