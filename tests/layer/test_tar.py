"""Archives as GNU tar writes them in its formats, and archives that nobody should have written."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import ImageError
from builder.layer.tar import TarReader
from builder.layer.tar_header import END_OF_ARCHIVE, header
from builder.layer.unpack import unpack
from builder.rootfs.directory import DirectoryTree
from builder.rootfs.entry import BytesContent, Entry, FileType
from tests.layer.conftest import as_root, raw_tar
from tests.rootfs.trees import comparable

FORMATS = ["ustar", "oldgnu", "gnu", "posix", "v7"]


def entries(data: bytes) -> list[Entry]:
    return list(TarReader(io.BytesIO(data)))


def contents(data: bytes) -> dict[str, bytes]:
    """Every file of the archive, holes filled with zeros."""
    reader = TarReader(io.BytesIO(data))
    found = {}
    for entry in reader:
        whole = bytearray(entry.size)
        for offset, piece in reader.data():
            whole[offset : offset + len(piece)] = piece
        found[entry.path] = bytes(whole)
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "directory").mkdir(parents=True)
    (root / "directory" / "file").write_bytes(b"content\n" * 1000)
    (root / "empty").touch()
    (root / "link").symlink_to("directory/../file")
    os.link(root / "empty", root / "second name")
    os.mkfifo(root / "fifo")
    os.chmod(root / "empty", 0o4750)
    for path, mtime in ((root / "empty", 1_500_000_000_123_456_789), (root / "directory", 1_000_000_000)):
        os.utime(path, ns=(mtime, mtime))
    return root


def gnu_tar(root: Path, *options: str) -> bytes:
    command = ["tar", "-c", "-C", str(root), "--sort=name", *options, "."]
    return subprocess.run(command, capture_output=True, check=True).stdout


@pytest.mark.root
@as_root
@pytest.mark.parametrize("form", FORMATS)
def test_reads_what_gnu_tar_writes(tree: Path, tmp_path: Path, form: str) -> None:
    if form not in ("v7", "ustar"):
        (tree / ("long" * 60)).write_text("long name")
        (tree / ("deep" * 30) / ("deeper" * 30)).mkdir(parents=True)
        (tree / ("x" * 150)).symlink_to("y" * 300)
        os.lchown(tree / "link", 3_000_000, 2_500_000)
    if form != "v7":
        (tree / ("a" * 90) / ("b" * 60)).mkdir(parents=True)
        os.mknod(tree / "null", 0o20666, os.makedev(1, 3))
    (tree / os.fsdecode(b"not utf-8 \xff\xfe")).touch()
    if form != "posix":  # whole seconds
        for path in [tree, *tree.rglob("*")]:
            os.utime(path, (10**9, 10**9), follow_symlinks=False)
    if form == "v7":
        (tree / "fifo").unlink()
    root = tmp_path / "root"
    root.mkdir()
    unpack(io.BytesIO(gnu_tar(tree, f"--format={form}")), root)
    assert comparable(DirectoryTree(root)) == comparable(DirectoryTree(tree))


def test_extended_attributes(tree: Path, tmp_path: Path) -> None:
    os.setxattr(tree / "empty", "user.note", b"a=b\n\x00\xff")
    os.setxattr(tree / "directory", "user.note", b"on a directory")
    found = {entry.path: entry.xattrs for entry in entries(gnu_tar(tree, "--format=posix", "--xattrs"))}
    assert found["empty"] == {"user.note": b"a=b\n\x00\xff"}
    assert found["directory"] == {"user.note": b"on a directory"}


@pytest.mark.parametrize("options", [["gnu"], ["oldgnu"], ["posix", "0.0"], ["posix", "0.1"], ["posix", "1.0"]])
def test_sparse_files(tmp_path: Path, options: list[str]) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    with open(root / "sparse", "wb") as file:
        for segment in range(40):  # more than one block of the old format's table
            file.seek(segment * 100_000)
            file.write(b"%d" % segment * 3000)
        file.truncate(5_000_000)
    with open(root / "hole", "wb") as file:
        file.truncate(3_000_000)
    (root / "z").write_text("comes after")
    version = [f"--sparse-version={options[1]}"] if len(options) > 1 else []
    data = gnu_tar(root, "--sparse", f"--format={options[0]}", *version)
    assert len(data) < 3_000_000
    found = contents(data)
    assert found["sparse"] == (root / "sparse").read_bytes()
    assert found["hole"] == bytes(3_000_000)
    assert found["z"] == b"comes after"
    out = tmp_path / "out"
    out.mkdir()
    unpack(io.BytesIO(data), out)
    assert (out / "sparse").read_bytes() == (root / "sparse").read_bytes()
    assert os.stat(out / "hole").st_blocks == 0


def test_names_cannot_leave_the_root() -> None:
    names = ["/etc/passwd", "../../x", "./a/../../b", "a//b/./c/", "..", "/"]
    found = [entry.path for entry in entries(raw_tar([(name, Entry("", FileType.FIFO)) for name in names]))]
    assert found == ["etc/passwd", "x", "b", "a/b/c", "", ""]


def test_global_headers_hold_until_they_are_taken_back() -> None:
    def record(text: bytes) -> bytes:
        body = b"%d %b\n" % (len(text) + 4, text)
        assert len(body) == int(body[:2])
        block = bytearray(header(Entry("g", FileType.FILE, size=len(body)), 0))
        block[156:157] = b"g"
        block[148:156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 256)
        return bytes(block) + body + bytes(-len(body) % 512)

    one = header(Entry("one", FileType.FILE), 5_000_000_000)
    data = record(b"mtime=1234567.5") + one + one + record(b"mtime=") + one
    assert [entry.mtime for entry in entries(data + END_OF_ARCHIVE)] == [
        1234567500000000,
        1234567500000000,
        5_000_000_000,
    ]


def test_an_entry_can_take_back_a_global_record() -> None:
    # pax(1): "a value of zero length deletes the record for this file".
    globals_ = extended(b"15 mtime=12345\n", b"g")[:1024]
    data = globals_ + extended(b"10 mtime=\n", b"x")
    assert [entry.mtime for entry in entries(data)] == [0]


def test_python_agrees_about_numbers(tmp_path: Path) -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
            member = tarfile.TarInfo("x")
            member.uid, member.gid, member.mtime, member.type = 2**31, 2**32 - 2, -5, tarfile.CHRTYPE
            member.devmajor, member.devminor = 5, 2**20
            archive.addfile(member)
        (entry,) = entries(buffer.getvalue())
        assert (entry.uid, entry.gid, entry.mtime) == (2**31, 2**32 - 2, -5_000_000_000)
        assert entry.device == (5, 2**20)


VALID = raw_tar(
    [
        ("d", Entry("", FileType.DIRECTORY, 0o755, xattrs={"user.x": b"1"})),
        ("n" * 300, Entry("", FileType.FILE, size=700, mtime=1, content=BytesContent(b"v" * 700))),
        ("s", Entry("", FileType.SYMLINK, target="t" * 200)),
        ("h", Entry("", FileType.HARDLINK, target="d/x")),
        ("c", Entry("", FileType.CHARACTER_DEVICE, device=(1, 3))),
    ]
)


@pytest.mark.parametrize("length", [*range(1, 512, 100), 512, 1000, 1024, 1536, 2048, 2600, 3000, 3333, 4000])
def test_a_truncated_archive_is_an_error(length: int) -> None:
    """Except where an entry ends: many archives lack the zeros at the end."""
    try:
        found = contents(VALID[:length])
    except ImageError as error:
        assert "truncated" in error.message
    else:
        assert length % 512 == 0
        assert len(found) < 5


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(VALID) - 1), st.integers(0, 255), st.booleans())
def test_a_damaged_archive_is_an_error_or_another_archive(position: int, value: int, repair: bool) -> None:
    damaged = bytearray(VALID)
    damaged[position] = value
    if repair:  # else the checksum catches nearly all of it
        start = position - position % 512
        total = sum(damaged[start : start + 148]) + 256 + sum(damaged[start + 156 : start + 512])
        damaged[start + 148 : start + 156] = b"%06o\0 " % total
    try:
        contents(bytes(damaged))
    except ImageError:
        pass


@pytest.mark.parametrize(
    ("offset", "field", "message"),
    [
        (124, b"\x80" + b"\xff" * 11, "size"),
        (124, b"\xff" * 12, "size"),
        (124, b"hello", "octal"),
        (100, b"-1", "octal"),
        (108, b"\x80" + b"\xff" * 7, "owner"),
        (136, b"\x80" + b"\xff" * 11, "mtime"),
        (156, b"V", "unknown type"),
    ],
)
def test_hostile_numbers(offset: int, field: bytes, message: str) -> None:
    block = bytearray(header(Entry("x", FileType.FILE), 0))
    block[offset : offset + len(field)] = field
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 256)
    with pytest.raises(ImageError, match=message):
        entries(bytes(block) + END_OF_ARCHIVE)


def extended(records: bytes, kind: bytes = b"x") -> bytes:
    block = bytearray(header(Entry("x", FileType.FILE, size=len(records)), 0))
    block[156:157] = kind
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 256)
    return bytes(block) + records + bytes(-len(records) % 512) + header(Entry("x", FileType.FILE), 0) + END_OF_ARCHIVE


@pytest.mark.parametrize(
    "records",
    [
        b"99 path=x\n",
        b"8 path=x\n",
        b"path=x\n",
        b"-1 path=x\n",
        b"10 path=xx",
        b"18446744073709551617 path=x\n",
        b"12 size=12a\n",
        b"11 uid=-12\n",
        b"13 mtime=1e9\n",
        b"13 mtime=nan\n",
        b"12 path=x\0y\n",
        b"30 GNU.sparse.map=0,1,2,3,4,5\n",
        b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n29 GNU.sparse.realsize=10000\n",
        b"29 SCHILY.xattr.user.a\0b=1234\n",
    ],
)
def test_hostile_extended_headers(records: bytes) -> None:
    with pytest.raises(ImageError):
        entries(extended(records))


def test_an_extended_header_cannot_fill_the_memory() -> None:
    block = bytearray(header(Entry("x", FileType.FILE, size=1 << 40), 0)[-512:])
    for kind in (b"x", b"g", b"L", b"K"):
        block[156:157] = kind
        block[124:136] = b"\x80" + (1 << 40).to_bytes(11, "big")
        block[148:156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 256)
        with pytest.raises(ImageError, match="extended header of"):
            entries(bytes(block))


def test_what_is_no_tar_says_so() -> None:
    with pytest.raises(ImageError, match="no tar archive"):
        entries(b"<html>" * 200)
