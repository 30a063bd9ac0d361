#!/usr/bin/env bats
# Understanding what happens: reasons, estimated starts, what-if, the price before a submit.

setup_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_home
    cluster_up --workers 2 --cores 2
    cd "$BATS_FILE_TMPDIR"
    for i in 1 2; do
        spec "long$i" "resources: {cores: 2}" "limits: {wall_time: ${i}h}" | athanor submit - >/dev/null
    done
    until_true 30 sql_is "SELECT count(*) FROM athanor.jobs WHERE state = 'RUNNING'" 2
    spec next "resources: {cores: 2}" "limits: {wall_time: 3h}" | athanor submit - >/dev/null
}

teardown_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_down
}

setup() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cd "$BATS_TEST_TMPDIR"
}

spec() { # NAME LINE...
    printf 'athanor: 1\nname: %s\nkind: command\ncommand: [sleep, "1000"]\n' "$1"
    shift
    printf '%s\n' "$@"
}

json() { python3 -c "import json, sys; rows = json.load(sys.stdin); print($1)"; }

@test "why tells every reason, what would have to change, and when the job will start" {
    run athanor why next
    [ "$status" -eq 0 ]
    [[ $output == *"next, is READY"*"cores"*"needs 2 cores on one worker, the most free is 0 cores"* ]]
    [[ $output == *"starts"*"60 min on worker-"* ]]
    [ "$(athanor why next --json | json 'rows[0]["reason"], rows[0]["starts_at"] > "2020"')" = "cores True" ]
    [[ $(athanor why long1) == *"it runs"* ]]
    [[ $(athanor show next) == *"why it waits"*"needs 2 cores"*"60 min"* ]]
}

@test "what-if asks about a changed copy and changes nothing" {
    before=$(sql "SELECT md5(string_agg(j::text, ' ' ORDER BY job_id)) FROM athanor.jobs j WHERE name = 'next'")
    [[ $(athanor why next --what-if cores=4) == *"size"*"waiting does not help"* ]]
    [[ $(athanor why next --what-if cores=1 --what-if ranks=2 --what-if nodes=2) == *"2 ranks on 2 workers"*"2 h 0 min"* ]]
    [[ $(athanor why next --what-if cores=1 --what-if ranks=4) == *"its 4 ranks fit on 2 workers: resources: {nodes: 2} spreads them"* ]]
    run athanor why next --what-if queue=nosuch
    [ "$status" -eq 4 ]
    [[ $output == *"there is no queue 'nosuch'"* ]]
    run athanor why next --what-if colour=red
    [ "$status" -eq 4 ]
    [[ $output == *"expected cores, gpus, memory, ranks, nodes, wall_time or queue"* ]]
    run athanor why next --what-if wall_time=3
    [ "$status" -eq 4 ]
    [ "$(sql "SELECT md5(string_agg(j::text, ' ' ORDER BY job_id)) FROM athanor.jobs j WHERE name = 'next'")" = "$before" ]
}

@test "reasons are kept over time" {
    until_true 60 sql_is "SELECT count(*) > 0 FROM athanor.reasons WHERE name = 'next' AND reason = 'cores'" t
    [[ $(athanor why next --history) == *"cores"*"needs 2 cores"* ]]
    athanor cancel next
    until_true 30 sql_is "SELECT count(*) FROM athanor.reasons WHERE name = 'next' AND until_at IS NULL" 0
    [[ $(athanor why next --history --column reason) == *cores* ]]
    spec next "resources: {cores: 2}" "limits: {wall_time: 3h}" | athanor submit - >/dev/null
}

@test "check prices a pipeline, tells who could run it and everything in its way, and keeps nothing" {
    cat >pipeline.yaml <<'END'
athanor: 1
experiment: priced
jobs:
  prepare: {kind: command, command: ["true"], limits: {wall_time: 30m}}
  train: {kind: command, command: ["true"], array: 60, needs: [prepare], resources: {ranks: 2}, limits: {wall_time: 2h}}
  free: {kind: command, command: ["true"]}
  big: {kind: command, command: ["true"], resources: {cores: 8, gpus: 2}, limits: {wall_time: 1d}}
END
    run athanor check pipeline.yaml
    [ "$status" -eq 4 ]
    [[ $output == *"train-0 .. train-59"*" 240 "*"after 1 job"* ]]
    [[ $output == *"big"*"never"* ]]
    [[ $output == *"63 jobs, at most 432 core-hours and 48 GPU-hours; not counted: 1 without a wall time"* ]]
    [[ $output == *"big would wait:"*"needs 8 cores"* ]]
    [ "$(athanor check pipeline.yaml --json 2>/dev/null | json 'sorted(rows[1]["could_run"]), rows[1]["cores"], rows[1]["wall_time_ms"], rows[62]["could_run_count"], rows[61]["starts_in_ms"] > 3500000')" = "['worker-1', 'worker-2'] 2 7200000 0 True" ]
    [ "$(sql "SELECT count(*) FROM athanor.jobs WHERE experiment = 'priced'")" = 0 ]
}

@test "check tells all that is wrong at once" {
    cat >wrong.yaml <<'END'
athanor: 1
jobs:
  a: {kind: command, command: ["true"], queue: nosuch}
  b: {kind: command, command: ["true"], needs: [9999]}
  c: {kind: command, command: ["true"], resources: {ranks: 4096, cores: 1024}}
END
    run athanor check wrong.yaml
    [ "$status" -eq 4 ]
    [[ $output == *"wrong.yaml:3:48: jobs.a.queue: there is no queue 'nosuch'"* ]]
    [[ $output == *"no job '9999'"* && $output == *"4096 x 1024"* ]]
    printf 'athanor: 1\ndefaults:\n  project: nosuch\njobs:\n  a: {kind: command, command: ["true"]}\n' >project.yaml
    run athanor submit project.yaml
    [[ $status = 4 && $output == "project.yaml:3:12: jobs.a.project: there is no project 'nosuch'"* ]]
    run athanor submit project.yaml --set defaults.project=other
    [[ $status = 4 && $output == "--set defaults.project=other: jobs.a.project: there is no project 'other'"* ]]
}
