"""One Dockerfile in every isolation that a pod allows: the images have equal contents."""

from __future__ import annotations

import hashlib
import os
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.files import LayerIndexes
from builder.oci import layout
from builder.oci.platform import Platform
from builder.rootfs.entry import FileType
from tests.isolation.places import CHECKOUT, Absent, interpreter_for_anyone
from tests.isolation.places import KINDS as PLACES
from tests.rootfs.trees import present
from tests.task.conftest import ROOT
from tests.task.debian_package import INSTALL, write_repository
from tests.task.pods import KINDS

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="pods are made with podman as root"),
]

# Two distributions; packages, users, owners, modes, links, what is moved and removed again.
DOCKERFILE = f"""\
FROM debian AS installed
COPY packages /packages
{INSTALL.rstrip()} && rm -rf /packages /var/lib/apt/lists/* /var/cache/* /var/log/*
RUN useradd --uid 2000 --create-home --groups daemon builder \\
 && install -d -o builder -g users -m 2775 /srv/shared && ln -s /srv/shared /srv/link \\
 && ln /etc/debian_version /srv/hard \\
 && cp /bin/true /usr/local/bin/setuid && chmod 6755 /usr/local/bin/setuid && mkfifo /srv/fifo \\
 && rm -r /usr/share/doc && touch -d @1000 /srv/old && mv /srv/old /srv/shared && rm -f /etc/*- /var/log/*
USER builder
WORKDIR /home/builder/work
RUN id >id && umask 027 && mkdir private && echo mine >private/file && ln -s file private/link
RUN --mount=type=secret,id=token,target=/run/secrets/token,uid=2000 wc -c </run/secrets/token >secret-size
RUN <<END
#!/bin/bash
echo "a script of $(id -un)" >script
END

FROM scratch AS box
COPY busybox /bin/
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /out/bin && cp /bin/busybox /out/bin && chown -R 7:8 /out
COPY --from=installed /etc/debian_version /out/version

FROM installed
USER root
COPY --from=box --chown=2000:daemon /out /opt/box
RUN chmod 700 /opt/box && mv /srv/shared /srv/moved && rm /srv/fifo && /opt/box/bin/busybox sh -c 'echo $0 >/opt/ran'
"""
BASE = ROOT / ".cache/image/base"
WORKS = [
    *(("root", isolation) for isolation in ("namespaces", "in-place", "chroot")),
    *(("confined root", isolation) for isolation in ("in-place", "chroot")),
    ("confined root of the Task", "in-place"),
    ("uid 1000", "namespaces"),
    ("confined root without users of the host", "in-place"),
    ("administrator without users of the host", "namespaces"),
]


@pytest.fixture(scope="module")
def context(executor_layout: Path) -> Iterator[Path]:
    """The context in a directory that every uid can read."""
    assert executor_layout.exists()  # whose making made the base
    directory = Path(tempfile.mkdtemp(prefix="limpet-isolations-", dir="/var/tmp"))
    directory.chmod(0o755)
    context = directory / "context"
    (context / "packages").mkdir(parents=True)
    write_repository(context / "packages")
    shutil.copy("/bin/busybox", context)
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "token").write_text("swordfish\n")
    for path in context.rglob("*"):
        os.chown(path, 65532, 65532)
    yield directory
    shutil.rmtree(directory)


def arguments(isolation: str, context: str, base: str, out: str) -> list[str]:
    return [
        *("build", f"--context={context}", f"--build-context=debian=oci-layout://{base}", f"--isolation={isolation}"),
        *(f"--secret=id=token,src={context}/token", "--no-push", f"--oci-layout-path={out}/image"),
    ]


@pytest.fixture(scope="module")
def expected(context: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The image as this machine makes it, without a pod."""
    out = tmp_path_factory.mktemp("expected")
    argv = arguments("namespaces", str(context / "context"), str(BASE), str(out))
    check(subprocess.run([sys.executable, "-m", "builder", *argv], cwd=ROOT, capture_output=True, text=True))
    return contents(out / "image")


def check(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr[-3000:]


def contents(image_layout: Path) -> dict[str, Any]:
    """Everything in an image that is not a time."""
    image = layout.read(layout.Location(image_layout), Platform.host()).image
    spool = image_layout.parent / "spool"
    spool.mkdir()
    tree = LayerIndexes(spool).tree(image, contents=True)
    found: dict[str, Any] = {}
    first: dict[Any, str] = {}
    for path, entry in present(tree).items():
        data = ""
        if entry.type is FileType.FILE and entry.content is not None:
            with entry.content.open() as stream:
                data = hashlib.file_digest(stream, "sha256").hexdigest()
        link = first.setdefault(entry.link_id, path) if entry.link_id is not None else path
        like = replace(entry, mtime=0, content=None, link_id=None, xattrs={})
        found[path] = (like, dict(entry.xattrs), data, link)
    shutil.rmtree(spool)
    old = tree.entry("srv/moved/old")
    assert old is not None and old.mtime == 1000 * 10**9
    return found


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    return [
        f"{path}: {found.get(path)}, expected {expected.get(path)}"
        for path in sorted({**found, **expected})
        if found.get(path) != expected.get(path)
    ]


@pytest.mark.parametrize(("kind", "isolation"), WORKS, ids=lambda value: value.replace(" ", "-"))
def test_images_are_equal(
    kind: str, isolation: str, executor: str, context: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    pod = next(each for each in KINDS if each.name == kind)
    tmp_path.chmod(0o755)
    for name in ("out", "work"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o777)
    volumes = {context / "context": "/pod/context", BASE: "/pod/base", tmp_path / "out": "/pod/out"}
    if isolation == "namespaces":
        volumes[tmp_path / "work"] = "/limpet/work"
    done = pod.run(
        executor, ["/limpet/bin/limpet", *arguments(isolation, "/pod/context", "/pod/base", "/pod/out")], volumes
    )
    check(done)
    assert differences(contents(tmp_path / "out/image"), expected) == []
    assert list((tmp_path / "work").iterdir()) == []


def test_images_of_a_user_with_subordinate_ids_are_equal(context: Path, expected: dict[str, Any]) -> None:
    for name in ("out", "work"):
        (context / name).mkdir()
        (context / name).chmod(0o777)
    try:
        command = [*PLACES["subordinate-ids"].command(context), "/usr/bin/env", "-i", "PATH=/usr/bin:/bin", "HOME=/"]
        command += [f"PYTHONPATH={CHECKOUT}:{site.getsitepackages()[0]}", interpreter_for_anyone(), "-m", "builder"]
    except Absent as reason:
        pytest.skip(str(reason))
    argv = arguments("namespaces", str(context / "context"), str(BASE), str(context / "out"))
    argv.append(f"--work-dir={context}/work")
    check(subprocess.run([*command, *argv], cwd=CHECKOUT, capture_output=True, text=True))
    assert differences(contents(context / "out/image"), expected) == []
