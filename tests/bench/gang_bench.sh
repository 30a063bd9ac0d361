#!/usr/bin/env bash
# Start to end of an MPI program of 2 ranks that only initialises, reduces and finalises:
#   mpirun        bare, all ranks on this machine
#   one node      an attempt of Athanor on one worker
#   two nodes     the same over two workers, ranks finding each other through the shepherds' links
# From placement to end as PostgreSQL has them. Prints medians and ratios to mpirun.
#
#   tests/bench/gang_bench.sh [ROUNDS, default 10]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../system/cluster.bash"
rounds=${1:-10}
command -v mpicc >/dev/null || { echo "gang_bench: mpicc is not installed" >&2; exit 1; }
cluster_home
trap cluster_down EXIT
cluster_up --workers 2 --cores 2
mpicc -o "$ATHANOR_HOME/hello" "$specs/hello_mpi.c"

median() { sort -n | awk '{ value[NR] = $1 } END { print value[int((NR + 1) / 2)] }'; }

bare() {
    local start=$EPOCHREALTIME
    mpirun --allow-run-as-root --oversubscribe --mca mpi_yield_when_idle 1 -n 2 \
        "$ATHANOR_HOME/hello" >/dev/null
    echo "$EPOCHREALTIME $start" | awk '{ print ($1 - $2) * 1000 }'
}

attempt() { # NODES
    local id
    cat >"$ATHANOR_HOME/gang.yaml" <<Y
athanor: 1
name: gang
kind: command
command: [$ATHANOR_HOME/hello]
resources: {ranks: 2, cores: 1, nodes: $1}
Y
    id=$(athanor submit "$ATHANOR_HOME/gang.yaml" --ids)
    athanor wait "$id" >/dev/null 2>&1
    sql "SELECT extract(epoch FROM ended_at - placed_at) * 1000 FROM athanor.runs WHERE job_id = $id"
}

for _ in $(seq "$rounds"); do
    bare >>"$ATHANOR_HOME/bare.ms"
    attempt 1 >>"$ATHANOR_HOME/one.ms"
    attempt 2 >>"$ATHANOR_HOME/two.ms"
done
reference=$(median <"$ATHANOR_HOME/bare.ms")
for what in bare one two; do
    printf '%-5s %7.0f ms   %5.2f x mpirun\n' "$what" "$(median <"$ATHANOR_HOME/$what.ms")" \
        "$(median <"$ATHANOR_HOME/$what.ms" | awk -v reference="$reference" '{ print $1 / reference }')"
done
