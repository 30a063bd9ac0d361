#!/usr/bin/env bash
# Three coordinators, four workers and PostgreSQL, each on a host of its own, run jobs of mixed kinds
# while everything is killed, paused and cut off, by a schedule that follows from a seed. Then all is
# healed, and every job must have ended as its spec says, its program having run to success exactly
# once; SQL must agree with what clients and programs saw (chaos/judge.sql), and nothing be left.
#
#   chaos.sh [--jobs SPECS] [--faults COUNT] [--pace MS] [--seed N] [--only KINDS] [--train]
#
# ATHANOR_BUILD names the build folder; ATHANOR_CHAOS_KEEP=DIR keeps the logs of a run.
# Needs root for network namespaces; exits 77 where they cannot be made. The same seed, count and
# pace give the same schedule, which is printed as it is executed. --only draws from these kinds of
# faults alone, as "kill-leader blind-leader" (chaos/faults.bash lists them).
#
# Read: chaos/hosts.bash (the cluster), jobs.bash (what is submitted), faults.bash, judge.bash.
set -euo pipefail
jobs=30 faults=15 pace=600 seed=${ATHANOR_CHAOS_SEED:-$RANDOM$RANDOM} train=0 only= given=("$@")
while [ $# -gt 0 ]; do
    case $1 in
        --jobs) jobs=$2; shift ;;
        --faults) faults=$2; shift ;;
        --pace) pace=$2; shift ;;
        --seed) seed=$2; shift ;;
        --only) only=$2; shift ;;
        --train) train=1 ;;
        *) echo "chaos.sh: unknown option '$1'" >&2; exit 2 ;;
    esac
    shift
done
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) parts=$here/chaos

# Processes, mounts and namespaces of our own: whatever happens, nothing of it outlives this script.
if [ -z "${chaos_inside:-}" ]; then
    skip() { echo "SKIP: $*"; exit 77; }
    [ "$(id -u)" = 0 ] || skip "network namespaces need root"
    [ -n "$(echo /usr/lib/postgresql/*/bin/postgres | grep -v '[*]')" ] || skip "PostgreSQL's server programs are not installed"
    unshare --net true 2>/dev/null || skip "network namespaces cannot be made here"
    chaos_inside=1 ATHANOR_CHAOS_SEED=$seed exec unshare --mount --pid --fork --kill-child --mount-proc \
        "${BASH_SOURCE[0]}" "${given[@]}"
fi
mkdir -p /run/netns
mount -t tmpfs none /run/netns
mount -t tmpfs none /dev/shm

source "$here/cluster.bash"
for part in hosts jobs faults judge; do source "$parts/$part.bash"; done
for kind in $only; do
    [[ " $fault_kinds " == *" $kind "* ]] || { echo "chaos.sh: no fault '$kind', but: $fault_kinds" >&2; exit 2; }
done
fault_kinds=${only:-$fault_kinds}

ended() {
    local status=$?
    set +e
    [ -z "${ATHANOR_CHAOS_KEEP:-}" ] || cp -r "$ATHANOR_HOME/log" "$ledger" "$ATHANOR_HOME/specs" "$ATHANOR_CHAOS_KEEP"
    rm -rf "$ATHANOR_HOME"
}

say() { echo "$SECONDS s: $*"; }

all_have_ended() { sql_is "SELECT count(*) FROM athanor.jobs WHERE ended_at IS NULL" 0; }

nothing_is_left() { # but this shell: jobs, shepherds, segments
    [ -z "$(ps -eo pid=,ppid=,args= | awk -v me=$$ '$1 != me && $2 != me && $3 != "ps" && $3 != "awk"')" ] &&
        [ -z "$(ls -A /dev/shm)" ]
}

evictions=$((faults < 30 ? 2 : 12))
[ -z "$only" ] || evictions=0 # such a series is about the faults, and may have few jobs
echo "seed $seed: $jobs specs, $faults faults, one each $pace ms on average"
cluster_home
trap ended EXIT
ledger=$ATHANOR_HOME/ledger
: >"$ledger"
mpicc -O1 -o "$ATHANOR_HOME/meet" "$parts/meet.c"
net_up
cluster_start
configure
state=$((seed % 2147483647))
schedule $faults $pace >"$ATHANOR_HOME/schedule"

[ $train = 0 ] || train_specs
people=3
for ((i = 0; i < people; i++)); do
    person $i $people $((faults * pace * people * 3 / 4 / jobs)) &
    persons[i]=$!
done
{ until_true 300 had_to_make_room $evictions; touch "$ATHANOR_HOME/gate"; } >/dev/null &
gate=$!
run_faults "$ATHANOR_HOME/schedule"
heal
say "healed"
until_true 180 is_healthy || wrong=1
say "healthy"
wait $gate || { wrong=1; echo "WRONG: fewer than $evictions preemptions"; }
say "room was made"
for i in "${persons[@]}"; do wait "$i" || wrong=1; done
say "clients have seen their jobs end"
until_true $((60 + 2 * jobs)) all_have_ended || wrong=1
until_true 60 no_job_is_left || { wrong=1; find "$ATHANOR_HOME"/workers/w?/attempts "$ATHANOR_HOME"/tmp/w? -mindepth 1 -maxdepth 1; ps -eo pid,args; }
say "all jobs have ended"
until_true 30 is_healthy || wrong=1 # one that was killed counts as a standby for five seconds
judge
sums
echo "faults executed: ${#executed[@]}: $(count_executed)"
must "kinds of faults that were executed" "$(wc -w <<<"$fault_kinds")" "$(printf '%s\n' "${executed[@]}" | sort -u | wc -l)"
say "judged"
if [ $wrong != 0 ]; then
    echo "seed $seed: not as it must be"
    pg_dump -h "$ATHANOR_HOME" -U athanor --inserts --schema=athanor athanor >"$ATHANOR_HOME/log/rows.sql" || true
    exit 1
fi
cluster_stop
net_down
until_true 20 nothing_is_left || { wrong=1; ps -eo pid,ppid,args; ls /dev/shm; }
[ $wrong = 0 ] || exit 1
echo "seed $seed: every job ended as it must, and nothing is left, after $SECONDS s"
