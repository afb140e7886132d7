"""No isolation: for Dockerfiles without RUN, which need none."""

from __future__ import annotations

from contextlib import AbstractContextManager

from builder.errors import IsolationError
from builder.isolation import Root
from builder.oci.image import Image


class NoIsolation:
    """Opens no root. `reason` says why nothing better was chosen, for the error that a RUN then meets."""

    name = "none"
    concurrent = True
    shares_layers = False

    def __init__(self, reason: str = "") -> None:
        self._reason = reason

    def keep(self, image: Image) -> bool:
        """See Isolation: nothing is ever unpacked here."""
        return False

    def open_root(self, image: Image) -> AbstractContextManager[Root]:
        """Raises IsolationError: the caller adds the line of the Dockerfile."""
        raise IsolationError(
            "RUN cannot be carried out with --isolation=none",
            self._reason or "leave out --isolation=none, or remove RUN from the stages that are built",
        )
