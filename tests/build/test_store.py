"""Builds that share a local store (`--cache-dir`): what they reuse, and that they never trust what is damaged."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
import site
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from builder.layer.index_json import decode_index, encode_index
from builder.rootfs.entry import Change
from builder.store.entries import PARTIAL
from builder.store.prune import prune
from tests.build import busybox
from tests.build.program import CHECKOUT, Builder, left_behind
from tests.isolation.places import ANYONE, Absent, as_uid, interpreter_for_anyone
from tests.servers.registry import RegistryServer, docker_registry, missing
from tests.store.consistency import assert_consistent

DOCKERFILE = """FROM {base} AS run
RUN rm /etc/passwd && echo made > /made
FROM {base}
WORKDIR /work
COPY --chown=user --from=run /made /
"""


@dataclass(frozen=True)
class Shop:
    """Builds that start from an image in `registry` and keep what they can in `store`."""

    limpet: Builder
    registry: RegistryServer
    store: Path
    name: str

    @property
    def base(self) -> str:
        return f"{self.registry.host}/{self.name}"

    def arguments(self, *more: str) -> list[str]:
        epoch = "--build-arg=SOURCE_DATE_EPOCH=1"
        return ["--no-push", "--reproducible", epoch, f"--cache-dir={self.store}", *more]

    def build(self, *more: str, text: str = DOCKERFILE, base: str = "") -> tuple[str, str]:
        """Digest and log of a build that works."""
        self.limpet.dockerfile(text.format(base=base or f"{self.base}:1"))
        digest = self.limpet.directory / "digest"
        digest.unlink(missing_ok=True)
        done = self.limpet(*self.arguments(f"--digest-file={digest}", *more))
        assert done.returncode == 0, done.stderr
        return digest.read_text(), done.stderr

    def pulled(self) -> list[str]:
        """The requests for the base image so far."""
        return self.registry.requests(path=f"/v2/{self.name}/")

    def partial(self) -> list[str]:
        """What is half-made in the store."""
        directory = self.store / PARTIAL
        return sorted(os.listdir(directory)) if directory.is_dir() else []

    def entries(self) -> set[str]:
        locks = [lock for lock in self.store.glob("*/*/lock") if lock.parts[-3] not in (PARTIAL, "mounts")]
        return {str(lock.parent.relative_to(self.store)) for lock in locks}


def push(layout: Path, registry: RegistryServer, reference: str) -> None:
    target = f"docker://{registry.host}/{reference}"
    subprocess.run(["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}", target], check=True)


@pytest.fixture
def shop(limpet: Builder, registry: RegistryServer, base: Path, tmp_path: Path) -> Shop:
    name = f"store-{tmp_path.name}".lower().replace("_", "-").replace("[", "-").replace("]", "")
    push(base, registry, f"{name}:1")
    return Shop(limpet, registry, tmp_path / "store", name)


@contextmanager
def shop_of_its_own(limpet: Builder, base: Path, directory: Path) -> Iterator[Shop]:
    """With a registry of its own, which can be stopped."""
    if missing():
        pytest.skip(missing())
    with docker_registry(directory / "registry") as server:
        push(base, server, "base:1")
        yield Shop(limpet, server, directory / "store", "base")


@pytest.fixture
def own(limpet: Builder, base: Path, tmp_path: Path) -> Iterator[Shop]:
    with shop_of_its_own(limpet, base, tmp_path) as shop:
        yield shop


@pytest.mark.parametrize("isolation", ["auto", "chroot"])
def test_the_second_build_pulls_nothing(shop: Shop, isolation: str) -> None:
    if isolation == "chroot" and os.geteuid() != 0:
        pytest.skip("chroot needs root")
    digest, _ = shop.build(f"--isolation={isolation}")
    before = shop.pulled()
    assert [request for request in before if "/blobs/" in request]
    again, log = shop.build(f"--isolation={isolation}")
    assert again == digest
    assert "Returning cached image manifest" in log
    assert shop.pulled()[len(before) :] == [f"HEAD /v2/{shop.name}/manifests/1 200"]
    assert_consistent(shop.store)


@pytest.mark.parametrize("isolation", ["namespaces", "chroot"])
def test_what_a_warm_store_leaves_to_do_before_a_run(shop: Shop, isolation: str) -> None:
    """Nothing is pulled; what has no mounts still lays the files out, and the trace says so."""
    if os.geteuid() != 0:
        pytest.skip("chroot needs root")
    trace = shop.limpet.directory / "trace"
    arguments = (f"--isolation={isolation}", f"--trace={trace}")
    shop.build(*arguments)
    assert {"pull", "unpack"} <= _kinds_of_work(trace)
    shop.build(*arguments)
    kinds = _kinds_of_work(trace)
    assert "run" in kinds and "pull" not in kinds
    assert ("unpack" in kinds) == (isolation == "chroot")


def _kinds_of_work(trace: Path) -> set[str]:
    value = json.loads(trace.read_bytes())
    return {event["cat"] for event in value["traceEvents"] if event.get("ph") == "X"}


def test_a_tag_that_moved_is_noticed(shop: Shop, tmp_path: Path) -> None:
    shop.build()
    busybox.write_layout(tmp_path / "newer", busybox.tar(("new", b"new")))
    push(tmp_path / "newer", shop.registry, f"{shop.name}:1")
    _, log = shop.build(text="FROM {base}\nRUN cat /new\n")
    assert "] new" in log


def test_without_a_registry(own: Shop) -> None:
    digest, log = own.build()
    layout = own.limpet.directory / "layout"
    by_digest = f"{own.base}@{own.registry.requests('GET', '/manifests/sha256:') or _digest(own)}"
    own.registry.stop()
    again, log = own.build(f"--oci-layout-path={layout}")
    assert again == digest
    assert "going on with sha256:" in log
    # Base layers are in the layout, whole: they came from the store, too.
    subprocess.run(["skopeo", "copy", "-q", f"oci:{layout}", f"dir:{own.limpet.directory / 'copy'}"], check=True)
    again, log = own.build("--cache-ttl=1ns", base=by_digest)
    assert again == digest
    assert "warning" not in log.lower()
    own.limpet.dockerfile(DOCKERFILE.format(base=f"{own.base}:1"))
    log = own.limpet.fails(*own.arguments("--cache-ttl=1ns"), code=75)
    assert "cannot reach" in log


def _digest(shop: Shop) -> str:
    command = ["skopeo", "inspect", "--tls-verify=false", "--format={{.Digest}}", f"docker://{shop.base}:1"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _replace_keeping_time(path: Path) -> None:
    status = path.stat()
    path.write_bytes(path.read_bytes()[:-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a byte of a blob": ("blobs/*/data", _flip),
    "a blob cut short": ("blobs/*/data", lambda path: os.truncate(path, 10)),
    "a file is gone": ("layers-*/*/tree/bin/busybox", Path.unlink),
    "a file is shorter": ("layers-*/*/tree/bin/busybox", _replace_keeping_time),
    "a file too many": ("layers-*/*/tree", lambda path: (path / "more").touch()),
    "a mode": ("layers-*/*/tree/etc/passwd", lambda path: path.chmod(0o666)),
    "an owner": ("layers-*/*/tree/etc/passwd", lambda path: os.chown(path, 0, 5)),
    "no tree": ("layers-*/*/tree", lambda path: path.rename(path.parent / "elsewhere")),
    "no entry.json": ("layers-*/*/entry.json", Path.unlink),
    "half an entry.json": ("*/*/entry.json", lambda path: os.truncate(path, 20)),
    "a byte of an index": ("indexes/*/changes.json", _flip),
    "an index cut short": ("indexes/*/changes.json", lambda path: os.truncate(path, 100)),
    "another image": (
        "images/*/entry.json",
        lambda path: path.write_text(path.read_text().replace("sha256:", "sha512:")),
    ),
    "a name": ("names/*.json", lambda path: path.write_text("{")),
}


@pytest.mark.skipif(os.geteuid() != 0, reason="owners are changed by root only")
@pytest.mark.root
def test_damage_is_found_and_repaired(shop: Shop, tmp_path: Path) -> None:
    # A base of its own for the stage without RUN: of one that is unpacked, no index is needed.
    busybox.write_layout(tmp_path / "second", busybox.tar(("more", b"more")))
    push(tmp_path / "second", shop.registry, f"{shop.name}:2")
    text = DOCKERFILE.replace("FROM {base}\n", f"FROM {shop.base}:2\n")
    digest, _ = shop.build(text=text)
    for what, (pattern, damage) in DAMAGES.items():
        damaged = sorted(shop.store.glob(pattern))
        assert damaged, what
        for path in damaged:
            damage(path)
        with pytest.raises(AssertionError):
            assert_consistent(shop.store)
        if pattern.startswith(("blobs", "images")):  # read only where nothing better is there
            for entry in [*shop.store.glob("layers-*/*/lock"), *shop.store.glob("indexes/*/lock")]:
                entry.unlink()
        again, log = shop.build(text=text)
        assert again == digest, what
        assert ("is damaged and not used" in log) == (what != "a name"), (what, log)
        assert_consistent(shop.store)
    again, log = shop.build(text=text)
    assert again == digest
    assert "damaged" not in log


def _another(path: Path, changes: list[Change]) -> None:
    """An index that is whole, and of something else."""
    data = encode_index(changes)
    path.write_bytes(data)
    about = path.with_name("entry.json")
    value = json.loads(about.read_bytes())
    about.write_text(json.dumps({**value, "sha256": hashlib.sha256(data).hexdigest()}))


@pytest.mark.parametrize("wrong", ["place", "size"])
@pytest.mark.parametrize("cached", [False, True], ids=["alone", "cache"])
def test_an_index_of_something_else_is_replaced(shop: Shop, tmp_path: Path, cached: bool, wrong: str) -> None:
    """Its digest is right: that it is none of the layer's shows when the layer is read."""
    more = ["--isolation=none"]  # nothing is unpacked, or the file would be read there
    more += ["--cache", f"--cache-repo=oci:{tmp_path / 'cache'}", "--no-push-cache"] if cached else []
    text = "FROM scratch\nCOPY --from={base} /bin/busybox /made\n"
    digest, _ = shop.build(*more, text=text)
    (index,) = shop.store.glob("indexes/*/changes.json")
    changes = decode_index(index.read_bytes())
    if wrong == "place":
        _another(index, changes[1:])
    else:
        _another(index, [replace(each, size=3) if each.path == "bin/busybox" else each for each in changes])
    again, log = shop.build(*more, text=text)
    assert again == digest
    assert len([line for line in log.splitlines() if line.startswith("WARN")]) == 1, log
    assert f"indexes/{index.parent.name} is damaged and not used" in log
    assert "building again" in log
    assert decode_index(index.read_bytes()) == changes
    assert_consistent(shop.store)


