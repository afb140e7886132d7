"""`limpet warm`: fill the local store, so that builds start without pulling or unpacking anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from builder.cli.arguments import Arguments
from builder.cli.dockerfile_source import find_dockerfile
from builder.cli.images import Images
from builder.cli.known_secrets import mask_environment
from builder.cli.output import Output
from builder.cli.output.quantities import counted
from builder.cli.registry_access import registry_access
from builder.cli.settings import build_args
from builder.cli.signals import HeldSignals
from builder.cli.wiring import registries, work_directory
from builder.dockerfile.stages import parse
from builder.errors import BuildError, UsageError
from builder.files import LayerIndexes
from builder.isolation import Isolation
from builder.isolation.choose import choose
from builder.oci.image import Layer
from builder.oci.platform import Platform
from builder.oci.reference import Reference
from builder.oci.verified import read_to_end
from builder.plan import ExternalImage, PlanOptions, external_images
from builder.stopping import Stopping
from builder.store.store import Store, open_store

_IMAGES = 2  # stored side by side; each image's layers are, too
_LAYERS = 4


def run(arguments: Arguments, env: Mapping[str, str], output: Output) -> int:
    """Store all images that were named. 1 when none of them could be stored, as in kaniko; else a failure is told."""
    mask_environment(env, output.redactor)
    wanted = _wanted(arguments, env)
    if not wanted:
        output.say(f"{arguments.text('dockerfile')} needs no image of a registry: nothing is stored", "warning")
        return 0
    directory = Path(arguments.text("cache-dir"))
    ttl, size = arguments.seconds("cache-ttl"), arguments.number("cache-dir-size")
    work_parent = Path(arguments.text("work-dir")) if arguments.text("work-dir") else None
    stopping = Stopping()
    with HeldSignals() as signals, work_directory(work_parent, env) as work:
        store = open_store(directory, output, create=True, ttl=ttl, size=size)
        if store is None:
            raise UsageError(f"--cache-dir={directory} cannot be made", "name a directory that can be written")
        with store:
            # Before any thread exists: namespaces can be entered by a process with one thread only.
            isolation = choose("auto", work, output, store)
            _check_writable(store)
            client = registries(registry_access(arguments, env), env, output)
            indexes = LayerIndexes(work, store.indexes)
            warmer = Warmer(store, Images(client, output, store), isolation, indexes, output, stopping)
            with stopping.calling(client.cancel), stopping.calling(store.stop):
                again = arguments.is_set("force")
                failures = signals.carry_out(lambda: warmer.warm_all(wanted, again=again), stopping)
            _check_writable(store)
    return 1 if failures == len(wanted) else 0


@dataclass(frozen=True, slots=True)
class Warmer:
    """What it takes to store images."""

    store: Store
    images: Images
    isolation: Isolation
    indexes: LayerIndexes
    output: Output
    stopping: Stopping

    def warm_all(self, wanted: Sequence[ExternalImage], *, again: bool) -> int:
        """Store the images; how many of them could not be. What fails is told. Raises BuildError when asked to stop.

        What is there already stays, unless `again`: then all of them are removed first.
        """

        def attempt(work: Callable[[ExternalImage], object], image: ExternalImage) -> bool:
            try:
                work(image)
                return True
            except BuildError as error:
                self.stopping.check()
                self.output.say(f"{image.reference} is not stored: {error.message}", "error")
                return False

        left = list(wanted)
        if again:
            left = [image for image in left if attempt(self.images.forget, image)]
        with ThreadPoolExecutor(_IMAGES, thread_name_prefix="warm") as pool:
            try:
                return len(wanted) - sum(pool.map(lambda image: attempt(self.warm, image), left))
            except BaseException:
                self.store.stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def warm(self, wanted: ExternalImage) -> None:
        """Store one image: its documents, its layers packed and, if builds here use them so, unpacked, and indexes.

        A registry is asked what the name means now.
        """
        image = self.images.image(wanted.reference, wanted.platform)
        unpacked = self.isolation.keep(image)
        with ThreadPoolExecutor(_LAYERS, thread_name_prefix="warm-layer") as pool:
            for _ in pool.map(self._keep_layer, image.layers):
                pass
        how = "unpacked" if unpacked else "packed only: no isolation that works here shares unpacked layers"
        self.output.say(
            f"Stored {wanted.reference} in {self.store.directory} ({counted(len(image.layers), 'layer')}, {how})"
        )

    def _keep_layer(self, layer: Layer) -> None:
        # Only a blob that is read to its end is kept.
        if not self.store.blobs.has(layer.descriptor):
            with layer.blob.open() as stream:
                read_to_end(stream)
        self.indexes.changes(layer, contents=False)


def _wanted(arguments: Arguments, env: Mapping[str, str]) -> list[ExternalImage]:
    """The images that the flags name, each once. Raises UsageError, DockerfileError, ContextError."""
    names, dockerfile = arguments.items("image"), arguments.text("dockerfile")
    if not names and not dockerfile:
        raise UsageError(
            "you must select at least one image to cache or a dockerfilepath to parse",
            "use --image=REFERENCE or --dockerfile=PATH",
        )
    custom = arguments.text("customPlatform")
    platform = Platform.parse(custom) if custom else Platform.host()
    wanted = dict.fromkeys(ExternalImage(str(Reference.parse(name)), platform) for name in names)
    if dockerfile:
        found = find_dockerfile(dockerfile, Path())
        options = PlanOptions(
            build_platform=Platform.host(),
            target_platform=Platform.parse(custom) if custom else None,
            build_args=build_args(arguments.items("build-arg"), env),
        )
        wanted |= dict.fromkeys(external_images(parse(found.data, found.name), options, every_stage=True))
    return list(wanted)


def _check_writable(store: Store) -> None:
    """Raises BuildError: a store that cannot be written cannot be warmed."""
    if not store.writable:
        raise BuildError(f"the store {store.directory} cannot be written", "check the volume, its owner and its space")
