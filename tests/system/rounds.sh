#!/usr/bin/env bash
# Jobs that are started and ended at random moments, through the whole system: a client, a
# coordinator, two workers with imaginary GPUs, on one node or both. Their programs leave children
# in sessions of their own, orphans, shared memory and files behind, and do not mind SIGTERM. After
# each round no process is left; at the end no file, segment, cgroup, core, device or lease.
#
#   rounds.sh [--rounds N, default 50] [--seed N]
set -euo pipefail
rounds=50 seed=${ATHANOR_ROUNDS_SEED:-$RANDOM$RANDOM}
while [ $# -gt 0 ]; do
    case $1 in
        --rounds) rounds=$2; shift ;;
        --seed) seed=$2; shift ;;
        *) echo "rounds.sh: unknown option '$1'" >&2; exit 2 ;;
    esac
    shift
done
source "$(dirname "${BASH_SOURCE[0]}")/cluster.bash"
echo "seed $seed"

state=$((seed % 2147483647))
draw() { # BOUND: into $drawn
    state=$(((state * 1103515245 + 12345) % 2147483648))
    drawn=$(((state >> 8) % $1))
}

nap() { read -rt "0.$(printf %03d "$1")" <> <(:) || true; } # MS, as the seed says

fail() {
    echo "WRONG (round ${round:-end}): $*"
    sql "SELECT attempt_id, job_id, number, state, cause, evidence FROM athanor.runs ORDER BY 1 DESC LIMIT 4" || true
    exit 1
}

gone() { ! kill -0 "$1" 2>/dev/null; }

worker_again() { # NAME: with imaginary GPUs
    local pid arguments program
    pid=$(pid_of "$1")
    mapfile -d '' arguments <"/proc/$pid/cmdline"
    program=$(readlink "/proc/$pid/exe")
    kill "$pid"
    until_true 20 gone "$pid"
    "$program" "${arguments[@]:1}" --gpus fake:2 2>>"$ATHANOR_HOME/log/$1.log" 3>&- &
    workers+=("$!")
}

workers=()
ended() {
    local pid
    athanor cancel --all >/dev/null 2>&1 || true
    for pid in "${workers[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${workers[@]}"; do until_true 20 gone "$pid" || true; done
    cluster_down
}

# Processes of any attempt of ours, by what only they have in their environment.
processes() { grep -lazE "^ATHANOR_RUN_DIR=$ATHANOR_HOME/" /proc/[0-9]*/environ 2>/dev/null || true; }
no_processes() { [ -z "$(processes)" ]; }

has_ended() { sql_is "SELECT ended_at IS NOT NULL FROM athanor.jobs WHERE job_id = $1" t; }

job() { # RESOURCES PROGRAM
    printf 'athanor: 1\nname: round\nkind: command\ncommand: [sh, %s]\nresources: {%s}\nlimits: {stop_grace: %s}\nretry: {attempts: 2, on: [shepherd_lost], backoff: 0s}\n' \
        "$2" "$1" "$3" >"$ATHANOR_HOME/round.yaml"
    athanor submit "$ATHANOR_HOME/round.yaml" --ids
}

