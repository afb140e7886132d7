"""The commands that a flag can belong to, and the headings under which flags are shown."""

from __future__ import annotations

BUILD = ("build", "plan")
WARM = ("warm",)
PUSHING = ("build", "plan", "push", "index create", "doctor", "cache list", "cache prune", "catalog")
PULLING = ("build", "plan", "warm", "index create", "doctor", "cache list", "cache prune")
REGISTRY = ("build", "plan", "warm", "push", "index create", "doctor", "cache list", "cache prune", "catalog")
EVERYWHERE = (*REGISTRY, "login", "version")

INPUT = "What is built"
IMAGE = "What the image is like"
OUTPUT = "Where it goes"
RUN = "Where RUN happens"
CACHE = "Cache"
REGISTRIES = "Registries"
PIPELINE = "For pipelines"
LOG = "Log"
KANIKO = "Accepted for kaniko's pipelines"
GROUPS = (INPUT, IMAGE, OUTPUT, RUN, CACHE, REGISTRIES, PIPELINE, LOG, KANIKO)
