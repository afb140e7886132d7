"""Assemble the executor image's root file system: assemble.py LIBRARIES TREE DEBUG, inside the build.

Takes programs and libraries of this Debian and puts them below TREE/limpet, so that nothing outside of /limpet is
needed to run them: every program gets /limpet's dynamic loader, every program and library a DT_RPATH to /limpet/lib
(DT_RUNPATH would not be inherited by the libraries of a library). DEBUG gets the shell of the debug variant.
"""

from __future__ import annotations

import compileall
import glob
import os
import py_compile
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

PREFIX = Path("/limpet")
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
PROGRAMS = ("git", "git-lfs", "ssh", PYTHON)
GIT_PROGRAMS = ("git-remote-http", "git-submodule", "git-sh-setup", "git-sh-i18n")
SHELL_APPLETS = ("basename", "cat", "env", "grep", "printf", "sed", "sh", "tr", "uname")
STDLIB_UNUSED = (
    "ensurepip", "idlelib", "lib2to3", "tkinter", "turtledemo", "turtle.py", "test", "pydoc_data", "pydoc.py", "venv",
    "distutils", "curses", "__phello__",
)  # fmt: skip
LIBRARY_UNUSED = ("*/tests", "*/test", "bin", "*.dist-info/RECORD", "*.dist-info/direct_url.json", "pip", "setuptools")
# botocore describes every AWS service; these are the ones that a build asks.
AWS_SERVICES = ("ecr", "ecr-public", "s3", "sso", "sso-oidc", "signin", "sts")

SCRIPT = """#!{python} -IB
from builder.__main__ import run
run()
"""


