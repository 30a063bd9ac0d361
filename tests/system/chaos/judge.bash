# judge.bash - asks judge.sql. Sourced by ../chaos.sh.

wrong=0
must() { # TEXT WANTED GOT
    [ "$2" = "$3" ] && return
    echo "WRONG: $1: expected '$2', got '$3'"
    wrong=1
}

# Lines of the ledger that begin with the word, as rows of the table of that name.
table_of() { # WORD COLUMNS
    echo "CREATE TEMP TABLE $1 ($2); COPY $1 FROM stdin (DELIMITER ' ');"
    sed -n "s/^$1 //p" "$ledger"
    echo '\.'
}

# What clients and programs wrote down, and attempts as intervals on workers.
evidence() {
    echo 'SET jit = off;' # compiling the views would take longer than asking them
    table_of expects 'kind text, name text'
    table_of accepted 'job_id bigint'
    table_of ran 'name text, attempt_id bigint'
    table_of resumed 'name text, attempt_id bigint, step bigint'
    echo 'CREATE TEMP TABLE saw (status int, kind text, job_id bigint); COPY saw FROM stdin (DELIMITER '"' '"');'
    awk '$1 == "saw" { for (i = 4; i <= NF; i++) print $2, $3, $i }' "$ledger"
    echo '\.'
    cat <<SQL
CREATE TEMP TABLE facts AS SELECT $(printf '%s\n' "${executed[@]}" | grep -c '^power-') AS power, $evictions AS preempted;
CREATE TEMP TABLE held AS
SELECT a.attempt_id, a.job_id, coalesce(n.node, 0) AS node, coalesce(n.worker_id, a.worker_id) AS worker_id,
       coalesce(n.ranks, j.ranks) * j.cores AS cores, coalesce(n.ranks, j.ranks) * j.memory_bytes AS memory_bytes,
       a.placed_at AS from_at, coalesce(n.ended_at, a.ended_at) AS until_at
  FROM athanor.attempt a JOIN athanor.job j USING (job_id) LEFT JOIN athanor.attempt_node n USING (attempt_id);
CREATE INDEX ON held (worker_id, from_at);
CREATE TEMP TABLE grouped AS
SELECT j.job_id, substring(j.name FROM '^[a-z]+-[0-9]+') AS group_name, 2 AS at_once FROM athanor.jobs j WHERE j.name LIKE 'array-%'
UNION ALL SELECT t.job_id, s.name, s.at_once FROM athanor.trials t JOIN athanor.sweeps s USING (sweep_id) WHERE s.at_once > 0;
CREATE TEMP TABLE ledger AS SELECT * FROM athanor.usage_ledger WHERE attempt_id IS NOT NULL;
CREATE TEMP TABLE broken (promise text, what text);
ANALYZE;
SQL
}

judge() {
    { evidence; cat "$parts/judge.sql"
      echo "SELECT 'WRONG: ' || promise || ': ' || what FROM broken LIMIT 60;"; } >"$ATHANOR_HOME/judge.sql"
    psql -q -h "$ATHANOR_HOME" -U athanor -d athanor -At -v ON_ERROR_STOP=1 -f "$ATHANOR_HOME/judge.sql" \
        >"$ATHANOR_HOME/judged" 2>&1 || { echo "WRONG: the judge failed"; wrong=1; }
    cat "$ATHANOR_HOME/judged"
    [ ! -s "$ATHANOR_HOME/judged" ] || wrong=1
}

sums() {
    sql "SELECT format('jobs %s, attempts %s (%s)', (SELECT count(*) FROM athanor.jobs), count(*), (SELECT string_agg(cause || ' ' || n, ', ' ORDER BY cause)
           FROM (SELECT cause, count(*) AS n FROM athanor.runs GROUP BY cause) c)) FROM athanor.runs"
    grep -h 'leading epoch' "$ATHANOR_HOME"/log/c? | wc -l | sed 's/^/terms of leadership: /'
    takeovers
}
