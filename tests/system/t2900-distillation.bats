#!/usr/bin/env bats
# Impossible Distillation as a job: its dataset as a product, how it ends when it cannot work, and
# a model of others that is imported; (long) that killing anything in any stage changes neither
# datasets nor student.

setup_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_home
    cluster_up --workers 2 --cores 2
    ids=$(athanor submit "$specs/distil.yaml" --ids)
    # shellcheck disable=SC2086 # one word per job id
    athanor wait $ids >"$BATS_FILE_TMPDIR/log" || { cat "$BATS_FILE_TMPDIR/log"; return 1; }
    id=$(athanor submit "$specs/distil-student.yaml" --ids)
    athanor wait "$id" >"$BATS_FILE_TMPDIR/log" || { cat "$BATS_FILE_TMPDIR/log"; return 1; }
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

@test "a dataset of pairs says what it holds, why others were dropped, and what made each" {
    athanor dataset | grep -q '^pairs-self1 .* paraphrase '
    athanor dataset pairs | grep -q '^kept '
    [ "$(athanor dataset world --column task)" = "" ]
    # Every pair of the pool has one verdict: 40 contexts, 6 x 5 pairs each.
    [ "$(sql "SELECT sum(pairs) || ' ' || sum(pairs) FILTER (WHERE verdict = 'kept') FROM athanor.dataset_yields WHERE name = 'pairs'")" \
        = "1200 $(sql "SELECT pairs + duplicates FROM athanor.dataset_cards WHERE name = 'pairs'")" ]
    [ "$(sql "SELECT bool_and(asked >= pairs) AND count(DISTINCT context_sentences) = 2 FROM athanor.dataset_yields WHERE name = 'pairs'")" = t ]
    athanor dataset pairs --export >"$BATS_TEST_TMPDIR/pairs"
    [ "$(wc -l <"$BATS_TEST_TMPDIR/pairs")" = "$(athanor dataset pairs --column pairs)" ]
    grep -q '"teacher":"job:teacher/checkpoint:last"' "$BATS_TEST_TMPDIR/pairs"
    id=$(head -1 "$BATS_TEST_TMPDIR/pairs" | sed 's/.*"id":"\([0-9.]*\)".*/\1/')
    athanor dataset pairs --pair "$id" | grep -q '^verdict  *kept$'
    [ "$(sql "SELECT l.context || '.' || l.x_sample || '.' || l.y_sample || ' ' || (c.job_id = j.job_id) || ' ' || l.seed FROM athanor.pair_lineage('pairs', '$id') l JOIN athanor.checkpoints c ON c.checkpoint_id = l.teacher_checkpoint_id JOIN athanor.jobs j ON j.name = 'teacher'")" \
        = "$id true 1337" ]
    read -r block line < <(sql "SELECT block || ' ' || line FROM athanor.pair_lineage('pairs', '$id')")
    sed -n "${line}p" "$block" | grep -q "\"context\":${id%%.*},"
    read -r pair verdict < <(sql "SELECT pair || ' ' || verdict FROM athanor.dropped_pairs WHERE name = 'pairs' ORDER BY pair LIMIT 1")
    athanor dataset pairs --pair "$pair" --json | grep -q "\"verdict\":\"$verdict\""
    run athanor dataset pairs --pair 999.0.1
    [ "$status" = 5 ] || [ "$status" = 4 ]
    run athanor dataset nothing
    [ "$status" = 4 ]
}

