#!/usr/bin/env bats
# Debian keeps initdb and postgres off PATH: `up` must find them and they must find each other.

setup() {
    source "$BATS_TEST_DIRNAME/../system/cluster.bash"
    cluster_home
}

teardown() {
    cluster_down
}

@test "up works with the environment of a fresh account" {
    # The scan below /usr/lib/postgresql is what is tested: only links to system programs on PATH.
    mkdir "$ATHANOR_HOME/bin"
    ln -s /bin/sh "$ATHANOR_HOME/bin/sh"
    run env -i PATH="$ATHANOR_HOME/bin" ATHANOR_HOME="$ATHANOR_HOME" "$build/bin/athanor" up
    echo "$output"
    [ "$status" -eq 0 ]
    [ "$(sql 'SELECT count(*) FROM athanor.workers')" = 1 ]
}
