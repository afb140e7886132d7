"""Which source a location belongs to: by URL scheme, and for https by what the rest of the URL says."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import cast

from builder.errors import UsageError
from context_sources import azure_address, git_address
from context_sources.source import ContextSource, FetchSettings

ENTRY_POINT_GROUP = "limpet.context_sources"

# Modules by name, so that a source, and the SDK it needs, is imported only when it is used.
BUILT_IN: Mapping[str, str] = {
    "directory": "context_sources.directory:DirectorySource",
    "tar": "context_sources.tar:TarSource",
    "https": "context_sources.https:HttpsSource",
    "git": "context_sources.git:GitSource",
    "s3": "context_sources.s3:S3Source",
    "gcs": "context_sources.gcs:GcsSource",
    "azure": "context_sources.azure:AzureSource",
    "oci": "context_sources.oci:OciSource",
}
BY_SCHEME: Mapping[str, str] = {
    "dir": "directory",
    "tar": "tar",
    "git": "git",
    "git+https": "git",
    "git+http": "git",
    "git+ssh": "git",
    "git+file": "git",
    "ssh": "git",
    "s3": "s3",
    "gs": "gcs",
    "oci": "oci",
}
PATH_SCHEMES = ("dir", "tar")  # what follows is a path of this machine, not a URL


def kind_of(location: str, environment: Mapping[str, str]) -> str:
    """The key of BUILT_IN for `location`, or "" when none of the built-in sources reads its scheme."""
    scheme, separator, _ = location.partition("://")
    if not separator:
        return "git" if git_address.is_scp_like(location) else "directory"
    scheme = scheme.lower()
    if scheme not in ("https", "http"):
        return BY_SCHEME.get(scheme, "")
    if git_address.is_git_url(location):
        return "git"
    if azure_address.is_blob_url(location, environment):
        return "azure"
    return "https"


def find_source(location: str, settings: FetchSettings) -> ContextSource:
    """The source for `location`. Raises UsageError when nobody reads its scheme, or a plug-in does not load."""
    kind = kind_of(location, settings.environment)
    if kind:
        module, _, name = BUILT_IN[kind].partition(":")
        return cast(ContextSource, getattr(importlib.import_module(module), name)())
    from importlib.metadata import entry_points  # 20 ms, and only other people's sources need it

    scheme = location.partition("://")[0].lower()
    found = tuple(entry_points(group=ENTRY_POINT_GROUP, name=scheme))
    if not found:
        known = ", ".join(sorted({*BY_SCHEME, "https"}))
        raise UsageError(f"--context: no source for {scheme}://", f"use a directory, git@HOST:PATH or one of {known}")
    if len(found) > 1:
        names = " and ".join(sorted(f"{point.value}" for point in found))
        raise UsageError(f"--context: {names} both claim {scheme}://", "uninstall one of them")
    try:
        return cast(ContextSource, found[0].load()())
    except Exception as error:
        # A third party's code: whatever it raises, the user must hear whose fault it is.
        raise UsageError(f"--context: the source {found[0].value} for {scheme}:// does not load: {error}") from error
