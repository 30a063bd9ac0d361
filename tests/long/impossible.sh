#!/usr/bin/env bash
# jobspecs/distillation/impossible.yaml as a user submits it, with control codes besides: each stage
# tells its progress, a rank that is killed after the second makes no stage begin again, the teacher
# cannot paraphrase, and the student can. Then the pipeline of impossible-stages.yaml over two
# workers of different sizes, undisturbed, pairs as a gang over both: the same bytes, stage by stage.
#
#   impossible.sh [--small]     small: a teacher that knows nothing, no bounds; a tenth of the time
set -euo pipefail
small=0
case ${1:-} in '') ;; --small) small=1 ;; *) echo "impossible.sh: unknown option '$1'" >&2; exit 2 ;; esac
source "$(dirname "${BASH_SOURCE[0]}")/../system/cluster.bash"
examples=$root/jobspecs/distillation

fail() { echo "WRONG: $*"; exit 1; }

clean() {
    by_hand_end
    cluster_down
    rm -rf "$scratch"
}

scratch=$(mktemp -d "${ATHANOR_TEST_SCRATCH:-${TMPDIR:-/tmp}}/impossible-XXXXXX")
cluster_home
trap clean EXIT
cluster_up --workers 2 --cores 2

whole=(--set jobs.paraphraser.params.control_codes=len)
parts=()
if [ $small = 1 ]; then
    whole+=(--set jobs.teacher.params.steps=60 --set jobs.paraphraser.params.tau=-100
        --set jobs.paraphraser.params.max_contexts=64 --set jobs.paraphraser.params.self_max_contexts=64
        --set jobs.paraphraser.params.student_steps=20 --set jobs.paraphraser.params.self_steps=20
        --set jobs.paraphraser.params.self_min_gain=-1)
    parts+=(--set jobs.teacher.params.steps=60 --set jobs.pairs.params.tau=-100
        --set jobs.pairs-again.params.tau=-100 --set jobs.pairs.params.max_contexts=64
        --set jobs.pairs-again.params.max_contexts=64 --set jobs.pairs-again.params.first_context=64
        --set jobs.student.params.steps=20 --set jobs.paraphraser.params.steps=20
        --set jobs.student-codes.params.steps=20)
fi

# ---- the one job --------------------------------------------------------------------------------

