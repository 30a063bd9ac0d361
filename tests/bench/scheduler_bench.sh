#!/usr/bin/env bash
# Every target of the scheduler with its reference, measured in this one run, as one table.
#
#   scheduler_bench.sh [--quick]    ATHANOR_BUILD names the build folder (default build/)
#
# References: PostgreSQL's own multi-row INSERT, a bare posix_spawn loop, mpirun, and Slurm (package
# slurm-wlm), which tests/lib/slurm.bash sets up on loopback when it is installed and we are root. Figures of
# a busy machine are worth little in themselves: compare within a run. Nothing fails for being slow.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
build=${ATHANOR_BUILD:-$PWD/build}
export ATHANOR_BUILD=$build
source "$here/../lib/slurm.bash"
jobs=50000 points=1000000 history=1000000 processes=1000 array=200 sruns=20 rounds=3 live=100000
export ATHANOR_TEST_MODE=long
if [ "${1:-}" = --quick ]; then
    jobs=10000 points=200000 history=100000 processes=300 array=30 sruns=5 rounds=1 live=20000
fi
work=$(mktemp -d /tmp/athanor-bench-XXXXXX)
chmod 755 "$work" # the private database runs as another account
trap 'slurm_down; rm -rf "$work"' EXIT

field() { # FILE WORD INDEX: a figure of the line that begins with WORD
    awk -v word="$2" -v at="$3" '$1 == word { print $at; found = 1; exit } END { exit !found }' "$work/$1"
}
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { if (b > 0) printf "%.2f", a / b; else printf "-" }'; }
met() { awk -v a="$1" -v op="$2" -v b="$3" 'BEGIN { print (op == ">=" ? a >= b : a <= b) ? "yes" : "no" }'; }
row() { printf '%-44s %18s  %-34s %10s  %-18s %s\n' "$@"; }

measure() { # NAME COMMAND...: its output into $work/NAME, or the end
    local name=$1; shift
    echo "measuring: $name" >&2
    "$@" >"$work/$name" 2>"$work/$name.err" || { cat "$work/$name" "$work/$name.err" >&2; echo "scheduler_bench: $name failed" >&2; exit 1; }
}

measure core "$build/bench/core_bench"
measure durable "$build/bench/coordinator_bench" --jobs "$jobs" --points "$points"
measure history "$build/bench/coordinator_bench" --jobs "$jobs" --points 20480 --history "$history"
measure durable-again "$build/bench/coordinator_bench" --jobs "$jobs" --points 20480
measure processes "$here/process_bench.sh" "$processes"
# The same where the file system costs nothing, which tells how much of it is the file system's.
# Not in /dev/shm, for jobs have one of their own.
in_memory() { # COMMAND...
    mkdir -p "$work/memory"
    unshare -m sh -c 'mount -t tmpfs -o mode=1777 none "$0" && ATHANOR_TEST_SCRATCH=$0 TMPDIR=$0 exec "$@"' \
        "$work/memory" "$@"
}
if [ "$(id -u)" = 0 ]; then
    measure in-memory in_memory "$here/process_bench.sh" "$processes"
else # nobody else may mount
    printf 'spawn - -\ninstruct - -\n' >"$work/in-memory"
fi
measure takeovers "$here/failover_bench.sh" "$rounds" "$live"
missing=$(slurm_missing)
slurm_rate=0 slurm_p50=- slurm_p99=-
if [ -z "$missing" ]; then
    echo "measuring: slurm" >&2
    slurm_up 16 || { echo "scheduler_bench: Slurm does not start" >&2; exit 1; }
    slurm_rate=$(slurm_array_rate "$array")
    read -r slurm_p50 slurm_p99 <<<"$(slurm_srun_ms "$sruns")"
    slurm_down
fi

echo "$(nproc) cores, load $(cut -d' ' -f1-3 /proc/loadavg), $(date -u +%F)"
row TARGET MEASURED REFERENCE RATIO WANTED MET
submit=$(field durable submit 2) insert=$(field durable submit 6)
row "durable submit" "$submit jobs/s" "$insert rows/s multi-row INSERT" \
    "$(ratio "$submit" "$insert")" ">= 0.5" "$(met "$(ratio "$submit" "$insert")" '>=' 0.5)"
rate=$(field durable jobs 2)
row "submit, dispatch, done; simulated, durable" "$rate jobs/s" "-" "-" ">= 10000 jobs/s" "$(met "$rate" '>=' 10000)"
if [ -z "$missing" ]; then
    row "the same against Slurm's job array" "$rate jobs/s" "$slurm_rate jobs/s Slurm, $array jobs" \
        "$(ratio "$rate" "$slurm_rate")" ">= 200" "$(met "$(ratio "$rate" "$slurm_rate")" '>=' 200)"
