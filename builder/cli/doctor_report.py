"""What `limpet doctor` found: as JSON, and as text for people."""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from builder.cli.output.quantities import bytes_text
from builder.isolation.choose import Candidate
from builder.isolation.survey import Survey

_WIDTH = 110  # columns; a pod's log has no width of its own
_EMPTY_DIR = """\
volumes:
  - name: work
    emptyDir: {{}}
containers:
  - volumeMounts:
      - name: work
        mountPath: {directory}
"""


@dataclass(frozen=True, slots=True)
class WorkDirectory:
    """Where a build would put its files. `failure` says why it cannot, "" when it can; sizes are in bytes."""

    path: str
    failure: str = ""
    filesystem: str = ""
    free: int = 0
    free_files: int = 0


@dataclass(frozen=True, slots=True)
class DestinationFinding:
    """What a registry says to a push. `credential` is its kind and origin, "" for none; `looked_in` where was looked.

    `failure` is "" when a push is allowed; `reachable` says whether the registry answered at all.
    """

    name: str
    reachable: bool
    failure: str = ""
    hint: str = ""
    credential: str = ""
    looked_in: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was found out for a build with `--isolation=requested`."""

    survey: Survey
    requested: str
    work: WorkDirectory
    subordinate_ids: int
    destinations: tuple[DestinationFinding, ...] = ()

    @property
    def taken(self) -> Candidate:
        return self.survey.taken(self.requested)

    @property
    def healthy(self) -> bool:
        """Whether a build has its work directory, its isolation and its destinations."""
        return self.taken.works and not self.work.failure and not any(each.failure for each in self.destinations)


def to_json(report: Report) -> dict[str, Any]:
    """Members are only ever added; yaml members are lines for a pod's definition, "" when none would help."""
    found = report.survey.confinement
    return {
        "healthy": report.healthy,
        "pod": {
            "uid": found.uid,
            "gid": found.gid,
            "groups": list(found.groups),
            "capabilities": list(found.capabilities),
            "no_new_privileges": found.no_new_privileges,
            "seccomp": found.seccomp,
            "security_module": found.security_module,
            "user_namespaces_limit": found.user_namespaces,
            "subordinate_ids": report.subordinate_ids,
        },
        "work_directory": {
            "path": report.work.path,
            "failure": report.work.failure,
            "filesystem": report.work.filesystem,
            "free_bytes": report.work.free,
            "free_files": report.work.free_files,
            "overlay": report.survey.no_overlay == "",
            "overlay_failure": _overlay_failure(report.survey),
            "yaml": _work_yaml(report),
        },
        "isolations": [
            {"name": each.name, "works": each.works, "reason": each.reason, "yaml": each.yaml}
            for each in report.survey.candidates
        ],
        "isolation": {"requested": report.requested, "taken": report.taken.name, "works": report.taken.works},
        "destinations": [
            {
                "name": each.name,
                "reachable": each.reachable,
                "push": not each.failure,
                "failure": each.failure,
                "hint": each.hint,
                "credential": each.credential,
                "looked_in": each.looked_in,
            }
            for each in report.destinations
        ],
    }


def to_text(report: Report) -> str:
    """Tables of what is, then the lines that would allow more."""
    parts = [
        _table("This pod", _pod_rows(report)),
        _table("Isolation", _isolation_rows(report)),
        _table("Destinations", _destination_rows(report)) if report.destinations else "",
        *_advice(report),
    ]
    return "\n".join(filter(None, parts))


def _pod_rows(report: Report) -> list[tuple[str, str]]:
    found, work = report.survey.confinement, report.work
    namespaces = report.survey.candidates[0]
    ids = sum(count for _, _, count in report.survey.uid_map)
    limit = "" if found.user_namespaces is None else f"the node allows {found.user_namespaces}"
    space = f"{bytes_text(work.free)}, {work.free_files} files" if work.filesystem else "not known"
    return [
        ("uid", f"{found.uid}, gid {found.gid}"),
        ("capabilities", ", ".join(found.capabilities) or "none"),
        ("privilege escalation", "forbidden" if found.no_new_privileges else "allowed"),
        ("seccomp", found.seccomp),
        ("security module", found.security_module or "none"),
        ("user namespaces", f"allowed, {ids or 1} id{'s' * (ids > 1)}" if namespaces.works else f"refused; {limit}"),
        ("subordinate ids", str(report.subordinate_ids or "none")),
        ("work directory", work.path + (f": {work.failure}" if work.failure else f" ({work.filesystem})")),
        ("overlay on it", "works" if report.survey.no_overlay == "" else _overlay_failure(report.survey)),
        ("free space", space),
    ]


def _overlay_failure(survey: Survey) -> str:
    return "not tried: it needs namespaces" if survey.no_overlay is None else survey.no_overlay


def _isolation_rows(report: Report) -> list[tuple[str, str]]:
    rows = [
        (each.name, ("works" if each.works else "no") + (f": {each.reason}" if each.reason else ""))
        for each in report.survey.candidates
    ]
    taken = report.taken
    text = taken.name if taken.works else f"--isolation={taken.name} fails"
    return [*rows, ("a build takes", text + ("; RUN is an error" if taken.name == "none" else ""))]


def _destination_rows(report: Report) -> list[tuple[str, str]]:
    rows = []
    for each in report.destinations:
        answer = "a push is allowed" if not each.failure else each.failure
        lines = [answer, each.hint, f"credential: {each.credential or f'none; looked in {each.looked_in}'}"]
        rows.append((each.name, "\n".join(filter(None, lines))))
    return rows


def _advice(report: Report) -> list[str]:
    blocks = []
    for candidate in report.survey.better(report.survey.taken()):
        if candidate.yaml:
            head = f"For {candidate.name}, in the YAML of the container (in Tekton, of the step):"
            blocks.append(f"{head}\n\n{textwrap.indent(candidate.yaml, '    ')}")
    if work_yaml := _work_yaml(report):
        head = "For a work directory that is faster, in the YAML of the pod:"
        blocks.append(f"{head}\n\n{textwrap.indent(work_yaml, '    ')}")
    return blocks


def _work_yaml(report: Report) -> str:
    """A volume where the container's own file system cannot be written, or cannot carry an overlay."""
    return _EMPTY_DIR.format(directory=report.work.path) if report.work.failure or report.survey.no_overlay else ""


def _table(title: str, rows: list[tuple[str, str]]) -> str:
    table = Table(show_header=False, title=title, title_justify="left", title_style="bold")
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    stream = io.StringIO()
    Console(file=stream, width=_WIDTH, markup=False, emoji=False, highlight=False).print(table)
    return stream.getvalue()