@test "a filtered dataset says what became of its documents, and of which groups they are" {
    cd "$BATS_TEST_TMPDIR"
    for i in 1 2 3 4 5 6; do
        echo "{\"id\": \"h$i\", \"text\": \"harbour boats sail at noon with number$i and sailors\"}"
        [ $i = 6 ] || echo "{\"id\": \"c$i\", \"text\": \"bread butter cheese for every meal$i of cooks\"}"
    done >texts.jsonl
    echo '{"id": "short", "text": "no"}' >>texts.jsonl
    cat >groups.yaml <<Y
athanor: 1
name: groups
kind: data
recipe: yi
resources: {memory: 512MiB}
params: {name: groups, documents: [$PWD/texts.jsonl], stages: [gopher, minhash, cluster], limits: ["words=5:", "required=:", "top_2=:", "top_3=:", "top_4=:"],
         cluster_k: 2, vocab_size: 300}
Y
    athanor submit groups.yaml --wait
    [ "$(sql "SELECT string_agg(filter || ' ' || documents, ', ' ORDER BY filter) FROM athanor.dataset_filters WHERE dataset = 'groups'")" = "gopher_words 1, kept 11" ]
    [ "$(sql "SELECT concat_ws(' ', filter, document, place, value, text) FROM athanor.dataset_drops WHERE dataset = 'groups'")" = "gopher_words short $PWD/texts.jsonl:12 1 no" ]
    [ "$(sql "SELECT string_agg(concat_ws(' ', cluster, documents, words, kept), ', ' ORDER BY cluster) FROM athanor.dataset_clusters WHERE dataset = 'groups' AND quality IS NULL")" = "0 6 54 1, 1 5 40 1" ]
    athanor dataset groups >shown
    grep -q '^gopher_words  *1 ' shown
    grep -Eq '^ *0  *6  *54 .*harbour' shown
}

@test "which documents a step of a training saw: by SQL, and by the engine where the dataset is" {
    read -r run unit < <(sql "SELECT attempt_id || ' ' || unit FROM athanor.data_orders WHERE job = 'teacher' ORDER BY attempt_id DESC LIMIT 1")
    [ "$unit" = documents ]
    told=$(sql "SELECT told FROM athanor.data_orders WHERE attempt_id = $run")
    athanor-engine documents --order "$told" --steps 2-3 >"$BATS_TEST_TMPDIR/rows"
    sed 's/.*"row": \([0-9]*\), "documents": \[\([0-9]*\)\].*/\1 \2/' "$BATS_TEST_TMPDIR/rows" >"$BATS_TEST_TMPDIR/engine"
    sql "SELECT batch_row || ' ' || item FROM generate_series(2, 3) AS s, LATERAL athanor.step_items($run, s)" >"$BATS_TEST_TMPDIR/sql"
    [ -s "$BATS_TEST_TMPDIR/sql" ]
    diff "$BATS_TEST_TMPDIR/sql" "$BATS_TEST_TMPDIR/engine"
    [ "$(sql "SELECT count(*) FROM athanor.data_orders o JOIN athanor.lineages l USING (attempt_id, input) WHERE o.attempt_id = $run AND l.content_hash IS NOT NULL")" = 1 ]
}

@test "the stages of one job are seen: progress, metrics of each, the student as its checkpoint" {
    [ "$(sql "SELECT string_agg(DISTINCT split_part(name, '/', 1), ' ' ORDER BY split_part(name, '/', 1)) FROM athanor.metrics WHERE job_id = $undisturbed AND name LIKE '%/%' AND name NOT LIKE 'usage/%'")" \
        = "eval-1 eval-student eval-teacher pairs pairs-1 student student-1" ]
    [ "$(sql "SELECT progress_step = progress_total AND progress_phase = 'done' FROM athanor.jobs WHERE job_id = $undisturbed")" = t ]
    [ "$(sql "SELECT count(DISTINCT items) > 0 AND min(unit) = 'documents' FROM athanor.data_orders WHERE job_id = $undisturbed")" = t ]
    # 40 contexts in blocks of 16, each told once, with the pairs that the metrics count.
    [ "$(sql "SELECT string_agg(stage || ' ' || round || ' ' || block || ' ' || contexts || ' ' || leases, ', ' ORDER BY stage, block) FROM athanor.distillation_blocks WHERE job_id = $undisturbed AND stage = 'pairs-1'")" \
        = "pairs-1 1 0 16 1, pairs-1 1 1 16 1, pairs-1 1 2 8 1" ]
    [ "$(sql "SELECT sum(pairs) FROM athanor.distillation_blocks WHERE job_id = $undisturbed AND stage = 'pairs'")" \
        = "$(sql "SELECT last::bigint FROM athanor.best_metrics WHERE job_id = $undisturbed AND name = 'pairs/pairs'")" ]
    athanor show "$undisturbed" | grep -Eq '^pairs-1 +3 +3 +40 '
    path=$(sql "SELECT path FROM athanor.checkpoints WHERE job_id = $undisturbed ORDER BY step DESC LIMIT 1")
    cmp "$path/model.safetensors" "$ATHANOR_HOME/jobs/$undisturbed/stages/student-1/checkpoints/step-0000000008/model.safetensors"
}

