"""The log, a line at a time: `plain` and `color` (kaniko's `INFO[0003] text`), `text` (logfmt), `json`.

Everything goes to one stream, in one order; the output of RUN goes there too, each line behind the stage and step
that wrote it. The texts that kaniko's users match (`Building stage`, `Pushed`) are part of the interface.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TextIO

from builder.cli.errors import Failure
from builder.cli.output.lines import LineSplitter
from builder.cli.output.quantities import bytes_text, seconds_text
from builder.cli.output.redaction import Redactor
from builder.cli.output.summary import Summary
from builder.cli.settings import LogSettings
from builder.events import (
    BuildStarted,
    Event,
    Message,
    Published,
    SnapshotStarted,
    StageFinished,
    StageStarted,
    StepFinished,
    StepOutput,
    StepStarted,
    Transfer,
)
from builder.outputs import repository_of

LEVELS = ("trace", "debug", "info", "warning", "error", "fatal")
_COLORS = {"trace": 37, "debug": 37, "info": 36, "warning": 33, "error": 31, "fatal": 31}
_PATIENCE = 15.0  # seconds between lines about one slow transfer
_Fields = Mapping[str, object]


class Log:
    """A listener that writes lines. `format` of the settings is plain, color, text or json."""

    def __init__(self, settings: LogSettings, stream: TextIO, redactor: Redactor) -> None:
        self._format: Callable[[str, str, _Fields], str] = {
            "plain": self._plain,
            "color": self._color,
            "text": self._logfmt,
            "json": self._json,
        }[settings.format]
        self._raw_output = settings.format != "json"
        self._clock = settings.clock
        self._lowest = LEVELS.index(settings.level)
        self._stream = stream
        self._redactor = redactor
        self._lock = threading.RLock()
        self._began = time.monotonic()
        self._splitters: dict[tuple[str, int], LineSplitter] = {}
        self._totals: dict[tuple[str, int], int] = {}
        self._transfers: dict[str, tuple[float, float]] = {}  # key -> began, last told

    def tell(self, event: Event) -> None:
        """Write the lines of `event`; what cannot be written is lost."""
        with self._lock:
            try:
                self._tell(event)
            except OSError:
                pass  # the reader of the log went away; the build does not depend on it

    def close(self) -> None:
        """Write what RUN steps left without a newline."""
        with self._lock:
            for stage, number in list(self._splitters):
                self._finish_output(stage, number)

    def finish(self, summary: Summary) -> None:
        """The summary, as messages."""
        for line in summary.lines():
            self.tell(Message(line))

    def fail(self, failure: Failure) -> None:
        """The error, in the form of the log; bare lines where people read."""
        with self._lock:
            try:
                self._fail(failure)
            except OSError:
                pass  # as in `tell`

    def _fail(self, failure: Failure) -> None:
        if self._raw_output:
            for line in failure.lines():
                self._write(line)
        else:
            fields: dict[str, object] = {"event": "failed", "exit-code": failure.exit_code}
            for name, lines in (
                ("hint", failure.hint.splitlines()),
                ("lines", failure.quote),
                ("trace", failure.trace),
            ):
                if lines:
                    fields[name] = [self._redactor.mask(line) for line in lines]
            self._write(self._json("error", self._redactor.mask(failure.message), fields))

    def _tell(self, event: Event) -> None:
        if isinstance(event, Message):
            for line in event.text.splitlines() or [""]:
                self._line(event.level, line, {})
        elif isinstance(event, StepOutput):
            splitter = self._splitters.setdefault((event.stage, event.number), LineSplitter())
            for line in splitter.feed(event.data):
                self._output(event.stage, event.number, line)
        elif isinstance(event, Transfer):
            self._transfer(event)
        elif isinstance(event, (StageStarted, StageFinished)):
            self._stage(event)
        elif isinstance(event, StepStarted):
            self._totals[event.stage, event.number] = event.total
            text = f"[{event.stage} {event.number}/{event.total}] {event.text}"
            self._line("info", text, {"event": "step", "stage": event.stage, "step": event.number})
        elif isinstance(event, StepFinished):
            self._step_finished(event)
        elif isinstance(event, BuildStarted):
            self._line("info", f"Built cross stage deps: {_go_map(event.cross_stage)}", {})
        elif isinstance(event, SnapshotStarted):
            self._finish_output(event.stage, event.number)
            what = "full filesystem" if event.everywhere else "files"
            fields = {"event": "snapshot", "stage": event.stage, "step": event.number}
            self._line("info", f"Taking snapshot of {what}...", fields)
        elif isinstance(event, Published):
            fields = {"event": "pushed", "reference": event.reference, "digest": event.digest}
            self._line("info", f"Pushed {repository_of(event.reference)}@{event.digest}", fields)

    def _stage(self, event: StageStarted | StageFinished) -> None:
        if isinstance(event, StageFinished):
            fields: _Fields = {"event": "stage-done", "stage": event.stage, "seconds": round(event.seconds, 3)}
            self._line("debug", f"Stage {event.stage} done in {seconds_text(event.seconds)}", fields)
            return
        text = f"Building stage '{event.base}' [idx: '{event.index}', base-idx: '{event.base_index}']"
        if event.stage != str(event.index):
            text += f" {event.stage}"
        self._line("info", text, {"event": "stage", "stage": event.stage, "base": event.base})

    def _step_finished(self, event: StepFinished) -> None:
        self._finish_output(event.stage, event.number)
        words = "cached" if event.cached else f"done in {seconds_text(event.seconds)}"
        if event.layer_size is not None:
            words += f", layer of {bytes_text(event.layer_size)}"
        if event.reason:
            words += f" (cache miss: {event.reason})"
        fields = {
            "event": "step-done",
            "stage": event.stage,
            "step": event.number,
            "seconds": round(event.seconds, 3),
            "cached": event.cached,
            "layer": event.layer_digest,
            "size": event.layer_size,
            **({"reason": event.reason} if event.reason else {}),
        }
        # A step that only changes the configuration has said everything with its first line.
        quiet = event.layer_size is None and not event.cached and event.seconds < 1
        self._line("debug" if quiet else "info", f"{self._label(event.stage, event.number)} {words}", fields)

    def _transfer(self, event: Transfer) -> None:
        now = time.monotonic()
        began, told = self._transfers.get(event.key, (now, now))
        slow = now - told >= _PATIENCE
        self._transfers[event.key] = (began, now if slow else told)
        if not slow and not event.finished:
            return
        amount = bytes_text(event.done)
        if event.total and not event.finished:
            amount += f" of {bytes_text(event.total)}"
        if now > began:
            amount += f", {bytes_text((event.done) / (now - began))}/s"
        word = f"{event.kind} {event.name}: " + ("done, " if event.finished else "") + amount
        fields = {"event": "transfer", "kind": event.kind, "name": event.name, "done": event.done, "total": event.total}
        self._line("info" if now - began >= _PATIENCE else "debug", word, fields)
        if event.finished:
            del self._transfers[event.key]

    def _label(self, stage: str, number: int) -> str:
        return f"[{stage} {number}/{self._totals.get((stage, number), '?')}]"

    def _finish_output(self, stage: str, number: int) -> None:
        splitter = self._splitters.pop((stage, number), None)
        for line in splitter.close() if splitter else ():
            self._output(stage, number, line)

    def _output(self, stage: str, number: int, line: str) -> None:
        """A line of RUN: shown whatever the verbosity, as kaniko has it."""
        if self._raw_output:
            self._write(f"{self._label(stage, number)} {line}")
        else:
            self._write(
                self._json("info", self._redactor.mask(line), {"event": "output", "stage": stage, "step": number})
            )

    def _line(self, level: str, text: str, fields: _Fields) -> None:
        if LEVELS.index(level) >= self._lowest:
            # Masked before it is quoted: a secret with a quote or a backslash would not be found afterwards.
            self._write(self._format(level, self._redactor.mask(text), fields))

    def _write(self, line: str) -> None:
        self._stream.write(self._redactor.mask(line) + "\n")
        self._stream.flush()

    def _time(self) -> str:
        return now_text() if self._clock else f"{int(time.monotonic() - self._began):04d}"

    def _plain(self, level: str, text: str, fields: _Fields) -> str:
        return f"{level[:4].upper()}[{self._time()}] {text}"

    def _color(self, level: str, text: str, fields: _Fields) -> str:
        return f"\x1b[{_COLORS[level]}m{level[:4].upper()}\x1b[0m[{self._time()}] {text}"

    def _logfmt(self, level: str, text: str, fields: _Fields) -> str:
        quoted = json.dumps(text, ensure_ascii=False)
        bare = re.fullmatch(r"[A-Za-z0-9\-._/@^+]+", text)
        return f'time="{now_text()}" level={level} msg={text if bare else quoted}'

    def _json(self, level: str, text: str, fields: _Fields) -> str:
        value = {"level": level, "msg": text, "time": now_text(), **fields}
        return json.dumps(value, ensure_ascii=False)


def _go_map(lists: Mapping[int, Sequence[str]]) -> str:
    """`lists` as Go prints a map of slices; scripts that read kaniko's log know it so."""
    members = (f"{key}:[{' '.join(words)}]" for key, words in sorted(lists.items()))
    return f"map[{' '.join(members)}]"


def now_text() -> str:
    """Now, by RFC 3339 to the second, in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
