"""What a build did, in figures: collected from its events, told at its end."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import Any

from builder.cli.output.quantities import bytes_text, counted, seconds_text
from builder.events import Event, Published, StageFinished, StageStarted, StepFinished, StepStarted, Transfer, Worked

_SLOWEST = 3  # steps that the summary names
_WORTH_NAMING = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A step that began; `finished` is None while it runs, or when the build failed in it."""

    started: StepStarted
    finished: StepFinished | None = None

    @property
    def label(self) -> str:
        return f"[{self.started.stage} {self.started.number}/{self.started.total}] {self.started.text}"


@dataclass(frozen=True, slots=True)
class StageRecord:
    """A stage in figures: `steps` begun, `layers` made (not cached), `size` of those in bytes."""

    name: str
    steps: int
    cached: int
    layers: int
    size: int
    seconds: float


class Summary:
    """A listener that only remembers. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._stages: dict[str, float] = {}
        self._order: dict[str, int] = {}  # index in the Dockerfile
        self._steps: dict[tuple[str, int], StepRecord] = {}
        self._worked: dict[str, float] = {}
        self._moved: dict[tuple[str, str], int] = {}
        self._published: list[Published] = []

    def tell(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, StageStarted):
                self._stages.setdefault(event.stage, 0.0)
                self._order[event.stage] = event.index
            elif isinstance(event, StageFinished):
                self._stages[event.stage] = event.seconds
            elif isinstance(event, StepStarted):
                self._steps[event.stage, event.number] = StepRecord(event)
            elif isinstance(event, StepFinished):
                record = self._steps.get((event.stage, event.number))
                if record:
                    self._steps[event.stage, event.number] = replace(record, finished=event)
            elif isinstance(event, Transfer):
                self._moved[event.kind, event.key] = event.done
            elif isinstance(event, Worked):
                self._worked[event.kind] = self._worked.get(event.kind, 0.0) + event.seconds
            elif isinstance(event, Published):
                self._published.append(event)

    def lines(self) -> list[str]:
        """A few lines for people; empty when no stage began."""
        with self._lock:
            if not self._stages:
                return []
            steps = list(self._steps.values())
            done = [(record, record.finished) for record in steps if record.finished]
            cached = sum(finished.cached for _, finished in done)
            sizes = [finished.layer_size for _, finished in done if finished.layer_size and not finished.cached]
            lines = [
                f"{counted(len(self._stages), 'stage')}, {counted(len(steps), 'step')}"
                + (f" ({cached} cached)" if cached else "")
                + (f", {counted(len(sizes), 'new layer')} of {bytes_text(sum(sizes))}" if sizes else "")
                + f" in {seconds_text(time.monotonic() - self._began)}"
            ]
            moved = ", ".join(f"{word} {bytes_text(total)}" for word, total in self._totals() if total)
            if moved:
                lines.append(moved)
            lines += _cache_lines(done)
            slow = self._slowest()
            if slow:
                lines.append("slowest steps:")
            lines += [f"  {seconds_text(finished.seconds)} {record.label}" for record, finished in slow]
            return lines + [f"{published.reference}@{published.digest}" for published in self._published]

    def _slowest(self) -> list[tuple[StepRecord, StepFinished]]:
        done = [(record, record.finished) for record in self._steps.values() if record.finished]
        slow = sorted(done, key=lambda pair: pair[1].seconds, reverse=True)[:_SLOWEST]
        return [pair for pair in slow if pair[1].seconds >= _WORTH_NAMING]

    def stages(self) -> list[StageRecord]:
        """The stages in the order of the Dockerfile."""
        with self._lock:
            rows = []
            for name in sorted(self._stages, key=lambda stage: self._order[stage]):
                records = [record for (stage, _), record in self._steps.items() if stage == name]
                finished = [record.finished for record in records if record.finished]
                sizes = [event.layer_size for event in finished if event.layer_size is not None and not event.cached]
                cached = sum(event.cached for event in finished)
                rows.append(StageRecord(name, len(records), cached, len(sizes), sum(sizes), self._stages[name]))
            return rows

    def _totals(self) -> list[tuple[str, int]]:
        words = {"pull": "pulled", "push": "pushed", "context": "context"}
        return [
            (word, sum(done for (kind, _), done in self._moved.items() if kind == wanted))
            for wanted, word in words.items()
        ]

    def running(self) -> list[StepRecord]:
        """The steps that began and did not finish."""
        with self._lock:
            return [record for record in self._steps.values() if record.finished is None]

    def to_json(self) -> dict[str, Any]:
        """The same for the metadata file: seconds as numbers, sizes in bytes."""
        with self._lock:
            return {
                "seconds": round(time.monotonic() - self._began, 3),
                "stages": [{"name": name, "seconds": round(value, 3)} for name, value in self._stages.items()],
                "steps": [
                    {
                        "stage": record.started.stage,
                        "number": record.started.number,
                        "instruction": record.started.text,
                        "seconds": round(record.finished.seconds, 3),
                        "cached": record.finished.cached,
                        "reason": record.finished.reason,
                        "layer": record.finished.layer_digest,
                        "size": record.finished.layer_size,
                    }
                    for record in self._steps.values()
                    if record.finished
                ],
                "cache": {
                    "hits": sum(record.finished.cached for record in self._steps.values() if record.finished),
                    "misses": sum(bool(record.finished.reason) for record in self._steps.values() if record.finished),
                },
                "slowest": [
                    {"stage": event.stage, "number": event.number, "seconds": round(event.seconds, 3)}
                    for _, event in self._slowest()
                ],
                "work": {kind: round(seconds, 3) for kind, seconds in self._worked.items()},
                "bytes": dict(self._totals()),
            }


def _cache_lines(done: list[tuple[StepRecord, StepFinished]]) -> list[str]:
    """What the cache had, and each step that it had not, with the reason; nothing without a cache."""
    missed = [(record, finished) for record, finished in done if finished.reason]
    hits = sum(finished.cached for _, finished in done)
    if not missed and not hits:
        return []
    total = f"cache: {counted(hits, 'hit')}, {counted(len(missed), 'miss', 'misses')}"
    reasons = {finished.reason for _, finished in missed}
    if len(missed) > 1 and len(reasons) == 1:  # a first build misses everything, for one reason
        return [f"{total} ({reasons.pop()})"]
    return [total, *(f"cache miss: {record.label}: {finished.reason}" for record, finished in missed)]
