"""The corpus built by Limpet and by a kaniko executor, or by BuildKit, compared file by file.

    python -m tests.kaniko.differential --executor /path/to/kaniko/executor [--only WORD]... [--report FILE]
    python -m tests.kaniko.differential --buildkit /directory/of/buildkitd/and/buildctl [...]

The executor is a static binary, e.g. from kaniko's image or from `go install` of its Go module. It takes the directory
it runs in apart, so it gets a root directory of its own for each case (chroot in a mount and PID namespace); nothing
of this machine is in there but the case's directory. Needs root, docker-registry, lighttpd and busybox-static.

Every difference is listed with the row of the table in docs/migrating-from-kaniko.md that explains it; for BuildKit,
the reasons are in tests/kaniko/buildkit.py. Exit code 1 when one has no explanation. Times of files and the wording of
errors and histories are not compared.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.kaniko.buildkit import REASONS, Buildkit, buildkit
from tests.kaniko.cases import Case, read_cases
from tests.kaniko.conftest import Servers, environment_of, fill, push_bases, run, write_case
from tests.kaniko.contents import Contents, read
from tests.kaniko.forks import Done, forks
from tests.kaniko.judge import Outcome
from tests.servers.registry import docker_registry
from tests.servers.web import web_server

_TIMEOUT = 120  # seconds for one build
_CONFIG = (
    *("Env", "Cmd", "Entrypoint", "User", "WorkingDir", "Labels", "Volumes", "ExposedPorts", "StopSignal"),
    *("Healthcheck", "OnBuild", "Shell"),
)
# Mounts as a container has them: kaniko leaves alone what is one. "$0" is the root, "$1" the case's directory.
_ENTER = """
set -e
mount -t proc proc "$0/proc"
mount -t tmpfs sysfs "$0/sys"
mount -t tmpfs dev "$0/dev"
for device in null:3 zero:5 full:7 random:8 urandom:9; do
  mknod -m 666 "$0/dev/${device%:*}" c 1 "${device#*:}"
