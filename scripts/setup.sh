#!/bin/sh
# Sets up what `make demo` and `make test` need: Debian packages and a virtual environment. Quick when already done.
set -eu
cd "$(dirname "$0")/.."

fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "this needs root: it installs Debian packages, and the tests make file systems with other owners. Run it with sudo."
command -v apt-get >/dev/null || fail "apt-get is not here: this needs Debian or a system like it."
PYTHON=${PYTHON:-python3}
command -v "$PYTHON" >/dev/null || fail "$PYTHON is not here: install Python 3.11 or later (apt-get install python3)."
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$("$PYTHON" --version) is too old: Limpet needs 3.11 or later (make PYTHON=/path/to/python)."

# A registry, tools that check images, base images without the internet, servers for the context sources.
packages="docker-registry skopeo umoci podman buildah runc debootstrap busybox-static apache2-utils uidmap
  git git-lfs openssh-server openssh-client lighttpd tinyproxy ca-certificates openssl xz-utils zstd bzip2 attr
  curl util-linux passwd patchelf yamllint libcap2-bin strace"
case "$("$PYTHON" -c 'import importlib.util as u; print(bool(u.find_spec("ensurepip")))')" in
  False) packages="$packages python3-venv" ;;
esac
# npm itself comes with Node.js where that was not Debian's.
command -v npm >/dev/null || packages="$packages npm"
missing=""
for package in $packages; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -n "$missing" ]; then
  echo "setup: installing Debian packages:$missing"
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; } >.setup.log 2>&1 \
    || { tail -20 .setup.log >&2; fail "apt-get could not install them (the lines above say why; all of it is in .setup.log)"; }
  rm -f .setup.log
fi

# The stamp holds what was installed for: a changed pyproject.toml, or another Python, installs again.
stamp=.venv/.installed-for
want="$("$PYTHON" --version) $(sha256sum pyproject.toml)"
if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
  echo "setup: installing Limpet and its libraries into .venv"
  [ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' || fail "pip could not install the libraries of pyproject.toml"
  printf '%s' "$want" >"$stamp"
fi
