"""The cache keys of a plan: what each step's layer depends on, worked out before anything is built.

Everything that decides the files of a layer is part of its key, and nothing else: not modification times, not whose
checkout the context is, no secret, no label. What a RUN reads of a stage or an image stands there by that one's own
key. Proxies, the contents of caches, secrets and agents do not count, as in BuildKit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from builder.cache import CacheKey
from builder.cache.record import INSTRUCTION, VARIABLE
from builder.dockerfile.git_reference import GitReference, parse_git_reference
from builder.errors import BuildError
from builder.oci.image import Image
from builder.oci.platform import Platform
from builder.once import Once
from builder.plan import SCRATCH, ImageBase, Plan, PlannedStage, StageBase
from builder.reuse import PlanKeys, StepKey, makes_layer, stands_alone
from builder.stage import StageSettings
from builder.step_work import Inputs
from builder.steps.context import ContextTree
from builder.steps.digest import digest, selection_digest
from builder.steps.download import Downloads, entity_tag, file_name
from builder.steps.sources import Selection
from builder.steps.step import (
    AddStep,
    BindMount,
    CacheMount,
    CopyStep,
    FromContext,
    FromImage,
    FromNamedContext,
    FromStage,
    HeredocFile,
    Origin,
    RunMount,
    RunStep,
    SecretMount,
    SshMount,
    Step,
    TmpfsMount,
    WorkdirStep,
)
from builder.urls import without_user

# A checkout's group may write or not as the umask has it; that is not the author's intention.
CONTEXT_MODES = 0o7755
_READERS = 4

Part = str | FromStage
"""What decides a layer: text, or the key of a stage, which stands for it."""

ResolveImage = Callable[[str, Platform], Image]
GitTip = Callable[[GitReference], str]
"""The commit or tag that a reference names now, "" if that cannot be told. Raises ContextError."""


@dataclass(frozen=True, slots=True)
class KeySources:
    """Where the inputs of steps are read from. `git_tip` None: what git repositories have is fetched to know it."""

    inputs: Inputs
    resolve: ResolveImage
    stage: StageSettings
    git_tip: GitTip | None = None


def plan_keys(plan: Plan, sources: KeySources) -> PlanKeys:
    """The keys of all steps of `plan`. Reads the context; raises nothing: what cannot be read has no key."""
    reader = _Reader(plan, sources)
    with ThreadPoolExecutor(_READERS, thread_name_prefix="cache-key") as pool:
        read = {
            (stage.index, number): pool.submit(reader.read, step)
            for stage in plan.stages
            for number, step in enumerate(stage.steps)
            if makes_layer(step)
        }
        parts = {place: future.result() for place, future in read.items()}
        bases = {stage.index: reader.base(stage) for stage in plan.stages}
    steps: dict[tuple[int, int], StepKey] = {}
    ends: dict[int, CacheKey | None] = {}
    for stage in plan.stages:
        if isinstance(stage.base, StageBase):
            key = ends[stage.base.index]
        else:
            start = _keyed(CacheKey.of(), bases[stage.index], ends)
            key = None if start is None else start.key
        for number, step in enumerate(stage.steps):
            if (stage.index, number) not in parts:
                continue
            before = CacheKey.of(reader.written()) if stands_alone(step) else key
            found = None if before is None else _keyed(before, parts[stage.index, number], ends)
            if found is not None and stands_alone(step):
                found = replace(found, through=None if key is None else key.extend(found.key.value))
            key = None if found is None else found.through
            if found is not None:
                steps[stage.index, number] = found
        ends[stage.index] = key
    return PlanKeys(steps, {index: parts for index, parts in bases.items() if parts is not None}, ends)


def _keyed(before: CacheKey, parts: Mapping[str, Part] | None, ends: Mapping[int, CacheKey | None]) -> StepKey | None:
    if parts is None:
        return None
    inputs: dict[str, str] = {}
    stages: dict[str, int] = {}
    for name, part in parts.items():
        if isinstance(part, FromStage):
            end = ends[part.index]
            if end is None:
                return None
            stages[name], part = part.index, end.value
        inputs[name] = part
    key = before.extend(*(text for item in inputs.items() for text in item))
    return StepKey(key, key, inputs, stages)


class _Reader:
    def __init__(self, plan: Plan, sources: KeySources) -> None:
        self._plan = plan
        self._sources = sources
        self._inputs = sources.inputs
        # Many steps may read the same large context.
        self._read = Once[Hashable, str]()
        self._platforms = {image.reference: image.platform for stage in plan.stages for image in stage.images}

    def base(self, stage: PlannedStage) -> Mapping[str, str] | None:
        """What the stage starts from, where that is no other stage."""
        if isinstance(stage.base, ImageBase):
            try:
                base = _files(self._sources.resolve(stage.base.reference, stage.base.platform))
            except BuildError:
                return None
        else:
            base = SCRATCH
        return {
            "the base image": base,
            "the platform": str(stage.platform),
            "how layers are written": self.written(),
        }

    def written(self) -> str:
        """What stands for how layers are written."""
        form = self._sources.stage.layer_format
        return _text(form.compression, str(form.newest_mtime), *self._sources.stage.ignore_paths)

    def read(self, step: Step) -> Mapping[str, Part] | None:
        """What decides the layer of `step` besides what is below it; None where it cannot be had now."""
        try:
            match step:
                case RunStep():
                    return dict(self._run(step))
                case CopyStep():
                    return dict(self._copy(step))
                case AddStep():
                    return dict(self._add(step))
                case WorkdirStep():
                    return {INSTRUCTION: _text("WORKDIR", step.path, step.user)}
        except BuildError:
            return None  # the step itself will say it, when its time has come
        raise NotImplementedError(type(step))

    # --- RUN ---

    def _run(self, step: RunStep) -> Iterator[tuple[str, Part]]:
        limits = (step.network, step.security)
        yield INSTRUCTION, _text("RUN", *step.argv, *(text for item in sorted(step.pipes.items()) for text in item))
        yield "its user, directory or flags", _text(step.user, step.cwd, self._inputs.hostname, *limits)
        for name in sorted(step.key_env):
            yield VARIABLE + name, step.key_env[name]
        for number, mount in enumerate(step.mounts):
            name = f"mount {number + 1}"
            yield f"{name}'s flags", _mount_text(mount)
            if isinstance(mount, BindMount) or (isinstance(mount, CacheMount) and mount.origin is not None):
                assert mount.origin is not None
                yield f"what {name} reads", self._origin(mount.origin, mount.source)

    def _origin(self, origin: Origin, path: str) -> Part:
        match origin:
            case FromContext():
                return self._read.get((origin, path), lambda: self._digest(self._inputs.context, path))
            case FromNamedContext(name):
                return self._read.get((origin, path), lambda: self._digest(self._inputs.named[name], path))
            case FromStage():
                return origin
            case FromImage(reference):
                return self._image(reference)

    def _digest(self, tree: ContextTree, path: str) -> str:
        return digest(tree, path, mode_mask=CONTEXT_MODES)

    def _image(self, reference: str) -> str:
        if reference == SCRATCH:
            return SCRATCH
        return _files(self._sources.resolve(reference, self._platforms[reference]))

    # --- COPY and ADD ---

    def _copy(self, step: CopyStep) -> Iterator[tuple[str, Part]]:
        yield INSTRUCTION, self._copy_text("COPY", step, str(step.parents), *step.sources)
        if step.sources:
            yield "what it copies", self._selected(step)

    def _selected(self, step: CopyStep) -> Part:
        selection = Selection(step.sources, step.exclude, step.parents)
        match step.origin:
            case FromContext():
                tree, place = self._inputs.context, "the build context"
            case FromNamedContext(name):
                tree, place = self._inputs.named[name], f"the context {name}"
            case FromStage() as origin:
                return origin
            case FromImage(reference):
                return self._image(reference)
        return self._read.get(
            (step.origin, selection), lambda: selection_digest(tree, selection, step.location, place, CONTEXT_MODES)
        )

    def _add(self, step: AddStep) -> Iterator[tuple[str, Part]]:
        flags = (step.checksum, str(step.keep_git_dir), str(step.unpack))
        yield INSTRUCTION, self._copy_text("ADD", step, *flags, *map(without_user, step.sources))
        for source in step.sources:
            git = parse_git_reference(source)
            if git is not None and not git.like_local_path:
                yield f"what {without_user(source)} has", self._git(git)
            elif source.startswith(("http://", "https://")):
                yield f"what {without_user(source)} has", step.checksum or self._download(source)
            else:
                selection = Selection((source,), step.exclude)
                yield (
                    f"what {source} has",
                    selection_digest(
                        self._inputs.context, selection, step.location, "the build context", CONTEXT_MODES
                    ),
                )

    def _git(self, reference: GitReference) -> str:
        tip = self._sources.git_tip(reference) if self._sources.git_tip is not None else ""
        return tip or digest(ContextTree(self._inputs.fetch_git(reference)), "")

    def _download(self, url: str) -> str:
        """The server's own word for the content, or else its digest."""
        tag = entity_tag(url)
        if tag:
            return _text(file_name(url), tag)
        downloads = self._inputs.downloads or Downloads(self._inputs.work_dir / "downloads")
        return _text(file_name(url), downloads.fetch(url).digest)

    def _copy_text(self, name: str, step: CopyStep | AddStep, *more: str) -> str:
        owners = str(self._inputs.unknown_owners_are_root) if step.chown else ""
        heredocs = (text for heredoc in step.heredocs for text in _heredoc(heredoc))
        flags = (step.destination, step.chown, owners, step.chmod, str(step.link))
        return _text(name, *flags, json.dumps(step.exclude), json.dumps([*heredocs]), *more)


def _files(image: Image) -> str:
    """What stands for the files of an image: its layers, whoever made them."""
    return _text(*(layer.diff_id for layer in image.layers))


def _heredoc(heredoc: HeredocFile) -> tuple[str, str]:
    return heredoc.name, heredoc.content


def _mount_text(mount: RunMount) -> str:
    match mount:
        case BindMount():
            return _text("bind", mount.target, mount.source, str(mount.writable))
        case CacheMount():
            owner = (f"{mount.mode:o}", str(mount.uid), str(mount.gid))
            return _text("cache", mount.target, mount.id, str(mount.read_only), mount.source, *owner)
        case TmpfsMount():
            return _text("tmpfs", mount.target, str(mount.size))
        case SecretMount() | SshMount():
            env = mount.env if isinstance(mount, SecretMount) else ""
            owner = (f"{mount.mode:o}", str(mount.uid), str(mount.gid))
            return _text(type(mount).__name__, mount.target, mount.id, env, str(mount.required), *owner)


def _text(*parts: str) -> str:
    """One text that stands for `parts` and no others."""
    return json.dumps(parts)
