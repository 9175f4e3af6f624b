#!/usr/bin/env bash
# usage: infra/ci/test.sh
#
# Everything that a push has to pass: format, lint, types, import rules, compiled pipelines, all
# tests, none of them skipped. Needs Python 3.11 and make; makes .venv from requirements.lock.
set -euo pipefail

case "${1:-}" in
  -h | --help) sed -n 's/^# \{0,1\}//p' "$0" | sed '1d' && exit 0 ;;
  '') ;;
  *) echo "infra/ci/test.sh: expected no argument, got $1; see --help" >&2 && exit 2 ;;
esac

exec "$(dirname "$0")/../../.ci/run"
