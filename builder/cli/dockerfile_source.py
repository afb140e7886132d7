"""Where the Dockerfile is: a URL, a path of this machine, or a path of the context."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from builder.errors import ContextError
from builder.urls import redacted

_LIMIT = 16 << 20  # bytes
_TIMEOUT = 60  # seconds


@dataclass(frozen=True, slots=True)
class FoundDockerfile:
    """`name` is what messages call it; `path` None when it came from a URL."""

    name: str
    data: bytes
    path: Path | None


def find_dockerfile(asked: str, context: Path) -> FoundDockerfile:
    """The Dockerfile that `--dockerfile` names: by kaniko's order, first from here, then in the context.

    `Dockerfile` is looked for as `dockerfile`, too (language reference, 1.6). Raises ContextError.
    """
    if asked.startswith(("http://", "https://")):
        return _fetch(asked)
    names = [asked]
    if Path(asked).name == "Dockerfile":
        names.append(str(Path(asked).with_name("dockerfile")))
    # An absolute path replaces the context when joined to it.
    for candidate in [directory / name for name in names for directory in (Path(), context)]:
        if os.path.isfile(candidate):  # False, too, where this uid may not look
            try:
                return FoundDockerfile(asked, candidate.read_bytes(), candidate)
            except OSError as error:
                raise ContextError(f"cannot read {candidate}: {error.strerror}") from error
    raise ContextError(
        f"{asked}: no such Dockerfile, neither here nor in the context {context}",
        "please provide a valid path to a Dockerfile within the build context with --dockerfile",
    )


def _fetch(url: str) -> FoundDockerfile:
    import requests  # few Dockerfiles have a URL

    name = redacted(url)
    try:
        with requests.get(url, timeout=_TIMEOUT, stream=True) as response:
            response.raise_for_status()
            data = response.raw.read(_LIMIT + 1, decode_content=True)
    except requests.HTTPError as error:
        raise ContextError(f"{name}: {error.response.status_code} {error.response.reason}") from None
    except requests.RequestException as error:
        raise ContextError(f"{name}: {type(error).__name__}", "check the address and the network") from None
    if len(data) > _LIMIT:
        raise ContextError(f"{name}: larger than {_LIMIT >> 20} MiB: that is no Dockerfile")
    return FoundDockerfile(name, data, None)
