#!/usr/bin/env bats
# Searches, arrays with a cap, needs on artifacts, and results that are taken instead of made.

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

most_at_once() { # NAME PATTERN of jobs: how many of them held a worker at the same time
    sql "SELECT max((SELECT count(*) FROM athanor.runs b WHERE b.name LIKE '$1'
                        AND b.placed_at <= a.placed_at AND b.ended_at > a.placed_at))
           FROM athanor.runs a WHERE a.name LIKE '$1'"
}

@test "asha stops what falls behind, and goes on after kill -9 of the coordinator" {
    cat >sweep.yaml <<Y
athanor: 1
name: search
kind: command
command: [sh, $specs/trial.sh]
env: {PATH: "$PATH"}
resources: {memory: 32MiB}
limits: {stop_grace: 1s}
sweep:
  method: asha
  seed: 2
  at_once: 2
  metric: loss
  min_resource: 1
  max_resource: 6
  reduction: 2
  over: {env.LOSS: ["1", "2", "3", "4", "5", "6", "7", "8", "9"]}
Y
    athanor submit sweep.yaml
    until_true 60 sql_is "SELECT count(*) >= 3 FROM athanor.rungs WHERE sweep = 'search'" t
    kill -9 "$(pid_of coordinator)"
    athanor up >/dev/null
    athanor sweep default/search --wait
    [ "$(sql "SELECT trials || ' ' || live || ' ' || failed || ' ' || cancelled || ' ' || best_setting || ' ' || best_value FROM athanor.sweeps WHERE name = 'search'")" = "9 0 0 0 env.LOSS=1 1" ]
    [ "$(sql "SELECT pruned > 0 AND succeeded > 0 AND pruned + succeeded = 9 FROM athanor.sweeps WHERE name = 'search'")" = t ]
    [ "$(sql "SELECT state FROM athanor.trials WHERE sweep = 'search' AND place = 1")" = SUCCEEDED ]
    [ "$(sql "SELECT count(*) FROM athanor.trials WHERE cause = 'pruned' AND detail NOT LIKE 'rung %'")" = 0 ]
    [ "$(sql "SELECT count(*) FROM athanor.rungs r JOIN athanor.trials t USING (sweep_id, trial) WHERE r.kept AND t.cause = 'pruned' AND r.rung = t.rung - 1")" = 0 ]
    # One that was cut may have succeeded before the stop reached it, as while nobody led.
    [ "$(sql "SELECT count(*) FROM athanor.rungs r JOIN athanor.trials t USING (sweep_id, trial) WHERE NOT r.kept AND t.cause NOT IN ('pruned', 'success')")" = 0 ]
    athanor sweep search --json | jq -e 'length == 9 and .[0].best_value == 1' >/dev/null
}

@test "a value that the job refuses names its line in the sweep" {
    cat >wrong.yaml <<Y
athanor: 1
name: wrong
kind: command
command: [program]
sweep:
  method: grid
  over:
    resources.memory: [64MiB, 5]
Y
    run athanor submit wrong.yaml
    [ "$status" -ne 0 ]
    [[ "$output" == *"wrong.yaml:8:31: resources.memory: is '5'"* ]]
    [ "$(sql "SELECT count(*) FROM athanor.jobs WHERE name LIKE 'wrong%'")" = 0 ]
}

@test "an array with a cap runs no more at once than it says" {
    cat >array.yaml <<Y
athanor: 1
name: capped
kind: command
command: [sleep, "0.3"]
resources: {memory: 32MiB}
array: {count: 5, at_once: 1}
Y
    athanor submit array.yaml --wait
    [ "$(most_at_once 'capped-%')" = 1 ]
}

@test "a hundred thousand jobs in one submit are refused, with what is accepted" {
    printf 'athanor: 1\nname: many\nkind: command\ncommand: [program]\narray: 100000\n' >many.yaml
    run athanor submit many.yaml
    [ "$status" -ne 0 ]
    [[ "$output" == *"many.yaml:5:8: array: is '100000', expected a whole number from 1 to 10000"* ]]
}

