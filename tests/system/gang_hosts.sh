#!/usr/bin/env bash
# A gang over four hosts (hosts.bash) with everything that can break, broken: after each fault the
# attempt must end on every host within the lease with the right cause and leave nothing there, and
# the job's next attempt must end with the same checkpoint as an undisturbed run on one host.
#
#   gang_hosts.sh [--seed N] [CASE...]       without a case: all. ATHANOR_BUILD names the build folder
#
# Needs root (namespaces); exits 77 where they cannot be made. The same seed gives the same ranks
# and moments.
set -euo pipefail
seed=${ATHANOR_GANG_SEED:-$RANDOM$RANDOM}
[ "${1:-}" != --seed ] || { seed=$2; shift 2; }
source "$(dirname "${BASH_SOURCE[0]}")/cluster.bash"
source "$(dirname "${BASH_SOURCE[0]}")/hosts.bash"
why=$(hosts_possible) || { echo "SKIP: $why"; exit 77; }
[ -x "$(pg_bin)/postgres" ] || { echo "SKIP: PostgreSQL's server programs are not installed"; exit 77; }
command -v nft >/dev/null || { echo "SKIP: nft is not installed"; exit 77; }
cases=("$@")
[ $# -gt 0 ] || cases=(train hpcc netpipe torch rank shepherd daemon link mute mute-parent stopped hangs elsewhere
    short mpirun spawn mpirun-killed mpirun-rank copies)
lease=${ATHANOR_GANG_LEASE:-3} # seconds

state=$((seed % 2147483647))
draw() { # BOUND: into $drawn
    state=$(((state * 1103515245 + 12345) % 2147483648))
    drawn=$(((state >> 8) % $1))
}

nap() { read -rt "$(($1 / 1000)).$(printf %03d $(($1 % 1000)))" <> <(:) || true; } # MS: as the seed says

fail() {
    echo "WRONG ($what): $*"
    sql "SELECT attempt_id, number, state, cause, evidence FROM athanor.runs ORDER BY 1 DESC LIMIT 4" || true
    sql "SELECT attempt_id, node, worker, cause, code, evidence, ended_at FROM athanor.run_nodes ORDER BY 1 DESC, 2 LIMIT 8" || true
    exit 1
}

must() { # TEXT WANTED GOT
    [ "$2" = "$3" ] || fail "$1: expected '$2', got '$3'"
}

ended() {
    local status=$?
    set +e # each step, whatever the one before found
    [ $status = 0 ] || [ -z "${ATHANOR_GANG_KEEP:-}" ] || cp -r "$ATHANOR_HOME"/{log,workers} "$ATHANOR_GANG_KEEP"
    hosts_down
}

# ---- jobs -------------------------------------------------------------------------------------

submit() { cli submit --ids "$@"; }

await() { until_true 90 sql_is "SELECT ended_at IS NOT NULL FROM athanor.jobs WHERE job_id = $1" t || fail "job $1 has not ended"; }

succeeds() { # JOB
    await "$1"
    [ "$(job_state "$1")" = SUCCEEDED ] || cli logs "$1" | tail -30
    must "state of job $1" SUCCEEDED "$(job_state "$1")"
}

dataset() {
    awk 'BEGIN { srand(7); split("cat dog bird fish fox hen", n); split("sees eats likes finds", v)
        for (i = 0; i < 4000; i++) printf "the %s %s the %s\n\n", n[1+int(rand()*6)], v[1+int(rand()*4)], n[1+int(rand()*6)] }' >"$ATHANOR_HOME/corpus.txt"
    sed "s|@corpus@|$ATHANOR_HOME/corpus.txt|" "$specs/kill-data.yaml" >"$ATHANOR_HOME/specs/data.yaml"
    succeeds "$(submit "$ATHANOR_HOME/specs/data.yaml")"
}

train() { # NAME NODES [options]: submits a training on four ranks
    submit "$specs/kill-train.yaml" --set "name=$1" --set "resources.nodes=$2" --set resources.ranks=4 \
        --set params.steps="$steps" --set 'retry.on=[signal,shepherd_lost,worker_lost,stalled]' "${@:3}"
}

