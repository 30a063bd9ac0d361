#!/usr/bin/env bash
# Real processes through a real cluster, against a bare posix_spawn loop in the same run.
#
#   process_bench.sh [JOBS]      ATHANOR_BUILD names the build folder (default build/)
#
# Prints jobs/s from submit to the last end, its ratio to posix_spawn of the same program, and
# percentiles of submit -> first instruction on an idle worker.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../system/cluster.bash"
jobs=${1:-1000} alone=50
cluster_home
trap cluster_down EXIT
cluster_up --workers 1
printf 'athanor: 1\nname: many\nexperiment: many\nkind: command\ncommand: ["true"]\nresources: {memory: 16MiB}\narray: %d\n' "$jobs" >"$ATHANOR_HOME/many.yaml"
printf 'athanor: 1\nname: alone\nexperiment: alone\nkind: command\ncommand: ["true"]\n' >"$ATHANOR_HOME/alone.yaml"

for _ in $(seq "$alone"); do
    athanor wait "$(athanor submit "$ATHANOR_HOME/alone.yaml" --ids)" >/dev/null
done
bare=$("$build/bench/spawn_bench" "$jobs" "$(nproc)")
athanor submit "$ATHANOR_HOME/many.yaml" >/dev/null
until_true 600 sql_is "SELECT count(*) FROM athanor.jobs WHERE experiment = 'many' AND state = 'SUCCEEDED'" "$jobs"
rate=$(sql "SELECT round(count(*) / extract(epoch FROM max(ended_at) - min(submitted_at)), 1) FROM athanor.jobs WHERE experiment = 'many'")
echo "real processes: $rate jobs/s, posix_spawn loop $bare/s, ratio $(awk -v a="$rate" -v b="$bare" 'BEGIN { printf "%.3f", a / b }')"
sql "SELECT 'submit to start, idle worker: p50 ' || round(1000 * percentile_cont(0.5) WITHIN GROUP (ORDER BY wait)::numeric, 1)
         || ' ms, p90 ' || round(1000 * percentile_cont(0.9) WITHIN GROUP (ORDER BY wait)::numeric, 1)
         || ' ms, p99 ' || round(1000 * percentile_cont(0.99) WITHIN GROUP (ORDER BY wait)::numeric, 1) || ' ms, ' || count(*) || ' jobs'
       FROM (SELECT extract(epoch FROM started_at - submitted_at) AS wait FROM athanor.jobs WHERE experiment = 'alone') AS waits"
