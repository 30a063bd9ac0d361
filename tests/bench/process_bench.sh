#!/usr/bin/env bash
# Real processes through a real cluster, against a bare posix_spawn loop in the same run.
#
#   process_bench.sh [JOBS [SLOTS]]      ATHANOR_BUILD names the build folder (default build/)
#
# Prints, one figure a line:
#   spawn      jobs/s from submit to the last end with SLOTS places on the worker (default 16: while
#              one job is on its way through the database, others run), processes/s of posix_spawn
#   cpu        processor time a job in ms: worker with shepherds and ranks, coordinator
#   instruct   ms from submit, and from the command line, to the first instruction: p50 p99 p50 p99
#   mpi        ms of an MPI job of two ranks, and of mpirun of the same program, if mpicc is there
#   takeover   ms from kill -9 of the leader until a standby answers a client
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../system/cluster.bash"
jobs=${1:-1000} slots=${2:-16} alone=50

percentiles() { # numbers, one a line
    sort -n | awk '{ v[NR] = $1 } END {
        p99 = int(NR * 0.99); if (p99 < 1) p99 = 1
        printf "%.1f %.1f", v[int((NR + 1) / 2)], v[p99] }'
}

# Clock ticks of the worker with all it has started: its nursery reaps the shepherds of short jobs.
worker_ticks() {
    local worker pid sum=0 own
    worker=$(pid_of worker-1)
    for pid in $worker $(cat "/proc/$worker/task/$worker/children"); do
        own=$(awk '{ print $14 + $15 + $16 + $17 }' "/proc/$pid/stat")
        sum=$((sum + own))
    done
    echo "$sum"
}

coordinator_ticks() { awk '{ print $14 + $15 }' "/proc/$(pid_of coordinator)/stat"; }

spec() { # NAME COMMAND RESOURCES [LINE...]
    printf 'athanor: 1\nname: %s\nexperiment: %s\nkind: command\ncommand: %s\nresources: {%s}\n' \
        "$1" "$1" "$2" "$3"
    shift 3
    printf '%s\n' "$@"
}

spawn_figures() {
    local bare rate before after per_second
    per_second=$(getconf CLK_TCK)
    spec many '["true"]' 'memory: 16MiB' "array: $jobs" >"$ATHANOR_HOME/many.yaml"
    bare=$("$build/bench/spawn_bench" "$jobs" "$(nproc)")
    before="$(worker_ticks) $(coordinator_ticks)"
    athanor submit "$ATHANOR_HOME/many.yaml" >/dev/null
    until_true 900 sql_is "SELECT count(*) FROM athanor.jobs WHERE experiment = 'many' AND state = 'SUCCEEDED'" "$jobs"
    after="$(worker_ticks) $(coordinator_ticks)"
    rate=$(sql "SELECT round(count(*) / extract(epoch FROM max(ended_at) - min(submitted_at)), 1) FROM athanor.jobs WHERE experiment = 'many'")
    echo "spawn $rate $bare"
    echo "$before $after" | awk -v n="$jobs" -v hz="$per_second" '{
        ms = 1000 / hz / n
        printf "cpu %.2f %.2f\n", ($3 - $1) * ms, ($4 - $2) * ms }'
}

instruct_figures() {
    local from i id submitted began
    spec alone "[sh, -c, 'date +%s%N >\$ATHANOR_JOB_DIR/began']" 'memory: 16MiB' >"$ATHANOR_HOME/alone.yaml"
    for i in $(seq "$alone"); do
        from=$(date +%s%N)
        id=$(athanor submit "$ATHANOR_HOME/alone.yaml" --ids)
        athanor wait "$id" >/dev/null
        began=$(cat "$ATHANOR_HOME/jobs/$id/began")
        submitted=$(sql "SELECT (extract(epoch FROM submitted_at) * 1000000000)::bigint FROM athanor.jobs WHERE job_id = $id")
        awk -v a="$submitted" -v b="$began" 'BEGIN { printf "%.3f\n", (b - a) / 1e6 }' >>"$ATHANOR_HOME/inside"
        awk -v a="$from" -v b="$began" 'BEGIN { printf "%.3f\n", (b - a) / 1e6 }' >>"$ATHANOR_HOME/outside"
    done
    echo "instruct $(percentiles <"$ATHANOR_HOME/inside") $(percentiles <"$ATHANOR_HOME/outside")"
}

mpi_figures() {
    command -v mpicc >/dev/null && command -v mpirun >/dev/null || return 0
    local i from until
    cat >"$ATHANOR_HOME/hello.c" <<'C'
#include <mpi.h>
int main(int argc, char **argv) { MPI_Init(&argc, &argv); MPI_Barrier(MPI_COMM_WORLD); return MPI_Finalize(); }
C
    mpicc -O1 -o "$ATHANOR_HOME/hello" "$ATHANOR_HOME/hello.c"
    spec gang "[\"$ATHANOR_HOME/hello\"]" 'ranks: 2, memory: 64MiB' >"$ATHANOR_HOME/gang.yaml"
    for i in $(seq 10); do
        athanor wait "$(athanor submit "$ATHANOR_HOME/gang.yaml" --ids)" >/dev/null
        from=$(date +%s%N)
        mpirun --allow-run-as-root --oversubscribe -n 2 "$ATHANOR_HOME/hello"
        until=$(date +%s%N)
        awk -v ns=$((until - from)) 'BEGIN { printf "%.3f\n", ns / 1e6 }' >>"$ATHANOR_HOME/mpirun"
    done
    sql "SELECT extract(epoch FROM ended_at - submitted_at) * 1000 FROM athanor.jobs WHERE experiment = 'gang' AND state = 'SUCCEEDED'" >"$ATHANOR_HOME/gang"
    [ "$(wc -l <"$ATHANOR_HOME/gang")" = 10 ] || { echo "process_bench: MPI jobs failed" >&2; return 1; }
    echo "mpi $(percentiles <"$ATHANOR_HOME/gang") $(percentiles <"$ATHANOR_HOME/mpirun")"
}

# A second coordinator with the first one's options stands by; then the leader dies.
takeover_figures() {
    local k from until leader standby endpoint=ipc://$ATHANOR_HOME/run/standby words db
    leader=$(pid_of coordinator)
    db=$(tr '\0' '\n' <"/proc/$leader/environ" | sed -n 's/^ATHANOR_DB=//p')
    mapfile -d '' words <"/proc/$leader/cmdline"
    for ((k = 0; k < ${#words[@]}; k++)); do
        [ "${words[k]}" = --listen ] && words[k + 1]=$endpoint
        [ "${words[k]}" = --single ] && unset "words[k]"
    done
    ATHANOR_DB=$db "${words[@]}" >"$ATHANOR_HOME/standby.log" 2>&1 &
    standby=$!
    until_true 30 grep -q 'standing by' "$ATHANOR_HOME/standby.log"
    kill -9 "$leader"
    from=$(date +%s%N)
    until_true 60 athanor status --coordinator "$endpoint" --timeout 100ms
    until=$(date +%s%N)
    kill "$standby"
    wait "$standby" || true
    echo "takeover $(((until - from) / 1000000))"
}

cluster_home
trap cluster_down EXIT
cluster_up --workers 1 --cores "$slots"
instruct_figures
mpi_figures
spawn_figures
takeover_figures
