"""Changes -> one compressed layer, in one pass through fixed-size buffers."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO, Protocol, cast

import zstandard
from isal import isal_zlib

from builder.errors import BuildError, ImageError, UsageError
from builder.layer.format import OCI_GZIP, LayerFormat
from builder.layer.tar import BLOCK
from builder.layer.tar_header import END_OF_ARCHIVE, header
from builder.layer.whiteouts import OPAQUE_NAME, PREFIX
from builder.oci.blobs import FileBlob, MemoryBlob
from builder.oci.descriptor import Descriptor
from builder.oci.image import Layer
from builder.oci.media_types import OCI_LAYER_GZIP, layer_media_type
from builder.rootfs.entry import Change, Entry, FileContent, FileType, Opaque, Whiteout
from builder.rootfs.paths import join

# isal's output depends on how its input is cut: every block but the last has exactly this size.
_BLOCK_SIZE = 1 << 18
_BLOCKS = 6
_GZIP = 16 + zlib.MAX_WBITS
# The gzip of a tar without entries that Docker has always used: registries and tools know it by its digest
# sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4.
_EMPTY_GZIP = bytes.fromhex("1f8b080000096e8800ff621805a360148c5800080000ffff2eafb5ef00040000")
EMPTY_DIFF_ID = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"


def write_layer(
    changes: Iterable[Change],
    into: Path,
    layer_format: LayerFormat = OCI_GZIP,
    tee: Callable[[bytes], None] | None = None,
    go_on: Callable[[], None] = lambda: None,
) -> Layer:
    """Write `changes` as a layer into a new file of directory `into`, named after its digest in hexadecimal.

    The same changes and contents always make the same bytes, whatever the machine. Sparse files are written with
    their zeros, as Docker and BuildKit do: not every reader of layers knows a sparse format, holes are not read from
    disk, and zeros compress to nothing. Names that begin with `.wh.` are written as they are, and mean what they
    mean to everybody who reads the layer. No changes make the canonical empty layer.

    `tee` gets the compressed bytes as they come, from another thread. `go_on` is called for every 256 KiB of tar: what
    it raises ends the writing. Raises ImageError when a file is not as long
    as its entry says, or the format has no such compression; BuildError when the disk is full. Nothing is left in
    `into` then.
    """
    media_type = layer_media_type(layer_format.image_format, layer_format.compression)
    if media_type is None:
        raise ImageError(
            f"an image in {layer_format.image_format} format cannot hold a layer compressed with "
            f"{layer_format.compression}",
            "leave out --image-format=docker",
        )
    fd, partial = tempfile.mkstemp(prefix=".layer-", dir=into)
    try:
        with os.fdopen(fd, "wb", buffering=0) as file:
            output = _Output(cast(BinaryIO, file), layer_format, tee, go_on)
            try:
                tar = _Tar(output.blocks(), layer_format.newest_mtime)
                for change in changes:
                    tar.add(change)
                tar.end()
            except BaseException as error:
                output.give_up(error)
                raise
            finally:
                output.close()
            output.raise_failure()
        path = into / output.digest.removeprefix("sha256:")
        os.rename(partial, path)
    except BaseException as error:
        os.unlink(partial)
        if isinstance(error, OSError):
            raise _translate(error, into) from error
        raise
    descriptor = Descriptor(media_type, output.digest, output.size)
    return Layer(descriptor, output.diff_id, FileBlob(path, descriptor))


def empty_layer() -> Layer:
    """The canonical layer of nothing, in memory."""
    descriptor = Descriptor.of(OCI_LAYER_GZIP, _EMPTY_GZIP)
    return Layer(descriptor, EMPTY_DIFF_ID, MemoryBlob(_EMPTY_GZIP))


class _Tar:
    """Turns changes into a tar in the blocks of `blocks`."""

    def __init__(self, blocks: _Blocks, newest_mtime: int | None) -> None:
        self._blocks = blocks
        self._newest = newest_mtime

    def add(self, change: Change) -> None:
        if isinstance(change, Whiteout):
            parent, _, name = change.path.rpartition("/")
            self._marker(join(parent, PREFIX + name))
        elif isinstance(change, Opaque):
            self._marker(join(change.path, OPAQUE_NAME))
        elif change.path:  # BuildKit's layers do not carry the root directory
            mtime = change.mtime if self._newest is None else min(change.mtime, self._newest)
            self._blocks.write(header(change, mtime))
            if change.type is FileType.FILE and change.size:
                self._file(change)

    def end(self) -> None:
        self._blocks.write(END_OF_ARCHIVE)
        self._blocks.end()

    def _marker(self, path: str) -> None:
        self._blocks.write(header(Entry(path, FileType.FILE, mode=0), 0))

    def _file(self, entry: Entry) -> None:
        assert entry.content is not None, entry.path
        if isinstance(entry.content, FileContent):
            self._real_file(entry, entry.content.path)
        else:
            with entry.content.open() as stream:
                left = entry.size
                while left and (data := stream.read(min(left, _BLOCK_SIZE))):
                    self._blocks.write(data)
                    left -= len(data)
                if left or stream.read(1):
                    raise _changed(entry)
        self._blocks.zeros(-entry.size % BLOCK)

    def _real_file(self, entry: Entry, location: str) -> None:
        fd = os.open(location, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if status.st_size != entry.size:
                raise _changed(entry)
            sparse = status.st_blocks * 512 < status.st_size - _BLOCK_SIZE
            for end, is_hole in _extents(fd, entry.size) if sparse else ((entry.size, False),):
                start = os.lseek(fd, 0, os.SEEK_CUR)
                if is_hole:
                    self._blocks.zeros(end - start)
                    os.lseek(fd, end, os.SEEK_SET)
                elif self._blocks.read_from(fd, end - start):
                    raise _changed(entry)
        finally:
            os.close(fd)


def _extents(fd: int, size: int) -> Iterator[tuple[int, bool]]:
    """(end, whether it is a hole) of the parts of a sparse file, in order. The position of `fd` is kept at starts."""
    position = 0
    while position < size:
        try:
            data = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # no more data
                raise
            data = size
        hole = min(os.lseek(fd, data, os.SEEK_HOLE), size) if data < size else size
        os.lseek(fd, position, os.SEEK_SET)
        if data > position:
            yield min(data, size), True
        if hole > data:
            yield hole, False
        position = hole


class _Blocks:
    """A stream cut into blocks of one size, each handed to `deliver` when it is full.

    `take` gives an empty block to fill.
    """

    def __init__(self, take: Callable[[], bytearray], deliver: Callable[[bytearray, int], None]) -> None:
        self._take = take
        self._deliver = deliver
        self._block = take()
        self._view = memoryview(self._block)
        self._used = 0

    def write(self, data: bytes) -> None:
        end = self._used + len(data)
        if end < _BLOCK_SIZE:
            self._view[self._used : end] = data
            self._used = end
            return
        rest = memoryview(data)
        while rest:
            count = min(len(rest), _BLOCK_SIZE - self._used)
            self._view[self._used : self._used + count] = rest[:count]
            self._advance(count)
            rest = rest[count:]

    def zeros(self, count: int) -> None:
        while count:
            part = min(count, _BLOCK_SIZE - self._used)
            self._view[self._used : self._used + part] = bytes(part)
            self._advance(part)
            count -= part

    def read_from(self, fd: int, count: int) -> int:
        """Copy `count` bytes of `fd`; what is missing of them when it ends early."""
        while count:
            got = os.readv(fd, [self._view[self._used : self._used + count]])
            if not got:
                break
            self._advance(got)
            count -= got
        return count

    def end(self) -> None:
        if self._used:
            self._deliver(self._block, self._used)
            self._used = 0

    def _advance(self, count: int) -> None:
        self._used += count
        if self._used == _BLOCK_SIZE:
            self._deliver(self._block, self._used)
            self._block = self._take()
            self._view = memoryview(self._block)
            self._used = 0


class _Output:
    """Blocks of tar -> diff_id -> compressed bytes in `file`, each stage in a thread of its own.

    Blocks go round: filled by the caller, hashed, compressed, and back. After a failure in a thread blocks keep
    going round unused, until the caller notices.
    """

    def __init__(
        self,
        file: BinaryIO,
        layer_format: LayerFormat,
        tee: Callable[[bytes], None] | None,
        go_on: Callable[[], None],
    ) -> None:
        self._file = file
        self._tee = tee
        self._go_on = go_on
        self._format = layer_format
        self._compressor = _compressor(layer_format)
        self._tar_digest = hashlib.sha256()
        self._digest = hashlib.sha256()
        self.size = 0
        self._failure: BaseException | None = None
        self._free: SimpleQueue[bytearray] = SimpleQueue()
        self._to_make = _BLOCKS  # when they are needed: most layers fill one
        self._to_hash: SimpleQueue[tuple[bytearray, int] | None] = SimpleQueue()
        self._to_compress: SimpleQueue[tuple[bytearray, int] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._hash, name="layer-diff-id", daemon=True),
            threading.Thread(target=self._compress, name="layer-compress", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def blocks(self) -> _Blocks:
        """Where the caller writes the tar. It refers to this object, which keeps no reference back: all buffers go
        with the last use of a layer's output, without a garbage collection."""
        return _Blocks(self._take, lambda block, used: self._to_hash.put((block, used)))

    @property
    def diff_id(self) -> str:
        return "sha256:" + self._tar_digest.hexdigest()

    @property
    def digest(self) -> str:
        return "sha256:" + self._digest.hexdigest()

    def close(self) -> None:
        """End the threads."""
        self._to_hash.put(None)
        for thread in self._threads:
            thread.join()

    def give_up(self, error: BaseException) -> None:
        """Nobody wants the layer any more, because of `error`: what has not been compressed will not be."""
        self._failure = self._failure or error

    def raise_failure(self) -> None:
        """Raise what went wrong in a thread."""
        if self._failure is not None:
            raise self._failure

    def _take(self) -> bytearray:
        self.raise_failure()
        self._go_on()
        if self._to_make and self._free.empty():
            self._to_make -= 1
            return bytearray(_BLOCK_SIZE)
        return self._free.get()

    def _hash(self) -> None:
        while (item := self._to_hash.get()) is not None:
            block, used = item
            self._tar_digest.update(memoryview(block)[:used])
            self._to_compress.put(item)
        self._to_compress.put(None)

    def _compress(self) -> None:
        while (item := self._to_compress.get()) is not None:
            block, used = item
            if self._failure is None:
                self._attempt(self._compressor.compress, memoryview(block)[:used])
            self._free.put(block)
        if self._failure is None:
            self._attempt(self._compressor.flush)

    def _attempt(self, compress: Callable[..., bytes], *data: memoryview) -> None:
        try:
            self._write(compress(*data))
        except BaseException as error:
            self._failure = error

    def _write(self, data: bytes) -> None:
        if not data:
            return
        self._digest.update(data)
        self.size += len(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        if self._tee is not None:
            self._tee(data)


class _Compressor(Protocol):
    def compress(self, data: memoryview, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _Stored:
    def compress(self, data: memoryview, /) -> bytes:
        return bytes(data)

    def flush(self) -> bytes:
        return b""


class _Gzip:
    """gzip, but Docker's bytes for a tar without entries."""

    def __init__(self, level: int) -> None:
        make = isal_zlib.compressobj if level <= 3 else zlib.compressobj
        self._inner = cast(_Compressor, make(level, zlib.DEFLATED, _GZIP))
        self._size = 0

    def compress(self, data: memoryview, /) -> bytes:
        self._size += len(data)
        if self._size == len(END_OF_ARCHIVE):
            return b""  # the first block is all there is
        return self._inner.compress(data)

    def flush(self) -> bytes:
        return _EMPTY_GZIP if self._size == len(END_OF_ARCHIVE) else self._inner.flush()


def _compressor(layer_format: LayerFormat) -> _Compressor:
    level = 3 if layer_format.level is None else layer_format.level
    limits = {"gzip": (0, 9), "zstd": (1, 22), "none": (level, level)}[layer_format.compression]
    if not limits[0] <= level <= limits[1]:
        raise UsageError(
            f"compression level {level} does not exist for {layer_format.compression}",
            f"--compression-level goes from {limits[0]} to {limits[1]} there",
        )
    if layer_format.compression == "gzip":
        return _Gzip(level)
    if layer_format.compression == "zstd":
        # Any number of threads makes the same bytes, but no thread makes others: always some.
        threads = max(1, min(4, os.cpu_count() or 1))
        return cast(
            _Compressor, zstandard.ZstdCompressor(level=level, threads=threads, write_checksum=True).compressobj()
        )
    return _Stored()


def _changed(entry: Entry) -> ImageError:
    return ImageError(f"{entry.path} changed while its layer was written", "something else writes to it")


def _translate(error: OSError, into: Path) -> BuildError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BuildError(f"no space left in {into} for a layer", "give --work-dir a larger volume")
    name = f" ({error.filename})" if error.filename else ""
    return BuildError(f"cannot write a layer: {error.strerror}{name}")
