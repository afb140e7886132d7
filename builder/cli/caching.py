"""`--cache`: the layer cache that the settings name, and what a build takes from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from builder.cache import CacheDamaged
from builder.cache.directory import SCHEME, DirectoryCache
from builder.cache.entry import LayerCache, WriteOnly
from builder.cache.indexes import CachedIndexes
from builder.cache.repository import RepositoryCache
from builder.cli.settings import CacheSettings, Settings
from builder.errors import BuildError, ImageError, UsageError
from builder.events import Listener, Message
from builder.oci.reference import Reference
from builder.plan import CacheView, Plan
from builder.registry.registries import Registries
from builder.reuse import Reuse, ReuseSettings, look_up
from builder.stage_graph import owners_of
from builder.step_keys import KeySources, plan_keys

if TYPE_CHECKING:
    from builder.store.travelling import TravellingMounts


@contextmanager
def layer_cache(
    asked: CacheSettings, destinations: Sequence[Reference], client: Registries, listener: Listener
) -> Iterator[LayerCache | None]:
    """The cache that layers or mounts are kept in, None for none; an error ends what it is doing. Raises UsageError."""
    if not asked.enabled and asked.mounts == "local":
        yield None
    elif asked.repository.startswith(SCHEME):
        yield DirectoryCache(cache_directory(asked.repository), listener)
    else:
        reference = cache_reference(asked.repository, destinations)
        cache = RepositoryCache(reference, client, listener, writable=asked.write)
        try:
            yield cache
        except BaseException:
            cache.close(cancel=True)
            raise
        cache.close(cancel=False)


def travelling_mounts(
    asked: CacheSettings, cache: LayerCache | None, work: Path, listener: Listener
) -> TravellingMounts | None:
    """What `--cache-mounts` asks for."""
    if cache is None or asked.mounts == "local":
        return None
    from builder.store.travelling import TravellingMounts

    return TravellingMounts(cache, work, listener, ttl=asked.ttl)


def cache_directory(text: str) -> Path:
    """The directory of `oci:DIRECTORY`. Raises UsageError."""
    path = text.removeprefix(SCHEME)
    if not path:
        raise UsageError(f"--cache-repo={text} names no directory", "write it as oci:DIRECTORY")
    return Path(path).absolute()


def cache_reference(text: str, destinations: Sequence[Reference]) -> Reference:
    """The repository called `text`; without, the first destination's with `/cache`. Raises UsageError."""
    if not text:
        if not destinations:
            raise UsageError(
                "--cache and --cache-mounts=registry need to know where the cache is",
                "specify the cache repo with --cache-repo",
            )
        first = destinations[0]
        return Reference.parse(f"{first.registry}/{first.repository}/cache")
    reference = Reference.parse(text)
    if reference.digest or ":" in text.rpartition("/")[2]:
        raise UsageError(f"--cache-repo={text}: a cache is a whole repository", "leave out the tag and the digest")
    return reference


def _reuse_settings(settings: Settings, write_meanwhile: bool) -> ReuseSettings:
    asked = settings.cache
    return ReuseSettings(
        ttl=asked.ttl,
        run_layers=asked.run_layers,
        copy_layers=asked.copy_layers,
        write=asked.write,
        single_snapshot=settings.image.single_snapshot,
        write_meanwhile=write_meanwhile,
    )


def with_cache(
    plans: Sequence[Plan],
    keys: KeySources,
    cache: LayerCache,
    settings: Settings,
    listener: Listener,
    carry_out: Callable[[Sequence[Reuse]], None],
    indexes: CachedIndexes,
    stopping: Callable[[], bool],
    *,
    write_meanwhile: bool,
) -> None:
    """Do `carry_out` with what `cache` has for `plans`; once more without, when that turns out to be damaged.

    Entries of finished layers are written also when the build fails: the next one may go on from there. They are
    written while the build goes on, or with `write_meanwhile` false at its end; no more once it is `stopping`.
    """
    owners, found = owners_of(plans), [plan_keys(plan, keys) for plan in plans]
    asked, project = _reuse_settings(settings, write_meanwhile), _project(settings)
    reuse = look_up(plans, owners, found, cache, asked, listener, project)
    indexes.begin(cache, write=asked.write, meanwhile=write_meanwhile)
    try:
        _writing(reuse, carry_out, indexes, stopping)
    except (CacheDamaged, ImageError) as error:
        if stopping() or (not isinstance(error, CacheDamaged) and not any(each.found for each in reuse)):
            raise
        _tell(error, "building again, without what is cached", listener)
        indexes.distrust()
        empty = WriteOnly(cache)
        indexes.begin(empty, write=asked.write, meanwhile=write_meanwhile)
        _writing(look_up(plans, owners, found, empty, asked, listener, project), carry_out, indexes, stopping)


def without_cache(
    carry_out: Callable[[], None], listener: Listener, indexes: CachedIndexes, stopping: Callable[[], bool]
) -> None:
    """Do `carry_out`; once more when an index that this machine had turns out to be damaged."""
    try:
        carry_out()
    except CacheDamaged as error:
        if stopping():
            raise
        _tell(error, "building again", listener)
        indexes.distrust()
        carry_out()


def _tell(error: BuildError, what_now: str, listener: Listener) -> None:
    told = isinstance(error, CacheDamaged) and error.told
    listener.tell(Message(f"{error.message}; {what_now}", "info" if told else "warning"))


def cache_views(
    plans: Sequence[Plan], keys: KeySources, cache: LayerCache, settings: Settings, listener: Listener
) -> list[CacheView]:
    """What `cache` has for `plans`. Nothing is written."""
    asked = replace(_reuse_settings(settings, write_meanwhile=False), write=False)
    found = [plan_keys(plan, keys) for plan in plans]
    reuse = look_up(plans, owners_of(plans), found, cache, asked, listener, _project(settings))
    for each in reuse:
        each.finish()
    return [each.view() for each in reuse]


def _project(settings: Settings) -> str:
    """What tells this build's earlier ones from all others that share the cache."""
    where = [settings.source.context, settings.source.sub_path]
    if settings.output.destinations:
        where = [Reference.parse(settings.output.destinations[0]).name]
    return json.dumps([*where, settings.source.dockerfile])


def _writing(
    reuse: Sequence[Reuse],
    carry_out: Callable[[Sequence[Reuse]], None],
    indexes: CachedIndexes,
    stopping: Callable[[], bool],
) -> None:
    try:
        carry_out(reuse)
    finally:
        for each in reuse:
            each.finish(cancel=stopping())
        indexes.finish(cancel=stopping())
