"""Unpacking: what must arrive, what must not be touched, and what happens where something is not allowed."""

from __future__ import annotations

import ctypes
import io
import json
import os
import resource
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.errors import BuildError, ImageError
from builder.layer.format import LayerFormat
from builder.layer.index import read_index
from builder.layer.overlay import NeedsLayersBelow
from builder.layer.unpack import unpack
from builder.layer.writer import write_layer
from builder.oci.media_types import Compression
from builder.rootfs.directory import DirectoryTree
from builder.rootfs.entry import BytesContent, Change, Entry, FileType, Opaque, Whiteout
from builder.rootfs.layered import LayeredTree
from tests.layer.conftest import as_root, raw_tar, tar_of


def file(path: str, data: bytes = b"", **fields: object) -> Entry:
    return Entry(path, FileType.FILE, size=len(data), content=BytesContent(data), **fields)  # type: ignore[arg-type]


def directory(path: str, mode: int = 0o755, **fields: object) -> Entry:
    return Entry(path, FileType.DIRECTORY, mode, **fields)  # type: ignore[arg-type]


def symlink(path: str, target: str) -> Entry:
    return Entry(path, FileType.SYMLINK, 0o777, target=target)


def hardlink(path: str, target: str) -> Entry:
    return Entry(path, FileType.HARDLINK, target=target)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def lay(root: Path, *changes: Change) -> None:
    unpack(io.BytesIO(tar_of(changes)), root)


# -- nothing outside is touched


