#!/bin/sh
# buildkit-daemonless.sh STATE COMMAND...: run COMMAND with a buildkitd that has its state in directory STATE and
# listens at STATE/socket, then end it. `--daemon` instead of a command: the daemon only.
# STATE/buildkitd.toml is its configuration.
set -eu
state=$1
shift
set -- "$@"
daemon="buildkitd --config $state/buildkitd.toml --root $state/root --addr unix://$state/socket --oci-worker=true
    --containerd-worker=false --oci-worker-snapshotter=overlayfs"
if [ "$1" = --daemon ]; then
    exec $daemon
fi
$daemon >"$state/buildkitd.log" 2>&1 &
pid=$!
until buildctl --addr "unix://$state/socket" debug workers >/dev/null 2>&1; do
    kill -0 $pid
    sleep 0.02
done
code=0
"$@" || code=$?
kill $pid
wait $pid || true
exit $code
