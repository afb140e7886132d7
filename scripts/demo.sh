#!/bin/sh
# The main job, from nothing: a registry, a base image, a multi-stage build, a push, a pull, a run.
set -eu
cd "$(dirname "$0")/.."
limpet=.venv/bin/limpet
say() { printf '\n== %s\n' "$*"; }

work=$(mktemp -d /var/tmp/limpet-demo.XXXXXX)
registry_pid=
cleanup() {
  [ -z "$registry_pid" ] || kill "$registry_pid" 2>/dev/null || true
  podman --root "$work/podman" --runroot "$work/podman-run" rmi -af >/dev/null 2>&1 || true
  umount "$work/podman/overlay" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

say "Starting a registry on loopback"
port=$(.venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$work/registry.yml" <<EOF
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $work/registry}}
http: {addr: "127.0.0.1:$port"}
EOF
docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
registry_pid=$!
for _ in 1 2 3 4 5 6 7 8 9 10; do
  curl -fsS "http://127.0.0.1:$port/v2/" >/dev/null 2>&1 && break
  sleep 0.2
done
curl -fsS "http://127.0.0.1:$port/v2/" >/dev/null || { cat "$work/registry.log" >&2; exit 1; }
registry=127.0.0.1:$port
echo "docker-registry answers at $registry"

say "Making a Debian base image and pushing it: the first build"
scripts/debian-base.sh .cache/debian-bookworm.tar
mkdir "$work/base"
ln .cache/debian-bookworm.tar "$work/base/rootfs.tar" 2>/dev/null || cp .cache/debian-bookworm.tar "$work/base/rootfs.tar"
printf 'FROM scratch\nADD rootfs.tar /\nCMD ["/bin/bash"]\n' >"$work/base/Dockerfile"
$limpet --context "$work/base" --destination "$registry/debian:bookworm"

say "Building examples/hello: a compiler in the first stage, a small image in the last"
$limpet --context examples/hello --build-arg "BASE=$registry/debian:bookworm" \
  --destination "$registry/hello:latest" --digest-file "$work/digest"

say "The digest"
cat "$work/digest"; echo

say "skopeo inspect of the pushed image"
skopeo inspect --tls-verify=false "docker://$registry/hello@$(cat "$work/digest")"

say "The program, run from the pulled image"
# --root: a store of its own; the limits and the host network are what an unprivileged machine needs as well.
podman --root "$work/podman" --runroot "$work/podman-run" --storage-driver vfs --runtime "$(command -v runc)" \
  run --rm --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 --network host --tls-verify=false -q \
  "$registry/hello:latest" Limpet
say "Done"