class Tree:
    """The tree in the making. `root` stands for /."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / PREFIX.relative_to("/")

    def program(self, source: str, target: str) -> None:
        """Copy a program to /limpet/TARGET."""
        path = self.home / target
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(os.path.realpath(source), path)
        path.chmod(0o755)

    def directory(self, source: Path, target: str, unused: tuple[str, ...]) -> None:
        shutil.copytree(source, self.home / target, symlinks=False, ignore=shutil.ignore_patterns("__pycache__"))
        for pattern in unused:
            for path in (self.home / target).glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def link(self, path: str, to: str) -> None:
        link = self.root / path.lstrip("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(to)


def main(libraries: Path, target: Path, debug: Path) -> None:
    os.umask(0o022)
    tree = Tree(target)
    for name in PROGRAMS:
        tree.program(shutil.which(name) or sys.exit(f"{name} is not installed"), f"bin/{name}")
    tree.link("/limpet/bin/python3", PYTHON)
    for name in GIT_PROGRAMS:
        tree.program(f"/usr/lib/git-core/{name}", f"lib/git-core/{name}")
    tree.link("/limpet/lib/git-core/git-remote-https", "git-remote-http")
    tree.link("/limpet/lib/git-core/git", "../../bin/git")
    tree.program("/bin/busybox", "bin/busybox")
    for name in SHELL_APPLETS:
        tree.link(f"/limpet/bin/{name}", "busybox")
    tree.directory(Path("/usr/lib", PYTHON), f"lib/{PYTHON}", (*STDLIB_UNUSED, "config-*", "EXTERNALLY-MANAGED"))
    tree.directory(libraries, "lib/python3/dist-packages", LIBRARY_UNUSED)
    drop_services(tree.home / "lib/python3/dist-packages/botocore/data")
    bind(tree)
    compile_python(tree)
    names_outside(tree)
    shell_for_people(debug)
    reset_times(target)
    reset_times(debug)


def drop_services(data: Path) -> None:
    """Remove what botocore knows of services that are never asked."""
    for path in data.iterdir() if data.is_dir() else ():
        if path.is_dir() and path.name not in AWS_SERVICES:
            shutil.rmtree(path)


def bind(tree: Tree) -> None:
    """Bring every shared library that is needed, and bind programs and libraries to /limpet."""
    preload = glob.glob("/usr/lib/*/libnss_wrapper.so")
    wanted = [path for path in tree.home.rglob("*") if is_elf(path)] + [Path(path) for path in preload]
    found = set(preload)
    for path in wanted:
        found |= needed(path)
    loader = next(path for path in found if re.search(r"/ld-linux", path))
    for path in sorted(found):
        tree.program(path, f"lib/{os.path.basename(path)}")
    own_loader = str(PREFIX / "lib" / os.path.basename(loader))
    for path in sorted(tree.home.rglob("*")):
        if is_elf(path) and path.name != os.path.basename(loader):
            patch(path, own_loader)
    tree.link("/usr/lib/libnss_wrapper.so", "/limpet/lib/libnss_wrapper.so")


def is_elf(path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def needed(path: Path) -> set[str]:
    """The shared libraries that the dynamic loader would load for `path`, but not those that lie beside it."""
    said = subprocess.run(["ldd", str(path)], capture_output=True, text=True)
    if said.returncode != 0:
        return set()  # static
    if "not found" in said.stdout:
        sys.exit(f"assemble: {path}: {said.stdout}")
    files = re.findall(r"(?:=> |^\s+)(/\S+) \(0x", said.stdout, re.M)
    return {file for file in files if file.startswith(("/lib", "/usr/lib"))}


def patch(path: Path, loader: str) -> None:
    """Give `path` the loader and an RPATH; one that it has (a wheel's own libraries) stays in front."""
    has_loader = subprocess.run(["patchelf", "--print-interpreter", path], capture_output=True).returncode == 0
    rpath = subprocess.run(["patchelf", "--print-rpath", path], capture_output=True, text=True)
    dynamic = b".dynamic" in subprocess.run(["patchelf", "--print-needed", path], capture_output=True).stderr
    if rpath.returncode != 0 or dynamic:
        return  # static
    own = [entry for entry in rpath.stdout.strip().split(":") if entry.startswith("$ORIGIN")]
    command = ["patchelf", "--force-rpath", "--set-rpath", ":".join([*own, str(PREFIX / "lib")])]
    if has_loader:
        command += ["--set-interpreter", loader]
    subprocess.run([*command, path], check=True)


def compile_python(tree: Tree) -> None:
    """Byte code beside the sources that says nothing of times, so that two builds give the same files."""
    for directory in (tree.home / "lib" / PYTHON, tree.home / "lib/python3/dist-packages"):
        compileall.compile_dir(
            directory,
            quiet=2,
            maxlevels=30,
            stripdir=str(tree.root),
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


def names_outside(tree: Tree) -> None:
    """What must be where others expect it."""
    script = tree.home / "bin/limpet"
    script.write_text(SCRIPT.format(python=PREFIX / "bin" / PYTHON))
    script.chmod(0o755)
    for name in ("/kaniko/executor", "/kaniko/warmer"):
        tree.link(name, "/limpet/bin/limpet")
    tree.link("/bin/sh", "/limpet/bin/busybox")  # git starts ssh, LFS and credential helpers by it
    directories = ("kaniko/.docker", "kaniko/ssl/certs", "cache", "root", "run", "tmp", "var/tmp", "workspace", "etc")
    for directory in (*directories, "limpet/work"):
        (tree.root / directory).mkdir(parents=True, exist_ok=True)
    # Kubernetes mounts below /var/run, which is this link in every distribution: a mount in /run is in nobody's way.
    tree.link("/var/run", "/run")
    for directory in ("cache", "limpet/work", "tmp", "var/tmp", "workspace"):
        (tree.root / directory).chmod(0o1777)  # any uid may build
    (tree.root / "root").chmod(0o700)
    (tree.home / "etc").mkdir()
    shutil.copyfile("/etc/ssl/certs/ca-certificates.crt", tree.home / "etc/ca-certificates.crt")
    tree.link("/etc/ssl/certs/ca-certificates.crt", "/limpet/etc/ca-certificates.crt")
    (tree.root / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534::/:/sbin/nologin\n"
    )
    (tree.root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")


def shell_for_people(debug: Path) -> None:
    """busybox with all its names, in a directory that the image's PATH has."""
    directory = debug / "busybox"
    directory.mkdir(parents=True)
    shutil.copyfile("/bin/busybox", directory / "busybox")
    (directory / "busybox").chmod(0o755)
    for name in subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split():
        if name != "busybox":
            (directory / name).symlink_to("busybox")


def reset_times(root: Path) -> None:
    """Times of the build are not part of the image."""
    for directory, names, files in os.walk(root):
        for name in (*names, *files, "."):
            path = os.path.join(directory, name)
            if not stat.S_ISLNK(os.lstat(path).st_mode):
                os.utime(path, (0, 0))
            else:
                os.utime(path, (0, 0), follow_symlinks=False)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
