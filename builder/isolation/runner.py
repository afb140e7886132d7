"""How a root runs a process: the part in which isolations differ."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from builder.isolation import Process
from builder.isolation.launch import Running
from builder.isolation.untouched import Exchanged


class Runner(Protocol):
    """Runs processes in directories."""

    def run(self, process: Process, root: Path, directory: Path, running: Running, exchanged: Exchanged) -> None:
        """Run `process` with `root` as its root directory; see `builder.isolation.Root.run`.

        `directory` does not exist; it may be made and used meanwhile, and does not exist afterwards. What is
        exchanged in the root meanwhile and put back is added to `exchanged`.
        """
        ...
