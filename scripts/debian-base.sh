#!/bin/sh
# Makes a small Debian root file system with debootstrap, as a tar archive: scripts/debian-base.sh FILE.tar
# It is kept: the second call does nothing.
set -eu
target=$1
[ -s "$target" ] && exit 0
mkdir -p "$(dirname "$target")"
work=$(mktemp -d "$(dirname "$target")/debootstrap.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "debian-base: debootstrap (about half a minute, once)"
# A mount namespace of its own: debootstrap mounts /proc in the new root, and leaves it there when it is killed.
unshare -m debootstrap --variant=minbase bookworm "$work/root" >"$work/log" 2>&1 || { tail -20 "$work/log" >&2; echo "debian-base: debootstrap failed" >&2; exit 1; }
rm -rf "$work/root/var/cache/apt/archives"/*.deb "$work/root/var/lib/apt/lists"/*
tar --numeric-owner --sort=name -C "$work/root" -cf "$work/base.tar" .
mv "$work/base.tar" "$target"
