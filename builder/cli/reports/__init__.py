"""`--reports-dir`: what is in the image, and what it was made of, in the forms that other tools read."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.cli.reports.packages import find_packages
from builder.cli.reports.provenance import statement
from builder.cli.reports.spdx import document
from builder.cli.settings import Settings
from builder.errors import BuildError
from builder.events import Listener, Message
from builder.oci.image import Image
from builder.outputs import repository_of


@dataclass(frozen=True, slots=True)
class Reports:
    """Writes provenance.json (SLSA 1.0) and sbom.spdx.json (SPDX 2.3) into `directory`, which is made.

    With several platforms each has its own sbom, `sbom-OS-ARCH.spdx.json`. `started` is a time.time() value.
    """

    directory: Path
    settings: Settings
    work_dir: Path
    listener: Listener
    started: float

    def write(self, images: Sequence[Image], digest: str, origins: Mapping[str, Any]) -> None:
        """`digest` is that of the image or index, `origins` what `builder.cli.origins.metadata` says.

        Raises BuildError when a file cannot be written, and what reading layers raises.
        """
        names = list(dict.fromkeys(map(repository_of, self.settings.output.destinations)))
        made = statement(self.settings, names, digest, origins, self.started, time.time())
        self._write("provenance.json", made)
        for image in images:
            platform = str(image.config.platform).replace("/", "-")
            found = find_packages(image, self.work_dir)
            for database in found.unread:
                text = f"the SBOM of {platform} lacks the packages of /{database}: this kind of database is not read"
                self.listener.tell(Message(text, "warning"))
            sbom = document(names[0] if names else "image", image, found)
            self._write("sbom.spdx.json" if len(images) == 1 else f"sbom-{platform}.spdx.json", sbom)

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            (self.directory / name).write_text(json.dumps(value, indent=2) + "\n")
        except OSError as error:
            raise BuildError(
                f"--reports-dir: cannot write {self.directory / name}: {error.strerror}",
                "give a directory that can be written",
            ) from None
