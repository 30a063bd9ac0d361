#!/usr/bin/env bats
# The short form of chaos.sh, always with the same faults; tests/long/chaos.sh is the long one, with
# others each time.

@test "every job ends as specified, exactly once, while everything is killed, paused and cut off" {
    run "$BATS_TEST_DIRNAME/chaos.sh" --jobs 30 --faults 15 --pace 600 --seed "${ATHANOR_CHAOS_SEED:-33}"
    echo "$output"
    [ "$status" -ne 77 ] || skip "${lines[-1]}"
    [ "$status" -eq 0 ]
    [[ $output == *"every job ended as it must, and nothing is left"* ]]
}
