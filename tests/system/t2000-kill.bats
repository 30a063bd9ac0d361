#!/usr/bin/env bats
# kill -9 of every part during a training job: nothing is lost, nothing is doubled, and the
# result is the undisturbed run's, bit for bit.

setup_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_home
    cluster_up --workers 1 --cores 2
    corpus=$BATS_FILE_TMPDIR/corpus.txt
    # A corpus with structure, made here: sentences from a small seeded grammar.
    awk 'BEGIN { srand(7); split("cat dog bird fish fox hen", n); split("sees eats likes finds", v)
        for (i = 0; i < 4000; i++) printf "the %s %s the %s\n\n", n[1+int(rand()*6)], v[1+int(rand()*4)], n[1+int(rand()*6)] }' >"$corpus"
    sed "s|@corpus@|$corpus|" "$specs/kill-data.yaml" >"$BATS_FILE_TMPDIR/data.yaml"
    id=$(athanor submit "$BATS_FILE_TMPDIR/data.yaml" --ids)
    athanor wait "$id"
    id=$(athanor submit "$specs/kill-train.yaml" --set name=undisturbed --ids)
    athanor wait "$id"
    echo "$id" >"$BATS_FILE_TMPDIR/undisturbed"
}

teardown_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_down
}

setup() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    undisturbed=$(cat "$BATS_FILE_TMPDIR/undisturbed")
}

series() { # the newest attempt's value of each step, in order
    sql "SELECT step || ' ' || value FROM athanor.series WHERE job_id = $1 AND name = 'loss' AND rank = 0 ORDER BY step"
}

each_step_once() { # of an attempt that was never superseded: no point lost, none twice
    [ "$(sql "SELECT count(*) || ' ' || count(DISTINCT step) || ' ' || max(step) FROM athanor.metrics WHERE job_id = $1 AND name = 'loss'")" = "300 300 300" ]
    [ "$(sql "SELECT count(*) FROM athanor.runs WHERE job_id = $1")" = 1 ]
}

same_as_undisturbed() {
    [ "$(job_state "$1")" = SUCCEEDED ]
    [ -n "$(series "$1")" ]
    [ "$(series "$1")" = "$(series "$undisturbed")" ]
}

start_training() { # NAME: submits and waits until a few steps are done
    id=$(athanor submit "$specs/kill-train.yaml" --set "name=$1" --ids)
    until_true 60 sql_is "SELECT max(step) >= 20 FROM athanor.metrics WHERE job_id = $id AND name = 'loss'" t
}

@test "kill -9 of the coordinator does not disturb the job" {
    start_training coordinator-killed
    kill -9 "$(pid_of coordinator)"
    athanor up >/dev/null
    athanor wait "$id"
    same_as_undisturbed "$id"
    each_step_once "$id"
}

@test "kill -9 of the worker daemon does not disturb the job" {
    start_training worker-killed
    kill -9 "$(pid_of worker-1)"
    athanor up >/dev/null
    athanor wait "$id"
    same_as_undisturbed "$id"
    each_step_once "$id"
}

@test "kill -9 of PostgreSQL does not disturb the job" {
    start_training postgres-killed
    kill -9 "$(pid_of postgres)"
    athanor up >/dev/null
    athanor wait "$id"
    same_as_undisturbed "$id"
    each_step_once "$id"
}

# Whether a process belongs to job $2 of this cluster: other clusters number their jobs alike.
of_job() { # PID JOB
    tr '\0' '\n' <"/proc/$1/environ" 2>/dev/null | grep -q "^ATHANOR_JOB_DIR=$ATHANOR_HOME/.*/$2\$"
}

attempt_pid() { # PATTERN of a process of job $id
    local pid
    for pid in $(pgrep -f "$1"); do
        ! of_job "$pid" "$id" || { echo "$pid"; return; }
    done
    return 1
}

no_process_of_job() {
    local folder
    for folder in /proc/[0-9]*; do
        ! of_job "${folder#/proc/}" "$1" || return 1
    done
}

@test "kill -9 of one rank: cause signal, retry resumes, result equal bit for bit" {
    start_training rank-killed
    until_true 60 sql_is "SELECT count(*) > 0 FROM athanor.checkpoints WHERE job_id = $id" t
    kill -9 "$(attempt_pid 'athanor-engine')"
    athanor wait "$id"
    [ "$(sql "SELECT cause FROM athanor.runs WHERE job_id = $id ORDER BY number LIMIT 1")" = signal ]
    [ "$(sql "SELECT count(*) FROM athanor.runs WHERE job_id = $id")" = 2 ]
    [ "$(sql "SELECT resume_step > 0 FROM athanor.runs WHERE job_id = $id AND number = 2")" = t ]
    same_as_undisturbed "$id"
    no_process_of_job "$id"
}

@test "kill -9 of the shepherd: cause shepherd_lost, no process left, result equal bit for bit" {
    start_training shepherd-killed
    until_true 60 sql_is "SELECT count(*) > 0 FROM athanor.checkpoints WHERE job_id = $id" t
    attempt=$(sql "SELECT attempt_id FROM athanor.runs WHERE job_id = $id")
    kill -9 "$(sql "SELECT placement->>'shepherd_pid' FROM athanor.runs WHERE attempt_id = $attempt")"
    athanor wait "$id"
    [ "$(sql "SELECT cause FROM athanor.runs WHERE job_id = $id ORDER BY number LIMIT 1")" = shepherd_lost ]
    same_as_undisturbed "$id"
    no_process_of_job "$id"
}
