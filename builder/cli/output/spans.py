"""What a build did and when, as spans: the material of the trace file and of OpenTelemetry."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from builder.events import Event, StageFinished, StageStarted, StepFinished, StepStarted, Transfer, Worked

ROOT = ()  # the id of the span that all others are in


@dataclass(frozen=True, slots=True)
class Span:
    """One piece of work. `began` and `ended` by time.monotonic(), `kind` as events have it, or "stage" or "step".

    `inside` is the id of the span around it: () the build, (stage,) a stage, (stage, number) a step.
    """

    kind: str
    name: str
    began: float
    ended: float
    inside: tuple[str | int, ...] = ROOT
    id: tuple[str | int, ...] | None = None
    attributes: Mapping[str, str | int | bool] = field(default_factory=dict)


class Spans:
    """A listener that remembers. Safe to use from several threads.

    A step's span is the time for which the stage was busy with it; the layer may be finished later ("compress").
    """

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.began_ns = time.time_ns()  # the same moment, since the epoch
        self._lock = threading.Lock()
        self._done: list[Span] = []
        self._stages: dict[str, tuple[float, StageStarted]] = {}
        self._steps: dict[str, tuple[float, StepStarted]] = {}  # the one that each stage is busy with
        self._finished: dict[tuple[str, int], StepFinished] = {}
        self._pulls: dict[str, float] = {}

    def tell(self, event: Event) -> None:
        """See `builder.events.Listener`."""
        now = time.monotonic()
        with self._lock:
            if isinstance(event, StageStarted):
                self._stages[event.stage] = (now, event)
            elif isinstance(event, StepStarted):
                self._end_step(event.stage, now)
                self._steps[event.stage] = (now, event)
            elif isinstance(event, StepFinished):
                self._finished[event.stage, event.number] = event
            elif isinstance(event, StageFinished):
                self._end_stage(event.stage, now)
            elif isinstance(event, Transfer):
                self._transfer(event, now)
            elif isinstance(event, Worked):
                self._done.append(self._worked(event))

    def all(self) -> list[Span]:
        """Everything until now, by beginning; what did not end yet ends now, the build itself included."""
        with self._lock:
            now = time.monotonic()
            for stage in list(self._stages):
                self._end_stage(stage, now)
            spans = [self._with_result(span) for span in self._done]
            spans.append(Span("build", "build", self.began, now, id=ROOT))
            return sorted(spans, key=lambda span: (span.began, -span.ended))

    def _worked(self, event: Worked) -> Span:
        inside: tuple[str | int, ...] = ROOT
        if event.stage:
            busy = self._steps.get(event.stage)
            # A layer may be compressed while its stage is busy with other steps.
            inside = (event.stage, busy[1].number) if busy and event.kind in ("run", "snapshot") else (event.stage,)
        return Span(event.kind, event.name, event.began, event.began + event.seconds, inside)

    def _end_step(self, stage: str, now: float) -> None:
        began, step = self._steps.pop(stage, (0.0, None))
        if step:
            self._done.append(Span("step", step.text, began, now, (stage,), (stage, step.number)))

    def _end_stage(self, stage: str, now: float) -> None:
        self._end_step(stage, now)
        began, started = self._stages.pop(stage, (0.0, None))
        if started:
            self._done.append(Span("stage", f"stage {stage}", began, now, ROOT, (stage,), {"base": started.base}))

    def _transfer(self, event: Transfer, now: float) -> None:
        """Downloads; uploads are told as work, with all that belongs to them."""
        if event.kind == "push":
            return
        began = self._pulls.setdefault(event.key, now)
        if event.finished:
            del self._pulls[event.key]
            size = {"bytes": event.done}
            self._done.append(Span(event.kind, f"{event.kind} {event.name}", began, now, attributes=size))

    def _with_result(self, span: Span) -> Span:
        """A step's span with what became known after it."""
        finished = self._finished.get(span.id) if span.kind == "step" else None  # type: ignore[arg-type]  # a step's id
        if finished is None:
            return span
        said: dict[str, str | int | bool] = {"cached": finished.cached}
        if finished.layer_digest:
            said["layer"] = finished.layer_digest
        if finished.layer_size is not None:
            said["bytes"] = finished.layer_size
        if finished.reason:
            said["reason"] = finished.reason
        return Span(span.kind, span.name, span.began, span.ended, span.inside, span.id, said)