@test "critics that reject everything end the job as gave_up, with its yields in SQL" {
    id=$(athanor submit "$specs/distil-student.yaml" --set params.tau=2 --set name=futile --set params.name=none \
        --set params.min_yield=1e-3 --set params.max_contexts=200 --set params.samples=2 --set params.block=200 --ids)
    run athanor wait "$id"
    [ "$status" = 1 ]
    [ "$(sql "SELECT cause || ' ' || (evidence LIKE 'min_yield: after 200 contexts%') FROM athanor.runs WHERE job_id = $id")" = "gave_up true" ]
    [ "$(sql "SELECT last FROM athanor.best_metrics WHERE job_id = $id AND name = 'pairs/pairs'")" = 0 ]
    [ "$(sql "SELECT count(*) FROM athanor.runs WHERE job_id = $id")" = 1 ]
}

@test "an error of several ranks is told by its own words, not by what MPI prints behind it" {
    id=$(athanor submit "$specs/distil-student.yaml" --set name=asked --set params.embed_min=0.5 --set resources.ranks=2 --ids)
    run athanor wait "$id"
    [ "$status" = 1 ]
    [ "$(sql "SELECT evidence LIKE '%embed_min is 0.5, but there is no input ''embedder''%' FROM athanor.runs WHERE job_id = $id")" = t ]
}

@test "a repository of others is imported, measured and told of; a damaged one ends as gave_up" {
    cd "$BATS_TEST_TMPDIR"
    python3 "$specs/opt_folder.py" opt
    cp -r opt damaged
    truncate -s -1 damaged/model.safetensors
    printf 'the bird\n\nin the air\n' >lines.txt
    cat >borrowed.yaml <<Y
athanor: 1
name: borrowed
defaults: {resources: {ranks: 1, cores: 1, memory: 512MiB}}
jobs:
  borrowed: {kind: data, recipe: import, inputs: {model: file:opt}}
  damaged: {kind: data, recipe: import, inputs: {model: file:damaged}}
  lines: {kind: data, recipe: text, params: {name: lines, files: [$PWD/lines.txt], tokenizer: $PWD/opt, holdout_share: 0}}
  measured:
    kind: eval
    recipe: perplexity
    inputs: {model: "job:borrowed/checkpoint:last", data: dataset:lines/train}
    params: {bootstrap: 0}
Y
    ids=$(athanor submit borrowed.yaml --ids)
    # shellcheck disable=SC2086 # one word per job id
    run athanor wait $ids
    [ "$status" = 1 ] # one of the four is to fail
    [ "$(sql "SELECT cause || ' ' || evidence FROM athanor.runs WHERE name = 'damaged'")" \
        = "gave_up bad_input: input 'model' (file:$PWD/damaged): weights of '$PWD/damaged': '$PWD/damaged/model.safetensors': the tensors end at 12992 but the file holds 12991 bytes of data" ]
    # </s> and 6 or 9 tokens; of zeros every token has the same chance.
    [ "$(sql "SELECT round(last::numeric, 4) FROM athanor.best_metrics WHERE job = 'measured' AND name = 'loss'")" = "$(python3 -c 'import math; print(round(math.log(263), 4))')" ]
    athanor checkpoints borrowed | grep -q 'step-0000000001'
    path=$(sql "SELECT path FROM athanor.checkpoints WHERE name = 'borrowed'")
    grep -q '"</s>": 2' "$path/tokenizer.json"
    grep -q '"eos_token_id": 2' "$path/generation_config.json"
    [ "$(sql "SELECT string_agg(concat_ws(' ', name, input, ref, source_job, checkpoint_step, content_hash IS NOT NULL), ', ' ORDER BY name, input) FROM athanor.lineages WHERE name IN ('borrowed', 'measured')")" \
        = "borrowed model file:$PWD/opt f, measured data dataset:lines/train lines t, measured model job:borrowed/checkpoint:last borrowed 1 t" ]
}

