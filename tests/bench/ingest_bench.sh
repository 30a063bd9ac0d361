#!/usr/bin/env bash
# Metrics and logs of four workers that send at once, as fast as they are taken, through the whole
# path: report socket or pipe, shepherd, spool, daemon, coordinator, PostgreSQL, acknowledged after
# commit. Beside it COPY of the same rows into a table like the one they are in. In the same run.
#
#   tests/bench/ingest_bench.sh [LINES, default 20000]: report lines of ten values, then log lines of
#   100 bytes times ten, of each of four jobs
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../system/cluster.bash"
lines=${1:-20000}
cluster_home
trap cluster_down EXIT
cluster_up --workers 4 --cores 1
cc -O2 -o "$ATHANOR_HOME/flood" "$specs/flood.c"

flood() { # METRICS LINES: prints seconds until all is durable
    local ids id from
    rm -f "$ATHANOR_HOME/gate"
    printf 'athanor: 1\nname: flood\nkind: command\ncommand: [%s, "%s", "%s", "0", %s]\nresources: {cores: 1, memory: 64MiB}\n' \
        "$ATHANOR_HOME/flood" "$1" "$2" "$ATHANOR_HOME/gate" >"$ATHANOR_HOME/flood.yaml"
    ids=
    for _ in 1 2 3 4; do ids+=${ids:+,}$(athanor submit "$ATHANOR_HOME/flood.yaml" --ids); done
    until_true 60 sql_is "SELECT count(DISTINCT worker) FROM athanor.runs WHERE state = 'RUNNING'" 4
    from=$(sql "SELECT clock_timestamp()")
    touch "$ATHANOR_HOME/gate"
    until_true 600 sql_is "SELECT count(*) FROM athanor.jobs WHERE job_id IN ($ids) AND state = 'SUCCEEDED'" 4
    sql "SELECT extract(epoch FROM max(ended_at) - '$from') FROM athanor.jobs WHERE job_id IN ($ids)"
}

# Processor time so far, in ticks, of whole programs and of their children that have ended.
ticks() { # PID...
    local pid
    for pid in "$@"; do cat "/proc/$pid/stat" 2>/dev/null || true; done | sed 's/.*) //' | awk '{ n += $12 + $13 + $14 + $15 } END { print n + 0 }'
}

# Shepherds and ranks are children of the daemons' nurseries; backends that only this script's
# questions need count for PostgreSQL too.
measure() { # into $coordinator, $daemons, $ranks, $postgres
    local i pids=() nurseries=()
    for i in 1 2 3 4; do pids+=("$(pid_of worker-$i)"); done
    mapfile -t nurseries < <(for i in "${pids[@]}"; do pgrep -P "$i"; done)
    coordinator=$(ticks "$(pid_of coordinator)") daemons=$(ticks "${pids[@]}") ranks=$(ticks "${nurseries[@]}")
    postgres=$(ticks $(pgrep -P "$(pid_of postgres)"))
}

costs() { # COUNT UNIT: since measure was called last
    local before=($coordinator $daemons $ranks $postgres)
    measure
    echo "${before[@]} $coordinator $daemons $ranks $postgres" | awk -v count="$1" -v unit="$2" -v hz="$(getconf CLK_TCK)" '{
        us = 1e6 / hz / count
        printf "         processor time a %s: daemons %.2f us, shepherds and ranks %.2f, coordinator %.2f, PostgreSQL %.2f, all %.2f\n",
            unit, ($6 - $2) * us, ($7 - $3) * us, ($5 - $1) * us, ($8 - $4) * us, ($5 + $6 + $7 + $8 - $1 - $2 - $3 - $4) * us }'
}

database() { psql -h "$ATHANOR_HOME/db" -U athanor -d athanor -qAt "$@"; } # as its owner

copy() { # TABLE WHERE: prints seconds of COPY of its rows
    database -c "\\copy (SELECT * FROM athanor.$1 WHERE $2) TO '$ATHANOR_HOME/rows'"
    database -c "CREATE TABLE public.reference (LIKE athanor.$1 INCLUDING ALL)" -c '\timing on' \
        -c "\\copy public.reference FROM '$ATHANOR_HOME/rows'" -c '\timing off' \
        -c 'DROP TABLE public.reference' | awk '/^Time:/ { print $2 / 1000 }'
}

figure() { # WHAT COUNT SECONDS REFERENCE
    awk -v what="$1" -v count="$2" -v seconds="$3" -v reference="$4" 'BEGIN {
        printf "%-8s %8.0f /s in %5.2f s   PostgreSQL COPY of the same rows %5.2f s: %.2f x COPY\n", what,
            count / seconds, seconds, reference, reference / seconds }'
}

measure
seconds=$(flood "$lines" 0)
points=$(sql "SELECT count(*) FROM athanor.metric WHERE name ~ '^v'")
[ "$points" = $((40 * lines)) ] || { echo "ingest_bench: $points points of $((40 * lines))" >&2; exit 1; }
costs "$points" point
figure points "$points" "$seconds" "$(copy metric "name ~ '^v'")"
measure
seconds=$(flood 0 $((10 * lines)))
bytes=$(sql "SELECT sum(length(bytes)) FROM athanor.log_chunk WHERE stream = 'stdout'")
[ "$bytes" = $((40 * lines * 100)) ] || { echo "ingest_bench: $bytes bytes of $((40 * lines * 100))" >&2; exit 1; }
costs $((bytes / 1024)) KiB
figure "log KiB" $((bytes / 1024)) "$seconds" "$(copy log_chunk "stream = 'stdout'")"
