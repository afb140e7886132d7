"""The executor image, a registry that asks for credentials, and pods to run steps in."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import registry
from tests.servers.registry import RegistryServer

ROOT = Path(__file__).parent.parent.parent
IMAGE_SOURCES = ("builder", "context_sources", "catalog", "image", "scripts/image.sh", "scripts/debian-base.sh")
TOOLS = ("podman", "runc", "skopeo", "debootstrap", "htpasswd")


def shared(*path: str) -> Path:
    """A file of the data that lies beside the checkout. Skips the test when it is not there."""
    found = Path(os.environ.get("LIMPET_SHARED") or ROOT.parent / "shared", *path)
    if not found.exists():
        pytest.skip(f"{'/'.join(path)} is neither in $LIMPET_SHARED nor in ../shared")
    return found


def content_hash() -> str:
    """What the executor image is made of."""
    digest = hashlib.sha256()
    for source in IMAGE_SOURCES:
        top = ROOT / source
        files = [top] if top.is_file() else sorted(path for path in top.rglob("*") if path.is_file())
        for path in files:
            if "__pycache__" not in path.parts and path.suffix != ".pyc":
                digest.update(f"{path.relative_to(ROOT)}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def build_image(layout: Path, *flags: str) -> None:
    """Build the executor image with this checkout's Limpet, as an OCI layout."""
    done = subprocess.run(
        [ROOT / "scripts/image.sh", *flags, "--no-push", f"--oci-layout-path={layout}"],
        cwd=ROOT,
        env={**os.environ, "LIMPET": f"{sys.executable} -m builder"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.fixture(scope="session")
def executor_layout() -> Path:
    """The executor image as an OCI layout, built by Limpet once for each state of what it is made of."""
    if os.geteuid() != 0:
        pytest.skip("building the executor image needs root")
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    directory = ROOT / ".cache/executor"
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        layout = directory / content_hash()
        if not layout.exists():
            for old in directory.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            made = directory / "new"
            build_image(made)
            made.rename(layout)
    return layout


@pytest.fixture(scope="session")
def executor(executor_layout: Path) -> Iterator[str]:
    """The name of the executor image in podman's store."""
    # A name for each time that this runs: taking one away then ends no container that was started by another.
    name = f"localhost/limpet-test:{executor_layout.name}-{secrets.token_hex(4)}"
    subprocess.run(
        ["skopeo", "copy", "-q", f"oci:{executor_layout}", f"containers-storage:{name}"],
        check=True,
        capture_output=True,
    )
    yield name
    subprocess.run(["podman", "rmi", "-f", name], capture_output=True)


@pytest.fixture(scope="session")
def private_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry that asks for a name and a password, with busybox:latest in it."""
    if reason := registry.missing():
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("registry")
    with registry.docker_registry(directory, users={"robot": "pass-word"}) as server:
        push_busybox(server, tmp_path_factory.mktemp("busybox"))
        yield server


@pytest.fixture(scope="session")
def debian(executor_layout: Path, private_registry: RegistryServer) -> str:
    """A name of Debian, the executor image's own base, in the private registry."""
    assert executor_layout.exists()  # whose making made the base
    name = f"{private_registry.host}/debian"
    subprocess.run(
        [
            *("skopeo", "copy", "-q", "--dest-tls-verify=false", "--dest-creds"),
            *(f"{private_registry.username}:{private_registry.password}", f"oci:{ROOT}/.cache/image/base"),
            f"docker://{name}:latest",
        ],
        check=True,
    )
    return name


def docker_config(server: RegistryServer) -> str:
    auth = base64.b64encode(f"{server.username}:{server.password}".encode()).decode()
    return json.dumps({"auths": {server.host: {"auth": auth}}})


def push_busybox(server: RegistryServer, work: Path) -> None:
    """Push an image of Debian's static busybox, with a few accounts."""
    busybox = shutil.which("busybox")
    if not busybox:
        pytest.skip("busybox is not installed")
    shutil.copy(busybox, work / "busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    (work / "bin").mkdir()
    for name in applets:
        if name != "busybox":
            (work / "bin" / name).symlink_to("busybox")
    (work / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")
    (work / "group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (work / "Dockerfile").write_text(
        'FROM scratch\nCOPY busybox /bin/\nCOPY bin /bin\nCOPY passwd group /etc/\nENV PATH=/bin\nCMD ["/bin/sh"]\n'
    )
    config = work / "docker"
    config.mkdir()
    (config / "config.json").write_text(docker_config(server))
    subprocess.run(
        [
            *(sys.executable, "-m", "builder", "--insecure", "--isolation=none"),
            *(f"--context={work}", f"--destination={server.host}/busybox:latest"),
        ],
        cwd=ROOT,
        env={**os.environ, "DOCKER_CONFIG": str(config)},
        check=True,
        capture_output=True,
    )
