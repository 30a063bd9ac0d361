#!/usr/bin/env bats
# Jobs on several workers: started together, ended together.

source "$BATS_TEST_DIRNAME/cluster.bash"

setup_file() {
    cluster_home
    cluster_up --workers=2
    cat >"$ATHANOR_HOME/pair.yaml" <<'EOF'
athanor: 1
name: pair
kind: command
command: [/bin/sh, -c, 'echo rank $RANK of $WORLD_SIZE; exit 0']
resources: {ranks: 2, nodes: 2, memory: 64MiB}
retry: {attempts: 1, on: []}
EOF
}

teardown_file() { cluster_down; }

ended() { # NAME
    sql_is "SELECT count(*) FROM athanor.jobs WHERE name = '$1' AND ended_at IS NOT NULL" 1
}

@test "a job on two nodes runs a rank on each and succeeds when both have" {
    athanor submit "$ATHANOR_HOME/pair.yaml"
    until_true 60 ended pair
    sql_is "SELECT state FROM athanor.jobs WHERE name = 'pair'" SUCCEEDED
    sql_is "SELECT string_agg(concat(node, first_rank, ranks, cause), ' ' ORDER BY node)
              FROM athanor.run_nodes WHERE name = 'pair'" "001success 111success"
    sql_is "SELECT count(DISTINCT worker) FROM athanor.run_nodes WHERE name = 'pair'" 2
    sql_is "SELECT string_agg(text, '' ORDER BY rank) FROM athanor.logs WHERE job_id =
              (SELECT job_id FROM athanor.jobs WHERE name = 'pair')" "rank 0 of 2
rank 1 of 2"
}

@test "the failure of one node ends the other and is the cause" {
    athanor submit "$ATHANOR_HOME/pair.yaml" --set name=broken \
        --set 'command=[/bin/sh, -c, "[ $RANK = 0 ] || exit 3; exec sleep 600"]' \
        --set limits.stop_grace=1s
    until_true 60 ended broken
    sql_is "SELECT state || ' ' || cause FROM athanor.jobs WHERE name = 'broken'" "FAILED exit"
    sql_is "SELECT cause || ' ' || code FROM athanor.run_nodes
             WHERE name = 'broken' AND node = 1" "exit 3"
    sql_is "SELECT cause FROM athanor.run_nodes WHERE name = 'broken' AND node = 0" peer_failed
}

@test "a job that wants more nodes than there are waits and is told so" {
    athanor submit "$ATHANOR_HOME/pair.yaml" --set name=wide --set resources.nodes=3 \
        --set resources.ranks=3
    run athanor why wide
    [[ "$output" == *size* ]]
    athanor cancel wide
    until_true 30 ended wide
    sql_is "SELECT attempt_count FROM athanor.jobs WHERE name = 'wide'" 0
}

@test "a job on two nodes goes on while its coordinator is killed" {
    athanor submit "$ATHANOR_HOME/pair.yaml" --set name=lasting \
        --set "command=[/bin/sh, -c, \"while [ ! -e $ATHANOR_HOME/gate ]; do sleep 0.1; done\"]"
    until_true 30 sql_is "SELECT string_agg(state, ' ') FROM athanor.run_nodes
                           WHERE name = 'lasting'" "RUNNING RUNNING"
    kill -9 "$(pid_of coordinator)"
    athanor up >"$ATHANOR_HOME/again.out" 2>&1
    touch "$ATHANOR_HOME/gate"
    until_true 60 ended lasting
    sql_is "SELECT state || ' ' || attempt_count FROM athanor.jobs WHERE name = 'lasting'" "SUCCEEDED 1"
}

@test "the daemon of the first node is restarted before the others have met it: one attempt" {
    first=$(sql "SELECT worker FROM athanor.run_nodes WHERE name = 'lasting' AND node = 0")
    kill -STOP "$(pid_of "$first")" # so that nobody can meet there
    athanor submit "$ATHANOR_HOME/pair.yaml" --set name=meeting
    until_true 30 sql_is "SELECT count(*) FROM athanor.run_nodes WHERE name = 'meeting'" 2
    [ "$(sql "SELECT worker FROM athanor.run_nodes WHERE name = 'meeting' AND node = 0")" = "$first" ]
    kill -9 "$(pid_of "$first")"
    athanor up >"$ATHANOR_HOME/again.out" 2>&1
    until_true 60 ended meeting
    sql_is "SELECT state || ' ' || attempt_count FROM athanor.jobs WHERE name = 'meeting'" "SUCCEEDED 1"
}
