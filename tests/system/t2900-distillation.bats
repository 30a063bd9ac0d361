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
    # One SELECT tells of an example what it was asked after, its seed, teacher, filters and verdict.
    [ "$(sql "SELECT concat_ws('|', context_text, x, y, verdict, seed, teacher, critic, filters ->> 'rouge_max', filters ->> 'numbers') FROM athanor.pair_lineage('pairs', '$pair')")" \
        = "$(athanor dataset pairs --pair "$pair" --json | python3 -c 'import json, sys; p = json.load(sys.stdin); print("|".join([p["context"], p["x"], p["y"], p["verdict"], str(p["seed"]), p["teacher"], "oracle|0.75|both"]))')" ]
    [ "$(sql "SELECT l.verdict || ' ' || (l.x = p.x AND l.context_text = p.context_text) FROM athanor.dropped_pairs p, athanor.pair_lineage(p.name, p.pair) l WHERE p.name = 'pairs' AND p.pair = '$pair'")" = "$verdict true" ]
    [ "$(sql "SELECT verdict || ' ' || (context_text IS NOT NULL) FROM athanor.pair_lineage('pairs', '$id')")" = "kept true" ]
    # Of the others the block has the text, and SQL where it is.
    [ "$(sql "SELECT (context_text IS NULL) || ' ' || (verdict IS NULL) || ' ' || (line > 1) FROM athanor.pair_lineage('pairs', '${id%%.*}.5.5')")" = "false true true" ]
    [ "$(sql "SELECT max(n) <= 3 FROM (SELECT count(*) AS n FROM athanor.dropped_pairs WHERE name = 'pairs' GROUP BY verdict) AS v")" = t ]
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

stages=(pairs student eval-teacher eval-student pairs-1 student-1 eval-1 codes student-codes eval-codes)

# How far into a stage it may be hit: rank 0's CPU time since it began, in ticks of 10 ms, below what
# the stage takes at least; codes is a few milliseconds in all.
declare -gA depth=([pairs]=15 [student]=20 [eval-teacher]=5 [eval-student]=5 [pairs-1]=5 [student-1]=20
    [eval-1]=5 [codes]=1 [student-codes]=20 [eval-codes]=5)

nap() { read -rt 0.001 -u "$never" || true; } # a builtin: what is waited for may last milliseconds

is_done() { [ -f "$ATHANOR_HOME/jobs/$id/stages/$1/done.json" ]; }

began() { # NUMBER of a stage of job $id: the one before is done, of the first a block is there
    if [ "$1" = 0 ]; then compgen -G "$ATHANOR_HOME/jobs/$id/stages/pairs/pairs/block-*.jsonl" >/dev/null; else is_done "${stages[$1 - 1]}"; fi
}

find_ranks() { # sets ranks; false: not both are there
    engines_of "$id"
    ranks=("${pids[@]}")
    alive
}

alive() { [ ${#ranks[@]} = 2 ] && kill -0 "${ranks[0]}" && kill -0 "${ranks[1]}"; } 2>/dev/null

state_of() { # PID: sets state and ticks; false where it is gone
    local stat
    read -ra stat <"/proc/$1/stat" && state=${stat[2]} ticks=$((stat[13] + stat[14]))
} 2>/dev/null

go_on() { kill -CONT "${ranks[@]}" 2>/dev/null || true; }

is_stopped() { state_of "$1" && [ "$state" = T ]; }

is_ending() { ! state_of "$1" || [[ $state = [ZX] ]]; }

# Stops both ranks of job $id in a stage of it; false where the stage was over by then. Stopped they
# write nothing, so what the stage's record says now stays true until they go on.
stop_in() { # NUMBER
    local stage=${stages[$1]} deep=$((RANDOM % depth[${stages[$1]}])) from limit=$((SECONDS + 400)) rank
    while [ $SECONDS -lt $limit ]; do
        until alive || find_ranks || [ $SECONDS -ge $limit ]; do nap; done # those of before, if they survived
        until began "$1" || ! alive || [ $SECONDS -ge $limit ]; do nap; done
        alive && state_of "${ranks[0]}" || continue
        from=$ticks
        while [ $((ticks - from)) -lt $deep ] && ! is_done "$stage" && state_of "${ranks[0]}"; do nap; done
        kill -STOP "${ranks[@]}" 2>/dev/null || { go_on; continue; } # an attempt that was ending
        for rank in "${ranks[@]}"; do until is_stopped "$rank" || is_ending "$rank"; do nap; done; done
        ! is_done "$stage" || { go_on; return 1; }
        if began "$1" && is_stopped "${ranks[0]}" && is_stopped "${ranks[1]}"; then return 0; fi
        go_on
    done
    return 1
}

aim() { # rank | shepherd | worker | coordinator: sets pid
    case $1 in
        rank) pid=${ranks[RANDOM % 2]} ;;
        shepherd) pid=$(sql "SELECT placement->>'shepherd_pid' FROM athanor.runs WHERE job_id = $id AND ended_at IS NULL") ;;
        worker) pid=$(pid_of "$(sql "SELECT worker FROM athanor.runs WHERE job_id = $id AND ended_at IS NULL")") ;;
        coordinator) pid=$(pid_of coordinator) ;;
    esac
    [ -n "$pid" ] && kill -0 "$pid"
}

