#!/usr/bin/env bash
# Start to end of an MPI program of 4 ranks that only initialises, reduces and finalises, over one,
# two and four hosts (network namespaces, tests/system/hosts.bash), in turns:
#   mpirun    bare: an agent in place of ssh that enters the other host, which costs nothing
#   pmix      an attempt of Athanor with the embedded launcher
#   fallback  the same with `launcher: mpirun`
# Ours from placement to end as PostgreSQL has them. Prints medians and ratios to mpirun.
#
#   tests/bench/gang_bench.sh [ROUNDS, default 10]       needs root
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../system/cluster.bash"
source "$(dirname "${BASH_SOURCE[0]}")/../system/hosts.bash"
rounds=${1:-10}
for needed in mpicc mpirun; do
    command -v $needed >/dev/null || { echo "gang_bench: $needed is not installed" >&2; exit 1; }
done
why=$(hosts_possible) || { echo "gang_bench: $why" >&2; exit 1; }
cluster_home
trap 'set +e; hosts_down' EXIT
hosts_up 4
mpicc -o "$ATHANOR_HOME/hello" "$specs/hello_mpi.c"

{
    printf '#!/bin/sh\nhost=$1; shift\ncase $host in\n'
    for host in "${hosts[@]}"; do echo "$host) holder=${holder[$host]} ;;"; done
    printf 'esac\nexec nsenter -t $holder -n -u -m -- sh -c "$*"\n'
} >"$ATHANOR_HOME/agent"
chmod +x "$ATHANOR_HOME/agent"
median() { sort -n | awk '{ value[NR] = $1 } END { print value[int((NR + 1) / 2)] }'; }

bare() { # HOSTS
    local start=$EPOCHREALTIME list='' i
    for ((i = 1; i <= $1; i++)); do list+=${list:+,}w$i:$((4 / $1)); done
    on w1 mpirun --allow-run-as-root --oversubscribe --bind-to none -n 4 --host "$list" \
        --mca plm rsh --mca plm_rsh_agent "$ATHANOR_HOME/agent" --mca plm_rsh_no_tree_spawn 1 \
        --mca if_base_do_not_resolve 1 --mca oob_tcp_if_include $hosts_net.0/24 \
        --mca btl_tcp_if_include $hosts_net.0/24 --mca mpi_yield_when_idle 1 \
        "$ATHANOR_HOME/hello" >"$ATHANOR_HOME/bare.out"
    echo "$EPOCHREALTIME $start" | awk '{ print ($1 - $2) * 1000 }'
    [ "$(grep -c 'of 4, sum 6' "$ATHANOR_HOME/bare.out")" = 4 ]
}

attempt() { # HOSTS LAUNCHER
    local id
    printf 'athanor: 1\nname: gang\nkind: command\ncommand: [%s]\nlauncher: %s\nresources: {ranks: 4, cores: 1, nodes: %s}\n' \
        "$ATHANOR_HOME/hello" "$2" "$1" >"$ATHANOR_HOME/gang.yaml"
    id=$(cli submit "$ATHANOR_HOME/gang.yaml" --ids)
    cli wait "$id" >/dev/null 2>&1
    sql "SELECT extract(epoch FROM ended_at - placed_at) * 1000 FROM athanor.runs WHERE job_id = $id"
}

for ((round = 1; round <= rounds; round++)); do
    for count in 1 2 4; do
        bare $count >>"$ATHANOR_HOME/$count.bare"
        attempt $count pmix >>"$ATHANOR_HOME/$count.pmix"
        attempt $count mpirun >>"$ATHANOR_HOME/$count.mpirun"
    done
done
printf 'hosts     mpirun            pmix            fallback\n'
for count in 1 2 4; do
    reference=$(median <"$ATHANOR_HOME/$count.bare")
    printf '%5s %7.0f ms' $count "$reference"
    for what in pmix mpirun; do
        printf ' %7.0f ms %5.2f x' "$(median <"$ATHANOR_HOME/$count.$what")" \
            "$(median <"$ATHANOR_HOME/$count.$what" | awk -v reference="$reference" '{ print $1 / reference }')"
    done
    echo
done
