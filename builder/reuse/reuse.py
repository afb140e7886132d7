"""What of a plan is in the layer cache, and what goes into it.

All keys of a plan are worked out, and all of them looked up, before anything is built: a stage that only cached
steps would read from is not built at all. What RUN makes is not decided by its key alone, so a hit counts only on
the same results of the RUN steps below it as it was made on: layers of different builds do not mix in one image.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from builder.cache import CacheKey, Entry, LayerCache
from builder.cache.record import BuildRecord, why_missed
from builder.errors import BuildError, ImageError
from builder.events import Listener, Message
from builder.oci.image import Layer
from builder.plan import CacheView, Plan, PlannedStage, StageBase
from builder.reuse.results import LayersMade, Results
from builder.reuse.units import (
    LayerUnit,
    PlanKeys,
    ReuseSettings,
    makes_layer,
    record_of,
    stage_names,
    stages_read,
    units_of,
)
from builder.steps.step import Step

_LOOKUPS = 16  # requests at once
_WRITERS = 4
_ABSENT = "not in the cache"


@dataclass(frozen=True, slots=True)
class StageReuse:
    """The cache as one stage meets it. Steps count from 0.

    `hits` are to be taken as they are; `covered` steps make no layer, a later hit has what they do. `reasons` says
    why others missed. `made` is called for each layer that the stage makes itself: with the step's number, the layer
    and the time of its making; whether it wants that, `wants` says. Hits that stand `alone` may come after steps that
    are no hits; all others come before the first RUN that is none.
    """

    hits: Mapping[int, Entry]
    covered: frozenset[int]
    reasons: Mapping[int, str]
    wants: frozenset[int]
    alone: frozenset[int]
    made: Callable[[int, Future[Layer], str], None]


class Reuse:
    """The cache as one build meets it; thread-safe. `needed` are the stages that have to be gone through."""

    def __init__(
        self,
        plan: Plan,
        keys: PlanKeys,
        cache: LayerCache,
        settings: ReuseSettings,
        listener: Listener,
        layers: LayersMade,
        project: str,
    ) -> None:
        """Looks everything up. `project` is what this build is one of many of."""
        self._plan = plan
        self._cache = cache
        self._settings = settings
        self._listener = listener
        self._layers = layers
        self._writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="cache")
        self._later: list[tuple[int, LayerUnit, Layer, str]] = []
        self._units = {stage.index: units_of(stage, keys, settings) for stage in plan.stages}
        self._hits: dict[tuple[int, int], Entry] = {}
        self._rejected: dict[tuple[int, int], Entry] = {}
        self._reasons: dict[tuple[int, int], str] = {}
        self._record = record_of(plan, keys)
        self._record_name = CacheKey.of("build", project, str(plan.platform), *map(str, plan.targets))
        self._record_before: bytes | None = None
        self._judge(self._look_up())
        self._explain()
        self.needed = self._needed()
        for stage in plan.stages:
            if stage.index not in self.needed:
                self._say(f"Skipping stage '{stage.display}': what is read from it is cached")

    def stage(self, index: int) -> StageReuse:
        """The cache as the stage `index` meets it."""
        units = self._units[index]
        hits = {unit.number: self._hits[index, unit.number] for unit in units if (index, unit.number) in self._hits}
        return StageReuse(
            hits=hits,
            covered=frozenset(number for unit in units if unit.number in hits for number in unit.covers),
            reasons={number: reason for (stage, number), reason in self._reasons.items() if stage == index},
            wants=frozenset(unit.number for unit in units if unit.number not in hits and self._wants(unit)),
            alone=frozenset(unit.number for unit in units if unit.alone),
            made=lambda number, layer, created: self._keep(index, number, layer, created),
        )

    def view(self) -> CacheView:
        """What there is to say about each layer, and what has to be gone through."""
        steps: dict[tuple[int, int], str] = {}
        for index, units in self._units.items():
            for unit in units:
                place = (index, unit.number)
                said = "cached" if place in self._hits else "layers like this are not cached"
                if place in self._reasons:
                    said = f"not cached: {self._reasons[place]}"
                steps |= {(index, number): said for number in (*unit.covers, unit.number)}
        return CacheView(steps, self.needed)

    @property
    def found(self) -> bool:
        """Whether anything is taken from the cache."""
        return bool(self._hits)

    def steps_to_take(self, stage: PlannedStage) -> list[Step]:
        """The steps of `stage` that are not in the cache."""
        reuse = self.stage(stage.index)
        return [
            step for number, step in enumerate(stage.steps) if number not in reuse.hits and number not in reuse.covered
        ]

    def finish(self, *, cancel: bool = False) -> None:
        """Wait until everything is written; with `cancel`, for what is being written only."""
        for write in () if cancel else self._later:
            self._writers.submit(self._write, *write)
        record = self._record.encode()
        if cancel:
            self._cache.stop()
        if self._reasons and self._settings.write and not cancel and record != self._record_before:
            self._writers.submit(self._cache.put_record, self._record_name, record)
        self._writers.shutdown(wait=True, cancel_futures=cancel)

    # --- looking up ---

    def _look_up(self) -> dict[tuple[int, int], Entry]:
        wanted = {
            (index, unit.number): unit.key.key
            for index, units in self._units.items()
            for unit in units
            if unit.cacheable and unit.key is not None
        }
        if not wanted:
            return {}
        unique = list(dict.fromkeys(wanted.values()))
        for key in unique:
            self._say(f"Checking for cached layer {self._cache}:{key}...")
        with ThreadPoolExecutor(min(_LOOKUPS, len(unique)), thread_name_prefix="cache-look-up") as pool:
            found = dict(zip(unique, pool.map(self._cache.get, unique), strict=True))
        return {place: entry for place, key in wanted.items() if (entry := found[key]) is not None}

    def _judge(self, found: Mapping[tuple[int, int], Entry]) -> None:
        """Tell which of what was found can be used."""
        now, results = datetime.now(UTC), Results(self._plan, self._units, self._hits, lambda index, number: None)
        for stage in self._plan.stages:
            for unit in self._units[stage.index]:
                if not unit.cacheable:
                    continue
                place = (stage.index, unit.number)
                reason = self._reason(place, unit, found.get(place), now, results)
                if reason:
                    self._reasons[place] = reason
                    if place in found:
                        self._rejected[place] = found[place]
                    self._say(f"No cached layer found for cmd {unit.step.text}")
                else:
                    self._hits[place] = found[place]
                    self._say(f"Using caching version of cmd: {unit.step.text}")

    def _reason(
        self, place: tuple[int, int], unit: LayerUnit, entry: Entry | None, now: datetime, results: Results
    ) -> str:
        """Why `entry` cannot be used, "" if it can."""
        if unit.key is None:
            return "what it reads is not known yet"
        if entry is None:
            return _ABSENT
        try:
            age = entry.age(now)
        except ImageError as error:
            return f"the entry is damaged: {error.message}"
        if age > self._settings.ttl:
            self._say(f"Cache entry expired: {self._cache}:{unit.key.key}")
            return "the entry is older than --cache-ttl"
        below = results.below_unit(place[0], unit)
        if below is None:
            return "a RUN before it has to run again"
        if below.value != entry.below:
            return "it was made on another result of a RUN before it"
        return ""

    def _explain(self) -> None:
        """Say why steps are not in the cache, by what the last build was made of."""
        absent = [place for place, reason in self._reasons.items() if reason == _ABSENT]
        if not self._reasons:
            return
        before, names = None, stage_names(self._plan)
        self._record_before = self._cache.get_record(self._record_name)
        if self._record_before is not None:
            with contextlib.suppress(ImageError):
                before = BuildRecord.decode(self._record_before)
        for index, number in absent:
            stage = self._plan.stage(index)
            position = sum(makes_layer(step) for step in stage.steps[:number])
            self._reasons[index, number] = why_missed(self._record, before, names[index], position)

    def _needed(self) -> frozenset[int]:
        needed: set[int] = set()
        waiting = list(self._plan.targets)
        while waiting:
            index = waiting.pop()
            if index in needed:
                continue
            needed.add(index)
            stage = self._plan.stage(index)
            if isinstance(stage.base, StageBase):
                waiting.append(stage.base.index)
            for step in self.steps_to_take(stage):
                waiting += stages_read(step)
        return frozenset(needed)

    # --- writing ---

    def _wants(self, unit: LayerUnit) -> bool:
        return self._settings.write and ((unit.cacheable and unit.key is not None) or unit.runs)

    def _keep(self, index: int, number: int, layer: Future[Layer], created: str) -> None:
        self._layers.add(index, number, layer)
        unit = next(unit for unit in self._units[index] if unit.number == number)
        if unit.cacheable and unit.key is not None:
            layer.add_done_callback(lambda done: self._submit(index, unit, done, created))

    def _submit(self, index: int, unit: LayerUnit, layer: Future[Layer], created: str) -> None:
        if layer.cancelled() or layer.exception() is not None:
            return
        if not self._settings.write_meanwhile:
            self._later.append((index, unit, layer.result(), created))
            return
        try:
            self._writers.submit(self._write, index, unit, layer.result(), created)
        except RuntimeError:
            pass  # the build has ended

    def _write(self, index: int, unit: LayerUnit, layer: Layer, created: str) -> None:
        assert unit.key is not None
        try:
            results = Results(self._plan, self._units, self._hits, self._layers.get)
            below, copied = results.below_unit(index, unit), results.copied(unit)
        except BuildError:
            return  # a layer that could not be written has no digest; the build fails of it
        if below is None or copied is None:
            return
        self._say(f"Pushing layer {self._cache}:{unit.key.key} to cache now")
        entry, rejected = Entry(layer, created, below.value, copied), self._rejected.get((index, unit.number))
        # What another build has put there meanwhile stays: builds that found it may be using it.
        if not self._cache.put(unit.key.key, entry, unit.step.text, lambda found: found == rejected) and unit.runs:
            self._layers.forget(index, unit.number)

    def _say(self, text: str) -> None:
        self._listener.tell(Message(text))


def no_reuse() -> StageReuse:
    """A stage without a cache."""
    return StageReuse({}, frozenset(), {}, frozenset(), frozenset(), lambda number, layer, created: None)


def look_up(
    plans: Sequence[Plan],
    owners: Sequence[Mapping[int, int]],
    keys: Sequence[PlanKeys],
    cache: LayerCache,
    settings: ReuseSettings,
    listener: Listener,
    project: str = "",
) -> list[Reuse]:
    """The cache as each of `plans` meets it, in their order; `owners` says which plan builds a stage of several.

    Builds with the same `project` are compared with each other.
    """
    made: dict[tuple[int, int, int], Future[Layer]] = {}
    return [
        Reuse(plan, each, cache, settings, listener, LayersMade(owned, made), project)
        for plan, owned, each in zip(plans, owners, keys, strict=True)
    ]