done
for file in hosts resolv.conf; do mount --bind "$0/etc/$file" "$0/etc/$file"; done
mount --bind "$0/enter" "$0/enter"
mount --bind "$1" "$0/workspace"
root=$0
shift
exec chroot "$root" /enter/sh "$@"
"""
# What kaniko's flags of the archived version do not know; cases that use them cannot be compared with it.
_UNKNOWN_FLAG = "Error: unknown flag"
# Differences that many cases have beside their own, and the rows that explain them.
_EVERYWHERE = (
    ("config WorkingDir: None instead of '/'", "scratch"),
    ("media type application/vnd.docker.", "format"),
)


@dataclass(frozen=True)
class Verdict:
    """What came of one case: `cannot` says why it cannot be compared, `differences` have reason and text."""

    case: Case
    differences: tuple[tuple[str, str], ...] = ()
    cannot: str = ""

    @property
    def kind(self) -> str:
        if self.cannot:
            return "cannot be compared"
        return "differ" if self.differences else "same"


def explained(case: Case, differences: list[str], reason: str) -> Verdict:
    """The verdict on `differences`; `reason` is that of those that not every case has, "" if nobody knows it."""
    found = []
    for text in differences:
        everywhere = next((why for words, why in _EVERYWHERE if text.startswith(words)), "")
        found.append((everywhere or reason or "NOT EXPLAINED", text))
    return Verdict(case, tuple(found))


class Kaniko:
    """The executor in a root directory of its own."""

    def __init__(self, program: Path, scratch: Path) -> None:
        self._program = program
        self._scratch = scratch

    def run(self, case: Case, servers: Servers) -> Outcome:
        """Carry out `case`: its directory is /workspace there, as in a pod."""
        directory = Path(tempfile.mkdtemp(dir=self._scratch))
        root = directory.with_name(f"{directory.name}-root")
        inside = Path("/workspace")
        write_case(case, directory, servers.places(inside))
        with _root(root, self._program):
            arguments = servers.arguments(case, inside)
            command = [
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "sh",
                "-c",
                _ENTER,
                str(root),
                str(directory),
            ]
            env = {**environment_of(case, inside, servers), "KANIKO_DIR": "/kaniko", "DOCKER_CONFIG": "/kaniko/.docker"}
            try:
                ended = subprocess.run(
                    [*command, "--force", *arguments],
                    env=env,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=_TIMEOUT,
                    check=False,
                )
                done = Done(
                    ended.returncode, ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace")
                )
            except subprocess.TimeoutExpired:
                done = Done(-1, "", "no end within the time limit")
        return Outcome(done, directory)


@contextlib.contextmanager
def _root(root: Path, program: Path) -> Iterator[None]:
    """What kaniko's image has, and the device files that every container has."""
    for name in (
        "kaniko/.docker",
        "proc",
        "sys",
        "dev",
        "etc",
        "tmp",
        "workspace",
        "var/run",
        "kaniko/ssl/certs",
        "enter",
    ):
        (root / name).mkdir(parents=True)
    os.link(program, root / "kaniko/executor") if _same_device(program, root) else shutil.copy(
        program, root / "kaniko/executor"
    )
    # A mount, so that kaniko leaves it alone.
    shutil.copy("/bin/busybox", root / "enter/busybox")
    (root / "enter/sh").write_text('#!/enter/busybox sh\ncd /workspace && exec /kaniko/executor "$@"\n')
    (root / "enter/sh").chmod(0o755)
    for name in ("hosts", "resolv.conf"):
        (root / "etc" / name).write_text("127.0.0.1 localhost\n" if name == "hosts" else "nameserver 127.0.0.1\n")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    try:
        yield
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _same_device(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


def compare(case: Case, ours: Outcome, theirs: Outcome) -> list[str]:
    """What differs between two outcomes of one case."""
    if (ours.done.code == 0) != (theirs.done.code == 0):
        last = (theirs.done.err.strip().splitlines() or [""])[-1]
        return [f"exit code {theirs.done.code} instead of {ours.done.code}: {last}"]
    layouts = [outcome.layout / "index.json" for outcome in (ours, theirs)]
    if ours.done.code == 0 and all(layout.exists() for layout in layouts):
        return _images(read(ours.layout), read(theirs.layout))
    return []


def with_kaniko(case: Case, ours: Outcome, kaniko: Kaniko, servers: Servers) -> Verdict:
    """Limpet's outcome beside kaniko's; its exit codes count, too."""
    theirs = kaniko.run(case, servers)
    if _UNKNOWN_FLAG in theirs.done.err:
        return Verdict(case, cannot=theirs.done.err.strip().splitlines()[0])
    found = compare(case, ours, theirs)
    if ours.done.code != theirs.done.code and not found:
        found = [f"exit code {theirs.done.code} instead of {ours.done.code}"]
    return explained(case, found, case.kaniko)


def with_buildkit(case: Case, ours: Outcome, other: Buildkit, servers: Servers) -> Verdict:
    """Limpet's outcome beside BuildKit's."""
    if ours.done.code and "error: Dockerfile" not in ours.done.err and "error: stage" not in ours.done.err:
        return Verdict(case, cannot="an error of the command line, or of a registry")
    theirs = other.run(case, servers)
    if theirs is None:
        return Verdict(case, cannot=f"no such flags: {' '.join(case.arguments)}")
    # Where the base has none, it leaves the directories on which it mounts.
    found = [text for text in compare(case, ours, theirs) if text.split()[0] not in ("/dev", "/proc", "/sys")]
    return explained(case, found, REASONS.get(case.name, ""))


def _images(ours: Contents, theirs: Contents) -> list[str]:
    found = [f"/{path} is missing" for path in sorted(ours.files.keys() - theirs.files.keys())]
    found += [f"/{path} is there, too" for path in sorted(theirs.files.keys() - ours.files.keys())]
    for path in sorted(ours.files.keys() & theirs.files.keys()):
        mine, other = (replace(image.files[path], mtime=0) for image in (ours, theirs))
        if mine != other:
            names = [name for name in mine.__dataclass_fields__ if getattr(mine, name) != getattr(other, name)]
            values = ", ".join(f"{name} {getattr(other, name)!r} instead of {getattr(mine, name)!r}" for name in names)
            found.append(f"/{path}: {values[:300]}")
    for name in _CONFIG:
        pair = [image.config.get("config", {}).get(name) or None for image in (ours, theirs)]
        if pair[0] != pair[1]:
            found.append(f"config {name}: {pair[1]!r} instead of {pair[0]!r}")
    for name in ("architecture", "os", "variant", "author"):
        pair = [image.config.get(name) or None for image in (ours, theirs)]
        if pair[0] != pair[1]:
            found.append(f"{name}: {pair[1]!r} instead of {pair[0]!r}")
    types = [image.manifest["mediaType"] for image in (ours, theirs)]
    if types[0] != types[1]:
        found.append(f"media type {types[1]} instead of {types[0]}")
    return found


def main() -> int:
    """Compare, print the differences by reason, and say whether all are explained."""
    parser = argparse.ArgumentParser(description="Compare Limpet with kaniko or BuildKit.")
    other = parser.add_mutually_exclusive_group(required=True)
    other.add_argument("--executor", type=Path, help="kaniko's binary")
    other.add_argument("--buildkit", type=Path, help="directory of buildkitd and buildctl")
    parser.add_argument("--only", action="append", default=[], help="cases whose name contains this")
    parser.add_argument("--report", type=Path, help="write the report here as well")
    options = parser.parse_args()
    cases = [case for case in read_cases() if not options.only or any(word in case.name for word in options.only)]
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="differential-", dir="/var/tmp")))
        hub = stack.enter_context(docker_registry(scratch / "hub"))
        web = stack.enter_context(web_server(scratch / "web"))
        push_bases(hub.host)
        fill(web.root)
        servers = Servers(hub.host, web.host)
        executor = stack.enter_context(forks())
        if options.buildkit:
            daemon = stack.enter_context(buildkit(options.buildkit, scratch, hub.host))
        verdicts = []
        for number, case in enumerate(cases):
            directory = scratch / f"limpet{number}"
            directory.mkdir()
            ours = run(case, executor, servers, directory)
            if options.buildkit:
                verdicts.append(with_buildkit(case, ours, daemon, servers))
            else:
                verdicts.append(with_kaniko(case, ours, Kaniko(options.executor, scratch), servers))
            print(f"{number + 1}/{len(cases)} {case.name}: {verdicts[-1].kind}", file=sys.stderr)
    text = report(verdicts, kaniko=not options.buildkit)
    print(text)
    if options.report:
        options.report.write_text(text + "\n")
    return 1 if any(reason == "NOT EXPLAINED" for verdict in verdicts for reason, _ in verdict.differences) else 0


def report(verdicts: list[Verdict], *, kaniko: bool) -> str:
    """Counts, then every difference by its reason."""
    kinds = Counter(verdict.kind for verdict in verdicts)
    lines = [f"{len(verdicts)} cases: " + ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))]
    by_reason: dict[str, list[tuple[str, str]]] = {}
    for verdict in verdicts:
        for reason, text in verdict.differences or ([("cannot be compared", verdict.cannot)] if verdict.cannot else []):
            by_reason.setdefault(reason, []).append((verdict.case.name, text))
    for reason, members in sorted(by_reason.items()):
        lines += ["", f"{reason}: {len({name for name, _ in members})} cases"]
        lines += [f"  {name}: {text}" for name, text in members]
    if kaniko:
        lines += _alike(verdicts)
    return "\n".join(lines)


def _alike(verdicts: list[Verdict]) -> list[str]:
    alike = [verdict.case.name for verdict in verdicts if verdict.kind == "same" and verdict.case.kaniko]
    if not alike:
        return []
    return ["", "expected to differ, and do not with this executor:", *(f"  {name}" for name in alike)]


if __name__ == "__main__":
    raise SystemExit(main())