# kill -9 of one victim while the ranks are stopped in a stage; they still are, unless it was over.
strike() { # NUMBER VICTIM: false where the stage was over
    stop_in "$1" || return 1
    if until_true 60 aim "$2" && kill -9 "$pid"; then return 0; fi
    go_on
    return 1
}

made() { # hashes of the datasets and of the last checkpoint of a job
    sql "SELECT string_agg(DISTINCT name || ' ' || content_hash, ' ' ORDER BY name || ' ' || content_hash) FROM athanor.artifacts WHERE job_id = $1 AND kind = 'dataset'"
    sql "SELECT step || ' ' || content_hash FROM athanor.checkpoints WHERE job_id = $1 ORDER BY step DESC LIMIT 1"
    (cd "$ATHANOR_HOME/jobs/$1/stages" && sha256sum eval-*/*.jsonl)
}

# Larger stages, and all of them.
larger=(--set resources.ranks=2 --set params.max_contexts=160 --set params.self_max_contexts=160 --set params.samples=10
    --set params.student_steps=80 --set params.self_steps=80 --set params.eval_sources=600
    --set params.control_codes=len --set params.control_steps=80)

undisturbed_of() { # SPEC NAME: prints what it makes
    id=$(athanor submit "$1" "${larger[@]}" --set "name=$2" --ids)
    athanor wait "$id" >&2
    [ "$(made "$id" | head -1 | wc -w)" = 6 ] # pairs, pairs-codes, pairs-self1
    made "$id"
}

# kill -9 in stages of one job: sets missed, those that were over before they could be hit.
strike_in() { # SPEC SEED WANTED STAGES...: numbers
    local victims=(rank worker shepherd coordinator) number victim struck=
    id=$(athanor submit "$1" "${larger[@]}" --set "name=struck-$2" --ids)
    missed=() ranks=()
    for number in "${@:4}"; do
        victim=${victims[(number + $2) % 4]} # over four seeds each stage meets each victim
        strike "$number" "$victim" || { missed+=("$number"); victim=missed; }
        case $victim in worker | coordinator) athanor up >/dev/null ;; esac
        go_on # only now: no stage passes while a daemon is started again
        struck="$struck ${stages[number]}:$victim"
    done
    athanor wait "$id" >"$BATS_TEST_TMPDIR/log" || { cat "$BATS_TEST_TMPDIR/log"; return 1; }
    echo "# seed $2:$struck; $(sql "SELECT count(*) FROM athanor.runs WHERE job_id = $id") attempts" >&3
    [ "$(made "$id")" = "$3" ]
}

# A stage that was missed is struck again in another job, four times at most: right after a kill the
# ranks of the new attempt have to be found before a short stage is over, in another job they are
# known by then.
kill_in_every_stage() { # SPEC SEED WANTED
    missed=("${!stages[@]}")
    for _ in 1 2 3 4 5; do
        strike_in "$1" "$2" "$3" "${missed[@]}"
        [ ${#missed[@]} -gt 0 ] || return 0
    done
    echo "seed $2: never hit: ${missed[*]}"
    return 1
}

@test "kill -9 of ranks, shepherds, workers and coordinators in every stage leaves the same datasets and student" {
    [ "${ATHANOR_TEST_MODE:-}" = long ] || skip "long: takes minutes"
    cd "$BATS_TEST_TMPDIR"
    mkfifo never && exec {never}<>never
    calm=$(undisturbed_of "$specs/distil-student.yaml" calm)
    for seed in ${ATHANOR_KILL_SEED:-0 1 2 3}; do
        RANDOM=$((seed + 1))
        kill_in_every_stage "$specs/distil-student.yaml" "$seed" "$calm"
    done
    # Contexts that the teacher writes: they are part of what a block is made of.
    sed '/^ *contexts: dataset/d' "$specs/distil-student.yaml" >written.yaml
    larger+=(--set params.context_sentences=2)
    written=$(undisturbed_of written.yaml written)
    [ "$written" != "$calm" ]
    kill_in_every_stage written.yaml 4 "$written"
}
