"""The base images of the corpus, each made for what some case asks of it."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import zstandard

from builder.oci import media_types
from builder.oci.blobs import MemoryBlob
from builder.oci.config import ExecConfig, History, ImageConfig
from builder.oci.descriptor import Descriptor, sha256
from builder.oci.image import Image, Layer
from builder.oci.media_types import Compression, ImageFormat
from builder.oci.platform import Platform
from tests.build.busybox import PROGRAM

Member = tuple[tarfile.TarInfo, bytes]

_PASSWD = b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\nnohome:x:1001:1001:::/bin/sh\n"
_GROUP = b"root:x:0:\nuser:x:1000:\nstaff:x:50:user\ndaemon:x:2:user,nohome\n"


def directory(name: str, mode: int = 0o755, owner: int = 0) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.uid, info.gid = tarfile.DIRTYPE, mode, owner, owner
    return info, b""


def file(name: str, data: bytes = b"", mode: int = 0o644, owner: int = 0, **xattrs: str) -> Member:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.uid, info.gid = len(data), mode, owner, owner
    info.pax_headers = {f"SCHILY.xattr.{key.replace('_', '.')}": value for key, value in xattrs.items()}
    return info, data


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE, owner: int = 0) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.uid, info.gid = kind, target, 0o777, owner, owner
    return info, b""


def special(name: str, kind: bytes, numbers: tuple[int, int] = (0, 0)) -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.devmajor, info.devminor = kind, 0o640, *numbers
    return info, b""


def tar(members: Iterable[Member]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def image(
    *layers: Iterable[Member],
    config: ExecConfig | None = None,
    platform: Platform | None = None,
    image_format: ImageFormat = "oci",
    compression: Compression = "gzip",
) -> Image:
    """An image of these layers."""
    made = Image(
        ImageConfig(platform or Platform.host(), config or ExecConfig(env=("PATH=/bin",))), format=image_format
    )
    for number, members in enumerate(layers):
        data = tar(members)
        packed = compress(data, compression)
        media_type = media_types.layer_media_type(image_format, compression)
        assert media_type is not None
        layer = Layer(Descriptor.of(media_type, packed), sha256(data), MemoryBlob(packed))
        made = made.append(layer, History(created_by=f"base {number}"))
    return made


def compress(data: bytes, compression: Compression) -> bytes:
    """A tar as a layer's blob."""
    if compression == "zstd":
        return zstandard.compress(data)
    return gzip.compress(data, 1, mtime=0) if compression == "gzip" else data


def busybox() -> list[Member]:
    """A root with a shell, /lib as a link into /usr, users and groups."""
    members = [directory(name) for name in ("bin", "etc", "home", "usr", "usr/lib", "var", "var/run")]
    members += [directory("root", 0o700), directory("tmp", 0o1777), directory("home/user", 0o755, 1000)]
    members += [file("bin/busybox", Path(PROGRAM).read_bytes(), 0o755), link("lib", "usr/lib")]
    for applet in subprocess.check_output([PROGRAM, "--list"], text=True).split():
        if applet != "busybox":
            members.append(link(f"bin/{applet}", "busybox"))
    return [*members, file("etc/passwd", _PASSWD), file("etc/group", _GROUP), file("etc/issue", b"base\n")]


def _with_triggers() -> Image:
    triggers = ("COPY trigger.txt /from-trigger", "ENV TRIGGERED=yes", "RUN echo ran > /trigger-ran")
    return image(busybox(), config=ExecConfig(env=("PATH=/bin",), on_build=triggers))


def _configured() -> Image:
    config = ExecConfig(
        env=("PATH=/bin", "INHERITED=base"),
        cmd=("base-cmd",),
        entrypoint=("/base-entrypoint",),
        user="user",
        working_dir="/srv/app",
        labels={"base": "label", "shared": "base"},
        exposed_ports=("80/tcp",),
        volumes=("/base-volume",),
        stop_signal="SIGINT",
    )
    return replace(image(busybox(), config=config), annotations={"base.annotation": "yes"})


def _odd() -> Image:
    """Things that a root file system can hold and that are easily lost, in two layers."""
    lower = [
        *busybox(),
        *(directory("opaque"), file("opaque/hidden", b"below"), directory("gone"), file("gone/file", b"below")),
        *(file("deleted", b"below"), file("setuid", b"s", 0o4755), file("owned", b"o", 0o640, 1000)),
        *(file("first", b"linked"), link("second", "first", tarfile.LNKTYPE), link("dangling", "nowhere")),
        *(special("null", tarfile.CHRTYPE, (1, 3)), special("pipe", tarfile.FIFOTYPE)),
        file("capable", b"c", 0o755, security_capability="\x01\x00\x00\x02\x00\x04\x00\x00" + "\x00" * 12),
        link("owned-link", "owned", owner=1000),
        *(directory("closed", 0o700, 1000), file("closed/inside", b"i", 0o600, 1000)),
    ]
    upper = [
        *(file("opaque/.wh..wh..opq"), file("opaque/shown", b"above"), file(".wh.deleted"), file(".wh.gone")),
        file("etc/issue", b"upper\n"),
    ]
    return image(lower, upper)


BASES: dict[str, Callable[[], Image]] = {
    "busybox": lambda: image(busybox()),
    "triggers": _with_triggers,
    "configured": _configured,
    "odd": _odd,
    "no-env": lambda: image(busybox(), config=ExecConfig()),
    "docker": lambda: image(busybox(), image_format="docker"),
    "zstd": lambda: image(busybox(), compression="zstd"),
    "foreign": lambda: image([file("arch", b"s390x")], platform=Platform("linux", "s390x")),
}
"""What `FROM name` means in the corpus."""
