"""The unpacker: what it keeps, what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.errors import ContextError
from context_sources import FetchSettings, Limits
from context_sources.archive import unpack
from context_sources.fetch import empty
from context_sources.tar_format import BLOCK, Stream, check, common_file, member_of, number, sum_of
from tests.context_sources.conftest import FILES, Fetcher, add, add_file, archive, archive_of, tree

SETTINGS = FetchSettings()
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
}


def pieces(data: bytes, size: int = 1000) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@pytest.fixture
def into(tmp_path: Path) -> Path:
    directory = tmp_path / "into"
    directory.mkdir()
    return directory


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
def test_compression_is_known_by_content(into: Path, compression: str, size: int) -> None:
    unpack(pieces(COMPRESSIONS[compression](archive_of(FILES)), size), into, SETTINGS, name="a")
    assert tree(into) == FILES


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "xz", "zstd"])
def test_members_follow_each_other(into: Path, compression: str) -> None:
    """What pigz, pbzip2, pixz and pzstd write."""
    data, compress = archive_of(FILES), COMPRESSIONS[compression]
    unpack(pieces(compress(data[:700]) + compress(data[700:])), into, SETTINGS, name="a")
    assert tree(into) == FILES


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_cut_archive_is_an_error_wherever_it_is_cut(into: Path, compression: str) -> None:
    whole = COMPRESSIONS[compression](archive_of({"a": os.urandom(5000), "b": os.urandom(300)}))
    # Zeros at the end of a plain archive are padding; the last bytes of a zstd frame are its checksum.
    last = len(whole) - (10240 - 8192 + 600 if compression == "none" else 30)
    for at in range(1, last, 97):
        with pytest.raises(ContextError):
            unpack(pieces(whole[:at]), into, SETTINGS, name="the archive")
        empty(into)


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "xz"])
def test_damage_is_found(into: Path, compression: str) -> None:
    damaged = bytearray(COMPRESSIONS[compression](archive_of({"a": os.urandom(50000)})))
    damaged[len(damaged) // 2] ^= 0xFF
    with pytest.raises(ContextError, match=r"damaged|checksum"):
        unpack(pieces(bytes(damaged)), into, SETTINGS, name="the archive")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty: 0 bytes"),
        (b"PK\x03\x04" + bytes(100), "is a zip archive"),
        (b"<!DOCTYPE html><title>Sign in</title>" + bytes(1000), "is an HTML page"),
        (os.urandom(20000).replace(b"\x1f", b"x"), "is not a tar archive"),
        (gzip.compress(b"just text" * 200, mtime=0), "is not a tar archive"),
    ],
)
def test_other_content_is_named(into: Path, data: bytes, said: str) -> None:
    with pytest.raises(ContextError, match=said):
        unpack(pieces(data), into, SETTINGS, name="the archive")


def test_an_archive_without_files_is_an_empty_context(into: Path) -> None:
    unpack(pieces(archive_of({})), into, SETTINGS, name="a")
    assert os.listdir(into) == []


def write_everything(tar: tarfile.TarFile) -> None:
    add(tar, "dir", tarfile.DIRTYPE, mode=0o750)
    add_file(tar, "dir/script", b"#!/bin/sh\n", 0o755, 1_234_567_890.5)
    add_file(tar, "suid", b"s", 0o4755)
    add_file(tar, "hidden", b"h", 0o000)
    add(tar, "locked", tarfile.DIRTYPE, mode=0o555)
    add_file(tar, "locked/inside", b"i")
    add(tar, "link", tarfile.SYMTYPE, "dir/script")
    add(tar, "absolute-link", tarfile.SYMTYPE, "/etc/passwd")
    add(tar, "hard", tarfile.LNKTYPE, "dir/script")
    add_file(tar, "long/" + "n" * 200 + "/" + "é" * 100, b"long")
    add(tar, "long-link", tarfile.SYMTYPE, "t" * 300)


MODES = (0o644, 0o755, 0o666, 0o777, 0o600, 0o000, 0o4777)


def test_modes_do_not_depend_on_the_umask(into: Path) -> None:
    data = archive(lambda tar: [add_file(tar, f"d/{mode:o}", b"x", mode) for mode in MODES])
    (into.parent / "a.tar").write_bytes(data)
    program = """
