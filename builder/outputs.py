"""Files that tell a pipeline what was built: digest files, Tekton results, BUILDER_OUTPUT, metadata.

`write_names` is called as soon as the digest is known, so that the files are there even when the push fails;
`write_results` when the build is complete, pushed or not. References are `registry/repository:tag`, in full.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from builder.errors import BuildError

RESULTS = (
    *("IMAGE_URL", "IMAGE_DIGEST", "IMAGES", "IMAGE_REF", "image-ARTIFACT_OUTPUTS", "base-ARTIFACT_INPUTS"),
    *("CHAINS-GIT_URL", "CHAINS-GIT_COMMIT"),
)
_PUT_ATTEMPTS = 3
# Bytes of a pod's termination message, by which Tekton carries the results of a step, and what each result takes of
# it besides its name and value.
_TERMINATION_MESSAGE, _RESULT_FRAME = 4096, 40


@dataclass(frozen=True, slots=True)
class ResultFiles:
    """Which files are wanted; "" and None are not. `digest_file` may be an https:// URL that takes a PUT."""

    digest_file: str = field(default="", repr=False)  # a pre-signed URL is a credential
    name_with_digest_file: str = ""
    name_tag_with_digest_file: str = ""
    results_directory: Path | None = None
    results: Mapping[str, Path] = field(default_factory=dict)  # members of RESULTS that have a file of their own
    metadata_file: Path | None = None
    builder_output: Path | None = None


@dataclass(frozen=True, slots=True)
class BaseImage:
    """An image that went into the build: `name` without tag and digest, `digest` of its manifest."""

    name: str
    digest: str


def repository_of(reference: str) -> str:
    """`reference` without its tag and digest."""
    reference = reference.partition("@")[0]
    repository, colon, tag = reference.rpartition(":")
    return repository if colon and "/" not in tag else reference


def write_names(files: ResultFiles, references: Sequence[str], digest: str) -> None:
    """`--digest-file` and the two files of image names. Raises BuildError when one cannot be written."""
    if files.digest_file.startswith("https://"):
        _put(files.digest_file, digest)
    elif files.digest_file:
        _write(files.digest_file, digest, "--digest-file")
    if files.name_with_digest_file:
        lines = "".join(f"{repository_of(reference)}@{digest}\n" for reference in references)
        _write(files.name_with_digest_file, lines, "--image-name-with-digest-file")
    if files.name_tag_with_digest_file:
        lines = "".join(f"{reference.partition('@')[0]}@{digest}\n" for reference in references)
        _write(files.name_tag_with_digest_file, lines, "--image-name-tag-with-digest-file")


def write_results(
    files: ResultFiles,
    references: Sequence[str],
    digest: str,
    bases: Sequence[BaseImage] = (),
    metadata: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Tekton results, which are returned, BUILDER_OUTPUT and the metadata file.

    Raises BuildError when one cannot be written.

    `bases` begins with the base of the image's own stage. `metadata` goes into the metadata file beside the keys
    that buildx writes; its `context`, if that is a commit, is a result, too.
    """
    context = (metadata or {}).get("context", {})
    results = tekton_results(references, digest, bases, context)
    for name, text in results.items():
        if files.results_directory:
            _write(str(files.results_directory / name), text, "--results-dir")
        if name in files.results:
            _write(str(files.results[name]), text, "--result")
    if files.builder_output:
        lines = "".join(json.dumps({"name": reference, "digest": digest}) + "\n" for reference in references)
        _write(str(files.builder_output / "images"), lines, "BUILDER_OUTPUT")
    if files.metadata_file:
        value = {"containerimage.digest": digest, "image.name": ",".join(references), **(metadata or {})}
        _write(str(files.metadata_file), json.dumps(value, indent=2) + "\n", "--metadata-file")
    return results


def tekton_results(
    references: Sequence[str], digest: str, bases: Sequence[BaseImage], context: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Result name -> text without a newline, as Tekton Chains reads them.

    Without a name there is only IMAGE_DIGEST; without a base image there is no base-ARTIFACT_INPUTS; CHAINS-GIT_*
    are there when `context` (source, revision, revision_kind) is a commit. IMAGES has each repository once,
    separated by commas, so that many tags stay within Tekton's 4096 bytes.
    """
    results = {"IMAGE_DIGEST": digest}
    if references:
        repositories = list(dict.fromkeys(repository_of(reference) for reference in references))
        results["IMAGE_URL"] = references[0]
        results["IMAGE_REF"] = f"{repositories[0]}@{digest}"
        results["IMAGES"] = ",".join(f"{repository}@{digest}" for repository in repositories)
        output = {"uri": repositories[0], "digest": digest, "isBuildArtifact": "true"}
        results["image-ARTIFACT_OUTPUTS"] = json.dumps(output, separators=(",", ":"))
    if bases:
        base = {"uri": bases[0].name, "digest": bases[0].digest}
        results["base-ARTIFACT_INPUTS"] = json.dumps(base, separators=(",", ":"))
    if context and context.get("revision_kind") == "commit":
        results |= {"CHAINS-GIT_URL": context["source"], "CHAINS-GIT_COMMIT": context["revision"]}
    return results


def too_large_for_tekton(results: Mapping[str, str]) -> str:
    """Why `results` do not reach Tekton whole unless it reads them from a sidecar's log; "" when they do."""
    size = sum(len(name) + len(json.dumps(text).encode()) + _RESULT_FRAME for name, text in results.items())
    if size <= _TERMINATION_MESSAGE:
        return ""
    return (
        f"the results take {size} bytes of the {_TERMINATION_MESSAGE} that Tekton can carry: build for fewer "
        "repositories in one task, or set results-from: sidecar-logs in Tekton's feature flags"
    )


def _write(path: str, text: str, flag: str) -> None:
    """Write a file, or something like /dev/termination-log that is there already; parents are made."""
    try:
        parent = os.path.dirname(path)
        if parent and not os.path.exists(parent):
            os.makedirs(parent, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        with open(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise BuildError(
            f"{flag}: cannot write {path}: {error.strerror}", "give a path in a directory that can be written"
        ) from None


def _put(url: str, digest: str) -> None:
    """PUT as text/plain. What names the URL leaves out its user and query, which are credentials."""
    import requests  # most builds write files only

    parts = urlsplit(url)
    shown = f"https://{parts.hostname}{parts.path}"
    for attempt in range(_PUT_ATTEMPTS):
        if attempt:
            time.sleep(2.0 ** (attempt - 1))
        try:
            answer = requests.put(url, data=digest.encode(), headers={"Content-Type": "text/plain"}, timeout=60)
        except requests.RequestException as error:
            fact, transient = f"--digest-file: PUT {shown}: {type(error).__name__}", True
            continue
        if answer.ok:
            return
        transient = answer.status_code in (408, 429) or answer.status_code >= 500
        fact = f"--digest-file: PUT {shown}: {answer.status_code} {answer.reason}"
        if not transient:
            break
    raise BuildError(fact, "a pre-signed URL must allow PUT with Content-Type: text/plain", transient=transient)
