#!/usr/bin/env bash
# A pilot in a real Slurm: a pool grows for a backlog, runs it and shrinks; a pool that cannot be had
# waits longer each time; an allocation that is taken away costs its jobs nothing.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../lib/slurm.bash"
source "$here/../system/cluster.bash"

missing=$(slurm_missing)
[ -z "$missing" ] || { echo "slurm: skipped, $missing"; exit 0; }

pilot_pid=
finish() {
    local status=$?
    if [ $status -ne 0 ]; then
        echo "---- pilot"; tail -20 "$ATHANOR_HOME/pilot.log" || true
        echo "---- allocations"; tail -n 20 "$ATHANOR_HOME"/shared/log/*.out || true
        athanor ls || true
    fi
    if [ -n "$pilot_pid" ]; then kill "$pilot_pid" || true; wait "$pilot_pid" || true; fi
    scancel --me 2>/dev/null || true
    slurm_wait 60 slurm_idle || true
    slurm_down
    cluster_down
}
trap finish EXIT
trap 'exit 143' TERM INT

say() { echo "slurm: $*"; }

pool() { athanor pilot status --config "$ATHANOR_HOME/pilot.yaml" --json | jq -r ".[] | select(.pool == \"$1\") | $2"; }
pool_is() { [ "$(pool "$1" "$2")" = "$3" ]; }
alive() { sql "SELECT count(*) FROM athanor.workers WHERE state IN ('OK', 'SUSPECT')"; }
none_alive() { [ "$(alive)" = 0 ]; }

cluster_home
slurm_up 8
athanor up --workers 0 >"$ATHANOR_HOME/up.out" 2>&1 || { cat "$ATHANOR_HOME/up.out"; exit 1; }
athanor keys new hpc --out "$ATHANOR_HOME/hpc.key" >/dev/null
athanor keys enrol hpc "$ATHANOR_HOME/hpc.key.pub" --role pilot >/dev/null
cat >"$ATHANOR_HOME/pilot.yaml" <<CONF
name: hpc
dir: $ATHANOR_HOME/shared
interval: 500ms
pools:
  broken: {time: 1h, cores: 2, memory: 1GiB, settle: 1s, backoff: 2s, sbatch: [--partition=nowhere]}
  cpu:
    time: 10m
    margin: 20s
    cores: 2
    memory: 1GiB
    allocations: 3
    waiting: 2
    settle: 1s
    idle: 4s
    backoff: 2s
    worker: [--allow-root-jobs]
CONF
mkdir -p "$ATHANOR_HOME/shared"
athanor pilot check --config "$ATHANOR_HOME/pilot.yaml"
ATHANOR_KEY=$ATHANOR_HOME/hpc.key athanor pilot run --config "$ATHANOR_HOME/pilot.yaml" 2>"$ATHANOR_HOME/pilot.log" &
pilot_pid=$!

cat >"$ATHANOR_HOME/many.yaml" <<'SPEC'
athanor: 1
name: many
kind: command
command: [sh, -c, "sleep 1; echo done"]
array: 12
resources: {ranks: 1, cores: 1, memory: 64MiB}
limits: {wall_time: 1m}
SPEC
cat >"$ATHANOR_HOME/longer.yaml" <<'SPEC'
athanor: 1
name: longer
kind: command
command: [echo, no]
limits: {wall_time: 30m}
SPEC
athanor submit "$ATHANOR_HOME/longer.yaml" >/dev/null
longer=$(sql "SELECT job_id FROM athanor.jobs WHERE name = 'longer'")
athanor submit "$ATHANOR_HOME/many.yaml" >/dev/null
until_true 40 sql_is "SELECT count(*) FROM athanor.jobs WHERE name LIKE 'many%' AND state = 'SUCCEEDED'" 12
workers=$(sql "SELECT count(*) FROM athanor.workers")
say "12 jobs ran on $workers workers in allocations of Slurm"
[ "$workers" -ge 2 ] && [ "$workers" -le 3 ]
[ "$(sql "SELECT count(*) FROM athanor.workers WHERE until_at IS NULL OR name NOT LIKE 'hpc-cpu-%'")" = 0 ]

until_true 60 none_alive
until_true 60 slurm_idle
until_true 30 pool_is cpu .state idle
[ "$(sql "SELECT count(*) FROM athanor.workers WHERE state <> 'LEFT'")" = 0 ]
say "the pool has shrunk to nothing: $(pool cpu '"\(.submitted) allocations, \(.started) started, ends \(.ends | tostring)"')"
[ "$(pool cpu .failures)" = 0 ]

# The job of 30 minutes fits only the pool of an hour, whose partition does not exist.
until_true 60 pool_is broken '.failures > 2' true
pool broken .trouble | grep -q "refused: sbatch"
[ "$(job_state "$longer")" = READY ]
say "a pool that cannot be had: $(pool broken '"\(.failures) failures, next try \(.retry_at), \(.trouble)"')"
athanor cancel "$longer" >/dev/null

# Somebody takes the allocation away: what ran there is requeued and costs no attempt.
cat >"$ATHANOR_HOME/taken.yaml" <<'SPEC'
athanor: 1
name: taken
kind: command
command: [sleep, "300"]
limits: {wall_time: 9m, stop_grace: 2s}
retry: {attempts: 1, on: []}
SPEC
athanor submit "$ATHANOR_HOME/taken.yaml" >/dev/null
taken=$(sql "SELECT job_id FROM athanor.jobs WHERE name = 'taken'")
until_true 60 sql_is "SELECT state FROM athanor.jobs WHERE job_id = $taken" RUNNING
scancel "$(squeue -h --me -t RUNNING -o %i | head -1)"
until_true 90 sql_is "SELECT cause FROM athanor.runs WHERE job_id = $taken AND number = 1" node_ended
until_true 90 sql_is "SELECT state FROM athanor.runs WHERE job_id = $taken AND number = 2" RUNNING
say "an allocation was taken away, its job runs in the next one"
[ "$(pool cpu .failures)" = 0 ]
athanor cancel "$taken" >/dev/null

# A pilot that was killed goes on with what it finds, and ends the keys of allocations that ended
# without it.
kill -9 "$pilot_pid"; wait "$pilot_pid" 2>/dev/null || true
scancel --me
until_true 60 slurm_idle
find "$ATHANOR_HOME/shared" -maxdepth 1 -name 'cpu-*' | grep -q . # of the one it knew
ATHANOR_KEY=$ATHANOR_HOME/hpc.key athanor pilot run --config "$ATHANOR_HOME/pilot.yaml" 2>>"$ATHANOR_HOME/pilot.log" &
pilot_pid=$!
until_true 90 none_alive
until_true 60 slurm_idle
until_true 30 pool_is cpu '.allocations | length' 0
[ "$(sql "SELECT count(*) FROM athanor.principal WHERE role = 'worker' AND revoked_at IS NULL" 2>/dev/null || athanor keys ls --json | jq '[.[] | select(.role == "worker")] | length')" = 0 ]
until_true 10 test -z "$(find "$ATHANOR_HOME/shared" -name 'token.*')"
say "no keys, tokens, workers or allocations are left"
