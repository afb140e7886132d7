"""Limpet beside its peers: the same contexts, the same registry, one run, ratios.

    python benchmarks/run.py [--rounds N] [--only NAME] [--json FILE]

Every build is cold and pushes. Rounds are interleaved and medians are compared, so that a busy machine disturbs
all alike. Needs root, and what `make setup` installs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.measure import Measurement, measure
from benchmarks.peers import Buildah, Limpet, Peer
from benchmarks.scenarios import SCENARIOS, Scenario
from tests.servers.registry import docker_registry

ROOT = Path(__file__).parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", default=[], help="a scenario's name; repeatable")
    parser.add_argument("--json", type=Path, help="write every measurement here")
    options = parser.parse_args()
    chosen = [scenario for scenario in SCENARIOS if not options.only or scenario.name in options.only]
    peers: list[Peer] = [Limpet(), Buildah()]
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="limpet-bench-", dir="/var/tmp")))
        server = stack.enter_context(docker_registry(work / "registry"))
        base = big_base(work, server.host)
        results = {}
        for scenario in chosen:
            results[scenario.name] = compare(scenario, peers, work, base, server.host, options.rounds)
            report(scenario, results[scenario.name])
    if options.json:
        options.json.write_text(json.dumps(results, indent=1, default=lambda m: [m.wall, m.cpu, m.memory]))
    return 0


def big_base(work: Path, host: str) -> str:
    """Debian with a compiler, Python and git: some 25,000 files, made by Limpet itself."""
    print("making the base image", flush=True)
    archive = ROOT / ".cache/debian-bookworm.tar"
    subprocess.run([ROOT / "scripts/debian-base.sh", archive], check=True)
    context = work / "base"
    context.mkdir()
    os.link(archive, context / "rootfs.tar")
    (context / "Dockerfile").write_text(
        "FROM scratch AS debian\nADD rootfs.tar /\n"
        "FROM debian\nRUN apt-get update -qq\n"
        "RUN apt-get install -y -qq --no-install-recommends gcc libc6-dev python3 git\n"
    )
    reference = f"{host}/base:latest"
    subprocess.run(
        [sys.executable, "-m", "builder", f"--context={context}", f"--destination={reference}", f"--work-dir={work}/w"],
        check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return reference


def compare(
    scenario: Scenario, peers: list[Peer], work: Path, base: str, host: str, rounds: int
) -> dict[str, list[Measurement]]:
    """Every peer builds the scenario `rounds` times, taking turns."""
    context = work / "contexts" / scenario.name
    scenario.write(context, base)
    results: dict[str, list[Measurement]] = {peer.name: [] for peer in peers}
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    for number in range(rounds):
        for peer in peers:
            state = work / f"state-{peer.name}"
            peer.prepare(state)
            # A new repository each time: nothing of the image is there yet.
            destination = f"{host}/{scenario.name}-{peer.name}-{number}:latest"
            results[peer.name].append(measure(peer.commands(context, destination, state), cwd=work, env=env))
            peer.prepare(state)
    return results


def report(scenario: Scenario, results: dict[str, list[Measurement]]) -> None:
    """One line a peer: medians, and ratios to the others."""
    print(f"\n{scenario.title}", flush=True)
    ours = _median(results["limpet"])
    for name, measurements in results.items():
        median = _median(measurements)
        ratio = "" if name == "limpet" else (
            f"   limpet is {ours.wall / median.wall:.2f}x wall, {ours.cpu / median.cpu:.2f}x CPU, "
            f"{ours.memory / median.memory:.2f}x memory"
        )  # fmt: skip
        print(f"  {name:10} {median.wall:6.2f} s wall {median.cpu:6.2f} s CPU {median.memory / 2**20:6.0f} MiB{ratio}")


def _median(measurements: list[Measurement]) -> Measurement:
    return Measurement(
        statistics.median(m.wall for m in measurements),
        statistics.median(m.cpu for m in measurements),
        int(statistics.median(m.memory for m in measurements)),
    )


if __name__ == "__main__":
    sys.exit(main())
