#!/usr/bin/env bats
# Wrong specs and wrong peers get one clear answer and leave nothing behind.

setup_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_home
    cluster_up --workers 1 --cores 1
}

teardown_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_down
}

setup() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cd "$BATS_TEST_TMPDIR"
    before=$(sql "SELECT count(*) FROM athanor.jobs")
}

nothing_was_kept() { [ "$(sql "SELECT count(*) FROM athanor.jobs")" = "$before" ]; }

@test "every wrong spec of the golden collection is refused through the CLI" {
    for spec in "$root"/tests/golden/spec/*.yaml; do
        run athanor submit "$spec"
        [ "$status" -ne 0 ] || { echo "accepted: $spec"; return 1; }
        [[ $output == *"$(basename "$spec"):"* ]] || { echo "no place in: $output"; return 1; }
    done
    nothing_was_kept
}

@test "a spec of 100 MB is refused without being sent" {
    head -c 100000000 /dev/zero | tr '\0' 'a' >big.yaml
    run athanor submit big.yaml
    [ "$status" -eq 4 ] || [ "$status" -eq 2 ]
    [[ $output == *big.yaml* ]]
    nothing_was_kept
}

@test "a job that no worker could ever run is refused by check, naming what is missing" {
    printf 'athanor: 1\nname: huge\nkind: command\ncommand: ["true"]\nresources: {ranks: 64, cores: 64}\n' >huge.yaml
    run athanor check huge.yaml
    [ "$status" -ne 0 ]
    [[ $output == *cores* ]]
    nothing_was_kept
}

@test "an unknown dataset or job is named with its line" {
    cat >dangling.yaml <<'Y'
athanor: 1
name: dangling
kind: pretraining
recipe: clm
inputs:
  data: dataset:nowhere/train
  valid: dataset:nowhere/valid
Y
    run athanor submit dangling.yaml
    [ "$status" -ne 0 ]
    [[ $output == *"dangling.yaml:6:"* ]]
    [[ $output == *nowhere* ]]
    nothing_was_kept
}

@test "what --set brought is refused with the --set as its place, also by the coordinator, for submit and check" {
    printf 'athanor: 1\nname: a\nkind: command\ncommand: ["true"]\n' >a.yaml
    for verb in submit check; do
        for set in queue=nigth project=x inputs.d=dataset:none secrets.A=none needs=job:nobody resources.cores=abc; do
            run athanor $verb a.yaml --set "$set"
            [ "$status" = 4 ]
            grep -q "^--set $set: .*${set%%=*}" <<<"$output" || { echo "no place in: $output"; return 1; }
        done
    done
    nothing_was_kept
}

@test "a key that is not enrolled gets no answer at all" {
    athanor keys new stranger --out "$BATS_TEST_TMPDIR/stranger"
    run env ATHANOR_KEY="$BATS_TEST_TMPDIR/stranger" athanor ls --timeout 2s
    [ "$status" -eq 3 ]
    nothing_was_kept
}

@test "the same submit key twice is one job" {
    printf 'athanor: 1\nname: once\nkind: command\ncommand: ["true"]\n' >once.yaml
    key=00112233445566778899aabbccddeeff
    first=$(athanor submit once.yaml --ids --submit-key $key)
    second=$(athanor submit once.yaml --ids --submit-key $key)
    [ "$first" = "$second" ]
    [ "$(sql "SELECT count(*) FROM athanor.jobs WHERE name = 'once'")" = 1 ]
}

@test "a spec that names half the past is refused at once, and a thing named twice is meant once" {
    { printf 'athanor: 1\nname: greedy\nkind: command\ncommand: ["true"]\nneeds: [job:j0'
      printf ', job:j%d' {1..1000}; printf ']\n'; } >greedy.yaml
    run athanor submit greedy.yaml
    [ "$status" -eq 4 ]
    [[ $output == *"name more than 1000 jobs and datasets outside of this spec"* ]]
    nothing_was_kept
    printf 'athanor: 1\nname: twice\nexperiment: twice\nkind: command\ncommand: ["true"]\nhold: true\n' >twice.yaml
    athanor submit twice.yaml
    athanor cancel --experiment twice --experiment twice
    athanor retry --experiment twice twice/twice --experiment twice
    athanor wait twice/twice
    [ "$(sql "SELECT state || ' ' || attempt_count FROM athanor.jobs WHERE name = 'twice'")" = "SUCCEEDED 1" ]
}

@test "a client that floods submits is refused at its quota while others are answered" {
    athanor quota set --user "$(id -un)" --queued 900
    printf 'athanor: 1\nname: flood\nkind: command\ncommand: ["true"]\nhold: true\narray: 100\n' >flood.yaml
    pids=()
    for i in {1..24}; do
        athanor submit flood.yaml >"flood.$i" 2>&1 & pids+=($!)
    done
    athanor ls --limit 1
    accepted=0
    for i in "${!pids[@]}"; do
        if wait "${pids[$i]}"; then accepted=$((accepted + 1))
        else grep -q "lets 900 wait: submit again" "flood.$((i + 1))"; fi
    done
    [ "$accepted" -eq 9 ]
    [ "$(sql "SELECT count(*) FROM athanor.jobs WHERE name LIKE 'flood-%'")" = 900 ]
    athanor quota rm --user "$(id -un)"
}