fi
spawned=$(field processes spawn 2) bare=$(field processes spawn 3)
row "real processes" "$spawned jobs/s" "$bare/s posix_spawn" "$(ratio "$spawned" "$bare")" ">= 0.5" \
    "$(met "$(ratio "$spawned" "$bare")" '>=' 0.5)"
if [ -z "$missing" ]; then
    row "real processes against Slurm's job array" "$spawned jobs/s" "$slurm_rate jobs/s Slurm" \
        "$(ratio "$spawned" "$slurm_rate")" "-" "-"
fi
quick=$(field in-memory spawn 2) quick_bare=$(field in-memory spawn 3)
row "real processes, files in memory" "$quick jobs/s" "$quick_bare/s posix_spawn" "$(ratio "$quick" "$quick_bare")" "-" "-"
p50=$(field processes instruct 2) p99=$(field processes instruct 3)
row "submit to first instruction, p50" "$p50 ms" "-" "-" "< 10 ms" "$(met "$p50" '<=' 10)"
row "submit to first instruction, p99" "$p99 ms" "-" "-" "< 50 ms" "$(met "$p99" '<=' 50)"
row "the same, files in memory, p50" "$(field in-memory instruct 2) ms" "-" "-" "-" "-"
row "the same, files in memory, p99" "$(field in-memory instruct 3) ms" "-" "-" "-" "-"
out50=$(field processes instruct 4) out99=$(field processes instruct 5)
row "command line to first instruction, p50" "$out50 ms" "$slurm_p50 ms srun" "$(ratio "$slurm_p50" "$out50")" "-" "-"
row "command line to first instruction, p99" "$out99 ms" "$slurm_p99 ms srun" "$(ratio "$slurm_p99" "$out99")" "-" "-"
awk '/queued, / {
    gsub(/,/, ""); queued = ""
    for (i = 1; i <= NF; i++) {
        if ($i == "queued" && !queued) queued = $(i - 1)
        if ($i ~ /^workers/) workers = $(i - 1)
        if ($i == "bytes") bytes = $(i - 1)
        if ($i == "places") { placed = $(i + 1); pass = $(i + 3) }
        if ($i == "one") one = $(i + 2)
    }
    print "pass", queued, workers, bytes, placed, pass, one
}' "$work/core" >"$work/passes"
while read -r _ queued workers bytes placed pass one; do
    row "pass: $queued queued, $workers workers" "$one ms" "$pass ms placing $placed" "-" "< 100 ms" "$(met "$one" '<=' 100)"
    row "memory of a queued job, $queued of them" "$bytes bytes" "-" "-" "-" "-"
done <"$work/passes"
with=$(field history jobs 2) again=$(field durable-again jobs 2)
row "jobs/s with $history finished jobs stored" "$with jobs/s" "$again jobs/s with none" "$(ratio "$with" "$again")" "near 1" "-"
cost() { awk '/us of processor/ { print $1 + $10; exit }' "$work/$1"; }
row "processor per job with $history finished" "$(cost history) us" "$(cost durable-again) us with none" \
    "$(ratio "$(cost history)" "$(cost durable-again)")" "near 1" "-"
metrics=$(field durable metrics 2)
row "metric ingest, durable" "$metrics points/s" "-" "-" ">= 100000 points/s" "$(met "$metrics" '>=' 100000)"
if grep -q '^mpi ' "$work/processes"; then
    gang=$(field processes mpi 2) mpirun=$(field processes mpi 4)
    row "MPI job of 2 ranks, submit to end, median" "$gang ms" "$mpirun ms mpirun" "$(ratio "$gang" "$mpirun")" "<= 1.1" \
        "$(met "$(ratio "$gang" "$mpirun")" '<=' 1.1)"
fi
takeover=$(field processes takeover 2)
row "leader killed to standby answering" "$takeover ms" "-" "-" "< 5000 ms" "$(met "$takeover" '<=' 5000)"
while read -r signal p50 worst; do
    row "leader with $live live jobs: $signal, slowest" "$worst ms" "$p50 ms p50" "-" "< 5000 ms" "$(met "$worst" '<=' 5000)"
done < <(sed -n 's/^takeover after \(SIG[A-Z]*\),.*p50 \([0-9]*\) ms, max \([0-9]*\) ms.*/\1 \2 \3/p' "$work/takeovers")
echo "processor time of a real process: $(field processes cpu 2) ms in worker, shepherd and rank, $(field processes cpu 3) ms in the coordinator"
[ -z "$missing" ] || echo "Slurm was not measured: $missing"
