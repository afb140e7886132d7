"""What a plan is made of, and what it is made from.

Everything here is a frozen value: a plan can be printed, compared and carried out any number of times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from builder.dockerfile.instructions import Warning as LintWarning
from builder.errors import Location
from builder.oci.config import ExecConfig, ImageConfig
from builder.oci.platform import Platform
from builder.steps.step import Step

SCRATCH = "scratch"
"""The empty image: `FROM scratch`, and the reference of a `FromImage` whose content is nothing."""

NETWORK_HOST = "network.host"
SECURITY_INSECURE = "security.insecure"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What the user asked for.

    `build_args` are `--build-arg`; proxies and SOURCE_DATE_EPOCH come as build arguments, too.
    `targets` are stage names in any case; empty means the last stage.
    `target_platform` is None when the user named none: then the build platform is used, and the image says the
    platform of its base.
    `labels` are set on the images of the targets only, after everything that the Dockerfile says.
    `named_contexts` maps a name to where it lies, as `--build-context` has it: `docker-image://REF`,
    `oci-layout://DIR`, or else a directory.
    `epochs` gives the time (seconds since 1970) of `context` and of named contexts that have one, for
    `SOURCE_DATE_EPOCH=<name>`.
    `ignore_patterns` are those of the context's ignore file, empty when there is none.
    `allow` holds what RUN may ask for beyond the usual: NETWORK_HOST, SECURITY_INSECURE.
    """

    build_platform: Platform
    target_platform: Platform | None = None
    build_args: Mapping[str, str] = field(default_factory=dict, repr=False)  # secrets are passed here, too
    targets: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    named_contexts: Mapping[str, str] = field(default_factory=dict)
    epochs: Mapping[str, int] = field(default_factory=dict)
    ignore_patterns: tuple[str, ...] = ()
    allow: frozenset[str] = frozenset()

    @property
    def platform(self) -> Platform:
        """The platform that stages are built for unless their FROM says otherwise."""
        return self.target_platform or self.build_platform


@dataclass(frozen=True, slots=True)
class BaseImage:
    """A base image, as far as a plan needs it."""

    config: ImageConfig


@dataclass(frozen=True, slots=True)
class ExternalImage:
    """An image that comes from outside: `reference` is normalised, `platform` the one that is wanted."""

    reference: str
    platform: Platform


ResolveBase = Callable[[str, Platform], BaseImage]
"""Fetches the configuration of an image: (normalised reference, wanted platform). Raises BuildError."""

ResolveTime = Callable[[str], "int | None"]
"""The time of a remote source of ADD in seconds since 1970, None if it has none. Raises BuildError."""


@dataclass(frozen=True, slots=True)
class ScratchBase:
    """`FROM scratch`."""


@dataclass(frozen=True, slots=True)
class ImageBase:
    """An image from outside; `platform` is what to pick from an index, `config` what was found."""

    reference: str
    platform: Platform
    config: ImageConfig


@dataclass(frozen=True, slots=True)
class StageBase:
    """The result of another stage."""

    index: int


Base = ScratchBase | ImageBase | StageBase


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStage:
    """A stage to build: start from `base` with `start`, take the `steps` in order, end with `final`.

    `index` counts the FROMs of the Dockerfile from 0; `display` names the stage for people, and `base_name` what it
    stands on, as FROM has it. `platform` is what
    its image configuration says. `final` differs from the last step's configuration by the command line's labels.
    `dependencies` are the indexes of the stages that must be finished before: by FROM, COPY or a mount.
    `images` are what COPY and mounts read besides the base; `contexts` the named contexts that are directories.
    """

    index: int
    name: str
    display: str
    base_name: str
    text: str
    location: Location
    base: Base
    platform: Platform
    start: ExecConfig
    steps: tuple[Step, ...]
    final: ExecConfig
    author: str
    dependencies: tuple[int, ...] = ()
    images: tuple[ExternalImage, ...] = ()
    contexts: tuple[str, ...] = ()
    uses_context: bool = False


@dataclass(frozen=True, slots=True)
class SkippedStage:
    """A stage that is not built, and why."""

    index: int
    display: str
    reason: str
    location: Location


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to build: `stages` in an order in which everything comes after what it needs.

    `targets` are indexes of the stages whose images are wanted. `warnings` are lint findings by line;
    `notes` concern the command line: build arguments that nothing uses. `epoch` is SOURCE_DATE_EPOCH, in seconds
    since 1970: the time of all that is new in the image. `hostname` is what RUN sees.
    """

    stages: tuple[PlannedStage, ...]
    targets: tuple[int, ...]
    skipped: tuple[SkippedStage, ...] = ()
    warnings: tuple[LintWarning, ...] = ()
    notes: tuple[str, ...] = ()
    epoch: int | None = None
    hostname: str = "buildkitsandbox"

    def stage(self, index: int) -> PlannedStage:
        """The planned stage with this index."""
        return next(stage for stage in self.stages if stage.index == index)

    @property
    def platform(self) -> Platform:
        """What the first target's image says it is for."""
        return self.stage(self.targets[0]).platform

    @property
    def images(self) -> tuple[ExternalImage, ...]:
        """Every image from outside that the build reads, each once."""
        found: dict[ExternalImage, None] = {}
        for stage in self.stages:
            if isinstance(stage.base, ImageBase):
                found[ExternalImage(stage.base.reference, stage.base.platform)] = None
            found.update(dict.fromkeys(stage.images))
        return tuple(found)
