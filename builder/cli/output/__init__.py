"""How a build is shown: `Output` is the listener that the core speaks to, and knows how to end."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, TextIO

from builder.cli.errors import Failure
from builder.cli.output.log import Log
from builder.cli.output.redaction import Redactor
from builder.cli.output.summary import Summary
from builder.cli.settings import LogSettings
from builder.events import DockerfileRead, Event, Level, Listener, Message


class Display(Protocol):
    """A form of the log: lines, or a terminal's live view."""

    def tell(self, event: Event) -> None: ...

    def close(self) -> None:
        """Show what was held back and leave the terminal as it was. Safe to call twice."""
        ...

    def finish(self, summary: Summary) -> None:
        """The build succeeded: show what it did."""
        ...

    def fail(self, failure: Failure) -> None:
        """Show why the build failed."""
        ...


class Output:
    """Passes events on to the display and whoever else listens, and remembers what the end needs.

    Writes to standard error only: standard output belongs to answers (`limpet plan`, `limpet version`).
    """

    def __init__(self, settings: LogSettings, stream: TextIO | None = None) -> None:
        self.settings = settings
        self.redactor = Redactor()
        self.summary = Summary()
        self._dockerfiles: dict[str, str] = {}
        self._listeners: list[Listener] = []
        self._display = _display(settings, stream or sys.stderr, self.redactor)

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._display.close()

    @property
    def dockerfiles(self) -> Mapping[str, str]:
        """The texts of the Dockerfiles that were read, by the paths that errors name."""
        return self._dockerfiles

    def tell(self, event: Event) -> None:
        """See `builder.events.Listener`."""
        if isinstance(event, DockerfileRead):
            self._dockerfiles[event.path] = event.text
        self.summary.tell(event)
        for listener in self._listeners:
            listener.tell(event)
        self._display.tell(event)

    def say(self, text: str, level: Level = "info") -> None:
        """A line for the log."""
        self.tell(Message(text, level))

    def also(self, listener: Listener) -> None:
        """From now on `listener` is told everything, too."""
        self._listeners.append(listener)

    def finish(self) -> None:
        """The build succeeded: end the display and show the summary."""
        self._display.close()
        self._display.finish(self.summary)

    def fail(self, failure: Failure) -> None:
        """The build failed: end the display and show why."""
        self._display.close()
        self._display.fail(failure)


def _display(settings: LogSettings, stream: TextIO, redactor: Redactor) -> Display:
    if settings.format == "live":
        from builder.cli.output.live import Live  # rich costs a third of the start-up time

        return Live(settings, stream, redactor)
    return Log(settings, stream, redactor)
