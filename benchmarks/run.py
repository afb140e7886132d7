"""Limpet beside its peers: the same contexts, the same registry, one run, ratios.

    python benchmarks/run.py [--list] [--only NAME]... [--rounds N] [--json FILE] [--write-docs]

Every build begins with nothing local (the warm ones with the base image only) and pushes. Rounds are interleaved and
medians are compared, so that a busy machine disturbs all alike. With --json a run that was broken off goes on where
it was. kaniko and BuildKit take part when they are there: `benchmarks/get-peers.sh` builds them with Go, --kaniko and
--buildkit name others. Needs root, loop devices, and what `make setup` installs.
"""

from __future__ import annotations

import argparse
import compileall
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.disk import disk
from benchmarks.measure import Failed, Measurement, measure
from benchmarks.network import Line, Proxy, proxy
from benchmarks.peers import Buildah, BuildKit, Job, Kaniko, Limpet, Peer, cold, limpet_environment
from benchmarks.results import Results, lines, markdown, picture
from benchmarks.scenarios import SCENARIOS, Scenario
from tests.servers.registry import docker_registry

ROOT = Path(__file__).parent.parent
PEERS = ROOT / ".cache/peers"
DOCS = ROOT / "docs/performance.md"
PICTURE = ROOT / "docs/performance.svg"
BEGIN, END = "<!-- benchmarks/run.py writes from here -->\n", "<!-- to here -->\n"


def main() -> int:
    options = _options()
    chosen = [scenario for scenario in SCENARIOS if not options.only or scenario.name in options.only]
    peers = available(options)
    if options.list:
        for scenario in chosen:
            print(f"{scenario.name:15} {scenario.minutes * options.rounds:5.1f} min  {scenario.title}")
        print(f"together about {sum(s.minutes for s in chosen) * options.rounds:.0f} min with {options.rounds} rounds")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the disk is unmounted
    results = Results(options.json)
    results.machine = machine()
    with laboratory() as lab:
        for scenario in chosen:
            compare(scenario, [peer for peer in peers if peer.name in scenario.peers], lab, results, options.rounds)
            print("\n" + "\n".join(lines(scenario, results)), flush=True)
    if options.write_docs:
        write_docs(results)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="say what would be measured, and how long it takes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", default=[], help="a scenario's name; repeatable")
    parser.add_argument("--without", action="append", default=[], help="a peer's name; repeatable")
    parser.add_argument("--json", type=Path, help="write every measurement here, and go on with what is there")
    parser.add_argument("--write-docs", action="store_true", help="write the table and the picture into docs/")
    parser.add_argument("--kaniko", type=Path, default=PEERS / "executor", help="kaniko's executor")
    parser.add_argument("--buildkit", type=Path, default=PEERS, help="directory with buildkitd and buildctl")
    return parser.parse_args()


def available(options: argparse.Namespace) -> list[Peer]:
    """The peers that are on this machine."""
    peers: list[Peer] = [Limpet(), Limpet(warm=True)]
    if options.kaniko.exists():
        peers.append(Kaniko(options.kaniko))
    if (options.buildkit / "buildkitd").exists():
        peers += [BuildKit(options.buildkit), BuildKit(options.buildkit, warm=True)]
    if shutil.which("buildah"):
        peers.append(Buildah())
    return [peer for peer in peers if peer.name not in options.without]


@dataclass(frozen=True, slots=True)
class Laboratory:
    """Where everything is measured: `disk` for the builders' states, `work` for all else."""

    work: Path
    disk: Path
    host: str
    base: str
    env: dict[str, str]


@contextmanager
def laboratory(*, with_base: bool = True) -> Iterator[Laboratory]:
    """A registry, with the base image, a disk, and Limpet's modules compiled."""
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="limpet-bench-", dir="/var/tmp")))
        server = stack.enter_context(docker_registry(work / "registry"))
        place = stack.enter_context(disk(work))
        env = limpet_environment(work / "pycache")
        sys.pycache_prefix = str(work / "pycache")
        for package in ("builder", "context_sources"):
            compileall.compile_dir(ROOT / package, quiet=1)
        base = big_base(work, place / "base", server.host, env) if with_base else ""
        yield Laboratory(work, place, server.host, base, env)


