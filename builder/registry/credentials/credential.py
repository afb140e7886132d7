"""One credential, and how it was found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

HELPERS = ("env", "google", "ecr", "acr", "gitlab")  # what --credential-helpers chooses from, in order

Kind = Literal["password", "identity token", "registry token"]


@dataclass(frozen=True, slots=True)
class Credential:
    """`secret` is a password, an OAuth2 refresh token or a bearer token that the registry takes as it is.

    `origin` says where it comes from, in words for a log. `expires` is a time.time() value, None when not known.
    """

    kind: Kind
    username: str
    secret: str = field(repr=False)
    origin: str = ""
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a search for a repository's credential found. `tried` are the sources asked, in order."""

    repository: str
    credential: Credential | None
    tried: tuple[str, ...] = ()

    @property
    def places(self) -> str:
        """Where was looked, in words."""
        files = ", ".join(place for place in self.tried if place not in HELPERS)
        helpers = ", ".join(place for place in self.tried if place in HELPERS)
        return " and ".join(filter(None, (files, helpers and f"the environment ({helpers})"))) or "no place"

    def __str__(self) -> str:
        """One line for the debug log; never the credential."""
        if self.credential is None:
            return f"{self.repository}: none; looked in {self.places}"
        return f"{self.repository}: {self.credential.kind} from {self.credential.origin}; looked in {self.places}"
