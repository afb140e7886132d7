"""`oci://REGISTRY/REPO[:TAG|@DIGEST]`: an image or artifact whose layers are the context."""

from __future__ import annotations

from pathlib import Path

from builder.errors import ContextError
from context_sources.archive import Budget, unpack
from context_sources.retry import Broken
from context_sources.source import ArtifactLayer, Fetched, FetchSettings
from context_sources.tree_writer import TreeWriter


class OciSource:
    """Layers of a tar media type are unpacked over each other, whiteouts included; others are files by their title."""

    def fetch(self, location: str, into: Path, settings: FetchSettings) -> Fetched:
        if settings.registry_pull is None:
            raise ContextError("oci:// contexts need a registry client, and none was given")
        reference = location.partition("://")[2]
        if not reference or "/" not in reference:
            raise ContextError(f"context {location} names no repository", "use oci://REGISTRY/REPO:TAG")
        artifact = settings.registry_pull(reference)
        layers = tuple(artifact.layers)
        if not layers:
            raise ContextError(f"{reference} has no layers", "a context is an image or artifact with a tar layer")
        budget = Budget(settings.limits, reference)
        total, done = sum(layer.size for layer in layers), 0
        for layer in layers:
            name = f"{reference}, layer {layer.digest}"
            try:
                if is_tar(layer):
                    unpack(layer.chunks(), into, settings, name=name, total=total, whiteouts=True, budget=budget)
                elif layer.title:
                    write_file(layer, into, name, budget)
                else:
                    raise ContextError(
                        f"{name} has media type {layer.media_type} and no title", "push the context as a tar layer"
                    )
            except Broken as error:
                raise ContextError(f"{name}: {error}", transient=True) from error
            done += layer.size
            settings.progress(done, total)
        return Fetched(path=into, source=f"oci://{reference}", revision=artifact.digest, revision_kind="digest")


def is_tar(layer: ArtifactLayer) -> bool:
    """Whether the media type says so: ...tar, ...tar+gzip, ...tar.gzip, ...x-gtar."""
    return "tar" in layer.media_type.rpartition("/")[2]


def write_file(layer: ArtifactLayer, into: Path, name: str, budget: Budget) -> None:
    """An artifact's file, at the path that its title is."""
    budget.entry(layer.size)
    with TreeWriter(into, name) as tree:
        tree.file(layer.title.encode(), 0o644, 0, layer.chunks())
        tree.finish()
