#!/usr/bin/env bash
# How long nobody answers when the leader goes: against the target of DESIGN.md, 5 s.
#
#   failover_bench.sh [ROUNDS [JOBS]]    ATHANOR_BUILD names the build folder (default build/)
#
# Three coordinators and a database with JOBS live jobs (default 100000, none of them can run: there
# is no worker). In each round a leader is killed with SIGKILL, then one is stopped with SIGSTOP and
# woken when another leads, while one client asks. Prints ms from the signal to the first answer, as
# p50 and maximum of each kind of round, and what the new leaders say of loading.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../system/cluster.bash"
rounds=${1:-5} jobs=${2:-100000} target=5000 each=10000

cluster_home
trap cluster_down EXIT
cluster_up --workers 0 --coordinators 3
[ "$jobs" -ge $each ] || each=$jobs
printf 'athanor: 1\nname: waits\nexperiment: waits\nkind: command\ncommand: ["true"]\nresources: {memory: 16MiB}\narray: %s\n' \
    "$each" >"$ATHANOR_HOME/waits.yaml"
for ((left = jobs; left > 0; left -= each)); do
    athanor submit --timeout 60s "$ATHANOR_HOME/waits.yaml" >/dev/null
done

all_stand_by() { sql_is "SELECT count(*) FROM athanor.coordinators WHERE state = 'standby'" 2; }

# ms from the signal to the answer of a question that was asked right after it
answered_after() { # SIGNAL
    local pid from
    pid=$(leader_pid)
    from=$(date +%s%N)
    kill "-$1" "$pid"
    athanor workers --timeout 30s >/dev/null
    awk -v ns=$(($(date +%s%N) - from)) 'BEGIN { printf "%.0f\n", ns / 1e6 }' >>"$ATHANOR_HOME/$1"
    [ "$1" != STOP ] || kill -CONT "$pid"
}

for ((round = 0; round < rounds; round++)); do
    for signal in KILL STOP; do
        until_true 60 all_stand_by
        answered_after $signal
        athanor up >/dev/null
    done
done
for signal in KILL STOP; do
    sort -n "$ATHANOR_HOME/$signal" | awk -v signal=$signal -v target=$target '{ v[NR] = $1 } END {
        printf "takeover after SIG%s, %d rounds: p50 %d ms, max %d ms; target %d ms: %s\n", signal, NR,
            v[int((NR + 1) / 2)], v[NR], target, v[NR] < target ? "met" : "missed" }'
done
grep -ho 'loaded in .*' "$ATHANOR_HOME"/log/coordinator*.log | sort -V | tail -1
