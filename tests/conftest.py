"""Options of the whole suite: they must be declared here, where pytest looks before it reads the command line."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--vectors",
        metavar="DIR",
        help="conformance vectors (default: vectors/ in $LIMPET_SHARED, or in ../shared beside the checkout)",
    )
