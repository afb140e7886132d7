"""What is built: each scenario writes a build context into a directory."""

from __future__ import annotations

import random
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.network import Line

COLD = ("limpet", "kaniko", "buildkit", "buildah")
WARM = ("limpet, warm store", "buildkit, warm daemon")
CACHING = ("limpet", "kaniko", "buildkit")


@dataclass(frozen=True, slots=True)
class Scenario:
    """`write(context, base)`: `base` is the reference of the big base image.

    `change` makes it a scenario with a cache in the registry: the context is built once, `change` changes it, and
    building it again, with nothing local, is measured. `line` is the way to the registry. `minutes` is about what one
    round of all peers takes on two cores.
    """

    name: str
    title: str
    write: Callable[[Path, str], None]
    minutes: float
    peers: tuple[str, ...] = COLD
    change: Callable[[Path], None] | None = None
    line: Line | None = None


def _dockerfile(context: Path, text: str) -> None:
    context.mkdir(parents=True, exist_ok=True)
    (context / "Dockerfile").write_text(text)


def write_tree(directory: Path, files: int) -> None:
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
        write_tree(context / "tree", files)

    return write


def _unpack_tree(context: Path, base: str) -> None:
    _dockerfile(context, f"FROM {base}\nRUN --mount=type=bind,target=/context tar -xf /context/tree.tar -C /opt\n")
    write_tree(context / "tree", 20_000)
    with tarfile.open(context / "tree.tar", "w") as archive:
        archive.add(context / "tree", "tree")
    shutil.rmtree(context / "tree")


def _three_stages(context: Path, base: str) -> None:
    stages = "".join(f"FROM {base} AS s{n}\nRUN sleep 3; echo {n} > /result-{n}\n" for n in range(3))
    _dockerfile(context, stages + "FROM scratch\n" + "".join(f"COPY --from=s{n} /result-{n} /\n" for n in range(3)))


def _runs(count: int) -> Callable[[Path, str], None]:
    def write(context: Path, base: str) -> None:
        _dockerfile(context, f"FROM {base}\n" + "".join(f"RUN echo {n} > /number-{n}\n" for n in range(count)))

    return write


def _large_layer(size: int) -> Callable[[Path, str], None]:
    """One file; half of it compresses well."""

    def write(context: Path, base: str) -> None:
        _dockerfile(context, "FROM scratch\nCOPY file /file\n")
        rng = random.Random(9)
        text = b"".join(rng.choice((b"limpets ", b"cling ", b"to ", b"rocks ")) for _ in range(100_000))[: 1 << 19]
        with open(context / "file", "wb") as file:
            while file.tell() < size:
                file.write(text)
                file.write(rng.randbytes(1 << 19))

    return write


def _cached_stages(context: Path, base: str) -> None:
    """Five stages, each with a second of work."""
    _dockerfile(
        context,
        f"FROM {base} AS tools\nRUN sleep 1; echo tools > /tools\n"
        f"FROM {base} AS library\nCOPY library /src\nRUN sleep 1; cat /src/* > /library\n"
        "FROM tools AS program\nCOPY source /src\nCOPY --from=library /library /library\n"
        "RUN sleep 1; cat /library /src/* > /program\n"
        f"FROM {base} AS manual\nCOPY manual /src\nRUN sleep 1; tar -cf /manual.tar /src\n"
        f"FROM {base}\nRUN sleep 1; echo user > /user\nCOPY --from=program /program /usr/bin/\n"
        "COPY --from=manual /manual.tar /usr/share/\nCOPY settings /etc/settings\n",
    )
    for name in ("library", "source", "manual", "settings"):
        (context / name).mkdir()
        for number in range(20):
            (context / name / f"file-{number}").write_text(f"{name} {number}\n" * 50)


def _nothing(context: Path) -> None:
    pass


def _settings_changed(context: Path) -> None:
    (context / "settings/file-3").write_text("changed\n")


def _manual_changed(context: Path) -> None:
    (context / "manual/file-3").write_text("changed\n")


SCENARIOS = (
    Scenario("one-run", "big base, one trivial RUN", _runs(1), 1, COLD + WARM),
    Scenario("twelve-runs", "big base, twelve trivial RUNs", _runs(12), 1.5, COLD + WARM),
    Scenario("copy-tree", "COPY of 20,000 files", _copy_tree(20_000), 1.5, COLD + WARM),
    Scenario("unpack-tree", "RUN unpacks 20,000 files", _unpack_tree, 1.5, COLD + WARM),
    Scenario("three-stages", "three stages that sleep 3 s each", _three_stages, 1.2),
    Scenario("sixty-runs", "big base, sixty trivial RUNs", _runs(60), 1.5),
    Scenario("large-layer", "a layer of 3 GiB", _large_layer(3 << 30), 6),
    Scenario("large-context", "COPY of 100,000 files", _copy_tree(100_000), 5),
    Scenario("cached", "five stages, cached, nothing changed", _cached_stages, 2, CACHING, _nothing, Line()),
    Scenario("cached-last", "cached, last COPY changed", _cached_stages, 2, CACHING, _settings_changed, Line()),
    Scenario("cached-middle", "cached, a middle stage changed", _cached_stages, 2.5, CACHING, _manual_changed, Line()),
    Scenario("slow-network", "one RUN, 20 ms and 200 Mbit/s away", _runs(1), 1.5, COLD, line=Line(0.020, 25e6)),
)
