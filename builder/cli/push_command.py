"""`limpet push`: an image that is a file already, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from builder.cli.arguments import Arguments
from builder.cli.known_secrets import mask_environment
from builder.cli.output import Output
from builder.cli.registry_access import registry_access
from builder.cli.settings import OutputSettings, output_settings
from builder.cli.signals import HeldSignals
from builder.cli.wiring import registries, work_directory
from builder.errors import UsageError
from builder.oci import layout
from builder.oci.archive import read_archive
from builder.oci.manifest import ResolvedImage
from builder.oci.reference import Reference
from builder.outputs import write_names, write_results
from builder.publish import check_push, registry_destinations
from builder.registry.registries import Registries
from builder.stopping import Stopping


def run(arguments: Arguments, env: Mapping[str, str], output: Output) -> int:
    """Push the only image of a docker archive, or that or the only index of an OCI layout. Raises BuildError."""
    if len(arguments.positionals) != 1:
        raise UsageError("limpet push: expected one path", "limpet push --destination REGISTRY/NAME:TAG PATH")
    mask_environment(env, output.redactor)
    asked = output_settings(arguments, env)
    client = registries(registry_access(arguments, env), env, output)
    path, stopping = Path(arguments.positionals[0]), Stopping()
    with HeldSignals() as signals, work_directory(None, env) as work, stopping.calling(client.cancel):
        signals.carry_out(lambda: _push(path, work, asked, client, output), stopping)
    return 0


def _push(path: Path, work: Path, asked: OutputSettings, client: Registries, output: Output) -> None:
    references = [Reference.parse(name) for name in asked.destinations]
    with ExitStack() as stack:
        image = _read(path, work)
        write_names(asked.files, [str(reference) for reference in references], image.digest)
        destinations = [
            stack.enter_context(destination)
            for destination in registry_destinations(
                references, client, output, ignore_immutable=asked.ignore_immutable_tags
            )
        ]
        if asked.check_push_permission:
            check_push(destinations)
        for destination in destinations:
            destination.copy(image)
    write_results(asked.files, [str(reference) for reference in references], image.digest)


def _read(path: Path, scratch: Path) -> ResolvedImage | layout.StoredManifest:
    if path.is_dir():
        return layout.read_all(path)
    if not path.exists():
        raise UsageError(f"limpet push: {path} does not exist", "give an image archive or an OCI image layout")
    return read_archive(path, scratch).resolved
