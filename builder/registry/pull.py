"""From a name to an image: manifest and config are fetched, layers stay where they are."""

from __future__ import annotations

import functools

from builder.errors import BuildError, ImageError, RegistryError
from builder.events import Listener, Message, Silent
from builder.oci.index import Index
from builder.oci.manifest import ResolvedImage, parse_manifest
from builder.oci.platform import Platform
from builder.oci.reference import Reference
from builder.registry.download import RemoteBlob, read_blob
from builder.registry.mirrors import Candidate
from builder.registry.registries import Registries
from builder.registry.repository import Repository

_CONFIG_LIMIT = 32 << 20  # bytes


def resolve(
    reference: Reference, platform: Platform, registries: Registries, listener: Listener | None = None
) -> ResolvedImage:
    """The image that `reference` names for `platform`, from the first mirror that has it, else from its registry.

    Raises RegistryError when it cannot be had, ImageError when it is not for `platform` or not what it claims to be.
    """
    listener = listener or Silent()
    listener.tell(Message(f"Retrieving image manifest {reference}"))
    candidates = registries.settings.mirrors.candidates(reference)
    for number, candidate in enumerate(candidates):
        listener.tell(Message(f"Retrieving image {reference} from registry {candidate.reference.registry}"))
        try:
            return _retrying(reference, candidate, candidates[number + 1 :], platform, registries, listener)
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


def _retrying(
    reference: Reference,
    candidate: Candidate,
    others: tuple[Candidate, ...],
    platform: Platform,
    registries: Registries,
    listener: Listener,
) -> ResolvedImage:
    """_resolve, again after 1, 2, 4... seconds as often as `download_retries` says."""
    repository = registries.repository(candidate.reference, "pull", candidate.scheme)
    attempt = 0
    while True:
        try:
            return _resolve(reference, repository, others, platform, registries, listener)
        except BuildError as error:
            if attempt >= registries.settings.download_retries:
                raise
            listener.tell(Message(f"Retrying operation after {2**attempt}s due to {error.message}", "warning"))
            repository.transport.exchange.pause(attempt, 2.0**attempt)
            attempt += 1


def _resolve(
    reference: Reference,
    repository: Repository,
    others: tuple[Candidate, ...],
    platform: Platform,
    registries: Registries,
    listener: Listener,
) -> ResolvedImage:
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
    config = read_blob(repository, document.config, _CONFIG_LIMIT)
    fallbacks = tuple(
        functools.partial(registries.repository, other.reference, "pull", other.scheme) for other in others
    )
    blobs = [RemoteBlob(repository, layer, fallbacks, listener) for layer in document.layers]
    image = document.image(config, blobs, str(reference))
    for descriptor in (document.config, *document.layers):
        registries.note_blob(repository, descriptor.digest)
    return ResolvedImage(image, str(reference), document, config, index_digest)