HOSTILE = {
    "parents": [("../outside/file", file("", b"x"))],
    "absolute": [("/../../outside/new", file("", b"x"))],
    "link to a file": [("l", symlink("", "../outside/file")), ("l", file("", b"x"))],
    "link above": [("l", symlink("", "../outside")), ("l/file", file("", b"x"))],
    "absolute link above": [("l", symlink("", "{outside}")), ("l/file", file("", b"x"))],
    "link above a link": [("a", symlink("", "..")), ("b", symlink("", "a/outside")), ("b/file", file("", b"x"))],
    "whiteout through a link": [("l", symlink("", "../outside")), ("l/.wh.file", file(""))],
    "opaque through a link": [("l", symlink("", "../outside")), ("l/.wh..wh..opq", file(""))],
    "directory over a link": [
        ("l", symlink("", "../outside")),
        ("l", directory("", 0o700)),
        ("l/file", file("", b"x")),
    ],
    "hardlink to a link": [("l", symlink("", "../outside/file")), ("h", hardlink("", "l")), ("h", file("", b"x"))],
    "metadata through a link": [("l", symlink("", "../outside")), ("l/.", directory("", 0o700, mtime=7))],
    "device": [("l", symlink("", "../outside/file")), ("l", Entry("", FileType.FIFO))],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_outside_is_touched(name: str, root: Path, outside: Path) -> None:
    entries = HOSTILE[name]
    for entry in entries:
        if entry[1].target == "{outside}":
            entries = [("l", symlink("", str(outside))), *entries[1:]]
    unpack(io.BytesIO(raw_tar(entries)), root)
    for path, _, _ in os.walk(root):
        assert os.path.realpath(path).startswith(str(root))


@pytest.mark.parametrize(
    "entries",
    [
        [("h", hardlink("", "../../outside/file"))],
        [("l", symlink("", "../outside")), ("h", hardlink("", "l/file"))],
        [("..", symlink("", "outside"))],
        [("l", symlink("", "l")), ("l/x", file(""))],
        [("a", symlink("", "b")), ("b", symlink("", "a")), ("a/x", file(""))],
        [(".wh...", file(""))],
        [("d/.wh..", file(""))],
        [("d/.wh.", file(""))],
        [("d", directory("")), ("h", hardlink("", "d"))],
        [("x" * 256, file(""))],
        [("x/" * 2047 + "x" * 255, file(""))],
        [("s", symlink("", "t" * 4096))],
    ],
)
def test_what_cannot_be_is_an_error(entries: list[tuple[str, Entry]], root: Path, outside: Path) -> None:
    with pytest.raises(ImageError):
        unpack(io.BytesIO(raw_tar(entries)), root)
    (root.parent / "spool").mkdir()
    if len(entries[0][0]) < 200 and len(entries[0][1].target) < 200:
        with pytest.raises(ImageError):
            LayeredTree().apply(read_index(io.BytesIO(raw_tar(entries)), spool=root.parent / "spool"))


def test_deep_trees_come_and_go(tmp_path: Path) -> None:
    """Deeper than Python's recursion limit, and removed again."""
    root = tmp_path / "root"
    root.mkdir()
    deep = "/".join("d" * 1200)
    try:
        lay(root, file(deep + "/x", b"x"), symlink("l", deep))
        with pytest.raises(ImageError, match="too long"):
            lay(root, file(f"l/{deep}/x"))
        lay(root, Whiteout("d"))
        assert os.listdir(root) == ["l"]
    finally:
        subprocess.run(["rm", "-rf", root], check=True)  # pytest could not


# -- nothing is lost


@pytest.mark.root
@as_root
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_do_not_depend_on_the_umask(root: Path, umask: int) -> None:
    modes = [0o777, 0o666, 0o4755, 0o2755, 0o1777, 0o000, 0o7777]
    old = os.umask(umask)
    try:
        lay(
            root,
            *[file(f"f{mode}", mode=mode) for mode in modes],
            *[directory(f"d{mode}", mode) for mode in modes],
            *[Entry(f"p{mode}", FileType.FIFO, mode) for mode in modes],
        )
    finally:
        os.umask(old)
    assert {name: stat.S_IMODE(os.lstat(root / name).st_mode) for name in os.listdir(root)} == {
        f"{kind}{mode}": mode for kind in "fdp" for mode in modes
    }


@pytest.mark.root
@as_root
def test_owners_in_a_directory_that_hands_on_its_group(root: Path) -> None:
    lay(root, directory("var/local", 0o2775, gid=50))
    lay(
        root,
        file("var/local/f"),
        directory("var/local/d"),
        symlink("var/local/s", "f"),
        Entry("var/local/p", FileType.FIFO),
    )
    for name in "fdsp":
        assert os.lstat(root / "var/local" / name).st_gid == 0, name
    assert stat.S_IMODE(os.lstat(root / "var/local/d").st_mode) == 0o755


@pytest.mark.root
@as_root
def test_capabilities_survive_the_owner_and_the_mode(root: Path) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    lay(root, file("ping", b"x", mode=0o4755, uid=5, gid=6, xattrs={"security.capability": capability}))
    assert os.getxattr(root / "ping", "security.capability") == capability
    assert stat.S_IMODE(os.lstat(root / "ping").st_mode) == 0o4755


def test_directory_metadata_is_of_its_entry_and_its_attributes_too(root: Path) -> None:
    lay(root, directory("d", xattrs={"user.old": b"1", "user.both": b"1"}, mtime=5))
    lay(
        root,
        directory("d", 0o700, xattrs={"user.both": b"2", "trusted.overlay.redirect": b"/etc"}, mtime=9),
        file("d/x"),
    )
    assert {name: os.getxattr(root / "d", name) for name in os.listxattr(root / "d")} == {"user.both": b"2"}
    assert os.lstat(root / "d").st_mtime_ns == 9
    assert stat.S_IMODE(os.lstat(root / "d").st_mode) == 0o700


def test_a_directory_s_entry_may_come_after_what_is_inside(root: Path) -> None:
    lay(root, directory("d", xattrs={"user.old": b"1"}))
    lay(root, file("d/x"), directory("d"))
    assert os.listxattr(root / "d") == []


def test_directories_without_an_entry_keep_their_mtime(root: Path) -> None:
    lay(root, directory("d/e", mtime=5), file("d/e/x"), file("d/e/y"), directory("d", mtime=6))
    lay(root, file("d/e/new"), Whiteout("d/e/x"))
    assert sorted(os.listdir(root / "d/e")) == ["new", "y"]
    assert os.lstat(root / "d/e").st_mtime_ns == 5
    assert os.lstat(root / "d").st_mtime_ns == 6


def test_the_root_directory_has_its_entry_s_metadata(root: Path) -> None:
    unpack(io.BytesIO(raw_tar([("./", directory("", 0o711, mtime=5)), ("x", file(""))])), root)
    assert (stat.S_IMODE(os.lstat(root).st_mode), os.lstat(root).st_mtime_ns) == (0o711, 5)


def test_long_runs_of_zeros_become_holes(root: Path) -> None:
    data = b"start" + bytes(10_000_000) + b"end" + bytes(5_000_000)
    lay(root, file("f", data), file("z", bytes(3_000_000)), file("small", bytes(100)))
    assert (root / "f").read_bytes() == data
    assert os.stat(root / "f").st_blocks * 512 < 2_000_000
    assert (root / "z").read_bytes() == bytes(3_000_000)
    assert (root / "small").read_bytes() == bytes(100)


def test_many_directories_need_few_descriptors(root: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limit[1]))
    try:
        lay(root, *[file(f"{number}/{number}/x", b"x") for number in range(1000)])
        lay(
            root,
            *[file(f"{number}/y") for number in range(1000)],
            Opaque("5"),
            *map(Whiteout, map(str, range(10, 1000))),
        )
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert len(os.listdir(root)) == 1000
    assert os.listdir(root / "500") == ["y"]


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_bad_streams_are_errors(compression: Compression, root: Path, tmp_path: Path) -> None:
    layer = write_layer([file("x", os.urandom(300_000))], tmp_path, LayerFormat(compression=compression))
    data = layer.blob.open().read()
    unpack(io.BytesIO(data), root, compression=compression, diff_id=layer.diff_id)
    with pytest.raises(ImageError, match="diff_id"):
        unpack(io.BytesIO(data), root, diff_id="sha256:" + "0" * 64)
    with pytest.raises(ImageError):
        unpack(io.BytesIO(data[: len(data) // 2]), root, diff_id=layer.diff_id)
    with pytest.raises(ImageError):
        unpack(
            io.BytesIO(data + b"\0" * 512 if compression == "none" else data + b"garbage"), root, diff_id=layer.diff_id
        )
    with pytest.raises(ImageError):
        read_index(io.BytesIO(data), diff_id="sha256:" + "0" * 64)
    assert [one for one in threading.enumerate() if one.name.startswith("layer-")] == []


def test_an_error_of_the_stream_is_raised_as_it_is(root: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise BuildError("connection reset", transient=True)

    with pytest.raises(BuildError, match="connection reset"):
        unpack(Broken(), root)


def test_progress_is_told(root: Path) -> None:
    seen: list[int] = []
    data = tar_of([file("x", os.urandom(1_000_000))])
    unpack(io.BytesIO(data), root, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == len(data)


# -- a lower directory of overlayfs


@pytest.mark.root
@as_root
@pytest.mark.parametrize("xattr", ["trusted", "user"])
def test_overlay_form(root: Path, xattr: str) -> None:
    found = unpack(
        io.BytesIO(
            tar_of(
                [
                    Whiteout("d/gone"),
                    directory("d", mtime=5),
                    directory("o", 0o700, mtime=6),
                    Opaque("o"),
                    Whiteout("again"),
                    file("again/x"),
                    file("replaced"),
                    Whiteout("replaced"),
                    Whiteout("implied/gone"),
                ]
            )
        ),
        root,
        form="overlay",
        overlay_xattr=xattr,  # type: ignore[arg-type]
    )
    for path in ("d/gone", "implied/gone"):
        status = os.lstat(root / path)
        assert stat.S_ISCHR(status.st_mode)
        assert status.st_rdev == 0
    for path in ("o", "again"):
        assert os.getxattr(root / path, f"{xattr}.overlay.opaque") == b"y"
    assert os.lstat(root / "d").st_mtime_ns == 5
    assert stat.S_ISREG(os.lstat(root / "replaced").st_mode)
    assert sorted(found.implied) == ["again", "implied"]


def test_a_whiteout_whose_directory_became_a_symlink_to_itself(root: Path) -> None:
    layer = tar_of([directory("a"), Whiteout("a/gone"), symlink("a", "a")])
    unpack(io.BytesIO(layer), root, form="overlay", overlay_xattr="user")
    assert os.readlink(root / "a") == "a"


@pytest.mark.parametrize(
    "changes",
    [
        [hardlink("x", "below")],
        [Opaque("")],
        [Entry("d", FileType.CHARACTER_DEVICE, device=(0, 0))],
        [Whiteout("a"), Whiteout("a/gone")],
        [Whiteout("a/b/gone"), Whiteout("a")],
        [file("a/b"), file("a")],
        [Whiteout("a/gone"), symlink("a", "b")],
        [Opaque("a")],
    ],
)
def test_what_an_overlay_lower_directory_cannot_say(changes: list[Change], root: Path) -> None:
    with pytest.raises(NeedsLayersBelow):
        unpack(io.BytesIO(tar_of(changes)), root, form="overlay")


# -- where not everything is allowed


EVERYTHING: list[Change] = [
    directory("d", 0o555, uid=5, mtime=5),
    file("d/f", b"content", mode=0o4755, uid=1000, gid=1000, mtime=5),
    symlink("d/s", "f"),
    Entry("d/null", FileType.CHARACTER_DEVICE, 0o666, device=(1, 3)),
    Entry("d/fifo", FileType.FIFO, 0o640, uid=7),
    file("d/capable", b"x", xattrs={"security.capability": bytes.fromhex("0100000200200000000000000000000000000000")}),
]

FURTHER: list[Change] = [file("d/more", b"x"), Whiteout("d/s")]


def unpack_everything(root: Path, record: bool) -> list[str]:
    """Unpack EVERYTHING, and a layer that writes into its read-only directory; what was reported."""
    said: list[str] = []

    def own(fd: int, name: str, entry: Entry) -> None:
        said.append(f"owner {entry.path} {entry.uid} {entry.gid}")

    def not_applied(entry: Entry, what: str) -> None:
        said.append(f"not applied {entry.path} {what}")

    for layer in (EVERYTHING, FURTHER):
        stream = io.BytesIO(tar_of(layer))
        unpack(stream, root, set_owner=own if record else None, not_applied=not_applied)
    return said


def in_child(become: Callable[[], None], record: bool) -> list[str]:
    """What `unpack_everything` reports in a process that has lost privileges; its tree is checked."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                become()
                root = Path(name) / "root"
                root.mkdir()
                os.write(writer, json.dumps(unpack_everything(root, record)).encode())
                os._exit(0)
            except BaseException as error:
                os.write(writer, json.dumps([f"error {error!r}"]).encode())
            finally:
                os._exit(1)
        os.close(writer)
        with os.fdopen(reader, "rb") as answer:
            said: list[str] = json.loads(answer.read())
        assert os.waitpid(child, 0)[1] == 0, said
        root = Path(name) / "root"
        assert set(DirectoryTree(root).names("d")) - {"null"} == {"f", "fifo", "capable", "more"}
        status = os.lstat(root / "d")
        assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o555, 5)
        assert stat.S_IMODE(os.lstat(root / "d/f").st_mode) == 0o4755
        return said


def become_ordinary() -> None:
    os.setgroups([])
    os.setresgid(1000, 1000, 1000)
    os.setresuid(1000, 1000, 1000)


def become_root_of_a_namespace() -> None:
    user, group = os.geteuid(), os.getegid()
    if ctypes.CDLL(None, use_errno=True).unshare(0x10000000):  # CLONE_NEWUSER
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def user_namespaces() -> bool:
    return subprocess.run(["unshare", "--user", "true"], capture_output=True).returncode == 0


needs_user_namespaces = pytest.mark.skipif(not user_namespaces(), reason="user namespaces are not allowed here")


@pytest.mark.root
@as_root
def test_an_ordinary_user_records_owners() -> None:
    said = in_child(become_ordinary, record=True)
    assert "owner d/f 1000 1000" in said
    assert "owner d 5 0" in said
    assert "not applied d/null device" in said
    assert "not applied d/capable xattr security.capability" in said
    assert not any(line.endswith(" owner") for line in said)


@pytest.mark.root
@as_root
def test_an_ordinary_user_without_a_record_is_told_everything() -> None:
    said = in_child(become_ordinary, record=False)
    assert {"not applied d owner", "not applied d/fifo owner", "not applied d/null device"} <= set(said)
    assert "not applied d/f owner" not in said


@needs_user_namespaces
def test_root_of_a_user_namespace() -> None:
    said = in_child(become_root_of_a_namespace, record=True)
    assert [line for line in said if line.startswith("not applied")] == ["not applied d/null device"]


@pytest.mark.root
@as_root
def test_without_anybody_to_tell_it_is_an_error() -> None:
    def become() -> None:
        become_ordinary()
        with tempfile.TemporaryDirectory() as root, pytest.raises(BuildError, match="does not allow its owner"):
            unpack(io.BytesIO(tar_of([file("x", uid=5)])), Path(root))

    in_child(become, record=True)
