"""What a build says of itself while it goes on.

The core calls `Listener.tell` from any thread; `builder.cli` shows it (live lines, plain log, JSON). No event
carries a secret: texts are as the Dockerfile has them, never the expanded environment.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

Level = Literal["trace", "debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Message:
    """A line for the log."""

    text: str
    level: Level = "info"


@dataclass(frozen=True, slots=True)
class DockerfileRead:
    """The Dockerfile's text, so that an error can quote it. `path` is as `errors.Location` has it."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class BuildStarted:
    """The plan is made: so many stages with so many steps altogether will be carried out.

    `cross_stage` are the paths that COPY takes from each stage, by the stage's index in the Dockerfile.
    """

    stages: int
    steps: int
    cross_stage: Mapping[int, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StageStarted:
    """`stage` is how the stage is shown everywhere: its name, or its index."""

    stage: str
    base: str
    steps: int
    index: int = -1  # in the Dockerfile, from 0
    base_index: int = -1  # of the stage that `base` names; -1 for an image


@dataclass(frozen=True, slots=True)
class StageFinished:
    stage: str
    seconds: float


@dataclass(frozen=True, slots=True)
class StepStarted:
    """Step `number` (1-based) of `total` of the stage; `text` is the instruction, one line."""

    stage: str
    number: int
    total: int
    text: str


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What the step's process wrote, as it came: not split at lines."""

    stage: str
    number: int
    data: bytes


@dataclass(frozen=True, slots=True)
class StepFinished:
    """`layer_size` is compressed bytes, None for a step without a layer; `reason` says why the cache missed."""

    stage: str
    number: int
    seconds: float
    cached: bool = False
    layer_digest: str = ""
    layer_size: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotStarted:
    """A step has run, and its layer is looked for: in all the files of the root, or in those that changed."""

    stage: str
    number: int
    everywhere: bool


@dataclass(frozen=True, slots=True)
class Transfer:
    """Progress of one transfer; `key` identifies it. `done` of `total` bytes (0: unknown)."""

    key: str
    kind: Literal["pull", "push", "context", "unpack", "cache"]
    name: str
    done: int
    total: int
    finished: bool = False


Kind = Literal["resolve", "root", "unpack", "run", "snapshot", "compress", "upload"]


@dataclass(frozen=True, slots=True)
class Worked:
    """A part of the work ended, well or badly: `began` by time.monotonic(), `seconds` long.

    `name` says what it was done to: a digest, a reference, an instruction. `stage` is "" for what belongs to none.
    """

    kind: Kind
    name: str
    began: float
    seconds: float
    stage: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """`reference` is the full name with tag; it now has `digest`."""

    reference: str
    digest: str


Event = (
    Message
    | DockerfileRead
    | BuildStarted
    | StageStarted
    | StageFinished
    | StepStarted
    | StepOutput
    | StepFinished
    | SnapshotStarted
    | Transfer
    | Worked
    | Published
)


class Listener(Protocol):
    """Somebody who is told."""

    def tell(self, event: Event) -> None:
        """Never raises and returns soon; called from any thread."""
        ...


class Silent:
    """A listener that drops everything."""

    def tell(self, event: Event) -> None:
        pass


@contextmanager
def worked(listener: Listener, kind: Kind, name: str, stage: str = "") -> Iterator[None]:
    """Tell `listener` how long the body took."""
    began = time.monotonic()
    try:
        yield
    finally:
        listener.tell(Worked(kind, name, began, time.monotonic() - began, stage))
