"""`limpet index create`: one name for images that were built elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from builder.cli.arguments import Arguments
from builder.cli.known_secrets import mask_environment
from builder.cli.output import Output
from builder.cli.registry_access import registry_access
from builder.cli.settings import named_results
from builder.cli.wiring import registries
from builder.errors import ImageError, UsageError
from builder.events import Published
from builder.oci.descriptor import Descriptor
from builder.oci.index import Index
from builder.oci.manifest import Manifest, ResolvedImage
from builder.oci.platform import Platform
from builder.oci.reference import Reference
from builder.outputs import ResultFiles, write_names, write_results
from builder.registry.pull import resolve
from builder.registry.push import Uploader


def run(arguments: Arguments, env: Mapping[str, str], output: Output) -> int:
    """Bring the members to the index's repository, their digests as they are, then publish it. Raises BuildError."""
    if len(arguments.positionals) < 2:
        raise UsageError("limpet index create: expected a name and its members", "limpet index create REF MEMBER...")
    mask_environment(env, output.redactor)
    target, *members = (Reference.parse(name) for name in arguments.positionals)
    if target.digest:
        raise UsageError(f"limpet index create: {target}: a digest cannot be chosen", "write REGISTRY/NAME[:TAG]")
    files = _files(arguments)
    client = registries(registry_access(arguments, env), env, output)
    images = [resolve(member, Platform.host(), client, output) for member in members]
    index = Index(tuple(_entry(image) for image in images))
    platforms = [str(entry.platform) for entry in index.manifests]
    if twice := {name for name in platforms if platforms.count(name) > 1}:
        raise ImageError(f"two members are for {min(twice)}", "give one member for each platform")
    with Uploader(client, client.repository(target, "push"), output) as uploader:
        for image in images:
            uploader.copy(image, ())
        published = uploader.finish_index(index, [target.tag])
    output.tell(Published(str(target), published.digest))
    write_names(files, (), published.digest)
    write_results(files, [f"{target.name}:{target.tag}"], published.digest)
    return 0


def _files(arguments: Arguments) -> ResultFiles:
    directory = arguments.text("results-dir")
    return ResultFiles(
        digest_file=arguments.text("digest-file"),
        results_directory=Path(directory) if directory else None,
        results=named_results(arguments),
    )


def _entry(image: ResolvedImage) -> Descriptor:
    if image.index_digest:
        raise ImageError(f"{image.reference} is an index itself", "name the images that it lists, by their digests")
    manifest: Manifest = image.manifest
    return replace(manifest.descriptor, platform=image.image.config.platform)