@pytest.fixture
def mounts() -> Iterator[Callable[..., None]]:
    """mount(8) of the arguments, of which the last is the mount point; undone at the end."""
    points: list[str] = []

    def mount(*arguments: str) -> None:
        subprocess.run(["mount", *arguments], check=True)
        if arguments[-1] not in points:
            points.append(arguments[-1])

    yield mount
    for point in reversed(points):
        subprocess.run(["umount", point], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts are made by root only")
@pytest.mark.root
def test_a_store_that_can_only_be_read(shop: Shop, mounts: Callable[..., None]) -> None:
    digest, _ = shop.build()
    mounts("--bind", str(shop.store), str(shop.store))
    mounts("-o", "remount,ro,bind", str(shop.store))
    before = shop.pulled()
    again, log = shop.build()
    assert again == digest
    assert "cannot" not in log
    assert not [request for request in shop.pulled()[len(before) :] if "/blobs/" in request]
    # Something else than what it has, and a cache, which cannot be kept.
    again, log = shop.build(text="FROM base\nRUN --mount=type=cache,target=/c touch /c/made /made\n")
    assert again != digest
    assert "damaged" not in log


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts are made by root only")
@pytest.mark.root
def test_a_store_that_is_full(shop: Shop, mounts: Callable[..., None]) -> None:
    digest, _ = shop.build()
    for size in ("400k", "1500k", "3500k"):  # not the blob, not the tree, both
        store = shop.limpet.directory / size
        store.mkdir()
        mounts("-t", "tmpfs", "-o", f"size={size}", "none", str(store))
        again, log = shop.build(f"--cache-dir={store}")
        assert again == digest
        told = [line for line in log.splitlines() if "cannot be written (No space left on device)" in line]
        assert len(told) == (1 if size != "3500k" else 0), (size, log)
        assert os.listdir(store / PARTIAL) == []


def _many_files() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(8000):
            member = tarfile.TarInfo(f"many/{number % 100}/{number}")
            member.size = 1024
            archive.addfile(member, io.BytesIO(random.randbytes(1024)))
    return buffer.getvalue()


def test_a_build_that_was_killed(shop: Shop, tmp_path: Path) -> None:
    busybox.write_layout(tmp_path / "large", _many_files())
    push(tmp_path / "large", shop.registry, f"{shop.name}:large")
    text = "FROM {base}\nRUN ls /many | wc -l > /count\n"
    base = f"{shop.base}:large"
    shop.limpet.dockerfile(text.format(base=base))
    process = shop.limpet.start(*shop.arguments())
    while not list(shop.store.glob(f"{PARTIAL}/layers-*/tree/many/50")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    subprocess.run(["rm", "-rf", str(shop.limpet.work)], check=True)  # of the killed build
    left = shop.partial()
    assert [name for name in left if name.startswith("layers-")]
    assert [name for name in left if name.startswith("blobs.")]
    reference, _ = shop.build(f"--cache-dir={tmp_path / 'another'}", text=text, base=base)
    # Pruning takes away what nobody works on; building would do the same with what it needs.
    prune(shop.store)
    assert shop.partial() == []
    assert shop.build(text=text, base=base)[0] == reference
    assert shop.partial() == []
    assert left_behind(process.pid, shop.limpet.work) == []


def test_builds_at_the_same_time_unpack_once(shop: Shop) -> None:
    shop.limpet.dockerfile(DOCKERFILE.format(base=f"{shop.base}:1").replace("WORKDIR /work\n", ""))
    files = [shop.limpet.directory / f"digest-{number}" for number in range(4)]
    processes = [shop.limpet.start(*shop.arguments(f"--digest-file={file}")) for file in files]
    for process in processes:
        _, log = process.communicate()
        assert process.returncode == 0, log
    assert len({file.read_text() for file in files}) == 1
    assert len([request for request in shop.pulled() if request.startswith("GET") and "/blobs/" in request]) <= 8
    assert shop.partial() == []
    assert len(list(shop.store.glob("layers-*/*"))) == 1


def test_pruning_leaves_what_is_in_use(shop: Shop, tmp_path: Path) -> None:
    gate = shop.limpet.context / "gate"
    shop.limpet.dockerfile(
        f"FROM {shop.base}:1\nRUN --mount=type=cache,target=/gate,id=gate "
        "echo is running; while ! test -e /gate/open; do sleep 0.1; done; ls /bin | wc -l > /count\n"
    )
    waiting = shop.limpet.start(*shop.arguments())
    assert waiting.stderr is not None
    log = ""
    while "] is running" not in log:
        line = waiting.stderr.readline()
        assert line, log
        log += line
    used = {path for path in shop.entries() if path.startswith("layers")}
    assert used
    other = ["FROM {base}", "COPY Dockerfile /"]
    shop.limpet.dockerfile("\n".join(other).format(base="base"))
    done = subprocess.run(
        shop.limpet.command(*shop.arguments("--cache-dir-size=1", "--work-dir=" + str(tmp_path / "other"))),
        cwd=CHECKOUT,
        env=shop.limpet.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "in use" in done.stderr
    assert used <= shop.entries()
    assert not list(shop.store.glob("indexes/*"))
    (next((shop.store / "mounts").glob("*/0")) / "open").touch()
    _, rest = waiting.communicate()
    assert waiting.returncode == 0, log + rest
    assert not gate.exists()
    shop.build("--cache-dir-size=1", text="FROM scratch\nCOPY Dockerfile /\n")
    assert shop.entries() == set()
    assert not list((shop.store / "names").glob("*"))
    assert not list((shop.store / "mounts").glob("*/0"))


@pytest.fixture
def public(shop: Shop) -> Iterator[Shop]:
    """Where other users may look, too."""
    with tempfile.TemporaryDirectory(prefix="limpet-store-", dir="/var/tmp") as name:
        directory = Path(name)
        for path in (directory, directory / "context", directory / "work", directory / "store", directory / "own"):
            path.mkdir(exist_ok=True)
            path.chmod(0o755 if path.name == "store" else 0o777)
        limpet = Builder(directory, directory / "base", directory / "work")
        busybox.write_layout(limpet.base)
        yield Shop(limpet, shop.registry, directory / "store", shop.name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes other users")
@pytest.mark.root
def test_users_of_one_store(public: Shop) -> None:
    """Each uses what it may: blobs of any user, unpacked layers of those whose files lie on the disk alike."""
    try:
        python = interpreter_for_anyone()
    except Absent as reason:
        pytest.skip(str(reason))
    reference, _ = public.build()
    file, own = public.limpet.work / "digest", public.limpet.directory / "own"

    def as_anyone(store: Path) -> str:
        command = public.limpet.command(*public.arguments(f"--cache-dir={store}", f"--digest-file={file}"))
        environment = {**public.limpet.environment(), "PYTHONPATH": site.getsitepackages()[0]}
        done = subprocess.run(
            [*as_uid(ANYONE), python, *command[1:]], cwd=CHECKOUT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert file.read_text() == reference
        file.unlink()
        return done.stderr

    before = public.pulled()
    log = as_anyone(public.store)  # which is root's
    assert "cannot" not in log
    assert not [request for request in public.pulled()[len(before) :] if "/blobs/" in request]
    as_anyone(own)
    before = public.pulled()
    unpacked = {path: path.stat().st_mtime_ns for path in own.glob("layers-*/*/entry.json")}
    assert len(unpacked) == 1
    as_anyone(own)
    assert public.pulled()[len(before) :] == [f"HEAD /v2/{public.name}/manifests/1 200"]
    assert {path: path.stat().st_mtime_ns for path in own.glob("layers-*/*/entry.json")} == unpacked
    private = [path for path in own.glob("*/*") if path.is_dir() and path.stat().st_mode & 0o077 == 0]
    assert private == list(own.glob("layers-*/*"))
    # Where files have their true owners, they lie there in another way.
    assert public.build(f"--cache-dir={own}")[0] == reference
    assert len(list(own.glob("layers-*"))) == 2


def test_images_are_fetched_before_a_step_reads_them(own: Shop, base: Path) -> None:
    push(base, own.registry, "tool:1")
    text = f"""FROM base
RUN --mount=type=cache,target=/gate,id=gate echo is running; \
    for i in $(seq 600); do test -e /gate/open && exit 3; sleep 0.1; done
COPY --from={own.registry.host}/tool:1 /bin/busybox /
"""
    own.limpet.dockerfile(text)
    process = own.limpet.start(*own.arguments())
    while not own.registry.requests("GET", "/v2/tool/blobs/") or not list((own.store / "mounts").glob("*/0")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    (next((own.store / "mounts").glob("*/0")) / "open").touch()
    _, log = process.communicate()
    assert process.returncode == 3, log


def test_a_signal_ends_waiting_for_another_build(shop: Shop, tmp_path: Path) -> None:
    busybox.write_layout(tmp_path / "large", _many_files())
    push(tmp_path / "large", shop.registry, f"{shop.name}:large")
    shop.limpet.dockerfile(f"FROM {shop.base}:large\nRUN true\n")
    frozen = shop.limpet.start(*shop.arguments())
    while not list(shop.store.glob(f"{PARTIAL}/layers-*/tree/many/50")):
        assert frozen.poll() is None, frozen.communicate()
        time.sleep(0.001)
    frozen.send_signal(signal.SIGSTOP)
    work = tmp_path / "other"
    build = shop.limpet.command(*shop.arguments())
    warm = [sys.executable, "-m", "builder", "warm", f"--image={shop.base}:large", f"--cache-dir={shop.store}"]
    for command in (build, warm):
        command.append(f"--work-dir={work}")
        waiting = subprocess.Popen(
            command, cwd=CHECKOUT, env=shop.limpet.environment(), stderr=subprocess.PIPE, text=True
        )
        while not list(work.glob("limpet-*/layers")):
            assert waiting.poll() is None, waiting.communicate()
            time.sleep(0.01)
        time.sleep(1)  # by then it asks for the lock that the frozen one has
        waiting.send_signal(signal.SIGTERM)
        _, log = waiting.communicate()
        assert waiting.returncode == 143, log
        assert os.listdir(work) == []
    frozen.send_signal(signal.SIGCONT)
    _, log = frozen.communicate()
    assert frozen.returncode == 0, log
