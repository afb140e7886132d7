"""The flag table beside kaniko's command line: every name is there, with its type and its default."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from builder.cli.flag import Flag
from builder.cli.flags import flags_of

SHARED = Path(os.environ.get("LIMPET_SHARED") or Path(__file__).parents[3] / "shared")
REFERENCE = SHARED / "reference" / "kaniko-flags.md"

KINDS = {
    "string": {"string"},
    "bool": {"bool"},
    "int": {"int"},
    "duration": {"duration"},
    "multi": {"list"},
    "string slice": {"comma-list"},
    "k=v": {"map"},
    "key=value": {"map"},
    "map": {"registry-map", "list"},  # --secret is a map there; its values keep their own grammar here
}
SPELLED = {"inherit": "", "(=gzip)": "", "host": "", "all": "", "[]": "", "{}": "", '""': ""}


@dataclass(frozen=True)
class Row:
    names: tuple[str, ...]
    short: str
    kind: str
    default: str | None  # None: the reference does not say


def section(title: str) -> str:
    text = REFERENCE.read_text(encoding="utf-8")
    start = re.search(rf"^#+ {re.escape(title)}", text, re.MULTILINE)
    assert start, title
    return re.split(r"^#+ ", text[start.end() :], maxsplit=1, flags=re.MULTILINE)[0]


def rows(titles: list[str]) -> list[Row]:
    found = []
    for title in titles:
        for line in section(title).splitlines():
            if line.startswith("| `-"):
                cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
                found.append(row(cells))
    return found


def row(cells: list[str]) -> Row:
    names = tuple(re.findall(r"--([A-Za-z-]+)", cells[0]))
    short = re.search(r"`-([a-z])[,/]", cells[0])
    kind, slash, default = cells[1].partition(" / ")
    kind, default = kind.replace("\\|", "|").strip(), default.strip().strip("`")
    if kind.startswith("`"):  # the warmer's table has the default alone
        kind, slash, default = ("duration" if kind[1].isdigit() else "string"), " / ", kind.strip("`")
    return Row(names, short[1] if short else "", kind, default if slash else None)


def check(row: Row, name: str, flags: dict[str, Flag]) -> list[str]:
    flag = flags.get(name)
    if flag is None:
        return [f"--{name} is missing"]
    wrong = []
    if row.short and len(row.names) == 1 and flag.short != row.short:
        wrong.append(f"--{name}: short is {flag.short!r}, not {row.short!r}")
    if row.kind in KINDS and flag.kind not in KINDS[row.kind]:
        choice = flag.kind == "choice" and row.kind == "string"
        if not choice:
            wrong.append(f"--{name}: {flag.kind}, not {row.kind}")
    elif "|" in row.kind and set(flag.choices) != set(row.kind.split("|")):
        wrong.append(f"--{name}: choices {flag.choices}, not {row.kind}")
    if row.default is not None and not row.default.startswith("env "):
        expected = row.default
        for words, value in SPELLED.items():
            expected = expected.replace(words, value)
        expected = expected.split(" (")[0].strip(" `")
        # kaniko's default format is color on any stream; here it depends on the stream.
        if name != "log-format" and flag.default != expected:
            wrong.append(f"--{name}: default {flag.default!r}, not {expected!r}")
    return wrong


needs_reference = pytest.mark.skipif(not REFERENCE.exists(), reason=f"{REFERENCE} is not there")
EXECUTOR = ["1. Executor: inputs", "2. Executor: outputs", "3. Executor: cache", "4. Executor: registries"]


@needs_reference
def test_executor_flags() -> None:
    found = rows(EXECUTOR)
    names = [name for row in found for name in row.names]
    assert len(names) >= 60
    assert [fault for row in found for name in row.names for fault in check(row, name, flags_of("build"))] == []


@needs_reference
def test_deprecated_executor_flags() -> None:
    table = section("Deprecated aliases")
    names = [
        name
        for line in table.splitlines()
        if line.startswith("|")
        for name in re.findall(r"--([A-Za-z][A-Za-z-]*)", line.split("|")[1])
    ]
    assert len(names) == 6
    assert [name for name in names if name not in flags_of("build")] == []


@needs_reference
def test_every_flag_of_the_executor_is_in_the_count() -> None:
    """The reference counts 68; a row that this test cannot read would go unseen otherwise."""
    names = {name for row in rows(EXECUTOR) for name in row.names}
    names |= {"snapshotMode", "customPlatform", "tarPath", "force-build-metadata", "skip-unused-stages"}
    names |= {"whitelist-var-run"}
    assert len(names) == 68


@needs_reference
def test_warmer_flags() -> None:
    found = rows(["6. Warmer flags"])
    names = [name for row in found for name in row.names]
    assert len(names) == 19
    assert [fault for row in found for name in row.names for fault in check(row, name, flags_of("warm"))] == []


@needs_reference
def test_environment_variables_of_flags() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    for variable in (
        "KANIKO_NO_PUSH",
        "KANIKO_REGISTRY_MIRROR",
        "KANIKO_REGISTRY_MAP",
        "KANIKO_DIR",
        "KANIKO_CLEANUP",
        "KANIKO_PRE_CLEANUP",
        "KANIKO_PRESERVE_CONTEXT",
    ):
        assert variable in text
        flags = [flag for flag in flags_of("build").values() if flag.variable and flag.variable.name == variable]
        assert flags, variable
