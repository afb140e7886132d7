#!/bin/sh
# Builds distribution 3, a second registry for tests, into .cache/test-servers/bin: two minutes, once.
# Go 1.21 and later fetches the Go that distribution asks for by itself; where there is no Go, Debian's is installed if
# it is new enough. Without one, tests of that registry are skipped and say so.
set -eu
cd "$(dirname "$0")/.."
version=v3.0.0
target=$PWD/.cache/test-servers/bin
stamp=$target/.registry-$version
[ -e "$stamp" ] && [ -x "$target/registry" ] && exit 0
skipped() { echo "setup: $*; the tests with distribution 3 will be skipped and say so" >&2; exit 0; }

# new_enough VERSION: whether it is 1.21 or later.
new_enough() { [ "$(printf '%s\n' 1.21 "$1" | sort -V | head -1)" = 1.21 ]; }

if ! command -v go >/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  candidate=$(apt-cache policy golang-go 2>/dev/null | sed -n 's/ *Candidate: [0-9]*:\([0-9.]*\).*/\1/p')
  if [ -n "$candidate" ] && new_enough "$candidate"; then
    echo "setup: installing Debian's golang-go (for tests)"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends golang-go >/dev/null 2>&1 || true
  fi
fi
command -v go >/dev/null || skipped "Go is not installed"
installed=$(go env GOVERSION)
new_enough "${installed#go}" || skipped "$installed is too old to build distribution $version"
echo "setup: building distribution $version (for tests) into $target"
mkdir -p "$target"
work=$(mktemp -d)
trap 'chmod -R u+w "$work" && rm -rf "$work"' EXIT
if ! GOPATH=$work/go GOCACHE=$work/cache GOBIN=$target GOFLAGS=-mod=mod GOTOOLCHAIN=auto CGO_ENABLED=0 \
  go install "github.com/distribution/distribution/v3/cmd/registry@$version" >"$target/log" 2>&1; then
  tail -5 "$target/log" >&2
  skipped "distribution $version could not be built"
fi
touch "$stamp"
