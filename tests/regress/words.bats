#!/usr/bin/env bats
# Words that name nothing are refused, instead of looking like an empty answer; old help was wrong.

setup_file() {
    source "$BATS_TEST_DIRNAME/../system/cluster.bash"
    cluster_home
    cluster_up --workers 1 --cores 1
}

teardown_file() {
    source "$BATS_TEST_DIRNAME/../system/cluster.bash"
    cluster_down
}

setup() {
    source "$BATS_TEST_DIRNAME/../system/cluster.bash"
    cd "$BATS_TEST_TMPDIR"
}

@test "ls refuses a state that does not exist, and takes states in any case" {
    run athanor ls --state FOO
    [ "$status" -eq 2 ]
    [[ $output == *"'FOO' is no state"* ]]
    athanor ls --state running,FAILED
}

@test "checkpoints of an unknown job are refused" {
    run athanor checkpoints nosuch
    [ "$status" -eq 4 ]
    [[ $output == *"there is no job 'nosuch'"* ]]
}

@test "a key's name cannot lead into another directory" {
    run athanor keys new ../x
    [ "$status" -eq 2 ]
    [ ! -e ../x.key ]
}

@test "a key that nobody enrolled is told that this may be the reason" {
    athanor keys new stranger --out stranger
    run env ATHANOR_KEY=stranger athanor ls --timeout 2s
    [ "$status" -eq 3 ]
    [[ $output == *"not enrolled get no answer"* || $output == *"key may not be enrolled"* ]] # none, or a broken handshake
}

@test "a password in ATHANOR_DB does not reach the arguments of psql" {
    mkdir bin
    printf '#!/bin/sh\necho "arguments: $*"\necho "password: $PGPASSWORD"\n' >bin/psql
    chmod +x bin/psql
    PATH=$PWD/bin:$PATH ATHANOR_DB='host=h password=s3cret dbname=d' run athanor sql 'SELECT 1'
    [[ $output == *"arguments: -d host=h dbname=d -c SELECT 1"* ]]
    [[ $output == *"password: s3cret"* ]]
}
