"""Where build contexts come from: one module per kind of source, found by the scheme of its URL.

    fetch("git://github.com/org/app.git#main", Path("/limpet/context"), FetchSettings(environment=os.environ))

Importing this package imports no cloud SDK and no HTTP client.
"""

from context_sources.fetch import fetch
from context_sources.source import (
    Artifact,
    ArtifactLayer,
    ContextSource,
    Fetched,
    FetchSettings,
    GitOptions,
    Level,
    Limits,
    RegistryPull,
    Retry,
)

__all__ = [
    "Artifact",
    "ArtifactLayer",
    "ContextSource",
    "FetchSettings",
    "Fetched",
    "GitOptions",
    "Level",
    "Limits",
    "RegistryPull",
    "Retry",
    "fetch",
]
