#!/usr/bin/env bats
# The same commands with an existing PostgreSQL server, and as an ordinary user.

setup() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_home
    printf 'athanor: 1\nname: hello\nkind: command\ncommand: [echo, hello]\n' >"$ATHANOR_HOME/job.yaml"
}

teardown() {
    cluster_down
    if [ -n "${server_dir:-}" ]; then
        as_postgres "$(pg_bin)/pg_ctl" -D "$server_dir/data" -m immediate stop >/dev/null
        rm -rf "$server_dir"
    fi
}

pg_bin() { ls -d /usr/lib/postgresql/*/bin | tail -1; }

as_postgres() {
    if [ "$(id -u)" -eq 0 ]; then
        (cd / && setpriv --reuid=postgres --regid=postgres --clear-groups "$@")
    else
        "$@"
    fi
}

start_server() { # a server that is not ours: other superuser, a role without privileges beyond its database
    server_dir=$(mktemp -d "${TMPDIR:-/tmp}/athanor-server-XXXXXX")
    [ "$(id -u)" -ne 0 ] || chown postgres "$server_dir"
    as_postgres "$(pg_bin)/initdb" -D "$server_dir/data" -A trust -U boss >/dev/null
    as_postgres "$(pg_bin)/pg_ctl" -D "$server_dir/data" -w -l "$server_dir/log" \
        -o "-k $server_dir -c listen_addresses=''" start >/dev/null
    as_postgres psql -h "$server_dir" -U boss -d postgres -qc "CREATE ROLE athanor_owner LOGIN" \
        -c "CREATE DATABASE experiments OWNER athanor_owner"
    export ATHANOR_DB="host=$server_dir dbname=experiments user=athanor_owner"
}

@test "an existing server: ATHANOR_DB is used and nothing else is started" {
    start_server
    cluster_up --workers 1 --cores 1
    [ ! -e "$ATHANOR_HOME/run/postgres.pid" ]
    id=$(athanor submit "$ATHANOR_HOME/job.yaml" --ids)
    athanor wait "$id"
    [ "$(as_postgres psql -h "$server_dir" -U athanor_owner -d experiments -Atc "SELECT state FROM athanor.jobs WHERE job_id = $id")" = SUCCEEDED ]
    [ "$(job_state "$id")" = SUCCEEDED ]
}

@test "an ordinary user runs the whole cluster" {
    [ "$(id -u)" -eq 0 ] || skip "the suite itself runs as an ordinary user"
    chown -R nobody "$ATHANOR_HOME"
    as_nobody() {
        setpriv --reuid=nobody --regid=nogroup --clear-groups \
            env HOME="$ATHANOR_HOME" ATHANOR_HOME="$ATHANOR_HOME/state" PATH="$PATH" "$@"
    }
    cd /
    as_nobody athanor up --workers 1 --cores 1
    id=$(as_nobody athanor submit "$ATHANOR_HOME/job.yaml" --ids)
    as_nobody athanor wait "$id"
    [ "$(as_nobody athanor sql -- -At -c "SELECT account IS NOT NULL AND state = 'SUCCEEDED' FROM athanor.jobs WHERE job_id = $id")" = t ]
    as_nobody athanor down --force
}

@test "up twice is up once; down and up keep what is stored" {
    cluster_up --workers 1 --cores 1
    first=$(pid_of coordinator)
    cluster_up --workers 1 --cores 1
    [ "$(pid_of coordinator)" = "$first" ]
    id=$(athanor submit "$ATHANOR_HOME/job.yaml" --ids)
    athanor wait "$id"
    athanor down
    run athanor ls
    [ "$status" -eq 3 ]
    cluster_up --workers 1 --cores 1
    [ "$(job_state "$id")" = SUCCEEDED ]
}