def big_base(work: Path, state: Path, host: str, env: dict[str, str]) -> str:
    """Debian with a compiler, Python and git: some 25,000 files, made by Limpet itself."""
    print("making the base image", flush=True)
    archive = ROOT / ".cache/debian-bookworm.tar"
    subprocess.run([ROOT / "scripts/debian-base.sh", archive], check=True)
    context = work / "base"
    context.mkdir()
    try:
        os.link(archive, context / "rootfs.tar")
    except OSError:
        shutil.copy(archive, context / "rootfs.tar")
    (context / "Dockerfile").write_text(
        "FROM scratch AS debian\nADD rootfs.tar /\n"
        "FROM debian\nRUN apt-get update -qq\n"
        "RUN apt-get install -y -qq --no-install-recommends gcc libc6-dev python3 git\n"
    )
    reference = f"{host}/base:latest"
    command = [sys.executable, "-m", "builder", f"--context={context}", f"--destination={reference}"]
    subprocess.run([*command, f"--work-dir={state}"], check=True, cwd=ROOT, env=env, capture_output=True)
    return reference


def compare(scenario: Scenario, peers: list[Peer], lab: Laboratory, results: Results, rounds: int) -> None:
    """Every peer builds the scenario until there are `rounds` measurements, taking turns."""
    if all(results.done(scenario.name, peer.name) >= rounds for peer in peers):
        return
    context = lab.work / "contexts" / scenario.name
    with proxy(lab.host, scenario.line or Line()) as slow:
        host, base = lab.host, lab.base
        if scenario.line:
            host, base = slow.host, f"{slow.host}/{lab.base.partition('/')[2]}"
        scenario.write(context, base)
        for number in range(rounds):
            for peer in peers:
                if results.done(scenario.name, peer.name) > number or scenario.name in _failed(results, peer):
                    continue
                # A new repository each time: nothing of the image is there yet.
                name = f"{host}/{scenario.name}-{peer.name.partition(',')[0]}-{time.time_ns()}"
                job = Job(
                    context, f"{name}:latest", host, lab.disk / "state", base, scenario.change and f"{name}/cache"
                )
                try:
                    measured = build(scenario, peer, job, lab, slow)
                except (Failed, subprocess.CalledProcessError) as error:
                    results.fail(scenario.name, peer.name, str(error))
                else:
                    results.add(scenario.name, peer.name, measured)
    shutil.rmtree(context)


def _failed(results: Results, peer: Peer) -> set[str]:
    return {scenario for scenario, failures in results.failures.items() if peer.name in failures}


def build(scenario: Scenario, peer: Peer, job: Job, lab: Laboratory, slow: Proxy) -> Measurement:
    """One measured build; with a cache, after one that fills it."""
    if scenario.change:
        changed = job.state.parent / "context"
        shutil.copytree(job.context, changed)
        try:
            job = replace(job, context=changed)
            with cold(peer, job) as daemon:
                measure(peer.commands(job), cwd=lab.work, env=lab.env, daemon=daemon)
            scenario.change(changed)
            return _measured(peer, job, lab, slow)
        finally:
            shutil.rmtree(changed)
    return _measured(peer, job, lab, slow)


def _measured(peer: Peer, job: Job, lab: Laboratory, slow: Proxy) -> Measurement:
    with cold(peer, job) as daemon:
        os.sync()  # what others wrote is not written back during this one's time
        before = slow.moved
        measured = measure(peer.commands(job), cwd=lab.work, env=lab.env, daemon=daemon)
        return replace(measured, moved=slow.moved - before)


def machine() -> dict[str, str]:
    """What the figures were measured on, and how busy it was."""
    load = os.getloadavg()
    with open("/proc/meminfo") as lines_:
        memory = int(lines_.readline().split()[1]) >> 20
    return {
        "cores": str(os.cpu_count()),
        "memory": f"{memory} GiB",
        "Linux": platform.release().partition("-")[0],
        "load before": f"{load[0]:.1f}",
        "on": time.strftime("%Y-%m-%d"),
    }


def write_docs(results: Results) -> None:
    """Put the table between its marks in docs/performance.md, and the picture beside it."""
    before, _, rest = DOCS.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    DOCS.write_text(f"{before}{BEGIN}\n![ratios]({PICTURE.name})\n\n{markdown(results)}\n{END}{after}")
    PICTURE.write_text(picture(results))


if __name__ == "__main__":
    sys.exit(main())
