"""Options of the whole suite: they must be declared here, where pytest looks before it reads the command line."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# Continuous integration judges a change by the same examples each time; everywhere else new ones are looked for.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--vectors",
        metavar="DIR",
        help="conformance vectors (default: vectors/ in $LIMPET_SHARED, or in ../shared beside the checkout)",
    )
