"""The arguments that FROM sees: automatic ones, and the ARGs before the first FROM (language, section 2.2)."""

from __future__ import annotations

from collections.abc import Mapping

from builder.dockerfile.instructions import Dockerfile
from builder.dockerfile.words import Lexer, WordError
from builder.errors import DockerfileError
from builder.oci.platform import Platform
from builder.plan.values import PlanOptions

AUTOMATIC = [
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDOSVERSION",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETOSVERSION",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
]
_UNNAMED_STAGE = "default"


def automatic_args(dockerfile: Dockerfile, options: PlanOptions) -> dict[str, str]:
    """The platforms and the target; `--build-arg` overrides each."""
    target = options.targets[0] if options.targets else dockerfile.stages[-1].name
    values = {
        **_platform_args("BUILD", options.build_platform),
        **_platform_args("TARGET", options.platform),
        "TARGETSTAGE": target or _UNNAMED_STAGE,
    }
    return {name: options.build_args.get(name, value) for name, value in values.items()}


def _platform_args(prefix: str, platform: Platform) -> dict[str, str]:
    system = f"{platform.os}({platform.os_version})" if platform.os_version else platform.os
    return {
        f"{prefix}PLATFORM": "/".join(filter(None, (system, platform.architecture, platform.variant))),
        f"{prefix}OS": platform.os,
        f"{prefix}OSVERSION": platform.os_version,
        f"{prefix}ARCH": platform.architecture,
        f"{prefix}VARIANT": platform.variant,
    }


def global_args(dockerfile: Dockerfile, automatic: Mapping[str, str], build_args: Mapping[str, str]) -> dict[str, str]:
    """`automatic` and the ARGs before the first FROM, each of which sees those before it.

    An ARG without a value is not in the result. Raises DockerfileError.
    """
    lexer = Lexer(dockerfile.escape)
    values = dict(automatic)
    for instruction in dockerfile.meta_args:
        for pair in instruction.args:
            value = build_args.get(pair.key)
            if value is None and pair.value is not None:
                try:
                    value = lexer.expand(pair.value, values)
                except WordError as error:
                    raise DockerfileError(error.message, error.hint, location=instruction.location) from error
            if value is not None:
                values[pair.key] = value
    return values


def declared_names(dockerfile: Dockerfile) -> set[str]:
    """The names of all ARGs before the first FROM, with or without a value."""
    return {pair.key for instruction in dockerfile.meta_args for pair in instruction.args}
