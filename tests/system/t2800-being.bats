#!/usr/bin/env bats
# Being there while jobs run: their output live, a shell inside them, the cluster at a glance, and
# word of their end.

setup_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_home
    cluster_up --workers 1 --cores 2 --coordinators 2
}

teardown_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_down
}

setup() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cd "$BATS_TEST_TMPDIR"
}

job() { # NAME YAML-LINES... -> id
    local name=$1; shift
    { printf 'athanor: 1\nname: %s\nkind: command\n' "$name"; printf '%s\n' "$@"; } >"$name.yaml"
    athanor submit "$name.yaml" --ids
}

@test "with a terminal of its own a program that holds back its output is seen at once" {
    # Without one, libc keeps these lines until 4 KiB are together or the program ends.
    printf '#include <stdio.h>\n#include <unistd.h>\nint main(void){printf("held back\\n");pause();return 0;}\n' >block.c
    cc -o block block.c
    seen=$(job seen "command: [$PWD/block]" "pty: true" "limits: {stop_grace: 1s}")
    until_true 20 sql_is "SELECT count(*) FROM athanor.logs WHERE job_id = $seen AND text = E'held back\n'" 1
    [ "$(athanor logs "$seen")" = "held back" ]
    athanor cancel "$seen"
    run athanor wait "$seen"
}

@test "logs follow a job through its retry and the end of its coordinator, and mark what was replaced" {
    cat >twice.sh <<'S'
echo "attempt $ATHANOR_ATTEMPT begins"
until [ -e "$1-$ATHANOR_ATTEMPT" ]; do sleep 0.05; done
echo "attempt $ATHANOR_ATTEMPT ends"; echo "to stderr" >&2
[ "$ATHANOR_ATTEMPT" = 2 ]
S
    id=$(job twice "command: [sh, $PWD/twice.sh, $PWD/go]" "retry: {attempts: 2, on: [exit], backoff: 0s}")
    athanor logs -f "$id" >followed 2>waited 3>&- &
    follower=$!
    until_true 20 grep -q "attempt 1 begins" followed
    old=$(leader); kill -9 "$(leader_pid)"
    until_true 20 leads_another_than "$old"
    touch go-1
    until_true 30 grep -q "attempt 2 begins" followed
    touch go-2
    wait "$follower"
    grep -v '^\[athanor\]' followed | grep -v stderr >lines
    printf 'attempt 1 begins\nattempt 1 ends\nattempt 2 begins\nattempt 2 ends\n' | diff - lines
    grep -q '^\[athanor\] attempt 2 on worker-1; attempt 1 is superseded: exit, rank 0 exited with code 1' followed
    athanor up --workers 1 --cores 2 --coordinators 2 >/dev/null

    [ "$(athanor logs "$id" --attempt 1 --stream out --tail 1)" = "attempt 1 ends" ]
    athanor logs "$id" --attempt 1 | head -1 | grep -q '^\[athanor\] attempt 1 on worker-1, superseded: exit'
    [ "$(athanor logs "$id" --all --grep 'begins$' | grep -vc athanor)" = 2 ]
    [ "$(athanor logs "$id" --stream err)" = "to stderr" ]
    [ -z "$(athanor logs "$id" --since 1ms)" ]
    [ "$(athanor logs "$id" --json --all | jq -c '[.[] | .superseded] | unique')" = "[false,true]" ]
    run athanor logs "$id" --grep '('
    [ "$status" -eq 2 ]
    run athanor logs "$id" --stream both
    [ "$status" -eq 2 ]
    [ "$(sql "SELECT string_agg(DISTINCT attempt || ' ' || superseded, ',') FROM athanor.logs WHERE job_id = $id")" = "1 true,2 false" ]
}
