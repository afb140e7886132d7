"""Fetch a build context from wherever its location says."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from builder.errors import BuildError, ContextError, UsageError
from context_sources.redaction import redact, redacting, secrets_of, without_userinfo
from context_sources.schemes import PATH_SCHEMES, find_source
from context_sources.source import Fetched, FetchSettings


def fetch(location: str, into: Path, settings: FetchSettings) -> Fetched:
    """The context at `location`, with `settings.sub_path` applied.

    `into` is an empty directory that Limpet owns; a directory on this machine is used where it lies, and `into` stays
    empty. When this raises (ContextError, UsageError, or what the registry says for oci://), `into` is empty again.
    """
    _check_url(location)
    secrets = secrets_of(location, settings.environment)
    settings = replace(settings, log=redacting(settings.log, secrets))
    try:
        fetched = find_source(location, settings).fetch(location, into, settings)
        fetched = replace(fetched, path=inside(fetched.path, settings.sub_path))
    except BuildError as error:
        empty(into)
        error.message, error.hint = redact(error.message, secrets), redact(error.hint, secrets)
        error.args = (error.message,)
        raise
    except BaseException:
        empty(into)
        raise
    if fetched.revision:
        settings.log("info", f"context {fetched.source}: {fetched.revision_kind} {fetched.revision}")
    else:
        settings.log("info", f"context {fetched.source}")
    return fetched


def _check_url(location: str) -> None:
    """Raises UsageError for a URL that urllib, and so every client of HTTP, cannot read. Paths may have any name."""
    scheme, separator, _ = location.partition("://")
    if not separator or scheme.lower() in PATH_SCHEMES:
        return
    try:
        parts = urlsplit(location)
        if parts.scheme.endswith(("http", "https")):
            parts.port  # noqa: B018  # raises where the port is no number
    except ValueError:
        # What it says has a part of the password in it where that is what stands for the port.
        raise UsageError(
            f"--context {without_userinfo(location)}: not a URL: its host or port cannot be read",
            "write %2F, %3F, %23, %40, %5B and %5D for / ? # @ [ ] in a user or password",
        ) from None


def inside(context: Path, sub_path: str) -> Path:
    """The directory `sub_path` of `context`, symbolic links followed. Raises ContextError when that lies outside."""
    if not sub_path.strip("/"):
        return context
    root = Path(os.path.realpath(context))
    try:
        found = (root / sub_path.lstrip("/")).resolve(strict=True)
    except OSError as error:
        raise ContextError(
            f"--context-sub-path {sub_path}: {error.strerror} in the context",
            "the path is relative to the root of the context",
        ) from error
    if found != root and root not in found.parents:
        raise ContextError(
            f"--context-sub-path {sub_path} leads out of the context", "name a directory below the context's root"
        )
    if not found.is_dir():
        raise ContextError(f"--context-sub-path {sub_path} is not a directory of the context")
    return found


def empty(directory: Path) -> None:
    """Remove everything below `directory`, directories without permissions included."""

    def open_and_retry(function: Callable[..., Any], path: str, _: Any) -> None:
        parent = os.path.dirname(path)
        os.chmod(parent, stat.S_IRWXU)
        if os.path.isdir(path) and not os.path.islink(path):
            os.chmod(path, stat.S_IRWXU)
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)

    if not directory.is_dir():
        return
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, onerror=open_and_retry)
            else:
                os.unlink(entry.path)
