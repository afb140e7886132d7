"""How the cost of a build grows: base image, RUNs, files and layers, each doubled three times.

    python benchmarks/growth.py [--only SERIES]... [--rounds N] [--write-docs]

Needs what benchmarks/run.py needs; about four minutes a round. CPU time is what counts here: it disturbs little that
the machine is busy. Growth is linear when each doubling adds twice what the one before it added.
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.measure import Measurement, measure
from benchmarks.peers import Job, Limpet, cold
from benchmarks.results import median
from benchmarks.run import DOCS, ROOT, Laboratory, laboratory
from benchmarks.scenarios import write_tree

BUSYBOX = Path("/bin/busybox")
PICTURE = ROOT / "docs/growth.svg"
_LINEAR = 1.2  # a power up to this is noise over 1
BEGIN, END = "<!-- benchmarks/growth.py writes from here -->\n", "<!-- to here -->\n"


@dataclass(frozen=True, slots=True)
class Series:
    """`start` doubles three times; `base` writes the context of the image below, `build` the measured context."""

    name: str
    unit: str
    start: int
    base: Callable[[Path, int], None]
    build: Callable[[Path, str, int], None]

    @property
    def points(self) -> tuple[int, ...]:
        return tuple(self.start << doubling for doubling in range(4))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], choices=[series.name for series in SERIES])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write-docs", action="store_true")
    options = parser.parse_args()
    chosen = [series for series in SERIES if not options.only or series.name in options.only]
    results: dict[str, dict[int, Measurement]] = {}
    with laboratory(with_base=False) as lab:
        for series in chosen:
            results[series.name] = _measure(series, lab, options.rounds)
            print("\n".join(_lines(series, results[series.name])), flush=True)
    if options.write_docs:
        _write_docs(chosen, results)
    return 0


def _measure(series: Series, lab: Laboratory, rounds: int) -> dict[int, Measurement]:
    """Medians by point; rounds go through all points in turn."""
    jobs = {}
    for point in series.points:
        directory = lab.work / f"{series.name}-{point}".replace(" ", "-").lower()
        base = f"{lab.host}/{directory.name}-base:latest"
        (directory / "base").mkdir(parents=True)
        shutil.copy(BUSYBOX, directory / "base/sh")
        series.base(directory / "base", point)
        command = [sys.executable, "-m", "builder", f"--context={directory}/base", f"--destination={base}"]
        subprocess.run(
            [*command, f"--work-dir={lab.disk}/base"], check=True, cwd=ROOT, env=lab.env, capture_output=True
        )
        (directory / "context").mkdir()
        series.build(directory / "context", base, point)
        jobs[point] = (directory / "context", base)
    found: dict[int, list[Measurement]] = {point: [] for point in series.points}
    peer = Limpet()
    for _ in range(rounds):
        for point, (context, base) in jobs.items():
            name = f"{lab.host}/growth-{time.time_ns()}:latest"
            job = Job(context, name, lab.host, lab.disk / "state", base)
            with cold(peer, job):
                found[point].append(measure(peer.commands(job), cwd=lab.work, env=lab.env))
    for context, _ in jobs.values():
        shutil.rmtree(context.parent)
    return {point: median(measurements) for point, measurements in found.items()}


def exponent(costs: list[float]) -> float:
    """1 for linear growth, 2 for quadratic: from what the first and the last doubling added; 0 for hardly any."""
    if costs[3] < 1.5 * costs[0]:
        return 0.0
    first, last = costs[1] - costs[0], costs[3] - costs[2]
    return math.log2(last / first) / 2 if first > 0 and last > 0 else 0.0


def _lines(series: Series, found: dict[int, Measurement]) -> list[str]:
    said = [f"{series.name}: grows with the power {exponent([m.cpu for m in found.values()]):.2f}"]
    for point, value in found.items():
        said.append(
            f"  {point:7} {series.unit:8} {value.wall:6.2f} s wall {value.cpu:6.2f} s CPU {value.memory >> 20} MiB"
        )
    return said


# ---- the series


def _only_busybox(context: Path, point: int) -> None:
    _dockerfile(context, "FROM scratch\nCOPY sh /bin/sh\n")


def _large(context: Path, megabytes: int) -> None:
    """Files of 20 kB, of which half compresses."""
    rng = random.Random(megabytes)
    for number in range(megabytes * 50):
        file = context / "data" / str(number // 200) / str(number % 200)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(rng.randbytes(10_000) + b"limpet " * 1428)
    _dockerfile(context, "FROM scratch\nCOPY sh /bin/sh\nCOPY data /data\n")


def _layered(context: Path, layers: int) -> None:
    runs = "".join(f"RUN echo {n} > /file-{n}\n" for n in range(layers - 1))
    _dockerfile(context, f"FROM scratch\nCOPY sh /bin/sh\n{runs}")


def _one_run(context: Path, base: str, point: int) -> None:
    _dockerfile(context, f"FROM {base}\nRUN echo hello > /hello\n")


def _runs(context: Path, base: str, runs: int) -> None:
    _dockerfile(context, f"FROM {base}\n" + "".join(f"RUN echo {n} > /file-{n}\n" for n in range(runs)))


def _copy(context: Path, base: str, files: int) -> None:
    write_tree(context / "tree", files)
    _dockerfile(context, f"FROM {base}\nCOPY tree /tree\n")


def _dockerfile(context: Path, text: str) -> None:
    (context / "Dockerfile").write_text(text)


SERIES = (
    Series("size of the base", "MB", 100, _large, _one_run),
    Series("RUN instructions", "RUNs", 8, _only_busybox, _runs),
    Series("files in COPY", "files", 10_000, _only_busybox, _copy),
    Series("layers of the base", "layers", 8, _layered, _one_run),
)


# ---- docs


def _write_docs(chosen: list[Series], results: dict[str, dict[int, Measurement]]) -> None:
    rows = ["| | | wall | CPU | peak memory | power |", "|---|---|---|---|---|---|"]
    for series in chosen:
        found = results[series.name]
        power = f"{exponent([m.cpu for m in found.values()]):.2f}"
        for number, (point, value) in enumerate(found.items()):
            first = (series.name, power) if number == 0 else ("", "")
            rows.append(
                f"| {first[0]} | {point:,} {series.unit} | {value.wall:.2f} s | {value.cpu:.2f} s "
                f"| {value.memory >> 20} MiB | {first[1]} |"
            )
    before, _, rest = DOCS.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    table = "\n".join(rows) + "\n\n" + _said(results)
    DOCS.write_text(f"{before}{BEGIN}\n![growth]({PICTURE.name})\n\n{table}\n\n{END}{after}")
    PICTURE.write_text(_picture(chosen, results))


def _said(results: dict[str, dict[int, Measurement]]) -> str:
    """One sentence: what grows in proportion, and what does not."""
    powers = {name: exponent([m.cpu for m in found.values()]) for name, found in results.items()}
    linear = [name for name, power in powers.items() if power <= _LINEAR]
    more = [f"{name} (power {power:.2f})" for name, power in powers.items() if power > _LINEAR]
    said = f"Cost grows in proportion, or less, with: {', '.join(linear) or 'nothing'}."
    return said + (f" It grows faster with: {', '.join(more)}." if more else "")


def _picture(chosen: list[Series], results: dict[str, dict[int, Measurement]]) -> str:
    """SVG: a small chart for each series, CPU time over its points, both from zero."""
    width, height, gap = 190, 140, 40
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{(width + gap) * len(chosen) + gap}" height="{height + 80}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, series in enumerate(chosen):
        found = results[series.name]
        left, top = gap + number * (width + gap), 40
        most, largest = max(value.cpu for value in found.values()), series.points[-1]
        places = [
            (left + width * point / largest, top + height - height * value.cpu / most) for point, value in found.items()
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        out.append(f'<text x="{left}" y="22">{series.name}: CPU time</text>')
        out.append(f'<path d="M{left},{top} V{top + height} H{left + width}" stroke="#888" fill="none"/>')
        out.append(f'<polyline points="{path}" stroke="#1f77b4" fill="none"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#1f77b4"/>' for x, y in places]
        out.append(f'<text x="{left + 4}" y="{top + 6}" fill="#555">{most:.1f} s</text>')
        out.append(
            f'<text x="{left + width}" y="{top + height + 18}" text-anchor="end" fill="#555">'
            f"{largest:,} {series.unit}</text>"
        )
    return "\n".join([*out, "</svg>"]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
