#!/usr/bin/env bats
# Three coordinators: one leads, the others take over. Whatever happens to the leader, every job that
# was accepted runs to its end once, and every submit is one job.

setup_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_home
    cluster_up --workers 2 --cores 1 --coordinators 3
}

teardown_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_down
}

setup() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    athanor up >"$BATS_TEST_TMPDIR/up.out" # whatever the test before ended
    ran=$BATS_TEST_TMPDIR/ran
}

# Each job appends a line at its end: how often its program ran to success.
submit_one() { # NAME
    printf 'athanor: 1\nname: %s\nkind: command\ncommand: [sh, -c, "sleep 0.3; echo %s >>%s"]\nresources: {memory: 16MiB}\n' \
        "$1" "$1" "$ran" >"$BATS_TEST_TMPDIR/$1.yaml"
    athanor submit "$BATS_TEST_TMPDIR/$1.yaml" --ids >>"$BATS_TEST_TMPDIR/ids" 2>>"$BATS_TEST_TMPDIR/submit.log"
}

stream() { # PREFIX COUNT
    local i
    for i in $(seq "$2"); do submit_one "$1-$i" || return 1; done
}

each_ran_once() { # PREFIX COUNT
    sql "SELECT name, state, cause FROM athanor.jobs WHERE name LIKE '$1-%' AND state <> 'SUCCEEDED'"
    sql_is "SELECT count(*) || ' ' || count(DISTINCT name) || ' ' || bool_and(state = 'SUCCEEDED')
              FROM athanor.jobs WHERE name LIKE '$1-%'" "$2 $2 true"
    sql_is "SELECT count(*) FROM athanor.runs r JOIN athanor.jobs j USING (job_id) WHERE j.name LIKE '$1-%'" "$2"
    [ "$(sort "$ran" | uniq -c | awk '$1 == 1' | wc -l)" = "$2" ]
    [ "$(wc -l <"$ran")" = "$2" ]
}

all_ended() { # PREFIX COUNT
    sql_is "SELECT count(*) FROM athanor.jobs WHERE name LIKE '$1-%' AND ended_at IS NOT NULL" "$2"
}

@test "kill -9 of the leader while submits stream in: a standby takes over, each job runs once" {
    first=$(leader)
    stream killed 24 &
    submits=$!
    until_true 60 sql_is "SELECT count(*) >= 6 FROM athanor.jobs WHERE name LIKE 'killed-%'" t
    kill -9 "$(leader_pid)"
    wait "$submits"
    leads_another_than "$first"
    until_true 120 all_ended killed 24
    each_ran_once killed 24
}

@test "a leader that was stopped and wakes does no harm and stands by" {
    first=$(leader) pid=$(leader_pid)
    stream stopped 16 &
    submits=$!
    until_true 60 sql_is "SELECT count(*) >= 4 FROM athanor.jobs WHERE name LIKE 'stopped-%'" t
    kill -STOP "$pid"
    until_true 30 leads_another_than "$first"
    second=$(leader) epoch=$(sql "SELECT epoch FROM athanor.coordinator_lease")
    wait "$submits"
    woken=$(now_in_sql)
    kill -CONT "$pid"
    until_true 30 stands_by_since "$first" "$woken"
    [ "$(leader)" = "$second" ]
    sql_is "SELECT epoch FROM athanor.coordinator_lease" "$epoch"
    until_true 120 all_ended stopped 16
    each_ran_once stopped 16
    # Nobody heard from it after it woke.
    run grep -h "is refused" "$ATHANOR_HOME"/log/worker-*.log
    [ -z "$output" ]
}

@test "without PostgreSQL nobody answers; when it is back jobs have run on and nothing is missing" {
    stream away 6
    until_true 60 sql_is "SELECT count(*) >= 1 FROM athanor.jobs WHERE name LIKE 'away-%' AND state = 'RUNNING'" t
    kill -9 "$(pid_of postgres)"
    until_true 30 grep -q "the lease is given up" "$ATHANOR_HOME"/log/coordinator*.log
    run athanor ls --timeout 2s
    [ "$status" -eq 3 ]
    [[ $output == *"without its database"* ]]
    athanor up >"$BATS_TEST_TMPDIR/up.out"
    until_true 120 all_ended away 6
    each_ran_once away 6
}

@test "coordinators are restarted one after the other while jobs run" {
    stream rolling 12 &
    submits=$!
    for name in coordinator coordinator-2 coordinator-3; do
        kill -TERM "$(pid_of $name)"
        until_true 30 test ! -d "/proc/$(pid_of $name)"
        athanor up >"$BATS_TEST_TMPDIR/up.out"
    done
    wait "$submits"
    until_true 120 all_ended rolling 12
    each_ran_once rolling 12
}

@test "a client that knows only a standby is sent to the leader" {
    standby=$(sql "SELECT endpoints FROM athanor.coordinators WHERE state = 'standby' LIMIT 1")
    ATHANOR_COORDINATOR=$standby run athanor status
    [ "$status" -eq 0 ]
    [[ $output == *"$(leader)"* ]]
    [[ $output == *standby* ]]
    [[ $output == *"leads since"* ]]
}
