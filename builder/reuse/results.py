"""What RUN steps made: a layer on top belongs on no other results than those it was made on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future

from builder.cache import CacheKey, Entry
from builder.oci.image import Layer
from builder.plan import Plan, StageBase
from builder.reuse.units import LayerUnit


class LayersMade:
    """The layers that RUN steps made in this build, by stage and step. Thread-safe.

    `owners` tells for each stage by which plan it is built; `made` is shared by the plans.
    """

    def __init__(self, owners: Mapping[int, int], made: dict[tuple[int, int, int], Future[Layer]]) -> None:
        self._owners = owners
        self._made = made

    def add(self, index: int, number: int, layer: Future[Layer]) -> None:
        """`layer` is being made."""
        self._made[self._owners[index], index, number] = layer

    def forget(self, index: int, number: int) -> None:
        """The layer is not in the cache: neither should be what is made on it."""
        self._made.pop((self._owners[index], index, number), None)

    def get(self, index: int, number: int) -> Layer | None:
        """The layer, None if there is none. Waits for it; raises what making it raised."""
        future = self._made.get((self._owners[index], index, number))
        return None if future is None else future.result()


class Results:
    """What stands for the results of RUN steps: what a layer was made on, or is to lie on.

    `layer_of` gives the layer of a step (by stage and number) that is no hit; where it has none, there is no result.
    """

    def __init__(
        self,
        plan: Plan,
        units: Mapping[int, list[LayerUnit]],
        hits: Mapping[tuple[int, int], Entry],
        layer_of: Callable[[int, int], Layer | None],
    ) -> None:
        self._plan = plan
        self._units = units
        self._hits = hits
        self._layer_of = layer_of
        self._of_stages: dict[int, CacheKey | None] = {}

    def below_unit(self, index: int, unit: LayerUnit) -> CacheKey | None:
        """The results that the layer of `unit` is made on."""
        return CacheKey.of("alone") if unit.alone else self.below(index, unit.number)

    def below(self, index: int, number: int) -> CacheKey | None:
        """The results in the files that step `number` of stage `index` starts from."""
        base = self._plan.stage(index).base
        result = self.of_stage(base.index) if isinstance(base, StageBase) else CacheKey.of("results")
        for unit in self._units[index]:
            if result is None or unit.number >= number:
                break
            result = self._extended(result, index, unit)
        return result

    def of_stage(self, index: int) -> CacheKey | None:
        """The results in the files of the whole stage."""
        if index not in self._of_stages:
            self._of_stages[index] = self.below(index, len(self._plan.stage(index).steps))
        return self._of_stages[index]

    def copied(self, unit: LayerUnit) -> str | None:
        """The results in the stages that `unit` copies from; "" if it copies from none."""
        if not unit.copied:
            return ""
        results = [self.of_stage(stage) for stage in unit.copied]
        known = [result.value for result in results if result is not None]
        return CacheKey.of(*known).value if len(known) == len(results) else None

    def _extended(self, result: CacheKey, index: int, unit: LayerUnit) -> CacheKey | None:
        entry = self._hits.get((index, unit.number))
        if unit.runs:
            layer = entry.layer if entry is not None else self._layer_of(index, unit.number)
            return None if layer is None else result.extend("run", layer.diff_id)
        if unit.copied:
            copied = entry.copied if entry is not None else self.copied(unit)
            return None if copied is None else result.extend("copied", copied)
        return result
