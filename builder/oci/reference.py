"""Names of images: registry, repository, tag and digest (the grammar of distribution/reference)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from builder.errors import UsageError
from builder.oci.descriptor import is_digest

DOCKER_HUB = "index.docker.io"
_HUB_NAMES = ("docker.io", DOCKER_HUB)
_HUB_API = "registry-1.docker.io"
_MAX_NAME = 255

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HEX64 = re.compile(r"[a-f0-9]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised image name. Two spellings of one name are equal.

    `registry` is `host[:port]`, `index.docker.io` for Docker Hub. At least one of `tag` and `digest` is set; where
    both are, the digest decides which image is meant.
    """

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str, *, strict: bool = False) -> Reference:
        """`[registry/]repository[:tag][@digest]` with Docker's defaults: Docker Hub, `library/`, `:latest`.

        With `strict`, the registry and a tag or digest must be written. Raises UsageError.
        """
        name, at, digest = text.partition("@")
        if at and not is_digest(digest):
            raise _invalid(text, f"{digest!r} is not a digest")
        head, colon, tag = name.rpartition(":")
        if not colon or "/" in tag:
            head, tag = name, ""
        elif not _TAG.fullmatch(tag):
            raise _invalid(text, f"{tag!r} is not a tag")
        registry, repository = _split(head)
        if strict and (not registry or not (tag or digest)):
            raise _invalid(text, "the registry and a tag or digest must be given")
        registry = registry or DOCKER_HUB
        if registry in _HUB_NAMES:
            registry = DOCKER_HUB
            if "/" not in repository and repository:
                repository = "library/" + repository
        _check(text, registry, repository, bare=head)
        return cls(registry, repository, tag if tag or digest else "latest", digest)

    @property
    def name(self) -> str:
        """`registry/repository`, without tag or digest; the form that kaniko's digest files use."""
        return f"{self.registry}/{self.repository}"

    @property
    def qualified(self) -> str:
        """The whole name with the canonical host: `index.docker.io/library/foo:latest`."""
        return self.name + self._suffix()

    @property
    def familiar(self) -> str:
        """As Docker shows it: `foo:latest` for an official image of Docker Hub."""
        if self.registry != DOCKER_HUB:
            return self.qualified
        first, _, rest = self.repository.partition("/")
        short = rest if first == "library" and "/" not in rest else self.repository
        if "/" in short and (first == "library" or _split(short)[0]):
            return str(self)  # shorter, it would name another image
        return short + self._suffix()

    @property
    def api_host(self) -> str:
        """`host[:port]` that speaks the registry's HTTP API."""
        return api_host(self.registry)

    @property
    def identifier(self) -> str:
        """What to ask the registry for: the digest if there is one, else the tag."""
        return self.digest or self.tag

    def with_digest(self, digest: str) -> Reference:
        """The same name and tag, fixed to `digest`."""
        return replace(self, digest=digest)

    def with_tag(self, tag: str) -> Reference:
        """The same repository under `tag`, without a digest. Raises UsageError when it is not a tag."""
        if not _TAG.fullmatch(tag):
            raise _invalid(f"{self.name}:{tag}", f"{tag!r} is not a tag")
        return replace(self, tag=tag, digest="")

    def __str__(self) -> str:
        """For people, as BuildKit writes it: `docker.io/library/foo:latest`."""
        registry = "docker.io" if self.registry == DOCKER_HUB else self.registry
        return f"{registry}/{self.repository}{self._suffix()}"

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def canonical_registry(host: str) -> str:
    """`host[:port]` as references hold it: every name of Docker Hub becomes `index.docker.io`.

    Raises UsageError when it is not a host.
    """
    if not _HOST.fullmatch(host):
        raise UsageError(f"{host!r} is not the host of a registry", "write it as host or host:port")
    return DOCKER_HUB if host in (*_HUB_NAMES, _HUB_API) else host


def api_host(registry: str) -> str:
    """The host that serves `registry`'s HTTP API: Docker Hub's differs from its name."""
    return _HUB_API if registry == DOCKER_HUB else registry


def _split(name: str) -> tuple[str, str]:
    """Registry ("" when there is none) and repository, by Docker's rule for what a first component is."""
    first, slash, rest = name.partition("/")
    if slash and (first == "localhost" or any(char in first for char in ".:") or first != first.lower()):
        return first, rest
    return "", name


def _check(text: str, registry: str, repository: str, bare: str) -> None:
    if not repository:
        raise _invalid(text, "it has no repository")
    if not _HOST.fullmatch(registry):
        raise _invalid(text, f"{registry!r} is not the host of a registry")
    if not _PATH.fullmatch(repository):
        lower = repository != repository.lower() and _PATH.fullmatch(repository.lower())
        raise _invalid(text, "a repository is written in lower case" if lower else f"{repository!r} is no repository")
    if len(repository) > _MAX_NAME:
        raise _invalid(text, f"its repository is longer than {_MAX_NAME} characters")
    if _HEX64.fullmatch(bare):
        raise _invalid(text, "64 hexadecimal digits are an image id, not a name")


def _invalid(text: str, reason: str) -> UsageError:
    return UsageError(f"invalid image reference {text!r}: {reason}", "write it as [registry/]repository[:tag][@digest]")
