#!/usr/bin/env bats
# Nodes that fail jobs: prolog, health checks and quarantine, from the worker to `athanor why`.

setup_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_home
    cluster_up --workers 2 --cores 1
    mkdir "$ATHANOR_HOME/health"
    printf '#!/bin/sh\n[ ! -e "%s/broken" ] || { echo "scratch is not mounted"; exit 1; }\n' "$ATHANOR_HOME" \
        >"$ATHANOR_HOME/prolog"
    printf '#!/bin/sh\n[ ! -e "%s/ill" ] || { echo "3 ECC errors"; exit 2; }\n' "$ATHANOR_HOME" \
        >"$ATHANOR_HOME/health/gpu"
    chmod 755 "$ATHANOR_HOME/prolog" "$ATHANOR_HOME/health/gpu"
    worker_with worker-1 --prolog "$ATHANOR_HOME/prolog" --label side=left --memory 900TiB
    grep -q -e '--memory offers 900 TiB, and this machine has .*: jobs may be killed' "$ATHANOR_HOME/log/worker-1.log"
    worker_with worker-2 --health "$ATHANOR_HOME/health" --health-every 200ms
}

teardown_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    athanor cancel --all >/dev/null 2>&1 || true
    by_hand_end
    cluster_down
}

setup() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cd "$BATS_TEST_TMPDIR"
}

job() { # NAME: submits; prints the number
    printf 'athanor: 1\nname: %s\nkind: command\ncommand: ["true"]\nretry: {backoff: 100ms}\n' "$1" >"$1.yaml"
    athanor submit "$1.yaml" --ids
}

kept_away() { sql_is "SELECT coalesce(quarantine_reason, unhealthy, '') = '' FROM athanor.workers WHERE name = '$1'" f; }
not_kept_away() { ! kept_away "$1"; }

@test "a node whose prolog fails goes into quarantine with the reason, and its jobs run elsewhere" {
    touch "$ATHANOR_HOME/broken"
    athanor drain worker-2 # of two that would do, either may be taken
    ids=$(for i in 1 2 3; do job "p$i"; done)
    until_true 20 kept_away worker-1
    printf 'athanor: 1\nname: meant\nkind: command\ncommand: ["true"]\nconstraint: {side: left}\n' | athanor submit - --ids >meant
    athanor undrain worker-2
    [[ $(athanor why "$(cat meant)") == *"none of 1 usable worker has side=left; worker-1 would do, but is kept from work (prolog: "*"scratch is not mounted"* ]]
    athanor cancel "$(cat meant)"
    for id in $ids; do athanor wait "$id"; done
    [[ $(athanor workers worker-1) == *"quarantine: prolog: the prolog exited with code 1: scratch is not mounted"* ]]
    [[ $(athanor workers --incidents) == *worker-1*prolog*"scratch is not mounted"* ]]
    [ "$(sql "SELECT count(*) > 0, bool_and(a.node_fault) FROM athanor.attempt a JOIN athanor.worker w USING (worker_id)
               WHERE w.name = 'worker-1' AND a.cause = 'launch_failed'")" = "t|t" ]
    [ "$(sql "SELECT count(*) FROM athanor.runs WHERE cause = 'success' AND worker = 'worker-2'")" = 3 ]
}

@test "while a health check fails nothing starts there, and why says what it printed" {
    touch "$ATHANOR_HOME/ill"
    until_true 20 kept_away worker-2
    id=$(job waits)
    until_true 20 eval "[[ \$(athanor why $id) == *'kept from work: 2 '* ]]"
    [[ $(athanor workers worker-2) == *"unhealthy: gpu exited with code 2: 3 ECC errors"* ]]
    [ "$(sql "SELECT health -> 0 ->> 'text' FROM athanor.workers WHERE name = 'worker-2'")" = "3 ECC errors" ]
    rm "$ATHANOR_HOME/ill"
    athanor wait "$id"
    [ "$(sql "SELECT worker FROM athanor.runs WHERE job_id = $id")" = worker-2 ]
}

@test "undrain ends a quarantine, and what was before no longer counts" {
    rm -f "$ATHANOR_HOME/broken"
    athanor undrain worker-1
    not_kept_away worker-1
    [ "$(sql "SELECT count(*) FROM athanor.worker_incidents WHERE worker = 'worker-1' AND cleared_at IS NULL")" = 0 ]
    athanor drain worker-2
    id=$(job again)
    athanor wait "$id"
    [ "$(sql "SELECT worker FROM athanor.runs WHERE job_id = $id AND cause = 'success'")" = worker-1 ]
}
