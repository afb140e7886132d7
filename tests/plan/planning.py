"""Plans from text, with base images that exist only here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from builder.dockerfile import parse
from builder.oci.config import ExecConfig, History, ImageConfig
from builder.oci.platform import Platform
from builder.plan import BaseImage, Plan, PlannedStage, PlanOptions, plan
from builder.steps.step import Step

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def base_image(
    platform: Platform = AMD64, history: tuple[History, ...] = (), author: str = "", **exec_config: Any
) -> BaseImage:
    """A base image with this configuration, a PATH unless `env` says otherwise."""
    exec_config.setdefault("env", (PATH,))
    return BaseImage(ImageConfig(platform, ExecConfig(**exec_config), history=history, author=author))


def bases(
    images: Mapping[str, BaseImage], asked: list[tuple[str, Platform]] | None = None
) -> Callable[[str, Platform], BaseImage]:
    """Answers for `images` by normalised reference, and with a plain image of the wanted platform for all others."""

    def resolve(reference: str, platform: Platform) -> BaseImage:
        if asked is not None:
            asked.append((reference, platform))
        return images.get(reference) or base_image(platform)

    return resolve


def plan_of(
    text: str,
    images: Mapping[str, BaseImage] | None = None,
    *,
    asked: list[tuple[str, Platform]] | None = None,
    **options: Any,
) -> Plan:
    """The plan of the Dockerfile `text` on linux/amd64; `options` are those of PlanOptions."""
    options.setdefault("build_platform", AMD64)
    return plan(parse(text.encode(), "Dockerfile"), PlanOptions(**options), bases(images or {}, asked))


def target_of(text: str, images: Mapping[str, BaseImage] | None = None, **options: Any) -> PlannedStage:
    """The planned stage of the only target."""
    planned = plan_of(text, images, **options)
    (target,) = planned.targets
    return planned.stage(target)


def last_step(text: str, images: Mapping[str, BaseImage] | None = None, **options: Any) -> Step:
    return target_of(text, images, **options).steps[-1]


def created_by(stage: PlannedStage) -> list[str]:
    """The texts of the stage's own history entries."""
    return [step.history.created_by for step in stage.steps if step.history]


def rules(planned: Plan) -> list[tuple[str, int]]:
    """Lint findings as (rule, line)."""
    return [(warning.rule, warning.location.start) for warning in planned.warnings]