# Of the files of the newest checkpoint, whatever its manifest says besides.
fingerprint() { # JOB
    local path
    path=$(sql "SELECT path FROM athanor.checkpoints WHERE job_id = $1 AND removed_at IS NULL ORDER BY step DESC LIMIT 1")
    jq -c '[.step, (.files | sort_by(.name)[] | [.name, .blake2b])]' "$path/manifest.json"
}

steps=120
declare -A references
reference() { # of an undisturbed run of as many steps on one host, made once
    local id
    expected=${references[$steps]:-}
    [ -z "$expected" ] || return 0
    id=$(train undisturbed 1)
    succeeds "$id"
    must "hosts of the undisturbed run" 1 "$(sql "SELECT count(DISTINCT worker) FROM athanor.runs WHERE job_id = $id")"
    expected=$(fingerprint "$id")
    references[$steps]=$expected
}

# ---- what is on which host --------------------------------------------------------------------

newest_attempt() { sql "SELECT max(attempt_id) FROM athanor.runs WHERE job_id = $1"; }

host_of() { sql "SELECT worker FROM athanor.run_nodes WHERE attempt_id = $1 AND node = $2"; } # ATTEMPT NODE

pid_on() { # ATTEMPT NODE pid|shepherd_pid
    sql "SELECT placement->>'$3' FROM athanor.run_nodes WHERE attempt_id = $1 AND node = $2"
}

# ---- faults: each breaks node $node of attempt $attempt on host $host -------------------------

fault_rank() { kill -KILL "$(pid_on "$attempt" "$node" pid)"; }
fault_shepherd() { kill -KILL "$(pid_on "$attempt" "$node" shepherd_pid)"; }
fault_daemon() { kill -KILL "${pid[$host]}"; process_ended "$host"; }
heal_daemon() { worker_start "$host"; }
fault_link() { link "$host" down; }
heal_link() { link "$host" up; }
fault_mute() { mute "$host"; }
heal_mute() { unmute "$host"; }
fault_mute-parent() { mute "$host" "$(host_of "$attempt" 0)"; }
heal_mute-parent() { unmute "$host"; }
fault_stopped() { kill -STOP "$(pid_on "$attempt" "$node" pid)"; }

cause_rank=signal      says_rank='node $node \($host\): rank $node died of SIGKILL'
cause_shepherd=shepherd_lost says_shepherd='node $node \($host\): the shepherd died of signal 9'
cause_daemon=worker_lost     says_daemon='node $node \($host\): '
cause_link=worker_lost       says_link='no sign of life of node ($node \($host\) on node [0-9]|0 \(.*\) on node $node \($host\))|node $node \($host\): '
cause_mute=worker_lost       says_mute=$says_link
cause_mute_parent=worker_lost says_mute_parent='no sign of life of node ($node \($host\) on node 0|0 \(.*\) on node $node \($host\))'
cause_stopped=stalled        says_stopped='rank $node is silent since step'

has_checkpoint() { sql_is "SELECT count(*) > 0 FROM athanor.checkpoints WHERE job_id = $1" t; }

# Or will never have one.
has_begun() { has_checkpoint "$1" || sql_is "SELECT ended_at IS NOT NULL FROM athanor.jobs WHERE job_id = $1" t; }

gone_everywhere() { nothing_left "$attempt" "${hosts[@]}"; }

