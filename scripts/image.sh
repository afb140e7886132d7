#!/bin/sh
# Builds the executor image with Limpet: scripts/image.sh [--target debug] [FLAG...]
# Without flags the image is written to .cache/image/executor as an OCI image layout; --destination=... pushes it.
# Limpet's libraries are downloaded by pip, for the Python of Debian 12, once for each state of image/requirements.txt.
set -eu
cd "$(dirname "$0")/.."
limpet=${LIMPET:-.venv/bin/limpet}
python=.venv/bin/python
cache=.cache/image
arch=$(uname -m)
mkdir -p "$cache"

wheels=$cache/wheels-$(sha256sum image/requirements.txt | cut -c1-16)
if [ ! -d "$wheels" ]; then
  echo "image: downloading Limpet's libraries"
  rm -rf "$cache"/wheels-* "$cache/wheels.new"
  $python -m pip download --quiet --disable-pip-version-check --dest "$cache/wheels.new" --only-binary=:all: --no-deps \
    --python-version 3.11 --implementation cp --platform "manylinux_2_28_$arch" --platform "manylinux_2_17_$arch" \
    --platform "manylinux2014_$arch" --platform "manylinux_2_5_$arch" --platform "manylinux1_$arch" \
    --requirement image/requirements.txt
  mv "$cache/wheels.new" "$wheels"
fi

if [ ! -f "$cache/base/index.json" ]; then
  scripts/debian-base.sh .cache/debian-bookworm.tar
  mkdir -p "$cache/base-context"
  ln -f .cache/debian-bookworm.tar "$cache/base-context/rootfs.tar" || cp .cache/debian-bookworm.tar "$cache/base-context/rootfs.tar"
  printf 'FROM scratch\nADD rootfs.tar /\nENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n' >"$cache/base-context/Dockerfile"
  echo "image: the Debian base"
  $limpet --context "$cache/base-context" --no-push --oci-layout-path "$cache/base"
fi

output="--no-push --oci-layout-path=$cache/executor"
case " $* " in *" --destination"*|*" -d "*|*" --oci-layout-path"*|*" --tar-path"*|*" --no-push "*) output= ;; esac
# shellcheck disable=SC2086  # $output holds several flags
exec $limpet build --context=. --dockerfile=image/Dockerfile --reproducible --image-format=oci \
  --build-arg=BASE=debian --build-context="debian=oci-layout://$cache/base" --build-context="wheels=$wheels" \
  $output "$@"