kill_shepherd() { # JOB: of a node that is drawn, if it has begun
    local pids
    mapfile -t pids < <(sql "SELECT placement->>'shepherd_pid' FROM athanor.run_nodes WHERE job_id = $1 AND ended_at IS NULL AND placement ? 'shepherd_pid' ORDER BY node")
    [ ${#pids[@]} -gt 0 ] || return 0
    draw ${#pids[@]}
    kill -KILL "${pids[drawn]}" 2>/dev/null || true
}

cluster_home
trap ended EXIT
cluster_up --workers 2 --cores 2
for name in worker-1 worker-2; do worker_again $name; done
until_true 30 sql_is "SELECT count(*) FROM athanor.workers WHERE state = 'OK' AND gpus = 2" 2
{ echo "noted=$ATHANOR_HOME/pids"; cat; } >"$ATHANOR_HOME/family.sh" <<'F'
trap '' TERM
setsid sleep 600 &
(setsid sh -c 'trap "" TERM; sleep 600; sleep 600' &)
echo segment >"/dev/shm/torch_$$_1_0"
echo file >"$TMPDIR/file"
echo "$$" >>"$noted"
while :; do sleep 600; done
F

sorts=('ranks: 1, gpus: 1' 'ranks: 2, nodes: 2, gpus: 1' 'ranks: 1, gpus: 2' 'ranks: 2, cores: 1')
killed=0 seen=0
for ((round = 1; round <= rounds; round++)); do
    draw ${#sorts[@]}; sort=${sorts[drawn]}
    draw 2; grace=$([ "$drawn" = 0 ] && echo 0s || echo 50ms)
    id=$(job "$sort" "$ATHANOR_HOME/family.sh" "$grace")
    draw 700; nap "$drawn"
    draw 4
    [ "$drawn" != 0 ] || { kill_shepherd "$id"; killed=$((killed + 1)); draw 300; nap "$drawn"; }
    no_processes || seen=$((seen + 1))
    athanor cancel "$id" >/dev/null
    until_true 60 has_ended "$id" || fail "job $id ($sort) has not ended: $(job_state "$id")"
    until_true 20 no_processes || fail "job $id ($sort) left $(for f in $(processes); do tr '\0' ' ' <"${f%environ}cmdline"; done)"
done
round=
[ $seen -gt 0 ] && [ -s "$ATHANOR_HOME/pids" ] || fail "no round had a process to leave behind"

[ "$(sql "SELECT count(*) FROM athanor.jobs WHERE state NOT IN ('CANCELLED', 'FAILED')")" = 0 ] || fail "not all were cancelled"
nothing_runs() { sql_is "SELECT sum(runs) FROM athanor.workers" 0; }
until_true 20 nothing_runs || fail "workers are taken: $(sql "SELECT name, runs FROM athanor.workers")"
leases=$(sql "SELECT count(*) FROM athanor.runs WHERE ended_at IS NULL")
[ "$leases" = 0 ] || fail "$leases attempts have not ended"
no_folders() { [ -z "$(find "$ATHANOR_HOME"/workers/*/attempts -mindepth 1 -maxdepth 1 -name '[0-9]*')" ]; }
until_true 30 no_folders || fail "folders: $(find "$ATHANOR_HOME"/workers/*/attempts -mindepth 1 -maxdepth 1)"

# All cores and GPUs of both at once; it also tells how attempts are named in /tmp and /dev/shm.
id=$(job 'ranks: 4, nodes: 2, gpus: 1' "-c, 'echo \$TMPDIR; cat /proc/self/cgroup'" 5s)
until_true 60 has_ended "$id" || fail "not all is free: $(athanor why "$id")"
[ "$(job_state "$id")" = SUCCEEDED ] || fail "the last job: $(sql "SELECT cause, detail FROM athanor.jobs WHERE job_id = $id")"
sql "SELECT text FROM athanor.logs WHERE job_id = $id" >"$ATHANOR_HOME/names"
tags=$(grep -o 'athanor-[0-9]*-[0-9a-f]*' "$ATHANOR_HOME/names" | sed 's/.*-//' | sort -u)
[ -n "$tags" ] || fail "no TMPDIR in $(cat "$ATHANOR_HOME/names")"
no_traces() {
    local tag
    for tag in $tags; do
        [ -z "$(find "${TMPDIR:-/tmp}" /dev/shm -maxdepth 1 -name "athanor-*-$tag-*")" ] || return 1
        [ -z "$(find /sys/fs/cgroup -type d -name "*$tag-[0-9]*" 2>/dev/null)" ] || return 1
    done
}
until_true 20 no_traces || fail "left: $(for tag in $tags; do find "${TMPDIR:-/tmp}" /dev/shm /sys/fs/cgroup -maxdepth 6 -name "*$tag-*" 2>/dev/null; done)"
for pid in $(cat "$ATHANOR_HOME/pids"); do
    [ ! -e "/dev/shm/torch_${pid}_1_0" ] || fail "segment of process $pid"
done
echo "$rounds rounds, $seen ended while processes were there, $killed with a killed shepherd: no process, file, segment, cgroup, device or lease is left"
