#!/bin/sh
# Installs what tests need that comes neither from Debian nor with the dev extra of pyproject.toml: Azurite and
# tekton-lint, by npm, into .cache/test-servers. Quick when already done.
set -eu
cd "$(dirname "$0")/.."
target=.cache/test-servers
# The stamp is written last and holds what was installed for: an interrupted or outdated installation is made again.
stamp=$target/.installed-for
want=$(sha256sum <tests/servers/package.json)
[ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && exit 0
if ! command -v npm >/dev/null; then
  echo "setup: npm is not installed; the tests of Azure contexts and of Tekton lint will be skipped and say so" >&2
  exit 0
fi
echo "setup: installing Azurite and tekton-lint (for tests) into $target"
mkdir -p "$target"
cp tests/servers/package.json "$target/package.json"
npm install --prefix "$target" --omit=dev --no-audit --no-fund --no-package-lock --loglevel=error >"$target/log" 2>&1 \
  || { tail -20 "$target/log" >&2; echo "setup: npm could not install them" >&2; exit 1; }
printf '%s' "$want" >"$stamp"