# ---- long: kills in every stage -----------------------------------------------------------------

stages=(pairs student eval-teacher eval-student pairs-1 student-1 eval-1)

began() { # STAGE NUMBER of job $id: the stage before is done, of the first a block is there
    local folder=$ATHANOR_HOME/jobs/$id/stages
    if [ "$1" = 0 ]; then ls "$folder"/pairs/pairs/block-*.jsonl; else [ -f "$folder/${stages[$1 - 1]}/done.json" ]; fi
}

of_job() { # PID: belongs to job $id of this cluster
    tr '\0' '\n' <"/proc/$1/environ" 2>/dev/null | grep -q "^ATHANOR_JOB_DIR=$ATHANOR_HOME/.*/$id\$"
}

rank_pids() { local pid; for pid in $(pgrep -x athanor-engine); do ! of_job "$pid" || echo "$pid"; done; }

# kill -9 of one of rank | shepherd | worker | coordinator. A rank or shepherd that has just ended by
# itself was none of the victims: the next stage has another.
strike() {
    case $1 in
        rank) pid=$(rank_pids | tail -1) ;;
        shepherd) pid=$(sql "SELECT placement->>'shepherd_pid' FROM athanor.runs WHERE job_id = $id AND ended_at IS NULL") ;;
        worker) pid=$(pid_of "$(sql "SELECT worker FROM athanor.runs WHERE job_id = $id ORDER BY number DESC LIMIT 1")") ;;
        coordinator) pid=$(pid_of coordinator) ;;
    esac
    [ -n "$pid" ] && kill -9 "$pid" && struck="$struck $1" || struck="$struck -"
    case $1 in worker | coordinator) athanor up >/dev/null ;; esac
}

made() { # hashes of the datasets and of the last checkpoint of a job
    sql "SELECT string_agg(name || ' ' || content_hash, ' ' ORDER BY name) FROM athanor.artifacts WHERE job_id = $1 AND kind = 'dataset'"
    sql "SELECT step || ' ' || content_hash FROM athanor.checkpoints WHERE job_id = $1 ORDER BY step DESC LIMIT 1"
}

@test "kill -9 of ranks, shepherds, workers and coordinators in every stage leaves the same datasets and student" {
    [ "${ATHANOR_TEST_MODE:-}" = long ] || skip "long: takes minutes"
    # Larger stages, so that each is there long enough to be hit.
    larger=(--set resources.ranks=2 --set params.max_contexts=160 --set params.self_max_contexts=160 --set params.samples=10
        --set params.student_steps=80 --set params.self_steps=80 --set params.eval_sources=300)
    id=$(athanor submit "$specs/distil-student.yaml" "${larger[@]}" --set name=calm --ids)
    athanor wait "$id"
    calm=$(made "$id")
    victims=(rank worker shepherd coordinator)
    for seed in 0 1 2 3; do
        RANDOM=$((seed + 1)) struck=
        id=$(athanor submit "$specs/distil-student.yaml" "${larger[@]}" --set "name=struck-$seed" --ids)
        for stage in "${!stages[@]}"; do
            until_true 300 began "$stage"
            for ((i = RANDOM % 5; i > 0; i--)); do read -rt 0.1 <> <(:) || true; done # anywhere in it
            strike "${victims[(stage + seed) % 4]}" # over four seeds each stage meets each victim
        done
        athanor wait "$id"
        echo "seed $seed: $struck; $(sql "SELECT count(*) FROM athanor.runs WHERE job_id = $id") attempts"
        [ "$(made "$id")" = "$calm" ]
        [ "$(tr -cd - <<<"$struck" | wc -c)" -le 2 ]
    done
}
