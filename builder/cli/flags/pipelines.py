"""Pipelines and the log."""

from __future__ import annotations

from builder.cli.flag import Flag, Variable
from builder.cli.flags.groups import BUILD, EVERYWHERE, LOG, PIPELINE

FLAGS: tuple[Flag, ...] = (
    # --- For pipelines ---
    Flag(
        "results-dir",
        "string",
        "Directory for Tekton results: IMAGE_URL, IMAGE_DIGEST, IMAGES, IMAGE_REF and the artifact objects.",
        PIPELINE,
        (*BUILD, "push", "index create"),
        metavar="DIRECTORY",
    ),
    Flag(
        "result",
        "map",
        "Write one Tekton result, such as IMAGE_DIGEST, to a file; for steps that have no directory of results.",
        PIPELINE,
        (*BUILD, "push", "index create"),
        metavar="NAME=FILE",
        many="results",
    ),
    Flag(
        "progress-file",
        "string",
        "File that holds N/M while the build goes on (Argo's progress).",
        PIPELINE,
        BUILD,
        metavar="FILE",
        variable=Variable("ARGO_PROGRESS_FILE"),
    ),
    Flag(
        "reports-dir",
        "string",
        "Directory for provenance.json (SLSA) and sbom.spdx.json (packages that the image has). Reads every layer.",
        PIPELINE,
        BUILD,
        metavar="DIRECTORY",
    ),
    Flag("metadata-file", "string", "Write what was built, from what, as JSON.", PIPELINE, BUILD, metavar="FILE"),
    Flag(
        "trace",
        "string",
        "Write a trace of the build that Perfetto and Chrome open.",
        PIPELINE,
        BUILD,
        metavar="FILE",
    ),
    Flag(
        "args-json",
        "list",
        "Arguments as a JSON array of strings; they count as if they stood here.",
        PIPELINE,
        EVERYWHERE,
        metavar="JSON",
    ),
    Flag(
        "only-lists",
        "bool",
        "After it come list forms and their values only, each form once: no value can act as another flag.",
        PIPELINE,
        EVERYWHERE,
        default="false",
    ),
    Flag(
        "format",
        "choice",
        "How the answer is printed.",
        PIPELINE,
        ("plan", "doctor", "version", "cache list", "cache prune"),
        default="text",
        choices=("text", "json"),
    ),
    # --- Log ---
    Flag(
        "verbosity",
        "choice",
        "How much is said.",
        LOG,
        EVERYWHERE,
        default="info",
        short="v",
        choices=("trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"),
        metavar="LEVEL",
    ),
    Flag(
        "log-format",
        "choice",
        "Form of the log. Default: live lines on a terminal, plain lines elsewhere.",
        LOG,
        EVERYWHERE,
        choices=("text", "color", "json"),
    ),
    Flag(
        "log-timestamp",
        "bool",
        "Give the time of day instead of seconds since the start.",
        LOG,
        EVERYWHERE,
        default="false",
    ),
)
