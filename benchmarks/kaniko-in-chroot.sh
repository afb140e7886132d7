#!/bin/sh
# kaniko-in-chroot.sh ROOT CONTEXT FLAGS...: run ROOT/kaniko/executor with ROOT as its root directory, in mount and pid
# namespaces of its own, and with the directory CONTEXT as /workspace.
set -eu
root=$1 context=$2
shift 2
mkdir -p "$root/proc" "$root/dev" "$root/sys" "$root/workspace" "$root/etc" "$root/tmp"
cp /etc/resolv.conf /etc/hosts "$root/etc/"
export root context
exec unshare --mount --pid --fork --kill-child --propagation private sh -c '
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount --rbind /sys "$root/sys"
    mount --bind "$context" "$root/workspace"
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root chroot "$root" /kaniko/executor --force --context=/workspace "$@"
' sh "$@"
