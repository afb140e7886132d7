"""Measurements on disk, and what is said of them: a table, a picture."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.measure import Measurement
from benchmarks.scenarios import SCENARIOS, Scenario

# What Limpet's wall time may be, as a part of the peer's.
TARGETS = {"kaniko": 0.5, "buildkit": 0.8, "buildah": 0.5, "buildkit, warm daemon": 1.0}
CACHED_TARGET = 0.2  # of kaniko's, when nothing changed
COLOURS = {"kaniko": "#d62728", "buildkit": "#1f77b4", "buildah": "#2ca02c", "buildkit, warm daemon": "#9467bd"}


class Results:
    """Measurements by scenario and peer, in a JSON file that is written after each: a run can be gone on with."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.failures: dict[str, dict[str, str]] = {}
        self.measured: dict[str, dict[str, list[Measurement]]] = {}
        self.machine: dict[str, Any] = {}
        if path and path.exists():
            said = json.loads(path.read_text())
            self.machine = said["machine"]
            self.measured = {
                scenario: {peer: [Measurement(**values) for values in rounds] for peer, rounds in peers.items()}
                for scenario, peers in said["measured"].items()
            }

    def done(self, scenario: str, peer: str) -> int:
        """How many rounds there are."""
        return len(self.measured.get(scenario, {}).get(peer, ()))

    def add(self, scenario: str, peer: str, measurement: Measurement) -> None:
        self.measured.setdefault(scenario, {}).setdefault(peer, []).append(measurement)
        self.save()

    def fail(self, scenario: str, peer: str, why: str) -> None:
        self.failures.setdefault(scenario, {})[peer] = why

    def save(self) -> None:
        if self._path:
            measured = {
                scenario: {peer: [asdict(one) for one in rounds] for peer, rounds in peers.items()}
                for scenario, peers in self.measured.items()
            }
            self._path.write_text(json.dumps({"machine": self.machine, "measured": measured}, indent=1) + "\n")

    def medians(self, scenario: str) -> dict[str, Measurement]:
        return {peer: median(rounds) for peer, rounds in self.measured.get(scenario, {}).items() if rounds}


def median(rounds: Sequence[Measurement]) -> Measurement:
    """Each figure's median."""
    return Measurement(
        statistics.median(one.wall for one in rounds),
        statistics.median(one.cpu for one in rounds),
        int(statistics.median(one.memory for one in rounds)),
        int(statistics.median(one.moved for one in rounds)),
    )


def ours(peer: str, medians: Mapping[str, Measurement]) -> Measurement | None:
    """What Limpet has to show beside `peer`."""
    return medians.get("limpet, warm store" if "warm" in peer else "limpet")


def target(scenario: str, peer: str) -> float:
    return CACHED_TARGET if scenario == "cached" and peer == "kaniko" else TARGETS[peer]


def lines(scenario: Scenario, results: Results) -> list[str]:
    """For the terminal: a line a peer."""
    medians = results.medians(scenario.name)
    said = [f"{scenario.title} ({scenario.name})"]
    for peer, value in medians.items():
        mine = ours(peer, medians)
        moved = f" {value.moved / 1000:9.0f} kB moved" if value.moved else ""
        text = f"  {peer:22} {value.wall:6.2f} s wall {value.cpu:6.2f} s CPU {value.memory / 2**20:5.0f} MiB{moved}"
        if mine and not peer.startswith("limpet"):
            ratio = mine.wall / value.wall
            verdict = "" if ratio <= target(scenario.name, peer) else f"  MISSED {target(scenario.name, peer)}"
            text += f"   limpet: {ratio:.2f}x wall, {mine.cpu / value.cpu:.2f}x CPU{verdict}"
        said.append(text)
    said += [f"  {peer:22} failed: {why[-300:]}" for peer, why in results.failures.get(scenario.name, {}).items()]
    return said


def markdown(results: Results) -> str:
    """A table: a row a scenario, wall time, CPU time and peak memory a peer, and Limpet's ratio in wall time."""
    peers = [peer for peer in COLOURS if any(peer in results.medians(s.name) for s in SCENARIOS)]
    columns = ["limpet", *peers]
    rows = [
        "| scenario | " + " | ".join(columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for scenario in SCENARIOS:
        medians = results.medians(scenario.name)
        if medians:
            cells = [_cell(scenario.name, peer, medians) for peer in columns]
            rows.append(f"| {scenario.title} | " + " | ".join(cells) + " |")
    counts = {len(rounds) for peers in results.measured.values() for rounds in peers.values()} or {0}
    least, most = min(counts), max(counts)
    rounds = "1 round" if most == 1 else f"{most} rounds" if least == most else f"{least} to {most} rounds"
    machine = ", ".join(f"{key} {value}" for key, value in results.machine.items())
    return (
        f"Medians of {rounds}; {machine}.\n"
        "A cell: wall time, CPU time, peak memory, and in bold Limpet's wall time as a part of the peer's.\n\n"
        + "\n".join(rows)
        + "\n"
    )


def _cell(scenario: str, peer: str, medians: Mapping[str, Measurement]) -> str:
    value = medians.get(peer)
    if value is None:
        return ""
    text = f"{value.wall:.1f} s, {value.cpu:.1f} s, {value.memory >> 20} MiB"
    if value.moved and scenario.startswith("cached"):
        text += f", {value.moved / 1000:,.0f} kB moved"
    if peer == "limpet":
        warm = medians.get("limpet, warm store")
        return text + (f"; warm store {warm.wall:.1f} s, {warm.cpu:.1f} s, {warm.memory >> 20} MiB" if warm else "")
    mine = ours(peer, medians)
    return text + (f" **{mine.wall / value.wall:.2f}**" if mine else "")


def picture(results: Results) -> str:
    """SVG: for each scenario Limpet's wall time as a part of each peer's, with the targets as lines."""
    scenarios = [scenario for scenario in SCENARIOS if results.medians(scenario.name)]
    left, width, row, top = 250, 560, 26, 60
    height = top + row * len(scenarios) + 40

    def x(ratio: float) -> float:
        return left + width * min(ratio, 1.4) / 1.4

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 30}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="18">Limpet\'s wall time as a part of the peer\'s (less is better)</text>',
    ]
    for number, (peer, colour) in enumerate(COLOURS.items()):
        out.append(f'<circle cx="{left + 6 + number * 140}" cy="36" r="5" fill="{colour}"/>')
        out.append(f'<text x="{left + 16 + number * 140}" y="40">{peer}</text>')
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4):
        colour = "#888" if tick == 1.0 else "#ddd"
        out.append(f'<line x1="{x(tick)}" y1="{top - 8}" x2="{x(tick)}" y2="{height - 30}" stroke="{colour}"/>')
        out.append(f'<text x="{x(tick) - 9}" y="{height - 12}" fill="#555">{tick:.1f}</text>')
    for number, scenario in enumerate(scenarios):
        y = top + number * row + 8
        out.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{scenario.title}</text>')
        medians = results.medians(scenario.name)
        for peer, colour in COLOURS.items():
            mine, value = ours(peer, medians), medians.get(peer)
            if mine and value:
                ratio = mine.wall / value.wall
                out.append(
                    f'<circle cx="{x(ratio):.1f}" cy="{y}" r="5" fill="{colour}" fill-opacity="0.85">'
                    f"<title>{scenario.name}, {peer}: {ratio:.2f}</title></circle>"
                )
    return "\n".join([*out, "</svg>"]) + "\n"
