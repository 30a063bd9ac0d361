#!/usr/bin/env bats
# A user's own programs as jobs: shell, MPI, Python; metrics, logs, checkpoints in PostgreSQL.

setup_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_home
    cluster_up --workers 1 --cores 2
}

teardown_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_down
}

setup() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cd "$BATS_TEST_TMPDIR"
}

@test "a shell script reports metrics, a checkpoint and output" {
    cat >job.yaml <<Y
athanor: 1
name: shell
kind: command
command: [sh, $specs/report.sh]
env: {PATH: "$PATH"}
Y
    id=$(athanor submit job.yaml --ids)
    athanor wait "$id"
    [ "$(job_state "$id")" = SUCCEEDED ]
    [ "$(sql "SELECT string_agg(step || ':' || value, ' ' ORDER BY step) FROM athanor.metrics WHERE job_id = $id AND name = 'loss'")" = "1:9 2:8 3:7" ]
    [ "$(sql "SELECT step FROM athanor.checkpoints WHERE job_id = $id")" = 3 ]
    athanor logs "$id" | grep -q "hello from shell rank 0 of 1"
    athanor metrics "$id" --json | jq -e 'length > 0' >/dev/null
}

@test "an MPI program of two ranks sees rank and size" {
    command -v mpicc >/dev/null || skip "mpicc is not installed"
    mpicc -o hello_mpi "$specs/hello_mpi.c"
    cat >job.yaml <<Y
athanor: 1
name: mpi
kind: command
command: [$PWD/hello_mpi]
resources: {ranks: 2, cores: 1}
Y
    id=$(athanor submit job.yaml --ids)
    athanor wait "$id"
    [ "$(job_state "$id")" = SUCCEEDED ]
    athanor logs "$id" | grep -q "rank 0 of 2, sum 1"
    athanor logs "$id" --rank 1 | grep -q "rank 1 of 2, sum 1"
}

@test "a Python script reports with the three-line snippet" {
    cat >job.yaml <<Y
athanor: 1
name: python
kind: command
command: [python3, $specs/report.py]
env: {PATH: "$PATH"}
Y
    id=$(athanor submit job.yaml --ids)
    athanor wait "$id"
    [ "$(job_state "$id")" = SUCCEEDED ]
    [ "$(sql "SELECT count(*) FROM athanor.metrics WHERE job_id = $id AND name = 'loss'")" = 5 ]
    athanor logs "$id" | grep -q "python done"
}

@test "a failing program ends failed with its exit code, and wait says so" {
    printf 'athanor: 1\nname: fails\nkind: command\ncommand: [sh, -c, "echo why >&2; exit 3"]\n' >job.yaml
    id=$(athanor submit job.yaml --ids)
    run athanor wait "$id"
    [ "$status" -eq 1 ]
    [ "$(sql "SELECT cause || ' ' || code FROM athanor.runs WHERE job_id = $id")" = "exit 3" ]
}

@test "a missing program is launch_failed, not a crash" {
    printf 'athanor: 1\nname: missing\nkind: command\ncommand: [/no/such/program]\n' >job.yaml
    id=$(athanor submit job.yaml --ids)
    run athanor wait "$id"
    [ "$status" -eq 1 ]
    [ "$(sql "SELECT cause FROM athanor.runs WHERE job_id = $id")" = launch_failed ]
}

@test "a time limit ends a job that never would, and takes its stray children" {
    cat >job.yaml <<Y
athanor: 1
name: forever
kind: command
command: [sh, -c, "setsid sleep 987654 & exec sleep 987654"]
limits: {wall_time: 1s, stop_grace: 500ms}
Y
    id=$(athanor submit job.yaml --ids)
    run athanor wait "$id"
    [ "$status" -eq 1 ]
    [ "$(sql "SELECT cause FROM athanor.runs WHERE job_id = $id")" = time_limit ]
    run pgrep -f 'sleep 987654'
    [ -z "$output" ]
}

@test "cancel stops a running job; hold keeps one pending until release" {
    printf 'athanor: 1\nname: long\nkind: command\ncommand: [sleep, "300"]\nlimits: {stop_grace: 1s}\n' >job.yaml
    id=$(athanor submit job.yaml --ids)
    until_true 20 sql_is "SELECT state FROM athanor.jobs WHERE job_id = $id" RUNNING
    athanor cancel "$id"
    run athanor wait "$id"
    [ "$(job_state "$id")" = CANCELLED ]

    printf 'athanor: 1\nname: held\nkind: command\nhold: true\ncommand: ["true"]\n' >held.yaml
    held=$(athanor submit held.yaml --ids)
    athanor why "$held" | grep -qi held
    athanor release "$held"
    athanor wait "$held"
    [ "$(job_state "$held")" = SUCCEEDED ]
}

@test "a dependent waits for its parent, and is told when the parent fails" {
    cat >pipeline.yaml <<Y
athanor: 1
experiment: pipeline
jobs:
  first: {kind: command, command: ["true"]}
  second: {kind: command, command: ["true"], needs: [first]}
  broken: {kind: command, command: ["false"]}
  child: {kind: command, command: ["true"], needs: [broken]}
Y
    run athanor submit pipeline.yaml --ids
    [ "$status" -eq 0 ]
    run athanor wait $output
    [ "$status" -eq 1 ]
    [ "$(sql "SELECT string_agg(name || '=' || state, ' ' ORDER BY name) FROM athanor.jobs WHERE experiment = 'pipeline'")" \
        = "broken=FAILED child=FAILED first=SUCCEEDED second=SUCCEEDED" ]
    [ "$(sql "SELECT cause FROM athanor.jobs WHERE experiment = 'pipeline' AND name = 'child'")" = dependency ]
}

@test "two thousand jobs of one submit all succeed" {
    printf 'athanor: 1\nname: many\nkind: command\narray: 2000\ncommand: ["true"]\nresources: {memory: 16MiB}\n' >many.yaml
    athanor submit many.yaml --experiment many >/dev/null
    until_true 300 sql_is "SELECT count(*) FROM athanor.jobs WHERE experiment = 'many' AND state = 'SUCCEEDED'" 2000
    [ "$(sql "SELECT count(*) FROM athanor.runs r JOIN athanor.jobs j USING (job_id) WHERE j.experiment = 'many'")" = 2000 ]
}

@test "the history of ended jobs replays under another policy" {
    printf 'athanor: 1\nname: past\nexperiment: past\nkind: command\narray: 5\ncommand: [sleep, "0.1"]\nlimits: {wall_time: 1m}\nresources: {memory: 16MiB}\n' >past.yaml
    athanor wait $(athanor submit past.yaml --ids)
    athanor history past.csv --experiment past
    [ "$(wc -l <past.csv)" -eq 6 ]
    athanor-coordinator --simulate past.csv --cores 1 --policy fcfs,easy --json >replay.json
    [ "$(jq '.policies | map(.jobs) | add' replay.json)" = 10 ]
    [ "$(jq '.policies[1].makespan_ms >= 500' replay.json)" = true ] # one core: one after another
}
