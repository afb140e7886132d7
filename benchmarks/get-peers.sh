#!/bin/sh
# get-peers.sh [DIRECTORY]: build kaniko's executor, buildkitd and buildctl with Go into DIRECTORY, or .cache/peers, where
# benchmarks/run.py looks for them (ten minutes on two cores).
# `go install` refuses both, since their go.mod replaces or excludes modules: a module of our own says the same.
set -eu
kaniko=v1.24.0 buildkit=v0.34.2
into=${1:-$(dirname "$0")/../.cache/peers}
mkdir -p "$into"
into=$(cd "$into" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export GOFLAGS=-mod=mod CGO_ENABLED=0

build() { # module version packages...
    rm -f go.mod go.sum
    directory=$(go mod download -json "$1@$2" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    { echo "module peers"; grep -v '^module ' "$directory/go.mod"; } >go.mod
    cp "$directory/go.sum" go.sum
    chmod u+w go.sum
    go mod edit "-require=$1@$2"
    module=$1
    shift 2
    for package; do
        echo "building $module/$package"
        go build -o "$into/" "$module/$package"
    done
}

[ -x "$into/executor" ] || build github.com/GoogleContainerTools/kaniko "$kaniko" cmd/executor
[ -x "$into/buildctl" ] || build github.com/moby/buildkit "$buildkit" cmd/buildkitd cmd/buildctl
