"""What decided the layers of the last build: kept beside them, to say why the next one misses.

Values are kept as digests, those of variables as very short ones: enough to see that a value is another one, not
enough to find out what it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builder.errors import ImageError

VARIABLE = "variable "
INSTRUCTION = "the instruction"
_DIGITS = 16
_VARIABLE_DIGITS = 4
_NAMED = 3  # changed inputs that a reason names
_TEXT = 60  # characters of another instruction


@dataclass(frozen=True, slots=True)
class RecordedStep:
    """A step that makes a layer, as the Dockerfile has it. `inputs` is what decided it, by name; the values are short.

    Without a `key`, what it reads was not known. Where it stands `alone`, the steps before it do not matter.
    """

    text: str
    key: str
    inputs: Mapping[str, str]
    alone: bool = False


@dataclass(frozen=True, slots=True)
class RecordedStage:
    """`base` is what decides the layers before the first step is looked at."""

    base: Mapping[str, str]
    steps: tuple[RecordedStep, ...]


@dataclass(frozen=True, slots=True)
class BuildRecord:
    """The stages of a build, by the names that people know them by."""

    stages: Mapping[str, RecordedStage]

    def encode(self) -> bytes:
        """As JSON."""
        return json.dumps(
            {
                name: {"base": dict(stage.base), "steps": [_row(step) for step in stage.steps]}
                for name, stage in self.stages.items()
            }
        ).encode()

    @classmethod
    def decode(cls, data: bytes) -> BuildRecord:
        """What `encode` made. Raises ImageError."""
        try:
            stages = {
                name: RecordedStage(
                    _texts(stage["base"]),
                    tuple(RecordedStep(str(t), str(key), _texts(i), bool(a)) for t, key, i, a in stage["steps"]),
                )
                for name, stage in json.loads(data).items()
            }
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ImageError(f"the record of the last build is damaged: {error}") from error
        return cls(stages)

    def keys(self) -> set[str]:
        """The keys of all steps."""
        return {step.key for stage in self.stages.values() for step in stage.steps}


def shortened(inputs: Mapping[str, str]) -> dict[str, str]:
    """`inputs` with what is kept of each value."""
    return {
        name: hashlib.sha256(f"{name}\0{value}".encode("utf-8", "surrogateescape")).hexdigest()[
            : _VARIABLE_DIGITS if name.startswith(VARIABLE) else _DIGITS
        ]
        for name, value in inputs.items()
    }


def why_missed(now: BuildRecord, before: BuildRecord | None, stage: str, number: int) -> str:
    """Why layer step `number` (from 0) of `stage` is not in the cache: what changed since the build `before`."""
    if before is None:
        return "no earlier build is known"
    old, new = before.stages.get(stage), now.stages[stage]
    if old is None:
        return f"stage {stage} is new"
    alone = new.steps[number].alone
    if old.base != new.base and not alone:
        return _changes(old.base, new.base)
    for position, step in enumerate(new.steps[: number + 1]):
        if alone and position < number:
            continue
        where = "" if position == number else f"{_cut(step.text)} before it: "
        if position >= len(old.steps):
            return where + "the instruction is new"
        same = old.steps[position]
        if same.inputs.get(INSTRUCTION) != step.inputs.get(INSTRUCTION) and same.text != step.text:
            return f"{where}the instruction was {_cut(same.text)}"
        if same.inputs != step.inputs:
            return where + _changes(same.inputs, step.inputs)
    return "it is not in the cache any more, or never was"


def _changes(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    found = [f"{name} changed" for name in new if name in old and old[name] != new[name]]
    found += [f"{name} is new" for name in new if name not in old]
    found += [f"{name} is gone" for name in old if name not in new]
    more = len(found) - _NAMED
    return ", ".join(found[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _row(step: RecordedStep) -> list[object]:
    return [step.text, step.key, dict(step.inputs), step.alone]


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT else text[: _TEXT - 3] + "..."


def _texts(value: Any) -> dict[str, str]:
    return {str(name): str(text) for name, text in value.items()}
