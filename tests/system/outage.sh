#!/usr/bin/env bash
# Four workers whose jobs report and print without pause while the coordinator is away: nothing is
# lost, nothing doubled, and memory does not grow with the outage.
#
#   outage.sh [--seconds N, default 60] [--rate N of report lines and log lines a second, default 300]
set -euo pipefail
seconds=60 rate=300
while [ $# -gt 0 ]; do
    case $1 in
        --seconds) seconds=$2; shift ;;
        --rate) rate=$2; shift ;;
        *) echo "outage.sh: unknown option '$1'" >&2; exit 2 ;;
    esac
    shift
done
source "$(dirname "${BASH_SOURCE[0]}")/cluster.bash"
count=$((rate * (seconds + 4))) # lines of each kind a job sends in all
grown_max=$((48 << 10))         # KiB: two windows of messages and what malloc keeps of them

fail() { echo "WRONG: $*"; exit 1; }

rss() { awk '/^VmRSS/ { print $2 }' "/proc/$(pid_of "$1")/status"; } # KiB

spooled() { # bytes in the spools of all attempts
    find "$ATHANOR_HOME"/workers/*/attempts -name 'spool-*' -printf '%s\n' 2>/dev/null | awk '{ n += $1 } END { print n + 0 }'
}

nap() { read -rt "$1" <> <(:) || true; } # as long as the outage is to be

cluster_home
trap cluster_down EXIT
cluster_up --workers 4 --cores 1
cc -O2 -o "$ATHANOR_HOME/flood" "$specs/flood.c"
cat >"$ATHANOR_HOME/flood.yaml" <<Y
athanor: 1
name: flood
kind: command
command: [$ATHANOR_HOME/flood, "$count", "$count", "$rate", $ATHANOR_HOME/gate]
resources: {cores: 1, memory: 64MiB}
Y
ids=
for _ in 1 2 3 4; do ids+=" $(athanor submit "$ATHANOR_HOME/flood.yaml" --ids)"; done
until_true 60 sql_is "SELECT count(DISTINCT worker) FROM athanor.runs WHERE state = 'RUNNING'" 4
declare -A before most
for i in 1 2 3 4; do before[$i]=$(rss worker-$i) most[$i]=0; done
before[c]=$(rss coordinator)
touch "$ATHANOR_HOME/gate"
until_true 30 sql_is "SELECT count(DISTINCT job_id) FROM athanor.metrics WHERE name = 'v0'" 4

kill -9 "$(pid_of coordinator)"
spool=0
for ((second = 0; second < seconds; second++)); do
    nap 1
    for i in 1 2 3 4; do
        now=$(rss worker-$i)
        [ "$now" -le "${most[$i]}" ] || most[$i]=$now
    done
    now=$(spooled)
    [ "$now" -le "$spool" ] || spool=$now
done
athanor up >"$ATHANOR_HOME/again.out" 2>&1 || fail "$(cat "$ATHANOR_HOME/again.out")"
coordinator=0
all_ended() {
    now=$(rss coordinator)
    [ "$now" -le "$coordinator" ] || coordinator=$now
    for i in 1 2 3 4; do
        now=$(rss worker-$i)
        [ "$now" -le "${most[$i]}" ] || most[$i]=$now
    done
    sql_is "SELECT count(*) FROM athanor.jobs WHERE state = 'SUCCEEDED'" 4
}
until_true $((120 + 2 * seconds)) all_ended || fail "$(sql 'SELECT job_id, state, cause FROM athanor.jobs')"

for id in $ids; do
    got=$(sql "SELECT count(*) || ' ' || count(DISTINCT (name, step)) || ' ' || max(step) FROM athanor.metrics WHERE job_id = $id AND name ~ '^v[0-9]\$'")
    [ "$got" = "$((10 * count)) $((10 * count)) $count" ] || fail "job $id: points, different points, last step: $got of $((10 * count))"
    athanor logs "$id" | awk -v want="$count" '/line / { for (i = 1; i <= NF; i++) if ($i == "line") { n++; if ($(i + 1) != n) { print "line " $(i + 1) " came as number " n; exit 1 } } }
        END { if (n != want) { print n " lines of " want; exit 1 } }' || fail "log of job $id"
done
[ "$(sql 'SELECT count(*) FROM athanor.runs')" = 4 ] || fail "an attempt was repeated"

echo "$seconds s without a coordinator: $((40 * count)) points and $((4 * count)) lines of 4 workers, each once"
for i in 1 2 3 4; do
    echo "worker-$i: $((before[$i] / 1024)) MiB before, at most $((most[$i] / 1024)) MiB"
    [ $((most[$i] - before[$i])) -le $grown_max ] || fail "worker-$i has grown by more than $((grown_max / 1024)) MiB"
done
echo "coordinator: $((before[c] / 1024)) MiB before, at most $((coordinator / 1024)) MiB while it caught up"
echo "spools: at most $((spool / 1024)) KiB in all, $((spool / (4 * (seconds > 0 ? seconds : 1)) / 1024)) KiB a second and worker"
