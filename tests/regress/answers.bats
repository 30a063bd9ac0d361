#!/usr/bin/env bats
# Answers that were missing, said twice, or left something out.

setup_file() {
    source "$BATS_TEST_DIRNAME/../system/cluster.bash"
    cluster_home
    cluster_up --workers 1 --cores 2
    cd "$BATS_FILE_TMPDIR"
    cat >reports.py <<'END'
import json, os, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(os.environ["ATHANOR_REPORT"]); answers = s.makefile()
for line in sys.stdin:
    line = json.loads(line.replace("@", os.environ["ATHANOR_JOB_DIR"]))
    s.sendall((json.dumps({**line, "reply": True}) + "\n").encode())
    print(answers.readline().strip(), flush=True)
END
    # Two experiments with a job of the same name; the newest one is of `two`.
    for experiment in one two; do
        cat >"$experiment.yaml" <<END
athanor: 1
name: same
experiment: $experiment
kind: command
command: [sh, -c, "echo of $experiment; echo '{\"type\": \"metric\", \"step\": 1, \"values\": {\"$experiment\": 1}}' | python3 $PWD/reports.py"]
END
        athanor submit "$experiment.yaml" --wait
    done
}

teardown_file() {
    source "$BATS_TEST_DIRNAME/../system/cluster.bash"
    cluster_down
}

setup() {
    source "$BATS_TEST_DIRNAME/../system/cluster.bash"
    cd "$BATS_TEST_TMPDIR"
}

report_job() { # NAME LINES: a job that sends these lines; prints its number
    printf '%s\n' "$2" >lines
    printf 'athanor: 1\nname: %s\nkind: command\ncommand: [sh, -c, "python3 %s <%s"]\n' "$1" \
        "$BATS_FILE_TMPDIR/reports.py" "$PWD/lines" >job.yaml
    local id
    id=$(athanor submit job.yaml --ids)
    athanor wait "$id" >/dev/null || true
    echo "$id"
}

@test "every verb about a job takes EXPERIMENT/NAME" {
    first=$(sql "SELECT job_id FROM athanor.jobs WHERE experiment = 'one'")
    [ "$(athanor show one/same --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["job_id"])')" = "$first" ]
    athanor wait one/same
    [ "$(athanor logs one/same | head -1)" = "of one" ]
    [ "$(athanor logs same | head -1)" = "of two" ]
    [ "$(athanor metrics one/same --column name)" = one ]
    athanor plot one/same one >/dev/null
    athanor checkpoints one/same
    [[ $(athanor why one/same) == *ended* ]]
    [ "$(sql "SELECT athanor.job_find('one/same')")" = "$first" ]
    for verb in show wait logs metrics plot checkpoints why cancel; do
        run athanor $verb three/same
        [ "$status" -eq 4 ]
        [[ $output == *"there is no job 'three/same'"* ]]
    done
}

@test "metrics that a job does not have are named, together with those that it has" {
    for verb in metrics plot; do
        run athanor $verb one/same nosuch
        [ "$status" -eq 4 ]
        [[ $output == *"has no metric 'nosuch', it has one"* ]]
    done
}

@test "what is wrong with a single target is said once" {
    run athanor cancel 999
    [ "$status" -eq 4 ]
    [ "${#lines[@]}" -eq 1 ]
    run athanor cancel 998 999
    [ "$status" -eq 4 ]
    [ "${#lines[@]}" -eq 3 ]
    [[ $output == *"2 things are wrong, nothing was changed"* ]]
}

@test "an artifact whose name leads elsewhere is refused, and the program is told" {
    id=$(report_job artifact '{"type": "artifact", "kind": "file", "name": "../x", "path": "@"}')
    [[ $(athanor logs "$id") == *'"ok": false'*"'../x'"* ]]
    [ "$(sql "SELECT count(*) FROM athanor.artifacts WHERE job_id = $id")" = 0 ]
    [[ $(sql "SELECT detail FROM athanor.events WHERE job_id = $id AND name = 'report_refused'") == *"'../x'"* ]]
}

@test "NaN ranks behind every number and is not hidden" {
    id=$(report_job nan '{"type": "metric", "step": 1, "values": {"loss": 2, "only": "NaN"}}
{"type": "metric", "step": 2, "values": {"loss": 1}}
{"type": "metric", "step": 3, "values": {"loss": "NaN"}}')
    columns='name, points, lowest, lowest_step, highest, highest_step, last, nans, diverged'
    want='loss|3|1|2|2|1|NaN|1|t
only|1|NaN|1|NaN|1|NaN|1|t'
    [ "$(sql "SELECT $columns FROM athanor.best_metrics WHERE job_id = $id ORDER BY name")" = "$want" ]
    [ "$(athanor metrics "$id" --json | python3 -c '
import json, sys
for m in json.load(sys.stdin):
    print(*(m[c] for c in "name points lowest lowest_step highest highest_step last nans diverged".split()), sep="|")
' | sed 's/True/t/')" = "${want//|1|2|2|1|/|1.0|2|2.0|1|}" ]
}

@test "a job that waits for a lost node says so everywhere" {
    printf 'athanor: 1\nname: waits\nkind: command\non_disconnect: wait\ncommand: [sleep, "1000"]\n' >job.yaml
    id=$(athanor submit job.yaml --ids)
    until_true 30 sql_is "SELECT state FROM athanor.jobs WHERE job_id = $id" RUNNING
    kill -9 "$(pid_of worker-1)"
    until_true 90 sql_is "SELECT node_lost_at IS NOT NULL FROM athanor.jobs WHERE job_id = $id" t
    [[ $(athanor ls) == *"RUNNING (node lost since "* ]]
    [[ $(athanor show "$id") == *"RUNNING (node lost since "*"why it waits"* ]]
    [[ $(athanor why "$id") == *node_lost*"worker-1"* ]]
    [[ $(athanor status) == *"1 of them on lost nodes"* ]]
    athanor up >/dev/null
    until_true 30 sql_is "SELECT node_lost_at IS NULL FROM athanor.jobs WHERE job_id = $id" t
    [[ $(athanor ls) != *"node lost"* ]]
    athanor cancel "$id"
    run athanor wait "$id"
    [ "$status" -eq 1 ]
}

@test "workers obey the leader of a database restored from an old copy" {
    for restart in 1 2 3; do
        kill -9 "$(pid_of coordinator)"
        athanor up >/dev/null
        athanor submit "$BATS_FILE_TMPDIR/one.yaml" --wait # the worker has met this leader
    done
    seen=$(cat "$ATHANOR_HOME/workers/worker-1/epoch")
    kill -9 "$(pid_of coordinator)"
    athanor sql -- -c "SET default_transaction_read_only = off" \
        -c "UPDATE athanor.coordinator_lease SET epoch = 0" >/dev/null
    athanor up >/dev/null
    printf 'athanor: 1\nname: restored\nkind: command\ncommand: ["true"]\n' >job.yaml
    athanor submit job.yaml --wait
    [ "$(cat "$ATHANOR_HOME/workers/worker-1/epoch")" -ge "$seen" ]
}
