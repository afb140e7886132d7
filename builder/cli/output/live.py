"""The log on a terminal: what goes on now in a few moving lines at the bottom, what is done above them.

Finished steps, messages and pushes stay; transfers and running steps move, with bytes, rate and the last lines of
their output; the end is a table.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live as LiveRegion
from rich.table import Table
from rich.text import Text

from builder.cli.errors import Failure
from builder.cli.output.lines import LineSplitter
from builder.cli.output.log import LEVELS
from builder.cli.output.quantities import bytes_text, seconds_text
from builder.cli.output.redaction import Redactor
from builder.cli.output.summary import Summary
from builder.cli.settings import LogSettings
from builder.events import (
    BuildStarted,
    Event,
    Message,
    Published,
    StageFinished,
    StageStarted,
    StepFinished,
    StepOutput,
    StepStarted,
    Transfer,
)

_TAIL = 4  # lines of output shown under a running step
_KEPT = 40  # lines of output shown of a step that failed
_REFRESH = 8  # per second
_WINDOW = 3.0  # seconds over which a rate is taken
_STYLES = {"trace": "dim", "debug": "dim", "info": "", "warning": "yellow", "error": "red", "fatal": "red"}
_ARROWS = {"pull": "↓", "push": "↑", "context": "↓", "unpack": "⇲", "cache": "↑"}
# Escape sequences and control characters: a RUN step must not move the cursor, and colours would outlive a cut line.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b.?|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


@dataclass(slots=True)
class _RunningStep:
    started: StepStarted
    began: float
    splitter: LineSplitter = field(default_factory=LineSplitter)
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT))


@dataclass(slots=True)
class _RunningTransfer:
    last: Transfer
    samples: deque[tuple[float, int]]  # (time, bytes), the last few seconds of them

    def rate(self, now: float) -> float:
        """Bytes per second, lately."""
        began, done = self.samples[0]
        return (self.last.done - done) / (now - began) if now > began else 0.0


class Live:
    """A display for terminals. The moving lines begin with the first stage or transfer."""

    def __init__(self, settings: LogSettings, stream: TextIO, redactor: Redactor) -> None:
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=False)
        self._lowest = LEVELS.index(settings.level)
        self._redactor = redactor
        self._lock = threading.RLock()
        self._region: LiveRegion | None = None
        self._closed = False
        self._stages: dict[str, StageStarted] = {}
        self._steps: dict[tuple[str, int], _RunningStep] = {}
        self._transfers: dict[str, _RunningTransfer] = {}
        self._counts = [0, 0]  # steps done, steps planned

    def tell(self, event: Event) -> None:
        """Show `event`; what cannot be shown is lost."""
        with self._lock:
            try:
                self._tell(event)
            except OSError:
                pass  # the terminal went away; the build does not depend on it

    def finish(self, summary: Summary) -> None:
        """Leave a table of the stages, the slowest steps and the digests."""
        self.close()
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("stage")
        for heading in ("steps", "cached", "layers", "time"):
            table.add_column(heading, justify="right")
        for row in summary.stages():
            size = bytes_text(row.size) if row.layers else "-"
            table.add_row(self._clean(row.name), str(row.steps), str(row.cached), size, seconds_text(row.seconds))
        if table.row_count:
            self._console.print()
            self._console.print(table)
            self._console.print()
        for line in summary.lines():
            self._print(line)

    def fail(self, failure: Failure) -> None:
        """Show what the failed steps wrote, then why the build failed."""
        self.close()
        for step in self._steps.values():
            step.lines.extend(self._clean(line) for line in step.splitter.close())
            for line in step.lines:
                self._print(f"{_label(step.started)} {line}", "dim")
        message, *rest = failure.lines()
        self._print(message, "bold red")
        for line in rest:
            self._print(line, "red" if ">>>" in line[:20] else "")

    def close(self) -> None:
        """Take the moving lines away."""
        with self._lock:
            region, self._region, self._closed = self._region, None, True
        if region:
            try:
                region.stop()
            except OSError:
                pass  # as in `tell`

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The moving lines, at most as many as the terminal has room for."""
        with self._lock:
            lines = [*self._step_lines(), *self._transfer_lines(options.max_width)]
        room = max(3, options.size.height - 2)
        if len(lines) > room:
            lines = [*lines[: room - 1], Text(f"  … and {len(lines) - room + 1} more lines", "dim")]
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
            yield line

    def _tell(self, event: Event) -> None:
        if isinstance(event, Message):
            if LEVELS.index(event.level) >= self._lowest:
                self._print(event.text, _STYLES[event.level])
        elif isinstance(event, BuildStarted):
            self._counts[1] = event.steps
        elif isinstance(event, StageStarted):
            self._stages[event.stage] = event
            self._start()
        elif isinstance(event, StageFinished):
            self._stages.pop(event.stage, None)
        elif isinstance(event, StepStarted):
            self._steps[event.stage, event.number] = _RunningStep(event, time.monotonic())
        elif isinstance(event, StepOutput):
            step = self._steps.get((event.stage, event.number))
            if step:
                step.lines.extend(self._clean(line) for line in step.splitter.feed(event.data))
        elif isinstance(event, StepFinished):
            self._step_finished(event)
        elif isinstance(event, Transfer):
            self._transfer(event)
        elif isinstance(event, Published):
            self._print(f"Pushed {event.reference}@{event.digest}", "green")

    def _start(self) -> None:
        if self._region is None and not self._closed:
            self._region = LiveRegion(
                self,
                console=self._console,
                refresh_per_second=_REFRESH,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._region.start()

    def _step_finished(self, event: StepFinished) -> None:
        step = self._steps.pop((event.stage, event.number), None)
        self._counts[0] += 1
        if step is None:
            return
        line = Text()
        line.append(_label(step.started), "cyan")
        line.append(" " + self._clean(step.started.text))
        if event.cached:
            line.append("  cached", "green")
        else:
            line.append(f"  {seconds_text(event.seconds)}", "dim")
        if event.layer_size is not None:
            line.append(f"  {bytes_text(event.layer_size)}", "dim")
        if event.reason:
            line.append(f"  {self._clean(event.reason)}", "dim")
        self._console.print(line)

    def _transfer(self, event: Transfer) -> None:
        if event.finished:
            self._transfers.pop(event.key, None)
            return
        now = time.monotonic()
        running = self._transfers.get(event.key)
        if running is None:
            running = self._transfers[event.key] = _RunningTransfer(event, deque([(now, event.done)]))
        running.last = event
        running.samples.append((now, event.done))
        while len(running.samples) > 2 and now - running.samples[0][0] > _WINDOW:
            running.samples.popleft()
        self._start()

    def _step_lines(self) -> list[Text]:
        now = time.monotonic()
        lines: list[Text] = []
        tail = _TAIL if len(self._steps) < 4 else 1
        for step in self._steps.values():
            line = Text()
            line.append(_label(step.started), "bold cyan")
            line.append(f" {seconds_text(now - step.began)} ", "dim")
            line.append(self._clean(step.started.text))
            lines.append(line)
            lines += [Text(f"  │ {text}", "dim") for text in list(step.lines)[-tail:]]
        running = {stage for stage, _ in self._steps}
        for stage, started in self._stages.items():
            if stage not in running:
                lines.append(Text(f"[{self._clean(stage)}] waiting for {self._clean(started.base)}", "dim"))
        done, planned = self._counts
        if planned and (lines or self._transfers):
            lines.insert(0, Text(f"{done} of {planned} steps", "bold"))
        return lines

    def _transfer_lines(self, width: int) -> list[Text]:
        now = time.monotonic()
        lines = []
        for running in self._transfers.values():
            last, line = running.last, Text()
            figures = bytes_text(last.done)
            if last.total:
                figures += f" of {bytes_text(last.total)}  {100 * last.done // last.total:3d} %"
            figures += f"  {bytes_text(running.rate(now))}/s"
            name = self._clean(last.name)
            room = max(12, width - len(figures) - len(last.kind) - 8)
            if len(name) > room:
                name = name[: room // 2] + "…" + name[-(room - room // 2 - 1) :]
            line.append(f"{_ARROWS[last.kind]} {last.kind} ", "magenta")
            line.append(f"{name}  ")
            line.append(figures, "dim")
            lines.append(line)
        return lines

    def _clean(self, text: str) -> str:
        return _CONTROL.sub("", self._redactor.mask(text)).expandtabs(4)

    def _print(self, text: str, style: str = "") -> None:
        for line in text.splitlines() or [""]:
            self._console.print(Text(self._clean(line), style))


def _label(step: StepStarted) -> str:
    return f"[{step.stage} {step.number}/{step.total}]"
