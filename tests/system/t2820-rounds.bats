#!/usr/bin/env bats
# The short form of rounds.sh; tests/long/rounds.sh is fifty rounds at other moments each time.

@test "jobs ended at random moments leave no process, file, cgroup, device or lease behind" {
    [ -z "${ASAN_OPTIONS:-}" ] || skip "the same programs as in the plain run, only slower"
    run "$BATS_TEST_DIRNAME/rounds.sh" --rounds 5 --seed "${ATHANOR_ROUNDS_SEED:-7}"
    echo "$output"
    [ "$status" -eq 0 ]
    [[ $output == *"or lease is left" ]]
}
