#!/bin/sh
# Builds distribution 3, a second registry for tests, with Go 1.23 or later into .cache/test-servers/bin.
# Quick when already done; without Go, tests of that registry are skipped and say so.
set -eu
cd "$(dirname "$0")/.."
version=v3.0.0
target=$PWD/.cache/test-servers/bin
stamp=$target/.registry-$version
[ -e "$stamp" ] && [ -x "$target/registry" ] && exit 0
if ! command -v go >/dev/null; then
  echo "setup: Go is not installed; the tests with distribution 3 will be skipped and say so" >&2
  exit 0
fi
echo "setup: building distribution $version (for tests) into $target"
mkdir -p "$target"
work=$(mktemp -d)
trap 'chmod -R u+w "$work" && rm -rf "$work"' EXIT
if ! GOPATH=$work/go GOCACHE=$work/cache GOBIN=$target GOFLAGS=-mod=mod GOTOOLCHAIN=local CGO_ENABLED=0 \
  go install "github.com/distribution/distribution/v3/cmd/registry@$version" >"$target/log" 2>&1; then
  tail -5 "$target/log" >&2
  echo "setup: distribution $version could not be built; the tests with it will be skipped and say so" >&2
  exit 0
fi
touch "$stamp"
