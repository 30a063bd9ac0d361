#!/usr/bin/env bats
# The short form of gang_hosts.sh, always with the same faults; tests/long/gangs.sh has them all, at
# other moments each time.

@test "four hosts: MPI jobs run across them, faults end them everywhere, retries have the same result" {
    [ -z "${ASAN_OPTIONS:-}" ] || skip "daemons with sanitizers are too slow for its lease"
    run "$BATS_TEST_DIRNAME/gang_hosts.sh" --seed "${ATHANOR_GANG_SEED:-5}" hpcc rank mute-parent short copies
    echo "$output"
    [ "$status" -ne 77 ] || skip "${lines[-1]}"
    [ "$status" -eq 0 ]
    [[ $output == *"every attempt ended as it must, and nothing is left"* ]]
}
