"""`limpet doctor`: what this pod allows, found out by trying; nothing is changed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from builder.cli.arguments import Arguments
from builder.cli.doctor_report import DestinationFinding, Report, WorkDirectory, to_json, to_text
from builder.cli.known_secrets import mask_environment
from builder.cli.output import Output
from builder.cli.registry_access import registry_access
from builder.cli.wiring import registries, work_parent
from builder.errors import EXIT_FAILURE, BuildError, RegistryError, UsageError
from builder.isolation.container import Mounted, is_below, mounts
from builder.isolation.enter import subordinate_ids
from builder.isolation.survey import survey
from builder.oci.reference import Reference
from builder.registry.registries import Registries


def run(arguments: Arguments, env: Mapping[str, str], output: Output) -> int:
    """Print the findings; the exit code is 1 when a build would fail by one of them.

    Raises UsageError for a destination that is no name.
    """
    mask_environment(env, output.redactor)
    names = arguments.items("destination")
    references = [Reference.parse(name) for name in names]
    asked = arguments.text("work-dir")
    parent = work_parent(Path(asked) if asked else None, env)
    with _place(parent) as (place, failure):
        found = survey(place)  # before any thread exists
        work = WorkDirectory(str(parent), failure) if failure else _measured(parent)
    ids = subordinate_ids(os.geteuid())
    report = Report(
        found,
        arguments.text("isolation"),
        work,
        sum(count for _, _, count in ids[0]) if ids else 0,
        _destinations(arguments, env, output, references) if references else (),
    )
    text = json.dumps(to_json(report), indent=2) if arguments.text("format") == "json" else to_text(report)
    print(output.redactor.mask(text))
    return 0 if report.healthy else EXIT_FAILURE


@contextmanager
def _place(parent: Path) -> Iterator[tuple[Path, str]]:
    """A directory to try things in, and why it is not below `parent`; what was made for it is removed again.

    Raises UsageError when there is nowhere that this uid may write to.
    """
    absent = [path for path in (parent, *parent.parents) if not os.path.lexists(path)]
    place, failure = None, ""
    try:
        try:
            parent.mkdir(parents=True, exist_ok=True)
            place = Path(tempfile.mkdtemp(prefix="limpet-doctor-", dir=parent))
        except OSError as error:
            failure = f"it cannot be written: {error.strerror}"
            place = _elsewhere(parent)
        yield place, failure
    finally:
        if place:
            shutil.rmtree(place, ignore_errors=True)
        for path in absent:
            with suppress(OSError):  # it was not made after all, or others use it by now
                path.rmdir()


def _elsewhere(parent: Path) -> Path:
    for directory in ("/tmp", "/var/tmp", "/dev/shm"):
        try:
            return Path(tempfile.mkdtemp(prefix="limpet-doctor-", dir=directory))
        except OSError:
            continue
    raise UsageError(f"no directory can be written: neither {parent} nor /tmp", "give the pod an emptyDir volume there")


def _measured(parent: Path) -> WorkDirectory:
    """The file system of `parent`, or of what is there of it."""
    directory = next(path for path in (parent, *parent.parents) if os.path.exists(path))
    numbers = os.statvfs(directory)
    return WorkDirectory(str(parent), "", _filesystem(directory), numbers.f_bavail * numbers.f_frsize, numbers.f_favail)


def _filesystem(directory: Path) -> str:
    """The type of the mount that `directory` is on, as mount(8) calls it."""
    path, found = os.path.realpath(directory), Mounted("", "unknown")
    for mount in mounts():
        if is_below(path, mount.point) and len(mount.point) >= len(found.point):
            found = mount  # of several on one point, the last hides the others
    return found.kind


def _destinations(
    arguments: Arguments, env: Mapping[str, str], output: Output, references: list[Reference]
) -> tuple[DestinationFinding, ...]:
    try:
        client = registries(registry_access(arguments, env), env, output)
    except BuildError as error:  # a configuration that cannot be read
        return tuple(DestinationFinding(str(each), False, error.message, error.hint) for each in references)
    findings = tuple(_destination(client, reference) for reference in references)
    client.close()
    return findings


def _destination(client: Registries, reference: Reference) -> DestinationFinding:
    credential = looked_in = failure = hint = ""
    reachable = True
    try:
        lookup = client.keychain.find(reference.registry, reference.repository)
        looked_in = lookup.places
        if lookup.credential:
            credential = f"{lookup.credential.kind} from {lookup.credential.origin}"
        client.repository(reference, "push").check_push()
    except BuildError as error:
        failure, hint = error.message, error.hint
        reachable = isinstance(error, RegistryError) and error.status > 0
    return DestinationFinding(str(reference), reachable, failure, hint, credential, looked_in)
