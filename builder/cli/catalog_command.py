"""`limpet catalog bundle`: the pipeline definitions as a Tekton bundle in a registry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import builder
from builder.cli.arguments import Arguments
from builder.cli.known_secrets import mask_environment
from builder.cli.output import Output
from builder.cli.registry_access import registry_access
from builder.cli.tekton_bundle import Definition, bundle, read_definitions
from builder.cli.wiring import registries
from builder.errors import UsageError
from builder.events import Published
from builder.oci.reference import Reference
from builder.registry.push import Uploader

CATALOG = Path(builder.__file__).parent.parent / "catalog"
_USAGE = "limpet catalog bundle REGISTRY/NAME:TAG [FILE...]"


def run(arguments: Arguments, env: Mapping[str, str], output: Output) -> int:
    """Push the definitions of `FILE...`, or of Limpet's own catalog; prints NAME@DIGEST. Raises BuildError."""
    if arguments.positionals[:1] != ("bundle",) or len(arguments.positionals) < 2:
        raise UsageError("limpet catalog: expected `bundle` and a name", f"write {_USAGE}")
    mask_environment(env, output.redactor)
    reference = Reference.parse(arguments.positionals[1])
    if reference.digest:
        raise UsageError(f"limpet catalog bundle: {reference}: a digest cannot be chosen", f"write {_USAGE}")
    image = bundle(_definitions(arguments.positionals[2:]))
    client = registries(registry_access(arguments, env), env, output)
    with Uploader(client, client.repository(reference, "push"), output) as uploader:
        published = uploader.finish(image, [reference.tag])
    output.tell(Published(str(reference), published.digest))
    print(f"{reference.name}@{published.digest}")
    return 0


def _definitions(files: tuple[str, ...]) -> list[Definition]:
    paths = [Path(file) for file in files]
    if not paths:
        paths = sorted(path for kind in ("task", "stepaction") for path in CATALOG.glob(f"{kind}/*/*/*.yaml"))
        if not paths:
            raise UsageError(
                f"limpet catalog bundle: no definitions in {CATALOG}", f"name the files of definitions: {_USAGE}"
            )
    return [definition for path in paths for definition in read_definitions(path)]
