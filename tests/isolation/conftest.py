"""One running driver for each kind of place."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.isolation.places import KINDS, Absent, Place, opened
from tests.task.conftest import executor, executor_layout

__all__ = ["executor", "executor_layout", "place"]


@pytest.fixture(scope="session", params=list(KINDS))
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Everywhere that this machine can make."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become other users and to make containers")
    kind = KINDS[request.param]
    image = request.getfixturevalue("executor") if kind.executor else ""
    try:
        with opened(kind, image) as found:
            if "refused" in found.start:
                pytest.fail(found.start["refused"])
            yield found
    except Absent as reason:
        pytest.skip(str(reason))
