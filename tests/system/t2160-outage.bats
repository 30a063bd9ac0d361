#!/usr/bin/env bats
# The short form of outage.sh; tests/long/outage.sh is a minute.

@test "reports and output while the coordinator is away arrive once, and daemons do not grow" {
    run "$BATS_TEST_DIRNAME/outage.sh" --seconds 3 --rate 100
    echo "$output"
    [ "$status" -eq 0 ]
    [[ $output == *"each once"* ]]
}
