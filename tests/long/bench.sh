#!/usr/bin/env bash
# Every benchmark, with its figures as ratios against a reference measured in the same run.
# Nothing is asserted about times; a benchmark that cannot run fails.
set -euo pipefail
source_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export ATHANOR_BUILD=${ATHANOR_BUILD:-$source_root/build}
cd "$source_root" # benchmarks name programs from here, as build/bin/...
for bench in "$ATHANOR_BUILD"/bench/* "$source_root"/tests/bench/*_bench.sh; do
    [ -f "$bench" ] && [ -x "$bench" ] || continue
    case $bench in # which scheduler_bench.sh runs
    */core_bench | */coordinator_bench | */spawn_bench | */process_bench.sh) continue ;;
    */pairs_bench) continue ;; # of impossible_bench.sh
    */engine_bench | */llmc_bench) continue ;; # of engine_bench.sh
    esac
    echo "== $bench"
    "$bench"
done
