"""A Debian package that does what makes installing hard, and the repository that apt gets it from without a network."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

CONTROL = """\
Package: sample
Version: 1.0
Architecture: all
Maintainer: Nobody <nobody@example.com>
Depends: passwd
Description: a package for tests
"""
# A user of its own, files of other owners, a setuid program, a directory with the sticky bit.
POSTINST = """\
#!/bin/sh
set -e
useradd --system --uid 750 --no-create-home sample
install -d -o sample -g daemon -m 1770 /usr/share/sample/state
install -o sample -g sample -m 0640 /usr/share/sample/plain /usr/share/sample/state/owned
install -o root -g sample -m 4750 /bin/true /usr/share/sample/setuid
"""
# Dockerfile lines that install it from the directory /packages.
INSTALL = """\
RUN rm -f /etc/apt/sources.list.d/* && echo 'deb [trusted=yes] file:/packages ./' >/etc/apt/sources.list \\
 && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq sample
"""


def write_repository(directory: Path) -> None:
    """Make `directory` an apt repository with the package."""
    tree = directory / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(CONTROL)
    (tree / "DEBIAN/postinst").write_text(POSTINST)
    (tree / "DEBIAN/postinst").chmod(0o755)
    (tree / "usr/share/sample").mkdir(parents=True)
    (tree / "usr/share/sample/plain").write_text("plain\n")
    package = directory / "sample.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, package], check=True, capture_output=True)
    subprocess.run(["rm", "-r", tree], check=True)
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    lines = f"Filename: ./sample.deb\nSize: {package.stat().st_size}\nSHA256: {digest}\n"
    (directory / "Packages").write_text(CONTROL + lines)
