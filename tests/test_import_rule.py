"""Who may import whom: the order of the rooms."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each room may import itself, the rooms of lower rows, and what `EXTRA` grants.
ROWS = [
    {"errors", "events", "once", "urls"},
    {"stopping"},
    {"oci", "rootfs"},
    {"dockerfile", "layer", "registry"},
    {"isolation", "cache", "steps"},
    {"store"},
    {"files", "outputs"},
    {"plan", "publish"},
    {"reuse"},
    {"stage_graph"},
    {"stage"},
    {"step_work"},
    {"step_keys"},
    {"build"},
    {"cli"},
]
# Steps describe processes and agents in the words of isolation's protocols.
EXTRA = {"steps": {"isolation"}}
ROW = {room: number for number, row in enumerate(ROWS) for room in row}

MODULES = sorted((ROOT / "builder").rglob("*.py"))


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(path: Path) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            found.append((node.lineno, node.module or ""))
            if node.module in ("builder", "context_sources"):
                found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_import_only_what_lies_below(path: Path) -> None:
    room = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for line, name in imports(path):
        if room in ("", "__init__", "__main__"):
            continue
        if name.startswith("context_sources"):
            assert room == "cli", f"{path}:{line}: only the command line knows the context sources"
        if not name.startswith("builder."):
            continue
        other = room_of(name)
        if other == room or other not in ROW:
            continue
        allowed = ROW[other] < ROW[room] or other in EXTRA.get(room, ())
        assert allowed, f"{path}:{line}: {room} imports {other}"


def test_context_sources_stand_alone() -> None:
    for path in (ROOT / "context_sources").rglob("*.py"):
        for line, name in imports(path):
            if name.startswith("builder"):
                assert name in ("builder.errors", "builder.urls"), f"{path}:{line}: imports {name}"


def test_sandbox_is_a_program() -> None:
    """The sandbox uses the standard library only, and nobody imports it."""
    sandbox = ROOT / "builder/isolation/sandbox.py"
    for line, name in imports(sandbox):
        assert name.split(".")[0] in sys.stdlib_module_names, f"{sandbox}:{line}: imports {name}"
    for path in MODULES:
        assert all(name != "builder.isolation.sandbox" for _, name in imports(path)), path


def test_every_run_waits_for_few_modules() -> None:
    """The sandbox program is started for each RUN: what it imports is loaded again each time."""
    program = "import sys; sys.path.append(sys.argv[1]); import sandbox; print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-c", program, str(ROOT / "builder/isolation")]
    loaded = set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert "ctypes" in loaded
    assert not loaded & {"signal", "enum", "re", "typing", "json", "socket", "subprocess", "pathlib", "dataclasses"}


def test_every_room_has_a_row() -> None:
    """A new room must say where it stands."""
    rooms = {
        path.stem for path in (ROOT / "builder").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert rooms - {"__init__", "__main__"} <= set(ROW)


def test_every_room_is_described() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = "\n".join(line for line in text.splitlines() if line.startswith("| `"))
    assert set(re.findall(r"`(\w+)`", table)) == set(ROW)
