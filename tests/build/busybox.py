"""A base image with a shell, made of Debian's static busybox."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

from builder.oci import layout, media_types
from builder.oci.blobs import MemoryBlob
from builder.oci.config import ExecConfig, History, ImageConfig
from builder.oci.descriptor import Descriptor, sha256
from builder.oci.image import Image, Layer
from builder.oci.platform import Platform

PROGRAM = "/bin/busybox"
_PASSWD = b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n"


def missing() -> str:
    """Why there is no such image, or ""."""
    return "" if shutil.which(PROGRAM) else "busybox is not installed (Debian: busybox-static)"


def write_layout(directory: Path, *more: bytes) -> None:
    """The image as an OCI layout in `directory`, with each of `more` (tars) as one more layer."""
    image = Image(ImageConfig(Platform.host(), ExecConfig(env=("PATH=/bin",))))
    for number, data in enumerate((_layer(), *more)):
        descriptor = Descriptor.of(media_types.OCI_LAYER, data)
        image = image.append(Layer(descriptor, sha256(data), MemoryBlob(data)), History(created_by=f"base {number}"))
    layout.write(directory, image)


def tar(*members: tuple[str, bytes | str], links: tuple[tuple[str, str], ...] = ()) -> bytes:
    """A tar of files (bytes) and symlinks (str), then hardlinks; names are written as they are given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, value in members:
            member = tarfile.TarInfo(name)
            if isinstance(value, str):
                member.type, member.linkname = tarfile.SYMTYPE, value
                archive.addfile(member)
            else:
                member.size = len(value)
                archive.addfile(member, io.BytesIO(value))
        for name, target in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.LNKTYPE, target
            archive.addfile(member)
    return buffer.getvalue()


def _layer() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:

        def add(name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o755, data: bytes = b"", link: str = "") -> None:
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.size, member.linkname = kind, mode, len(data), link
            archive.addfile(member, io.BytesIO(data))

        for name in ("bin", "etc", "root", "home"):
            add(name, tarfile.DIRTYPE)
        add("tmp", tarfile.DIRTYPE, 0o1777)
        add("bin/busybox", data=Path(PROGRAM).read_bytes())
        for applet in subprocess.check_output([PROGRAM, "--list"], text=True).split():
            if applet != "busybox":
                add(f"bin/{applet}", tarfile.SYMTYPE, link="busybox")
        add("etc/passwd", mode=0o644, data=_PASSWD)
    return buffer.getvalue()
