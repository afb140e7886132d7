"""`--progress-file`: `N/M` steps, as Argo reads it every few seconds for its progress bar."""

from __future__ import annotations

import threading
from pathlib import Path

from builder.events import BuildStarted, Event, StageStarted, StepFinished


class ProgressFile:
    """A listener that keeps the file up to date. A file that cannot be written is given up: it is only progress."""

    def __init__(self, path: Path) -> None:
        self._path: Path | None = path
        self._lock = threading.Lock()
        self._done = 0
        self._planned = 0  # by the plan
        self._begun = 0  # by the stages that began; counts when no plan was announced

    def tell(self, event: Event) -> None:
        """Count, and write when the count changed."""
        with self._lock:
            if isinstance(event, BuildStarted):
                self._planned = event.steps
            elif isinstance(event, StageStarted):
                self._begun += event.steps
            elif isinstance(event, StepFinished):
                self._done += 1
            else:
                return
            total = max(self._planned or self._begun, self._done)
            if self._path and total:
                try:
                    self._path.write_text(f"{self._done}/{total}", encoding="ascii")
                except OSError:
                    self._path = None
