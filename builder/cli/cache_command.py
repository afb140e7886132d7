"""`limpet cache list` and `limpet cache prune`: layer caches (--cache-repo) and local stores (--cache-dir)."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.cache.directory import SCHEME
from builder.cache.inventory import DirectoryInventory, Inventory, Item, RepositoryInventory, removable
from builder.cli.arguments import Arguments
from builder.cli.caching import cache_directory, cache_reference
from builder.cli.known_secrets import mask_environment
from builder.cli.output import Output
from builder.cli.output.quantities import bytes_text, counted
from builder.cli.registry_access import registry_access
from builder.cli.wiring import registries
from builder.errors import BuildError, UsageError
from builder.plan.history import timestamp
from builder.store.prune import entries_of, prune


def run(arguments: Arguments, env: Mapping[str, str], output: Output) -> int:
    """List or prune what the flags name. Raises BuildError."""
    mask_environment(env, output.redactor)
    if arguments.text("cache-repo"):
        if "cache-dir" in arguments.given:
            raise UsageError("--cache-repo and --cache-dir name two things", "do one after the other")
        inventory = _inventory(arguments, env, output)
        _list(inventory, arguments) if arguments.command == "cache list" else _prune(inventory, arguments, output)
    elif arguments.command == "cache list":
        _list_store(Path(arguments.text("cache-dir")), arguments)
    else:
        _prune_store(Path(arguments.text("cache-dir")), arguments, output)
    return 0


def _inventory(arguments: Arguments, env: Mapping[str, str], output: Output) -> Inventory:
    text = arguments.text("cache-repo")
    if text.startswith(SCHEME):
        return DirectoryInventory(cache_directory(text))
    client = registries(registry_access(arguments, env), env, output)
    return RepositoryInventory(client.repository(cache_reference(text, ()), "push"))


# --- layer caches ---


def _list(inventory: Inventory, arguments: Arguments) -> None:
    items = [item for item in inventory.items() if not item.is_record]
    if arguments.text("format") == "json":
        print(json.dumps([_json(item) for item in items], indent=2))
        return
    for item in items:
        print(f"{item.name}  {timestamp(int(item.created))}  {bytes_text(item.size):>9}  {item.text}")
    print(f"{_counted(items)}, {bytes_text(sum(item.size for item in items))}")


def _counted(items: Sequence[Item]) -> str:
    kinds = Counter(item.kind for item in items)
    counts = [counted(kinds["layer"], "layer")]
    counts += [counted(kinds["index"], "index", "indexes")] * (kinds["index"] > 0)
    counts += [counted(kinds["cache mount"], "cache mount")] * (kinds["cache mount"] > 0)
    return ", ".join(counts)


def _prune(inventory: Inventory, arguments: Arguments, output: Output) -> None:
    if arguments.number("cache-dir-size"):
        raise UsageError("--cache-dir-size is the local store's", "give --cache-repo-size")
    keys = arguments.positionals
    items = inventory.items()
    if unknown := set(keys) - {item.name for item in items}:
        raise UsageError(f"the cache has no entry {min(unknown)}", "limpet cache list shows what it has")
    # Whoever names entries, a size, or what nobody uses, has said what is to go.
    chosen = bool(keys) or arguments.number("cache-repo-size") > 0 or arguments.is_set("unreferenced")
    by_age = "cache-ttl" in arguments.given or not chosen
    gone = removable(
        items,
        older_than=arguments.seconds("cache-ttl") if by_age else None,
        size=arguments.number("cache-repo-size"),
        unreferenced=arguments.is_set("unreferenced"),
        keys=keys,
        now=time.time(),
    )
    if not arguments.is_set("dryrun"):
        inventory.remove(gone)
    entries = [item for item in gone if not item.is_record]
    left = sum(item.size for item in items if not item.is_record) - sum(item.size for item in entries)
    _report(
        _Report(len(entries), sum(item.size for item in entries), left, tuple(map(_json, entries))),
        [f"{item.name}  {timestamp(int(item.created))}  {bytes_text(item.size):>9}  {item.text}" for item in entries],
        arguments,
    )


def _json(item: Item) -> dict[str, object]:
    created = timestamp(int(item.created))
    return {
        "key": item.name,
        "kind": item.kind,
        "instruction": item.text,
        "size": item.size,
        "created": created,
    }


# --- local stores ---


def _list_store(directory: Path, arguments: Arguments) -> None:
    try:
        entries = entries_of(directory)
    except OSError as error:
        raise _unreadable(directory, error) from error
    if arguments.text("format") == "json":
        rows = [{"kind": e.kind, "name": e.name, "size": e.size, "used": timestamp(int(e.used))} for e in entries]
        print(json.dumps(rows, indent=2))
        return
    width = max((len(entry.kind) for entry in entries), default=0)
    for entry in entries:
        print(f"{entry.kind:<{width}}  {timestamp(int(entry.used))}  {bytes_text(entry.size):>9}  {entry.name}")
    print(f"{counted(len(entries), 'entry', 'entries')}, {bytes_text(sum(entry.size for entry in entries))}")


def _prune_store(directory: Path, arguments: Arguments, output: Output) -> None:
    for name in ("cache-repo-size", "unreferenced", "dryrun"):
        if name in arguments.given:
            raise UsageError(f"--{name} is for layer caches", "name one with --cache-repo")
    if arguments.positionals:
        raise UsageError(f"{arguments.positionals[0]}: keys are those of a layer cache", "name it with --cache-repo")
    size = arguments.number("cache-dir-size") or None
    by_age = "cache-ttl" in arguments.given or size is None
    since = time.time() - arguments.seconds("cache-ttl") if by_age else None
    try:
        done = prune(directory, size=size, unused_since=since)
    except OSError as error:
        raise _unreadable(directory, error) from error
    _report(_Report(done.removed, done.freed, done.left), [], arguments)


def _unreadable(directory: Path, error: OSError) -> BuildError:
    return BuildError(
        f"cannot read the local store {directory}: {error.strerror}",
        "name a layer cache with --cache-repo, or a store with --cache-dir",
    )


# --- both ---


@dataclass(frozen=True, slots=True)
class _Report:
    """`freed` and `left` in bytes; `removed` names the entries, where they have names that tell something."""

    count: int
    freed: int
    left: int
    removed: tuple[dict[str, object], ...] = ()


def _report(report: _Report, lines: list[str], arguments: Arguments) -> None:
    if arguments.text("format") == "json":
        value = {"count": report.count, "freed": report.freed, "left": report.left, "removed": list(report.removed)}
        print(json.dumps(value, indent=2))
        return
    for line in lines:
        print(line)
    verb = "would remove" if arguments.is_set("dryrun") else "removed"
    print(f"{verb} {report.count}, {bytes_text(report.freed)}; {bytes_text(report.left)} are left")
