#!/usr/bin/env bash
# From a fresh Debian 12 to a finished experiment in one command, any number of times:
# installs packages (root or sudo), builds, starts a private cluster of one coordinator and two
# workers, and runs jobspecs/pipelines/wordnet-birds.yaml and
# jobspecs/distillation/impossible-quick.yaml with live progress.
#
#   deploy/quickstart.sh [--home DIR] [--build DIR]
#
# The cluster keeps running afterwards; 'athanor down' stops it.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

build=$root/build
while [ $# -gt 0 ]; do
    case $1 in
        --home) export ATHANOR_HOME=$2; shift ;;
        --build) build=$2; shift ;;
        -h|--help) sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '$d'; exit 0 ;;
        *) echo "quickstart.sh: unknown argument '$1', see --help" >&2; exit 2 ;;
    esac
    shift
done
athanor=$build/bin/athanor
log=$(mktemp)
trap 'rm -f "$log"' EXIT

step() { printf '\n[%3ds] %s\n' "$SECONDS" "$*"; }
quietly() { "$@" >"$log" 2>&1 || { tail -40 "$log" >&2; exit 1; }; }

step "Installing packages"
deploy/packages.sh build run data

step "Building into $build"
quietly cmake -S . -B "$build" -G Ninja -DATHANOR_TESTS=OFF
quietly ninja -C "$build"

step "Starting a coordinator, a private PostgreSQL and two workers"
"$athanor" up --workers 2 --cores 2

step "Running two pipelines"
experiment=wordnet-birds
ids=$("$athanor" submit jobspecs/pipelines/wordnet-birds.yaml --ids)
ids="$ids $("$athanor" submit jobspecs/distillation/impossible-quick.yaml --ids)"
# shellcheck disable=SC2086 # one word per job id
"$athanor" wait $ids

step "Results, read from PostgreSQL"
"$athanor" sql -- -v ids="$(echo $ids | tr ' ' ',')" -f "$root/deploy/quickstart.sql"

cat <<TRY

[${SECONDS}s] Try next (put $build/bin on your PATH):
  athanor ls --experiment $experiment          the jobs of this run
  athanor show base                            one job, its attempts and checkpoints
  athanor logs unlearned                       what a job printed
  athanor plot base loss val_loss              curves in the terminal
  athanor dataset quick-pairs                  what became of each pair that a model wrote
  athanor checkpoints base                     readable by Hugging Face transformers
  athanor recipes                              what can be run, 'athanor recipes npo' for one
  athanor submit jobspecs/command/hello.yaml   your own program as a job
  athanor sql                                  psql on the results
  athanor down                                 stop the cluster; 'athanor up' brings it back
TRY
