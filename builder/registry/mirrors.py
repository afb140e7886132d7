"""Registries that are asked instead of the one an image names (`--registry-map`, `--registry-mirror`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from builder.errors import UsageError
from builder.oci.reference import DOCKER_HUB, Reference, canonical_registry


@dataclass(frozen=True, slots=True)
class Mirror:
    """`[scheme://]registry[/prefix]`. `prefix` goes before the repository; `scheme` is "http", "https" or ""."""

    registry: str
    prefix: str = ""
    scheme: str = ""

    @classmethod
    def parse(cls, text: str) -> Mirror:
        """Raises UsageError when it is not of that form."""
        scheme, separator, rest = text.strip().partition("://")
        if not separator:
            scheme, rest = "", text.strip()
        if scheme not in ("", "http", "https"):
            raise UsageError(f"registry mirror {text!r}: the scheme is http or https")
        host, _, prefix = rest.partition("/")
        mirror = cls(canonical_registry(host), prefix.strip("/"), scheme)
        if mirror.prefix:
            Reference.parse(f"{mirror.registry}/{mirror.prefix}")  # raises when the prefix is no path
        return mirror


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place to ask for an image. `scheme` is "" where the settings decide."""

    reference: Reference
    scheme: str = ""


@dataclass(frozen=True, slots=True)
class Mirrors:
    """For each registry, by its canonical name, the mirrors in the order they are tried.

    `fallback`: whether the registry itself is asked when no mirror has the image.
    """

    by_registry: Mapping[str, tuple[Mirror, ...]] = field(default_factory=dict, hash=False)
    fallback: bool = True

    @classmethod
    def parse(cls, maps: Iterable[str] = (), mirrors: Iterable[str] = (), *, fallback: bool = True) -> Mirrors:
        """From `--registry-map` values (`original=mirror[;original=mirror...]`) and `--registry-mirror` values.

        Mirrors of Docker Hub given by `mirrors` are tried after those of `maps`. Empty values count as not given.
        Raises UsageError.
        """
        table: dict[str, tuple[Mirror, ...]] = {}
        for entry in (part.strip() for value in maps for part in value.split(";")):
            if not entry:
                continue
            original, equals, mirror = entry.partition("=")
            if not equals or not mirror.strip():
                raise UsageError(f"--registry-map {entry!r}: expected original-registry=mirror")
            registry = canonical_registry(original.strip().rstrip("/"))
            table[registry] = (*table.get(registry, ()), Mirror.parse(mirror))
        for mirror in mirrors:
            if mirror.strip():
                table[DOCKER_HUB] = (*table.get(DOCKER_HUB, ()), Mirror.parse(mirror))
        return cls(MappingProxyType(table), fallback)

    def candidates(self, reference: Reference) -> tuple[Candidate, ...]:
        """Where to ask for `reference`, in order. Without a mirror for its registry: the registry itself."""
        mirrors = self.by_registry.get(reference.registry, ())
        found = [
            Candidate(
                replace(
                    reference,
                    registry=mirror.registry,
                    repository="/".join(filter(None, (mirror.prefix, reference.repository))),
                ),
                mirror.scheme,
            )
            for mirror in mirrors
        ]
        if self.fallback or not mirrors:
            found.append(Candidate(reference))
        return tuple(found)