import os, pathlib, sys
from context_sources import FetchSettings, fetch
os.umask(0o077)
fetch("tar://" + sys.argv[1], pathlib.Path(sys.argv[2]), FetchSettings())
"""
    subprocess.run([sys.executable, "-c", program, str(into.parent / "a.tar"), str(into)], check=True)
    assert {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in (into / "d").iterdir()} == {
        f"{mode:o}": mode for mode in MODES
    }


def test_modes_do_not_depend_on_a_default_acl(into: Path) -> None:
    """Files that are made below a directory with one get its permissions, whatever the umask is."""
    # linux/posix_acl_xattr.h: version 2; owner rwx, group r-x, other none: (tag, permissions, id)
    entries = ((0x01, 7), (0x04, 5), (0x20, 0))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, bits, 0xFFFFFFFF) for tag, bits in entries)
    try:
        os.setxattr(into, "system.posix_acl_default", acl)
    except OSError as error:
        pytest.skip(f"the file system of {into} has no ACLs: {error.strerror}")
    (into / "probe").write_text("")
    assert stat.S_IMODE((into / "probe").stat().st_mode) & 0o007 == 0
    data = archive(lambda tar: [add_file(tar, f"d/{mode:o}", b"x", mode) for mode in MODES])
    unpack(pieces(data), into, SETTINGS, name="a")
    assert {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in (into / "d").iterdir()} == {
        f"{mode:o}": mode for mode in MODES
    }


@given(st.binary(max_size=256))
def test_sums_of_headers(data: bytes) -> None:
    assert sum_of(data) == sum(data)


NUMBERS = st.integers(0, 8**7 - 1)


@given(
    st.text("ab/.\u00e9", min_size=1, max_size=45),
    NUMBERS,
    NUMBERS,
    NUMBERS,
    st.sampled_from((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)),
    st.data(),
)
def test_the_short_way_of_reading_a_header_is_the_long_one(
    name: str, mode: int, size: int, mtime: int, form: int, data: st.DataObject
) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size, entry.mtime = mode, size, mtime
    header = bytearray(entry.tobuf(form)[-BLOCK:])
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, BLOCK - 1))
        header[at] = data.draw(st.integers(0, 255))
    short = common_file(bytes(header))
    if short is not None:
        check(bytes(header), "archive", first=True)
        stored = number(bytes(header[124:136]), "a size", "archive")
        assert short == member_of(bytes(header), stored, {}, Stream((), "archive"))


def test_most_headers_are_read_the_short_way() -> None:
    for name in ("file", "directory/file", "n" * 100):
        entry = tarfile.TarInfo(name)
        entry.size, entry.mtime, entry.mode = 12345, 1_700_000_000, 0o755
        assert common_file(entry.tobuf(tarfile.GNU_FORMAT)) is not None
        assert common_file(entry.tobuf(tarfile.USTAR_FORMAT)) is not None


def test_files_of_many_directories_in_turns(into: Path) -> None:
    """More of them than are kept open."""
    files = {f"{number}/{turn}": b"%d%d" % (turn, number) for turn in range(3) for number in range(150)}
    unpack(pieces(archive_of(files)), into, SETTINGS, name="a")
    assert tree(into) == files


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_modes_links_and_times_are_kept(into: Path, form: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        write_everything(tar)
    unpack(pieces(buffer.getvalue()), into, SETTINGS, name="a")

    def mode(path: str) -> int:
        return stat.S_IMODE(os.lstat(into / path).st_mode)

    assert [mode(path) for path in ("dir", "dir/script", "suid", "hidden", "locked")] == [
        0o750, 0o755, 0o4755, 0, 0o555,
    ]  # fmt: skip
    assert os.readlink(into / "link") == "dir/script"
    assert os.readlink(into / "absolute-link") == "/etc/passwd"
    assert os.readlink(into / "long-link") == "t" * 300
    assert os.stat(into / "hard").st_ino == os.stat(into / "dir/script").st_ino
    assert (into / "long" / ("n" * 200) / ("é" * 100)).read_bytes() == b"long"
    assert os.stat(into / "dir/script").st_mtime == (1_234_567_890.5 if form == tarfile.PAX_FORMAT else 1_234_567_890)
    assert {os.lstat(into / path).st_mtime for path in ("dir", "locked", "link", "suid")} == {1e9}
    assert {os.lstat(into / path).st_uid for path in ("dir", "suid", "link")} == {os.geteuid()}


def test_gnu_tar_agrees(tmp_path: Path, into: Path) -> None:
    """What GNU tar packs is the same afterwards, sparse files in each of its formats included."""
    origin = tmp_path / "origin"
    origin.mkdir()
    for name, data in FILES.items():
        (origin / name).parent.mkdir(exist_ok=True)
        (origin / name).write_bytes(data)
    with open(origin / "sparse", "wb") as file:
        for at in range(60):
            file.seek(at * 100_000)
            file.write(b"data" * 2000)
        file.truncate(8_000_000)
    formats = [
        ["--format=gnu"],
        *(["--format=pax", f"--sparse-version={version}"] for version in ("0.0", "0.1", "1.0")),
    ]
    for arguments in formats:
        data = subprocess.run(
            ["tar", "c", "--sparse", *arguments, "-C", str(origin), "."], check=True, capture_output=True
        ).stdout
        assert len(data) < 2_000_000
        unpack(pieces(data, 5000), into, SETTINGS, name="a")
        assert tree(into) == tree(origin), arguments
        assert os.stat(into / "sparse").st_blocks * 512 < 2_000_000
        empty(into)


def test_later_members_replace_earlier_ones(into: Path) -> None:
    def write(tar: tarfile.TarFile) -> None:
        add_file(tar, "file", b"old")
        add_file(tar, "file", b"new")
        add(tar, "to-link", tarfile.DIRTYPE)
        add(tar, "to-link", tarfile.SYMTYPE, "file")
        add(tar, "to-directory", tarfile.SYMTYPE, "/tmp")
        add(tar, "to-directory", tarfile.DIRTYPE)
        add_file(tar, "to-directory/inside", b"i")

    unpack(pieces(archive(write)), into, SETTINGS, name="a")
    assert tree(into) == {"file": b"new", "to-directory/inside": b"i"}
    assert os.readlink(into / "to-link") == "file"


HOSTILE: dict[str, tuple[Callable[[tarfile.TarFile], object], str]] = {
    "traversal": (lambda tar: add_file(tar, "../outside/file", b"x"), "leads out of the context"),
    "hidden traversal": (lambda tar: add_file(tar, "a/b/../../../outside/file", b"x"), "leads out of the context"),
    "absolute": (lambda tar: add_file(tar, "/outside/file", b"x"), "is absolute"),
    "symlink, then a file through it": (
        lambda tar: (add(tar, "d", tarfile.SYMTYPE, "../outside"), add_file(tar, "d/file", b"x")),
        "lies below d, which is no directory",
    ),
    "directory, used, then replaced by a symlink": (
        lambda tar: (
            add_file(tar, "d/e", b"x"),
            add(tar, "d/e", tarfile.SYMTYPE, "../../outside"),
            add_file(tar, "d/e/file", b"x"),
        ),
        "lies below d/e, which is no directory",
    ),
    "empty directory, known, then replaced by a symlink": (
        lambda tar: (
            add(tar, "d/e", tarfile.DIRTYPE),
            add(tar, "d/e/f", tarfile.DIRTYPE),
            add(tar, "d/e/f", tarfile.SYMTYPE, "../../../outside"),
            add_file(tar, "d/e/f/file", b"x"),
        ),
        "lies below d/e/f, which is no directory",
    ),
    "symlink to the root, then a directory through it": (
        lambda tar: (add(tar, "d", tarfile.SYMTYPE, "/"), add(tar, "d/tmp/evil", tarfile.DIRTYPE)),
        "lies below d, which is no directory",
    ),
    "hard link out": (lambda tar: add(tar, "h", tarfile.LNKTYPE, "../outside/file"), "leads out of the context"),
    "hard link to an absolute path": (lambda tar: add(tar, "h", tarfile.LNKTYPE, "/etc/passwd"), "is absolute"),
    "hard link through a symlink": (
        lambda tar: (add(tar, "d", tarfile.SYMTYPE, "../outside"), add(tar, "h", tarfile.LNKTYPE, "d/file")),
        "which is no directory",
    ),
    "hard link to nothing": (lambda tar: add(tar, "h", tarfile.LNKTYPE, "nothing"), "which is not there"),
    "character device": (lambda tar: add(tar, "dev/null", tarfile.CHRTYPE), "dev/null is a character device"),
    "block device": (lambda tar: add(tar, "dev/sda", tarfile.BLKTYPE), "is a block device"),
    "named pipe": (lambda tar: add(tar, "pipe", tarfile.FIFOTYPE), "is a named pipe"),
    "file over a full directory": (
        lambda tar: (add_file(tar, "d/file", b"x"), add_file(tar, "d", b"x")),
        "is a directory with contents",
    ),
    "file without a name": (lambda tar: add_file(tar, "./", b""), ""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_write_nothing_outside(tmp_path: Path, fetcher: Fetcher, name: str) -> None:
    write, said = HOSTILE[name]
    outside = fetcher.root / "outside"
    outside.mkdir()
    (outside / "file").write_text("untouched")
    path = tmp_path / "hostile.tar"
    path.write_bytes(archive(write))
    if said:
        with pytest.raises(ContextError, match=said):
            fetcher(f"tar://{path}")
        assert os.listdir(fetcher.into) == []
    else:
        fetcher(f"tar://{path}")
    assert {entry.name: entry.read_text() for entry in outside.iterdir()} == {"file": "untouched"}
    assert not os.path.lexists("/tmp/evil")


def test_a_file_written_through_a_symlink_of_the_same_name_replaces_it(tmp_path: Path, fetcher: Fetcher) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    path = tmp_path / "a.tar"
    path.write_bytes(archive(lambda tar: (add(tar, "f", tarfile.SYMTYPE, str(victim)), add_file(tar, "f", b"new"))))
    fetched = fetcher(f"tar://{path}")
    assert tree(fetched.path) == {"f": b"new"}
    assert victim.read_text() == "untouched"


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "xz", "zstd"])
def test_a_bomb_is_stopped(into: Path, compression: str) -> None:
    """A gibibyte of zeros in a small archive ends long before it is written."""
    block = COMPRESSIONS[compression](bytes(1 << 24))
    info = tarfile.TarInfo("zeros")
    info.size = 1 << 40
    bomb = COMPRESSIONS[compression](info.tobuf()) + block * 64
    with pytest.raises(ContextError, match="expands to more than 200 times"):
        unpack(pieces(bomb), into, FetchSettings(limits=Limits(size=None)), name="the archive")
    assert sum(entry.stat().st_size for entry in into.iterdir()) < 300 << 20


def test_zeros_behind_the_end_are_a_bomb_too(into: Path) -> None:
    bomb = gzip.compress(archive_of({})) + gzip.compress(bytes(1 << 24)) * 64
    with pytest.raises(ContextError, match="expands"):
        unpack(pieces(bomb), into, SETTINGS, name="the archive")


def test_limits_are_asked_before_anything_is_written(into: Path) -> None:
    data = archive_of({"a": bytes(600), "b": bytes(600)})
    with pytest.raises(ContextError, match="more than 1000 bytes") as caught:
        unpack(pieces(data), into, FetchSettings(limits=Limits(size=1000)), name="the archive")
    assert "--context-max-size" in caught.value.hint
    assert os.listdir(into) == ["a"]
    with pytest.raises(ContextError, match="more than 1 entries"):
        unpack(pieces(data), into, FetchSettings(limits=Limits(entries=1)), name="the archive")


def test_a_huge_header_is_refused(into: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    with pytest.raises(ContextError, match="no name is that long"):
        unpack([info.tobuf(tarfile.GNU_FORMAT), bytes(1024)], into, SETTINGS, name="the archive")


def test_whiteouts_of_layers_hide_earlier_layers_only(into: Path) -> None:
    def second(tar: tarfile.TarFile) -> None:
        add_file(tar, "opaque/new", b"n")
        add_file(tar, "opaque/.wh..wh..opq")
        add_file(tar, ".wh.gone")
        add_file(tar, "dir/.wh.file")

    first = {"gone/deep": b"", "opaque/old": b"", "opaque/sub/old": b"", "dir/file": b"", "dir/stays": b"s"}
    unpack([archive_of(first)], into, SETTINGS, name="1", whiteouts=True)
    unpack([archive(second)], into, SETTINGS, name="2", whiteouts=True)
    assert tree(into) == {"opaque/new": b"n", "dir/stays": b"s"}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=3000), at=st.integers(0, 9000), form=st.sampled_from(["none", "gzip"]))
def test_no_damage_escapes_as_another_error(tmp_path: Path, data: bytes, at: int, form: str) -> None:
    """Whatever is written over an archive, it unpacks or is a ContextError, and stays inside."""
    into = tmp_path / "root" / "into"
    into.mkdir(parents=True, exist_ok=True)
    whole = archive(write_everything)
    damaged = COMPRESSIONS[form](whole[:at] + data + whole[at + len(data) :])
    try:
        unpack(pieces(damaged), into, SETTINGS, name="the archive")
    except ContextError:
        pass
    finally:
        empty(into)
    assert os.listdir(tmp_path / "root") == ["into"]
    assert os.listdir(into) == []


def test_memory_does_not_grow_with_the_archive(tmp_path: Path) -> None:
    """Half a gibibyte passes through in a small process."""
    into = tmp_path / "into"
    into.mkdir()
    program = f"""
import resource, tarfile
from pathlib import Path
from context_sources import FetchSettings
from context_sources.archive import unpack
info = tarfile.TarInfo("big"); info.size = 1 << 29
def chunks():
    yield info.tobuf()
    for _ in range(1 << 11): yield bytes(1 << 18)
    yield bytes(1024)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
unpack(chunks(), Path({str(into)!r}), FetchSettings(), name="a")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 32 << 10  # KiB
