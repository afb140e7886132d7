"""What is built: each scenario writes a build context into a directory."""

from __future__ import annotations

import random
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Scenario:
    """`write(context, base, registry)`: `base` is the reference of the big base image."""

    name: str
    title: str
    write: Callable[[Path, str], None]


def _dockerfile(context: Path, text: str) -> None:
    context.mkdir(parents=True, exist_ok=True)
    (context / "Dockerfile").write_text(text)


def _one_run(context: Path, base: str) -> None:
    _dockerfile(context, f"FROM {base}\nRUN echo hello > /hello\n")


def _twelve_runs(context: Path, base: str) -> None:
    _dockerfile(context, f"FROM {base}\n" + "".join(f"RUN echo {n} > /number-{n}\n" for n in range(12)))


def _tree(directory: Path, files: int) -> None:
    """`files` files of 0.2 to 8 kB in directories of 100, half of it compressible text: like a node_modules."""
    rng = random.Random(7)
    words = [bytes(rng.randrange(97, 123) for _ in range(rng.randrange(3, 9))) for _ in range(500)]
    for number in range(files):
        path = directory / f"package-{number // 100}" / "lib" / f"module-{number % 100}.js"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = rng.randrange(200, 8000)
        text = b" ".join(rng.choice(words) for _ in range(size // 12))
        path.write_bytes(text + rng.randbytes(size // 2))


def _copy_tree(files: int) -> Callable[[Path, str], None]:
    def write(context: Path, base: str) -> None:
        _dockerfile(context, f"FROM {base}\nCOPY tree /opt/tree\n")
        _tree(context / "tree", files)

    return write


def _unpack_tree(context: Path, base: str) -> None:
    _dockerfile(context, f"FROM {base}\nRUN --mount=type=bind,target=/context tar -xf /context/tree.tar -C /opt\n")
    _tree(context / "tree", 20_000)
    with tarfile.open(context / "tree.tar", "w") as archive:
        archive.add(context / "tree", "tree")
    shutil.rmtree(context / "tree")


def _three_stages(context: Path, base: str) -> None:
    stages = "".join(f"FROM {base} AS s{n}\nRUN sleep 3; echo {n} > /result-{n}\n" for n in range(3))
    _dockerfile(context, stages + "FROM scratch\n" + "".join(f"COPY --from=s{n} /result-{n} /\n" for n in range(3)))


SCENARIOS = (
    Scenario("one-run", "big base, one trivial RUN", _one_run),
    Scenario("twelve-runs", "big base, twelve trivial RUNs", _twelve_runs),
    Scenario("copy-tree", "COPY of 20,000 files", _copy_tree(20_000)),
    Scenario("unpack-tree", "RUN unpacks 20,000 files", _unpack_tree),
    Scenario("three-stages", "three stages that sleep 3 s each", _three_stages),
)