@test "a job starts when another has made the artifact that it needs" {
    cat >needs.yaml <<Y
athanor: 1
name: needs
defaults: {env: {PATH: "$PATH"}, resources: {memory: 32MiB}}
jobs:
  maker:
    kind: command
    command: [sh, -c, 'echo x >"\$ATHANOR_JOB_DIR/table"; athanor report artifact table "\$ATHANOR_JOB_DIR/table"; until [ -e $PWD/go ]; do sleep 0.1; done']
  taker: {kind: command, command: [touch, $PWD/go], needs: {job: maker, on: artifact:table}}
  never: {kind: command, command: ["true"], needs: {job: maker, on: artifact:chair}}
Y
    chmod 777 .
    run athanor submit needs.yaml --wait
    [ "$status" -eq 1 ]
    [ "$(sql "SELECT string_agg(name || ' ' || state, ', ' ORDER BY name) FROM athanor.jobs WHERE name IN ('maker', 'taker', 'never')")" = "maker SUCCEEDED, never CANCELLED, taker SUCCEEDED" ]
    [ "$(sql "SELECT cause || ': ' || detail LIKE 'dependency: needs artifact ''chair'' of job %' FROM athanor.jobs WHERE name = 'never'")" = t ]
}

@test "an identical training takes the results of the first" {
    awk 'BEGIN { srand(5); for (i = 0; i < 500; i++) printf "word%d word%d word%d\n\n", rand()*20, rand()*20, rand()*20 }' >corpus.txt
    cat >data.yaml <<Y
athanor: 1
name: words
kind: data
recipe: text
params: {name: words, files: [$PWD/corpus.txt], split_by: blank_line, vocab_size: 300}
Y
    cat >train.yaml <<Y
athanor: 1
name: first
kind: pretraining
recipe: clm
inputs: {data: dataset:words/train}
params: {steps: 20, layers: 1, d_model: 32, heads: 2, context: 16, batch: 8}
resources: {memory: 256MiB}
Y
    chmod 755 .
    athanor submit data.yaml --wait
    first=$(athanor submit train.yaml --reuse --ids)
    athanor wait "$first"
    [ "$(sql "SELECT cause FROM athanor.jobs WHERE job_id = $first")" = success ]
    second=$(athanor submit train.yaml --reuse --set name=second --ids)
    athanor wait "$second"
    [ "$(sql "SELECT cause || ' ' || attempt_count FROM athanor.jobs WHERE job_id = $second")" = "reused 0" ]
    [ "$(sql "SELECT reused_job_id FROM athanor.reuses WHERE job_id = $second")" = "$first" ]
    [ "$(sql "SELECT string_agg(path, ' ') FROM athanor.checkpoints WHERE job_id = $second")" = "$(sql "SELECT string_agg(path, ' ') FROM athanor.checkpoints WHERE job_id = $first")" ]
    # Another seed, or without --reuse: it runs.
    third=$(athanor submit train.yaml --reuse --set name=third --set params.seed=1 --ids)
    fourth=$(athanor submit train.yaml --set name=fourth --ids)
    athanor wait "$third" "$fourth"
    [ "$(sql "SELECT count(*) FROM athanor.runs WHERE job_id IN ($third, $fourth)")" = 2 ]
    # Who reads from the second reads what the first has made.
    cat >next.yaml <<Y
athanor: 1
name: next
kind: pretraining
recipe: clm
inputs: {data: dataset:words/train, init: job:second/checkpoint:last}
params: {steps: 5, batch: 8, context: 16}
resources: {memory: 256MiB}
Y
    athanor submit next.yaml --wait
    [ "$(sql "SELECT source_job_id FROM athanor.lineages WHERE name = 'next' AND input = 'init'")" = "$first" ]
    # A trial of a grid that took its results shows what the first has reported.
    sed 's/^name: first/name: seeds/' train.yaml >seeds.yaml
    echo 'sweep: {method: grid, metric: loss, over: {params.seed: [0, 7]}}' >>seeds.yaml
    athanor submit seeds.yaml --reuse --wait
    [ "$(sql "SELECT string_agg(state || ' ' || cause, ', ' ORDER BY trial) FROM athanor.trials WHERE sweep = 'seeds'")" = "SUCCEEDED reused, SUCCEEDED success" ]
    [ "$(sql "SELECT best_value = (SELECT min(value) FROM athanor.metrics WHERE job_id = $first AND name = 'loss') FROM athanor.trials WHERE sweep = 'seeds' AND trial = 0")" = t ]
}