stages=(pairs student eval-teacher eval-student pairs-1 student-1 eval-1 codes student-codes eval-codes)
read -ra ids < <(athanor submit "$examples/impossible.yaml" "${whole[@]}" --ids | xargs)
one=${ids[-1]}
declare -A seen
done_stages() { stat -c '%n %.Y' "$ATHANOR_HOME/jobs/$one/stages"/{pairs,student}/done.json; }
before=''
while [ -z "$(sql "SELECT ended_at FROM athanor.jobs WHERE job_id = $one")" ]; do
    if [ -z "$before" ] && [ -f "$ATHANOR_HOME/jobs/$one/stages/student/done.json" ]; then
        engines_of "$one"
        [ ${#pids[@]} = 0 ] || ! kill -9 "${pids[0]}" 2>/dev/null || before=$(done_stages)
    fi
    phase=$(sql "SELECT progress_phase FROM athanor.jobs WHERE job_id = $one")
    [[ $phase != *' (stage '* ]] || seen[${phase%%:*}]=1
    read -rt 0.1 <> <(:) || true
done
[ "$(job_state "$one")" = SUCCEEDED ] || { athanor show "$one"; fail "the one job did not succeed"; }
[ -n "$before" ] || fail "the one job was over before a rank of it could be killed"
[ "$(sql "SELECT string_agg(cause, ' ' ORDER BY number) FROM athanor.runs WHERE job_id = $one")" = "signal success" ] ||
    fail "the killed rank did not make one more attempt: $(sql "SELECT number, state, cause FROM athanor.runs WHERE job_id = $one")"
[ "$(done_stages)" = "$before" ] || fail "an attempt began stages again that were done"
printf 'seen: %s\n' "${!seen[@]}" | sort
for i in 0 1 5 8; do # those of seconds; others may pass between two looks
    [ $small = 1 ] || [ -n "${seen[${stages[i]} (stage $((i + 1)) of ${#stages[@]})]:-}" ] ||
        fail "stage ${stages[i]} was not seen while it ran"
done
told=$(sql "SELECT string_agg(stage, ' ' ORDER BY at) FROM (SELECT split_part(name, '/', 1) AS stage, min(at) AS at
                FROM athanor.metrics WHERE job_id = $one AND name LIKE '%/%' AND name NOT LIKE 'usage/%' GROUP BY 1) AS stages")
[ "$told" = "${stages[*]}" ] || fail "metrics of stages in the order they came: '$told'"

# Measured: teacher 0, student .765, after the round .870. Other seeds move the teacher by .003 and a
# student by .05 (impossible/README.md); the bounds are three such steps away, the teacher's ten.
success() { # STAGE COMPARISON: whether its success is so
    local value; value=$(sql "SELECT last FROM athanor.best_metrics WHERE job_id = $one AND name = '$1/success'")
    echo "$1: success $value"
    [ $small = 1 ] || [ "$(sql "SELECT $value $2")" = t ] || fail "success of $1 is $value, where $2 is asked"
}
success eval-teacher '<= .03'
success eval-student '>= .60'
success eval-1 '>= .70'

# ---- the pipeline, over workers of two sizes ----------------------------------------------------

worker_with worker-1 --cores 0-0 --label size=small
worker_with worker-2 --label size=large
cat "$examples/impossible-stages.yaml" - >"$scratch/stages.yaml" <<'Y'

  codes:
    kind: data
    recipe: codes
    resources: {ranks: 1}
    inputs: {pairs: dataset:pairs-self1}
    params: {name: pairs-codes, codes: len}

  student-codes:
    kind: finetuning
    recipe: sft
    inputs: {init: job:paraphraser/checkpoint:last, data: dataset:pairs-codes/train}
    params: {steps: 300, learning_rate: 2e-3, schedule: constant, batch: 32, weight_decay: 0.01,
             eval_every: 0, seed: 1337}

  eval-codes:
    kind: eval
    recipe: control
    inputs: {model: job:student-codes/checkpoint:last, codes: dataset:pairs-codes/train, data: dataset:world/test}
    params: {max_tokens: 40, sources: 400, seed: 1337}
Y
for job in pairs pairs-again; do # three ranks: one more than the large worker has cores
    parts+=(--set "jobs.$job.resources.ranks=3" --set "jobs.$job.resources.nodes=2" --set "jobs.$job.params.block=16")
done
for job in teacher student paraphraser student-codes; do parts+=(--set "jobs.$job.constraint.size=large"); done
for job in eval-teacher eval-student eval-paraphraser eval-codes; do
    parts+=(--set "jobs.$job.resources.ranks=1" --set "jobs.$job.constraint.size=small")
done
read -ra ids < <(athanor submit "$scratch/stages.yaml" "${parts[@]}" --ids | xargs)
athanor wait "${ids[@]}" >"$scratch/log" || { cat "$scratch/log"; athanor ls; fail "the pipeline did not succeed"; }

job_of() { sql "SELECT max(job_id) FROM athanor.jobs WHERE name = '$1'"; }
nodes_of() { sql "SELECT string_agg(DISTINCT worker, ' ' ORDER BY worker) FROM athanor.run_nodes WHERE job_id = $(job_of "$1")"; }
for job in pairs pairs-again; do
    [ "$(nodes_of $job)" = "worker-1 worker-2" ] || fail "$job ran on '$(nodes_of $job)'"
    [ "$(sql "SELECT count(DISTINCT rank) > 1 AND bool_and(leases >= 1) FROM athanor.distillation_blocks WHERE job_id = $(job_of $job)")" = t ] ||
        fail "the blocks of $job are not by leases of several ranks"
done
[ "$(sql "SELECT count(DISTINCT worker) FROM athanor.runs WHERE job_id IN ($(job_of student), $(job_of eval-student))")" = 2 ] ||
    fail "a training and its evaluation ran on one worker"

same() { # STAGE JOB FILE...: below the stage's folder and the job's
    local stage=$1 job folder=$ATHANOR_HOME/jobs file; job=$(job_of "$2"); shift 2
    for file; do
        cmp "$folder/$one/stages/$stage/$file" "$folder/$job/$file" || fail "stage $stage and job $job make other bytes: $file"
    done
}

dataset() { # STAGE JOB NAME [PATTERN of what tells where an input comes from]
    same "$1" "$2" "datasets/$3/"{train.jsonl,train-00000.aths}
    diff <(sed -E "s/${4:-^\$}//" "$ATHANOR_HOME/jobs/$one/stages/$1/datasets/$3/dataset.json") \
        <(sed -E "s/${4:-^\$}//" "$ATHANOR_HOME/jobs/$(job_of "$2")/datasets/$3/dataset.json") ||
        fail "the cards of $3 differ"
}

model() { # STAGE JOB: the last checkpoints
    local job path; job=$(job_of "$2")
    path=$(sql "SELECT path FROM athanor.checkpoints WHERE job_id = $job ORDER BY step DESC LIMIT 1")
    path=${path#"$ATHANOR_HOME/jobs/$job/"}
    same "$1" "$2" "$path"/{manifest.json,model.safetensors}
}

stage_of='"ref": "(stage|job|dataset):[^"]*"'
dataset pairs pairs pairs
same pairs pairs datasets/pairs/pairs.jsonl
model student student
same eval-teacher eval-teacher rewrites.jsonl
same eval-student eval-student rewrites.jsonl
dataset pairs-1 pairs-again pairs-self1 "$stage_of"
same pairs-1 pairs-again datasets/pairs-self1/pairs.jsonl
model student-1 paraphraser
same eval-1 eval-paraphraser rewrites.jsonl
dataset codes codes pairs-codes "$stage_of"
model student-codes student-codes
same eval-codes eval-codes control.jsonl
spearman() { sql "SELECT last FROM athanor.best_metrics WHERE job_id = $1 AND name = '$2'"; }
[ -n "$(spearman "$one" eval-codes/len_spearman)" ] || fail "the one job has no evaluation of codes"
[ "$(spearman "$(job_of eval-codes)" len_spearman)" = "$(spearman "$one" eval-codes/len_spearman)" ] || fail "the evaluations of codes differ"
echo "the same bytes; $SECONDS s"
