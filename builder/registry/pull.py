"""From a name to an image: manifest and config are fetched, layers stay where they are."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Protocol

from builder.errors import BuildError, ImageError, RegistryError
from builder.events import Listener, Message, Silent, worked
from builder.oci.index import Index
from builder.oci.manifest import Manifest, ResolvedImage, parse_manifest
from builder.oci.platform import Platform
from builder.oci.reference import Reference
from builder.registry.download import RemoteBlob, read_blob
from builder.registry.mirrors import Candidate
from builder.registry.registries import Registries
from builder.registry.repository import Repository

_CONFIG_LIMIT = 32 << 20  # bytes


@dataclass(frozen=True, slots=True)
class KnownImage:
    """The documents of an image that was resolved before; see ResolvedImage."""

    manifest: Manifest
    config: bytes = field(repr=False)
    index_digest: str = ""


class KnownImages(Protocol):
    """Images that were resolved before, by this build or another one. No method raises. Thread-safe."""

    def get(self, digest: str, platform: Platform) -> KnownImage | None:
        """The image that manifest or index `digest` is for `platform`."""
        ...

    def digest_of(self, reference: str, platform: Platform) -> str:
        """What `reference` was when a registry was asked last; "" if none was."""
        ...

    def fresh_digest_of(self, reference: str, platform: Platform) -> str:
        """The same, if that is not too long ago to go by it where no registry can be asked."""
        ...

    def put(self, reference: str, platform: Platform, found: ResolvedImage) -> None:
        """A registry says that `reference` is `found` now."""
        ...


@dataclass(frozen=True, slots=True)
class _Wanted:
    reference: Reference
    platform: Platform
    registries: Registries
    listener: Listener
    known: KnownImages | None


def resolve(
    reference: Reference,
    platform: Platform,
    registries: Registries,
    listener: Listener | None = None,
    known: KnownImages | None = None,
) -> ResolvedImage:
    """The image that `reference` names for `platform`, from the first mirror that has it, else from its registry.

    An image that is `known` by its digest is not fetched again: for a digest no registry is asked at all, for a tag
    it is asked what the digest is now. Where none can be reached, the tag is what it was if that is fresh.

    Raises RegistryError when it cannot be had, ImageError when it is not for `platform` or not what it claims to be.
    """
    wanted = _Wanted(reference, platform, registries, listener or Silent(), known)
    try:
        found = _from_candidates(wanted)
    except RegistryError as error:
        stale = _without_registry(wanted) if error.transient else None
        if stale is None:
            raise
        wanted.listener.tell(
            Message(f"{error.message}; going on with {stale.digest}, which {reference} was before", "warning")
        )
        return stale
    if known is not None:
        known.put(str(reference), platform, found)
    return found


def _from_candidates(wanted: _Wanted) -> ResolvedImage:
    reference, registries, listener = wanted.reference, wanted.registries, wanted.listener
    listener.tell(Message(f"Retrieving image manifest {reference}"))
    candidates = registries.settings.mirrors.candidates(reference)
    for number, candidate in enumerate(candidates):
        listener.tell(Message(f"Retrieving image {reference} from registry {candidate.reference.registry}"))
        try:
            with worked(wanted.listener, "resolve", str(candidate.reference)):
                return _retrying(wanted, candidate, candidates[number + 1 :])
        except (RegistryError, ImageError) as error:
            if number < len(candidates) - 1:
                listener.tell(
                    Message(f"{error.message}; trying {candidates[number + 1].reference.registry}", "warning")
                )
                continue
            if candidate.reference == reference:
                raise
            raise RegistryError(
                f"image not found on any configured mapped registries for {reference}: {error.message}",
                "leave out --skip-default-registry-fallback to ask the registry itself",
                status=getattr(error, "status", 0),
                transient=error.transient,
            ) from error
    raise AssertionError("unreachable")


def _retrying(wanted: _Wanted, candidate: Candidate, others: tuple[Candidate, ...]) -> ResolvedImage:
    """_resolve, again after 1, 2, 4... seconds as often as `download_retries` says."""
    registries, listener = wanted.registries, wanted.listener
    repository = registries.repository(candidate.reference, "pull", candidate.scheme)
    attempt = 0
    while True:
        try:
            return _resolve(wanted, repository, others)
        except BuildError as error:
            if attempt >= registries.settings.download_retries:
                raise
            listener.tell(Message(f"Retrying operation after {2**attempt}s due to {error.message}", "warning"))
            repository.transport.exchange.pause(attempt, 2.0**attempt)
            attempt += 1


def _resolve(wanted: _Wanted, repository: Repository, others: tuple[Candidate, ...]) -> ResolvedImage:
    known = _known(wanted, repository)
    if known is not None:
        wanted.listener.tell(Message(f"Returning cached image manifest {wanted.reference}"))
    return _image(wanted, known or _fetched(wanted, repository), repository, others)


def _known(wanted: _Wanted, repository: Repository) -> KnownImage | None:
    reference, platform, known = wanted.reference, wanted.platform, wanted.known
    if known is None:
        return None
    digest = reference.digest
    if not digest and known.digest_of(str(reference), platform):
        # Where there is something to go on with, a registry that is away is not asked again and again.
        retries = 1 if known.fresh_digest_of(str(reference), platform) else None
        described = repository.head_manifest(reference.tag, retries=retries)
        digest = described.digest if described else ""
    return known.get(digest, platform) if digest else None


def _without_registry(wanted: _Wanted) -> ResolvedImage | None:
    if wanted.known is None:
        return None
    digest = wanted.known.fresh_digest_of(str(wanted.reference), wanted.platform)
    found = wanted.known.get(digest, wanted.platform) if digest else None
    if found is None:
        return None
    first, *others = wanted.registries.settings.mirrors.candidates(wanted.reference)
    repository = wanted.registries.repository(first.reference, "pull", first.scheme)
    return _image(wanted, found, repository, tuple(others))


def _fetched(wanted: _Wanted, repository: Repository) -> KnownImage:
    reference, platform = wanted.reference, wanted.platform
    described, data = repository.get_manifest(reference.identifier)
    document = parse_manifest(data, described.media_type, str(reference))
    index_digest = ""
    if isinstance(document, Index):
        index_digest = described.digest
        chosen = document.choose(platform, str(reference))
        described, data = repository.get_manifest(chosen.digest)
        document = parse_manifest(data, described.media_type or chosen.media_type, str(reference))
        if isinstance(document, Index):
            raise ImageError(f"{reference}: the index {index_digest} names another index for {platform}")
    return KnownImage(document, read_blob(repository, document.config, _CONFIG_LIMIT), index_digest)


def _image(wanted: _Wanted, found: KnownImage, repository: Repository, others: tuple[Candidate, ...]) -> ResolvedImage:
    registries, manifest = wanted.registries, found.manifest
    fallbacks = tuple(
        functools.partial(registries.repository, other.reference, "pull", other.scheme) for other in others
    )
    blobs = [RemoteBlob(repository, layer, fallbacks, wanted.listener) for layer in manifest.layers]
    image = manifest.image(found.config, blobs, str(wanted.reference))
    for descriptor in (manifest.config, *manifest.layers):
        registries.note_blob(repository, descriptor.digest)
    return ResolvedImage(image, str(wanted.reference), manifest, found.config, found.index_digest)
