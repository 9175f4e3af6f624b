#!/usr/bin/env bash
# Prepares a Docker engine and a base image on a bare Debian machine, without a registry.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: infra/images/local_engine.sh [BASE]

Installs docker.io and debootstrap where they are missing, starts dockerd where none answers, and
makes the base image BASE (python:3.11-slim) from Debian's packages where the engine has none.
What is there already is left as it is. Needs root.

  infra/images/local_engine.sh && make images
TEXT
}

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
base=${1:-python:3.11-slim}
release=bookworm # its Python is 3.11
log=${TMPDIR:-/tmp}/dockerd.log

say() { echo "local_engine: $*"; }

if [ "$(id -u)" -ne 0 ]; then
  say "expected to run as root (it installs packages and starts dockerd)" >&2
  exit 1
fi

if ! command -v dockerd >/dev/null || ! command -v debootstrap >/dev/null; then
  say "installing docker.io and debootstrap"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends \
    docker.io debootstrap >/dev/null
fi

if ! docker info >/dev/null 2>&1; then
  say "starting dockerd (its log: $log)"
  # No bridge and no iptables: works where neither may be made. Containers have the host's network
  # or none.
  setsid nohup dockerd --iptables=false --bridge=none >"$log" 2>&1 &
  for _ in $(seq 60); do
    docker info >/dev/null 2>&1 && break
    sleep 1
  done
  if ! docker info >/dev/null 2>&1; then
    say "dockerd didn't answer within a minute; the end of $log:" >&2
    tail -n 5 "$log" >&2
    exit 1
  fi
fi

if ! docker image inspect "$base" >/dev/null 2>&1; then
  say "making $base from Debian $release (a minute)"
  root=$(mktemp -d)
  trap 'rm -rf "$root"' EXIT
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$release" "$root" \
    >/dev/null
  # What this machine trusts, the builds must trust: it may sit behind a proxy of its own.
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
  rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* \
    "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/locale
  tar -C "$root" -c . | docker import --change 'CMD ["python3"]' - "$base" >/dev/null
fi
say "engine $(docker version --format '{{.Server.Version}}') is ready, with $base"
