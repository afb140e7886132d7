"""How an image was made: an in-toto statement with SLSA provenance (slsa.dev/spec/v1.0/provenance)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from builder import __version__
from builder.cli.settings import Settings
from builder.outputs import repository_of
from builder.plan.history import timestamp

_HOME = "https://limpet.example.com"


def statement(
    settings: Settings,
    names: Sequence[str],
    digest: str,
    origins: Mapping[str, Any],
    started: float,
    finished: float,
) -> dict[str, Any]:
    """The statement about the image `digest` in the repositories `names`; times are those of time.time().

    Of build arguments there are only the names: people put secrets into them.
    """
    algorithm, _, value = digest.partition(":")
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {algorithm: value}} for name in (names or ["image"])],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": f"{_HOME}/dockerfile/v1",
                "externalParameters": _parameters(settings, origins),
                "internalParameters": {"isolation": settings.build.isolation},
                "resolvedDependencies": [*_contexts(origins), *_bases(origins)],
            },
            "runDetails": {
                "builder": {"id": f"{_HOME}/executor", "version": {"limpet": __version__}},
                "metadata": {"startedOn": timestamp(int(started)), "finishedOn": timestamp(int(finished))},
            },
        },
    }


def _parameters(settings: Settings, origins: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "context": origins["context"]["source"],
        "contextSubPath": settings.source.sub_path,
        "dockerfile": settings.source.dockerfile.partition("?")[0],
        "targets": list(settings.build.targets),
        "platforms": [str(platform) for platform in settings.build.platforms],
        "buildArgNames": sorted(settings.build.build_args),
        "labels": dict(settings.image.labels),
        "reproducible": settings.image.reproducible,
    }


def _contexts(origins: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those that have a revision: where a directory of the pod came from, the build does not know."""
    found = []
    for context in (origins["context"], *origins["contexts"].values()):
        kind, revision = context.get("revision_kind", ""), context.get("revision", "")
        if kind == "commit":
            found.append({"uri": f"git+{context['source']}", "digest": {"gitCommit": revision}})
        elif kind == "digest":
            algorithm, _, value = revision.partition(":")
            found.append({"uri": context["source"], "digest": {algorithm: value}})
        elif revision:
            found.append({"uri": context["source"], "annotations": {kind: revision}})
    return found


def _bases(origins: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for base in origins["bases"]:
        algorithm, _, value = base["digest"].partition(":")
        uri = f"docker://{repository_of(base['reference'])}@{base['digest']}"
        found.append({"uri": uri, "digest": {algorithm: value}, "annotations": {"platform": base["platform"]}})
    return found