disturbed() { # FAULT [options of the job]
    local id attempt node host ms start cause=cause_${1//-/_} says=says_${1//-/_}
    reference
    id=$(train "$1" 4 "${@:2}")
    until_true 60 has_begun "$id" && has_checkpoint "$id" || fail "no checkpoint"
    attempt=$(newest_attempt "$id")
    draw 3; node=$((1 + drawn)); [ "$1" = mute-parent ] || [ "$1" = link ] || { draw 4; node=$drawn; }
    host=$(host_of "$attempt" "$node")
    draw 600; ms=$drawn
    echo "$1: node $node ($host), ${ms} ms after the first checkpoint"
    nap "$ms"
    start=$EPOCHREALTIME
    "fault_$1"
    until_true ${patience:-$((4 * lease))} gone_everywhere || fail "left of attempt $attempt: $(for h in "${hosts[@]}"; do left_on "$h" "$attempt"; done)"
    echo "$EPOCHREALTIME $start" | awk '{ printf "  nothing is left of it on any host after %.1f s\n", $1 - $2 }'
    [ -z "$(type -t "heal_$1")" ] || "heal_$1"
    succeeds "$id"
    must "cause" "${!cause}" "$(sql "SELECT cause FROM athanor.runs WHERE attempt_id = $attempt")"
    local detail
    detail=$(sql "SELECT evidence FROM athanor.runs WHERE attempt_id = $attempt")
    echo "  ${!cause}: $detail"
    eval "says=\"${!says}\""
    [[ $detail =~ $says ]] || fail "evidence is '$detail', expected '$says'"
    [ "$(sql "SELECT max(resume_step) > 0 FROM athanor.runs WHERE job_id = $id")" = t ] || fail "the retry did not resume"
    must "checkpoint" "$expected" "$(fingerprint "$id")"
    echo "  the retry ended with the checkpoint of the undisturbed run"
}

# ---- cases ------------------------------------------------------------------------------------

command_job() { # NAME NODES RANKS SHELL [LINE...]
    printf 'athanor: 1\nname: %s\nkind: command\ncommand: [sh, -c, "%s"]\nresources: {ranks: %s, cores: 1, nodes: %s}\nenv: {PATH: "%s"}\n' \
        "$1" "$4" "$3" "$2" "$PATH" >"$ATHANOR_HOME/specs/$1.yaml"
    printf '%s\n' "${@:5}" >>"$ATHANOR_HOME/specs/$1.yaml"
    submit "$ATHANOR_HOME/specs/$1.yaml"
}

mpi_program() { # NAME: builds it in the cluster's folder
    [ -x "$ATHANOR_HOME/$1" ] || mpicc -o "$ATHANOR_HOME/$1" "$specs/$1.c"
}

case_torch() {
    local id
    id=$(command_job torch 4 4 "python3 $specs/torch_style.py" "launcher: fork")
    succeeds "$id"
    cli logs "$id" --rank 0 | grep -qF "['1@1', '2@2', '3@3']" || fail "printed $(cli logs "$id")"
    echo "torch: programs without MPI find node 0 through the variables that torch reads"
    /usr/bin/python3 -c 'import torch' 2>/dev/null || { echo "torch: SKIP of gloo, python3-torch is not installed"; return; }
    id=$(command_job gloo 4 4 "/usr/bin/python3 $specs/torch_gloo.py" "launcher: fork")
    succeeds "$id"
    [ "$(cli logs "$id" | grep -c 'of 4 .*: sum 10, weights as of one process')" = 4 ] || fail "printed $(cli logs "$id")"
    echo "torch: DistributedDataParallel over Gloo trains on four hosts to the weights of one process"
}

# Under Open MPI's own launcher: ranks where and as they should be, with their own logs.
case_mpirun() {
    local id rank
    mpi_program hello_mpi
    id=$(command_job mpirun 4 8 "echo on \$(hostname) \$RANK \$LOCAL_RANK \$NODE_RANK; $ATHANOR_HOME/hello_mpi" "launcher: mpirun")
    succeeds "$id"
    for rank in 0 1 2 3 4 5 6 7; do
        cli logs "$id" --rank $rank >"$ATHANOR_HOME/out"
        grep -q "rank $rank of 8, sum 28" "$ATHANOR_HOME/out" || fail "rank $rank printed $(cat "$ATHANOR_HOME/out")"
        must "place of rank $rank" "on $(host_of "$(newest_attempt "$id")" $((rank / 2))) $rank $((rank % 2)) $((rank / 2))" "$(grep '^on ' "$ATHANOR_HOME/out")"
    done
    echo "mpirun: eight ranks on four hosts, each with its own log"
}

# MPI_Comm_spawn needs a launcher that can start more: mpirun does, the embedded one says so. On one
# host: Open MPI 4.1.4 with PMIx 4, as Debian has them, cannot spawn over several ("PML add procs
# failed"), whoever starts it.
case_spawn() {
    local id
    mpi_program spawn_mpi
    id=$(command_job spawn 1 4 "$ATHANOR_HOME/spawn_mpi" "launcher: mpirun")
    succeeds "$id"
    cli logs "$id" | grep -q '6 of 6 are here' || fail "printed $(cli logs "$id")"
    echo "spawn: four ranks have started two more"
    id=$(command_job spawn-embedded 2 2 "$ATHANOR_HOME/spawn_mpi")
    await "$id"
    must "state of spawning under the embedded launcher" FAILED "$(job_state "$id")"
    sql "SELECT evidence FROM athanor.runs WHERE job_id = $id" >"$ATHANOR_HOME/out"
    grep -q "asked for new processes (MPI_Comm_spawn), .* use 'launcher: mpirun'" "$ATHANOR_HOME/out" ||
        fail "evidence is '$(cat "$ATHANOR_HOME/out")'"
    echo "  $(cat "$ATHANOR_HOME/out")"
}

is_looping() { [ "$(cli logs "$1" | grep -c 'is here')" = 4 ]; }

process_of() { # ATTEMPT NODE PATTERN of the command line
    local left
    for left in $(ip netns pids "$tag-$(host_of "$1" "$2")"); do
        tr '\0' ' ' <"/proc/$left/cmdline" 2>/dev/null | grep -Eq "$3" &&
            tr '\0' '\n' <"/proc/$left/environ" | grep -q "^ATHANOR_ATTEMPT_ID=$1\$" && echo "$left" && return
    done
    fail "no '$3' on node $2"
}

# What mpirun has started dies with it, and with each of its daemons and ranks, at once.
mpirun_ends() { # NODE PATTERN CAUSE EVIDENCE
    local id attempt evidence
    mpi_program loop_mpi
    id=$(command_job loop 4 4 "exec $ATHANOR_HOME/loop_mpi" "launcher: mpirun" "retry: {attempts: 1}")
    until_true 60 is_looping "$id" || fail "printed $(cli logs "$id")"
    attempt=$(newest_attempt "$id")
    if [ "$2" = shepherd ]; then
        kill -KILL "$(pid_on "$attempt" "$1" shepherd_pid)"
    else
        kill -KILL "$(process_of "$attempt" "$1" "$2")"
    fi
    until_true $((4 * lease)) gone_everywhere || fail "left of attempt $attempt: $(for h in "${hosts[@]}"; do left_on "$h" "$attempt"; done)"
    await "$id"
    must "cause" "$3" "$(sql "SELECT cause FROM athanor.runs WHERE attempt_id = $attempt")"
    evidence=$(sql "SELECT evidence FROM athanor.runs WHERE attempt_id = $attempt")
    [[ $evidence =~ $4 ]] || fail "evidence is '$evidence', expected '$4'"
    echo "  $3: $evidence"
}

case_mpirun-killed() {
    local id
    mpirun_ends 2 'loop_mpi *$' signal 'rank 2 died of SIGKILL'
    mpirun_ends 1 '^[^ ]*orted ' signal 'node 1 \(.*\): orted, .* died of SIGKILL'
    mpirun_ends 0 '^[^ ]*mpirun ' signal 'node 0 \(.*\): mpirun died of SIGKILL'
    mpirun_ends 3 shepherd shepherd_lost 'node 3'
    id=$(command_job exits 4 4 "exec $ATHANOR_HOME/loop_mpi 3 7" "launcher: mpirun")
    await "$id"
    must "end" "exit 7" "$(sql "SELECT cause || ' ' || code FROM athanor.runs WHERE job_id = $id")"
    echo "mpirun-killed: ranks, orted, mpirun, a shepherd; nothing is left, the cause is told"
}

case_mpirun-rank() { disturbed mpirun-rank --set launcher=mpirun; }
fault_mpirun-rank() { kill -KILL "$(process_of "$attempt" "$node" '^[^ ]*athanor-engine run')"; }
cause_mpirun_rank=signal says_mpirun_rank='rank $node died of SIGKILL'

case_train() {
    local id
    reference
    id=$(train spread 4)
    succeeds "$id"
    must "hosts" 4 "$(sql "SELECT count(DISTINCT worker) FROM athanor.run_nodes WHERE job_id = $id")"
    must "checkpoint" "$expected" "$(fingerprint "$id")"
    echo "train: four ranks on four hosts end with the checkpoint of four ranks on one"
}

case_hpcc() {
    local id
    command -v hpcc >/dev/null || { echo "hpcc: SKIP, not installed"; return; }
    sed -e 's/^1000 /60 /; s/^2            Ps/2            Ps/; s/^2            Qs/2            Qs/' \
        -e 's/^1200 10000 30000/60/' /usr/share/doc/hpcc/examples/_hpccinf.txt >"$ATHANOR_HOME/hpccinf.txt"
    id=$(command_job hpcc 4 4 "cp $ATHANOR_HOME/hpccinf.txt . && hpcc && { [ \$RANK != 0 ] || cat hpccoutf.txt; }" "$@")
    succeeds "$id"
    cli logs "$id" --rank 0 >"$ATHANOR_HOME/hpcc.out"
    grep -q '^CommWorldProcs=4' "$ATHANOR_HOME/hpcc.out" && grep -q '^Success=1' "$ATHANOR_HOME/hpcc.out" ||
        fail "hpcc: $(tail -3 "$ATHANOR_HOME/hpcc.out")"
    echo "hpcc: an MPI program that knows nothing of Athanor runs over four hosts"
}

case_netpipe() {
    local id
    command -v NPopenmpi >/dev/null || { echo "netpipe: SKIP, not installed"; return; }
    id=$(command_job netpipe 2 2 "NPopenmpi -u 4096 -n 20 -o np.out" "$@")
    succeeds "$id"
    cli logs "$id" | grep -q '4096 bytes' || fail "netpipe printed no line for 4096 bytes"
    echo "netpipe: messages between two hosts"
}

fetched() { sql "SELECT count(*) FROM athanor.reads WHERE job_id = $1 AND fetched_bytes > 2000000 AND fetched_from IS NOT NULL"; } # JOB

# Ranks that end as soon as they begin: each node is done before the others have met it.
case_short() {
    local id launcher
    for launcher in fork pmix; do
        id=$(command_job short 4 4 "true" "launcher: $launcher" "retry: {attempts: 1}")
        succeeds "$id"
    done
    echo "short: ranks on four hosts that end at once end well"
}

# A dataset in a job's folder that lies on a disk of each host, which no other host sees.
case_copies() {
    local id maker other host folder
    folder=$ATHANOR_HOME/jobs/$(sql "SELECT coalesce(max(job_id), 0) + 1 FROM athanor.jobs")
    mkdir "$folder"
    for host in "${hosts[@]}"; do on "$host" mount -t tmpfs none "$folder"; done
    cat >"$ATHANOR_HOME/far.sh" <<'S'
set -e
mkdir "$ATHANOR_JOB_DIR/far"
cd "$ATHANOR_JOB_DIR/far"
head -c 2000000 /dev/urandom >train
printf '{"format": 1, "name": "far", "files": [{"name": "train", "size_bytes": 2000000, "blake2b": "%s"}]}' \
    "$(b2sum -l 256 <train | cut -d' ' -f1)" >dataset.json
athanor report artifact --kind dataset far "$PWD"
S
    id=$(command_job far 1 1 "sh $ATHANOR_HOME/far.sh")
    succeeds "$id"
    maker=$(sql "SELECT worker FROM athanor.runs WHERE job_id = $id")
    id=$(command_job near 4 4 "b2sum -l 256 <\$ATHANOR_INPUT_DATA/train" "launcher: fork" "inputs: {data: dataset:far}")
    succeeds "$id"
    must "sums that four hosts read" "4 1" "$(cli logs "$id" | grep -c -- '-$') $(cli logs "$id" | grep -- '-$' | grep -o '[0-9a-f]\{64\}' | sort -u | wc -l)"
    must "hosts that fetched it" "3" "$(fetched "$id")"
    # The maker has it no more, and another host has lost its copy: both have it from the other two.
    on "$maker" rm -r "$folder/far"
    other=$(sql "SELECT worker FROM athanor.copies WHERE removed_at IS NULL ORDER BY worker LIMIT 1")
    rm -rf "$ATHANOR_HOME/workers/$other/copies"/*
    id=$(command_job again 4 4 "test -s \$ATHANOR_INPUT_DATA/train" "launcher: fork" "inputs: {data: dataset:far}")
    succeeds "$id"
    must "hosts that fetched it again" "2" "$(fetched "$id")"
    for host in "${hosts[@]}"; do on "$host" umount "$folder"; done
    echo "copies: a dataset of one host is read on four, and outlives the disk it was made on"
}

# Outlives the lease, by which alone a daemon that stays away is missed.
case_daemon() { steps=$((lease * 84)) disturbed daemon --set on_disconnect=replace; }

# Of a program that reports nothing: only the stacks tell who waits and who is waited for.
hang() { # NAME FINDING WORDS of the program; then a command with the pid of rank 2
    local id attempt evidence
    mpi_program loop_mpi
    id=$(command_job "$1" 4 4 "exec $ATHANOR_HOME/loop_mpi $3" "limits: {stall: 6s, stop_grace: 1s}")
    until_true 60 is_looping "$id" || fail "printed $(cli logs "$id")"
    attempt=$(newest_attempt "$id")
    [ $# = 3 ] || "${@:4}" "$(process_of "$attempt" 2 'loop_mpi')"
    await "$id"
    must "cause" stalled "$(sql "SELECT cause FROM athanor.runs WHERE attempt_id = $attempt")"
    evidence=$(sql "SELECT evidence FROM athanor.runs WHERE attempt_id = $attempt")
    [[ $evidence =~ "rank 2 $2" ]] || fail "evidence is '$evidence', expected 'rank 2 $2'"
    must "ranks whose stacks are there" "0 1 2 3" "$(sql "SELECT string_agg(DISTINCT substring(detail FROM '^Rank ([0-9]+)'), ' ') FROM athanor.events WHERE attempt_id = $attempt AND name = 'stack'")"
    echo "  stalled: $evidence"
}

case_elsewhere() {
    local id attempt host
    reference
    id=$(train elsewhere 2 --set limits.stall=8s --set limits.stop_grace=1s --set retry.elsewhere=true)
    until_true 60 has_checkpoint "$id" || fail "no checkpoint"
    attempt=$(newest_attempt "$id")
    host=$(host_of "$attempt" 1)
    kill -STOP "$(pid_on "$attempt" 1 pid)"
    succeeds "$id"
    must "cause" stalled "$(sql "SELECT cause FROM athanor.runs WHERE attempt_id = $attempt")"
    must "nodes of the retry, of them $host" "2 0" "$(sql "SELECT count(*) || ' ' || count(*) FILTER (WHERE worker = '$host') FROM athanor.run_nodes WHERE job_id = $id AND attempt_id > $attempt")"
    must "checkpoint" "$expected" "$(fingerprint "$id")"
    echo "elsewhere: the retry left out the host of the rank that hung"
}

case_hangs() {
    command -v gdb >/dev/null || command -v eu-stack >/dev/null || { echo "hangs: SKIP, neither gdb nor eu-stack is installed"; return; }
    hang stopped-rank 'is stopped by a signal' '' kill -STOP
    hang looping-rank 'is outside of MPI' '2 loop'
    echo "hangs: the rank that the others wait for is named, with the stacks of all"
}

case_stopped() { patience=40 disturbed stopped --set limits.stall=8s --set limits.stop_grace=1s; }

echo "seed $seed"
what=start
cluster_home
trap ended EXIT
hosts_up 4 --worker-lease ${lease}s --heartbeat 500ms
dataset
for what in "${cases[@]}"; do
    if [ -n "$(type -t "case_$what")" ]; then "case_$what"; else disturbed "$what"; fi
done
what="end"
until_true 30 nothing_left "" "${hosts[@]}" || fail "left: $(for h in "${hosts[@]}"; do left_on "$h"; done)"
trap - EXIT
hosts_down || { echo "seed $seed: a daemon did not end when it was asked to"; exit 1; }
if ip netns list | grep -q "^$tag-" || [ -e "$ATHANOR_HOME" ]; then
    echo "seed $seed: namespaces or files are left"
    exit 1
fi
echo "seed $seed: every attempt ended as it must, and nothing is left"
