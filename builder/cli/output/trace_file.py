"""`--trace`: spans as a file in Chrome's trace event format, which Perfetto and chrome://tracing open.

Format: "Trace Event Format" of Chromium's tracing; complete events (ph X) and metadata (ph M), times in µs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from builder.cli.output.redaction import Redactor
from builder.cli.output.spans import Span, Spans
from builder.errors import UsageError
from builder.events import Event

# Work that goes on beside the stages, in the order of its tracks; it gets as many tracks as went on at once.
_BESIDE = ("resolve", "context", "pull", "unpack", "compress", "upload", "cache")
_PROCESS = 1


class TraceFile:
    """A listener that writes the file when it is left. The file is opened at once: RUN may replace what its path means.

    Raises UsageError when it cannot be written.
    """

    def __init__(self, path: Path, redactor: Redactor) -> None:
        self._redactor = redactor
        self._spans = Spans()
        try:
            self._file: TextIO = path.open("w", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--trace: cannot write {path}: {error.strerror}") from error

    def __enter__(self) -> TraceFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            json.dump({"traceEvents": self._events(), "displayTimeUnit": "ms"}, self._file)

    def tell(self, event: Event) -> None:
        self._spans.tell(event)

    def _events(self) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = [_metadata("process_name", 0, "limpet")]
        for number, (name, spans) in enumerate(_tracks(self._spans.all())):
            events.append(_metadata("thread_name", number, name))
            events.append({**_metadata("thread_sort_index", number, ""), "args": {"sort_index": number}})
            events += [self._event(span, number) for span in spans]
        return events

    def _event(self, span: Span, track: int) -> dict[str, Any]:
        began = self._microseconds(span.began)
        return {
            "ph": "X",
            "name": self._redactor.mask(span.name),
            "cat": span.kind,
            "pid": _PROCESS,
            "tid": track,
            "ts": began,
            "dur": self._microseconds(span.ended) - began,
            "args": dict(span.attributes),
        }

    def _microseconds(self, moment: float) -> int:
        """Since the build began. Moments are rounded and lengths are not: spans touch and nest as they did."""
        return round((moment - self._spans.began) * 1e6)


def _metadata(kind: str, track: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": _PROCESS, "tid": track, "args": {"name": name}}


def _tracks(spans: Sequence[Span]) -> Iterable[tuple[str, list[Span]]]:
    """The build, each stage with what it was busy with, and the rest by kind; spans of one track never cross."""
    yield "build", [span for span in spans if span.kind == "build"]
    for stage in (span for span in spans if span.kind == "stage"):
        assert stage.id is not None
        of_stage = [span for span in spans if span.inside[:1] == stage.id and span.kind not in _BESIDE]
        yield stage.name, [stage, *of_stage]
    for kind in _BESIDE:
        for number, lane in enumerate(_lanes([span for span in spans if span.kind == kind])):
            yield f"{kind} {number + 1}", lane


def _lanes(spans: Sequence[Span]) -> list[list[Span]]:
    lanes: list[list[Span]] = []
    for span in spans:
        lane = next((lane for lane in lanes if lane[-1].ended <= span.began), None)
        if lane is None:
            lanes.append(lane := [])
        lane.append(span)
    return lanes
