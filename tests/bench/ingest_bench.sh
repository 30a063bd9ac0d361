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

database() { psql -h "$ATHANOR_HOME/db" -U athanor -d athanor -qAt "$@"; } # as its owner

copy() { # TABLE WHERE: prints seconds of COPY of its rows
    database -c "\\copy (SELECT * FROM athanor.$1 WHERE $2) TO '$ATHANOR_HOME/rows'"
    database -c "CREATE TABLE public.reference (LIKE athanor.$1 INCLUDING ALL)" -c '\timing on' \
        -c "\\copy public.reference FROM '$ATHANOR_HOME/rows'" -c '\timing off' \
        -c 'DROP TABLE public.reference' | awk '/^Time:/ { print $2 / 1000 }'
}

figure() { # WHAT COUNT SECONDS REFERENCE
    awk -v what="$1" -v count="$2" -v seconds="$3" -v reference="$4" 'BEGIN {
        printf "%-8s %8.0f /s in %5.2f s   COPY of the rows %5.2f s: %.2f x COPY\n", what,
            count / seconds, seconds, reference, reference / seconds }'
}

seconds=$(flood "$lines" 0)
points=$(sql "SELECT count(*) FROM athanor.metric WHERE name ~ '^v'")
[ "$points" = $((40 * lines)) ] || { echo "ingest_bench: $points points of $((40 * lines))" >&2; exit 1; }
figure points "$points" "$seconds" "$(copy metric "name ~ '^v'")"
seconds=$(flood 0 $((10 * lines)))
bytes=$(sql "SELECT sum(length(bytes)) FROM athanor.log_chunk WHERE stream = 'stdout'")
[ "$bytes" = $((40 * lines * 100)) ] || { echo "ingest_bench: $bytes bytes of $((40 * lines * 100))" >&2; exit 1; }
figure "log KiB" $((bytes / 1024)) "$seconds" "$(copy log_chunk "stream = 'stdout'")"
