"""What of a plan is in the layer cache, and what goes into it."""

from builder.reuse.reuse import Reuse, StageReuse, look_up, no_reuse
from builder.reuse.units import PlanKeys, ReuseSettings, StepKey, makes_layer, stands_alone

__all__ = [
    "PlanKeys",
    "Reuse",
    "ReuseSettings",
    "StageReuse",
    "StepKey",
    "look_up",
    "makes_layer",
    "no_reuse",
    "stands_alone",
]
