#!/usr/bin/env bash
# usage: infra/ci/retrain.sh [KEY=VALUE...]
#
# Trains on the cluster, waits for the verdict, and writes it to the job's summary. KEY=VALUE are
# parameters of the pipeline, stronger than the variables below.
#
#   NEEDLEDROP_KFP_HOST       address of the pipelines' API (needed)
#   NEEDLEDROP_KFP_NAMESPACE  namespace of the runs, on a cluster that several users share
#   NEEDLEDROP_KFP_TOKEN      token; without it, the pod's service account's, if there is one
#   NEEDLEDROP_KFP_CA         certificate of a private authority, PEM
#   NEEDLEDROP_CONFIG         YAML file of parameters: plays, tracks, audio, registry, store, ...
#   NEEDLEDROP_SET            more KEY=VALUE, one a line or with ; in between
#   NEEDLEDROP_PLAYS          the parameter plays: what has just landed
#   NEEDLEDROP_IMAGE_PREFIX   what the names of the steps' images begin with
#   NEEDLEDROP_IMAGE_TAG      their tag
#   NEEDLEDROP_TIMEOUT        cancels the run after that; 5h where not given
#   NEEDLEDROP_PYTHON         Python with needledrop's dependencies; else .venv, made if need be
#   GITHUB_STEP_SUMMARY       file that the summary is added to; else it is printed
#   GITHUB_OUTPUT             file that gets the line promoted=true or promoted=false
#
# exit status: 0 promoted or not promoted, 1 failed or cancelled, 2 usage
set -euo pipefail

case "${1:-}" in
  -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" && exit 0 ;;
  -*) echo "infra/ci/retrain.sh: expected KEY=VALUE, got $1; see --help" >&2 && exit 2 ;;
esac
if [[ -z ${NEEDLEDROP_KFP_HOST:-} ]]; then
  echo "infra/ci/retrain.sh: expected NEEDLEDROP_KFP_HOST, such as https://kubeflow.example.org/pipeline" >&2
  exit 2
fi
# A secret that isn't set is empty in GitHub's environment; an empty token would be refused.
[[ -n ${NEEDLEDROP_KFP_TOKEN:-} ]] || unset NEEDLEDROP_KFP_TOKEN
[[ -n ${NEEDLEDROP_IMAGE_PREFIX:-} ]] || unset NEEDLEDROP_IMAGE_PREFIX
[[ -n ${NEEDLEDROP_IMAGE_TAG:-} ]] || unset NEEDLEDROP_IMAGE_TAG

cd "$(dirname "$0")/../.."
python=${NEEDLEDROP_PYTHON:-.venv/bin/python}
[[ -n ${NEEDLEDROP_PYTHON:-} ]] || make environment

own=$(mktemp -d)
trap 'rm -rf "$own"' EXIT

words=(submit train --wait --host "$NEEDLEDROP_KFP_HOST" --summary "$own/summary.md")
words+=(--timeout "${NEEDLEDROP_TIMEOUT:-5h}")
[[ -z ${NEEDLEDROP_KFP_NAMESPACE:-} ]] || words+=(--namespace "$NEEDLEDROP_KFP_NAMESPACE")
[[ -z ${NEEDLEDROP_CONFIG:-} ]] || words+=(--config "$NEEDLEDROP_CONFIG")
if [[ -n ${NEEDLEDROP_KFP_CA:-} ]]; then
  printf '%s\n' "$NEEDLEDROP_KFP_CA" > "$own/ca.pem"
  words+=(--ca-cert "$own/ca.pem")
fi
NEEDLEDROP_SET=${NEEDLEDROP_SET:-}
while IFS= read -r setting; do
  [[ -z ${setting//[[:space:]]/} ]] || words+=("--set=$setting")
done <<< "${NEEDLEDROP_SET//;/$'\n'}"
[[ -z ${NEEDLEDROP_PLAYS:-} ]] || words+=("--set=plays=$NEEDLEDROP_PLAYS")
for setting in "$@"; do
  words+=("--set=$setting")
done

# In the background, so that a signal to this script goes on to the run at once.
"$python" -m pipelines "${words[@]}" &
submit=$!
trap 'kill -TERM "$submit" 2>/dev/null || true' INT TERM
status=0
wait "$submit" || status=$?
while kill -0 "$submit" 2>/dev/null; do # wait was interrupted; let it cancel the run
  status=0
  wait "$submit" || status=$?
done

if [[ -f $own/summary.md ]]; then
  cat "$own/summary.md" >> "${GITHUB_STEP_SUMMARY:-/dev/stdout}"
fi
case $status in
  0) promoted=true ;;
  3) promoted=false ;;
  *) exit "$status" ;;
esac
if [[ -n ${GITHUB_OUTPUT:-} ]]; then
  echo "promoted=$promoted" >> "$GITHUB_OUTPUT"
fi