@test "the best trial of a sweep is an input, in its own spec and in later ones" {
    cat >trial.sh <<'S'
[ "$LOSS" = 7 ] && exit
mkdir "$ATHANOR_JOB_DIR/c"
echo "$LOSS" >"$ATHANOR_JOB_DIR/c/weights"
athanor report metric --step 1 loss="$LOSS"
athanor report checkpoint --step 1 "$ATHANOR_JOB_DIR/c" --metric loss="$LOSS"
S
    cat >best.yaml <<Y
athanor: 1
name: best
experiment: best
defaults: {env: {PATH: "$PATH"}, resources: {memory: 32MiB}}
jobs:
  grid:
    kind: command
    command: [sh, $PWD/trial.sh]
    checkpoint: {every: 1 steps, keep: "last 1, best 1 by loss"}
    sweep: {method: grid, metric: loss, over: {env.LOSS: ["7", "5", "2", "3"]}}
  score:
    kind: command
    command: [sh, -c, 'cp "\$ATHANOR_INPUT_MODEL/weights" "\$ATHANOR_JOB_DIR/read"; athanor report artifact read "\$ATHANOR_JOB_DIR/read"']
    inputs: {model: job:grid/checkpoint:best}
Y
    chmod -R go+rX .
    athanor submit best.yaml --wait
    best=$(sql "SELECT best_job_id FROM athanor.sweeps WHERE name = 'grid'")
    [ "$(sql "SELECT setting FROM athanor.trials WHERE job_id = $best")" = env.LOSS=2 ]
    [ "$(sql "SELECT source_job_id FROM athanor.lineages WHERE job_id = (SELECT job_id FROM athanor.jobs WHERE name = 'score')")" = "$best" ]
    [ "$(cat "$(sql "SELECT path FROM athanor.artifacts WHERE name = 'read'")")" = 2 ]
    [ "$(sql "SELECT parent_id FROM athanor.dependencies WHERE name = 'score' AND chosen")" = "$best" ]
    [[ "$(sql "SELECT detail FROM athanor.events WHERE name = 'chosen'")" == *"job $best is the best trial of sweep 'grid', with loss 2"* ]]
    athanor show score | grep -F grid-t2

    printf 'athanor: 1\nname: late\nexperiment: best\nkind: command\ncommand: [test, -s, weights]\ninputs: {model: job:grid/checkpoint:last}\n' >late.yaml
    sed -i "s|command: .*|command: [sh, -c, 'grep -qx 2 \"\$ATHANOR_INPUT_MODEL/weights\"']|" late.yaml
    athanor submit late.yaml --wait
    sed 's/late/wrong/; s/checkpoint:last/checkpoint:7/' late.yaml >wrong.yaml
    run athanor submit wrong.yaml
    [ "$status" -ne 0 ]
    [[ "$output" == *"'grid' is a sweep: expected checkpoint:best or checkpoint:last"* ]]

    # Nobody reported what they are compared by.
    sed '/score:/,$d; s/name: best/name: mute/; s/  grid:/  mute:/; s/over: .*/over: {env.LOSS: ["7"]}}/' best.yaml >mute.yaml
    printf '  judge: {kind: command, command: ["true"], inputs: {model: job:mute/checkpoint:best}}\n' >>mute.yaml
    run athanor submit mute.yaml --wait
    [ "$status" -eq 1 ]
    [ "$(sql "SELECT state || ' ' || cause || ' ' || detail FROM athanor.jobs WHERE name = 'judge'")" = "CANCELLED dependency input 'model' (job:mute/checkpoint:best): none of the 1 trials of sweep 'mute' reported loss" ]
    sed 's/wrong/after/; s/checkpoint:7/checkpoint:best/; s/job:grid/job:mute/' wrong.yaml >after.yaml
    run athanor submit after.yaml
    [ "$status" -ne 0 ]
    [[ "$output" == *"sweep 'mute' has ended, and none of its trials reported"* ]]
}
