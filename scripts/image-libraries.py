"""Print the libraries that the executor image needs, a line each: those of pyproject.toml and of its cloud extras."""

from __future__ import annotations

import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).parent.parent.joinpath("pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
for line in (*project["dependencies"], *(line for name in ("s3", "gcs", "azure") for line in extras[name])):
    print(line)
