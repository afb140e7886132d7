"""A Plan: what a build will do, worked out before anything is done.

A Dockerfile, the user's options and the configurations of base images go in; stages of resolved steps come out.
Nothing here reads a file or a root filesystem or speaks to a registry: what must be fetched, two functions fetch.
"""

from builder.plan.planner import external_images, plan
from builder.plan.render import CacheView, render_json, render_text
from builder.plan.values import (
    NETWORK_HOST,
    SCRATCH,
    SECURITY_INSECURE,
    Base,
    BaseImage,
    ExternalImage,
    ImageBase,
    Plan,
    PlannedStage,
    PlanOptions,
    ResolveBase,
    ResolveTime,
    ScratchBase,
    SkippedStage,
    StageBase,
)

__all__ = [
    "NETWORK_HOST",
    "SCRATCH",
    "SECURITY_INSECURE",
    "Base",
    "BaseImage",
    "CacheView",
    "ExternalImage",
    "ImageBase",
    "Plan",
    "PlanOptions",
    "PlannedStage",
    "ResolveBase",
    "ResolveTime",
    "ScratchBase",
    "SkippedStage",
    "StageBase",
    "external_images",
    "plan",
    "render_json",
    "render_text",
]
