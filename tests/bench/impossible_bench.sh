#!/usr/bin/env bash
# Impossible Distillation by stage, on one rank and on more, with a small teacher of the
# micro-world: contexts a second while the teacher writes them, while sentences are sampled and while
# they are judged (by both critics that need no foreign model), pairs judged a second and the share
# of the time that judging takes; pairs a second of the dataset's build, of its control codes, of the
# student's training and evaluation, and rewrites a second of the student in the next round. Rates of
# sampling, judging and rewriting are of the work itself, times the ranks, so each needs a block of
# four contexts or more; of codes, training and evaluation by the wall, with what starting a job
# takes. Then pairs_bench: ROUGE-L against the plain table, samples with and without a shared prefix.
#
#   tests/bench/impossible_bench.sh [CONTEXTS, default 32 [RANKS..., default 1 2]]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$(realpath "${ATHANOR_BUILD:-$root/build}")
engine=$build/bin/athanor-engine
contexts=${1:-32}
counts=("${@:2}")
[ $# -gt 1 ] || counts=(1 2)
samples=20
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export OMP_NUM_THREADS=1

job() { # NAME RANKS SPEC
    echo "{\"name\": \"$1\", $3}" >"$1.json"
    if [ "$2" = 1 ]; then
        "$engine" run --spec "$1.json" --out "$1" >"$1.log" 2>&1 || { tail "$1.log" >&2; exit 1; }
    else
        # shellcheck disable=SC2016 # the ranks expand it
        mpirun --allow-run-as-root --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 \
            -n "$2" sh -c 'RANK=$OMPI_COMM_WORLD_RANK WORLD_SIZE=$OMPI_COMM_WORLD_SIZE exec "$@"' \
            sh "$engine" run --spec "$1.json" --out "$1" >"$1.log" 2>&1 ||
            { tail "$1.log" >&2; exit 1; }
    fi
}
value() { # LOG METRIC: the last one printed
    grep -o " $2=[^ ]*" "$1" | tail -n 1 | cut -d= -f2
}

job world 1 '"kind": "data", "recipe": "microworld", "params": {"contexts": 400}'
job teacher 1 "\"kind\": \"finetuning\", \"recipe\": \"sft\", \"inputs\": {\"data\": {\"path\":
    \"$folder/world/datasets/world\", \"part\": \"train\"}}, \"params\": {\"layers\": 2, \"d_model\":
    64, \"heads\": 4, \"context\": 64, \"steps\": 150, \"learning_rate\": 3e-3, \"eval_every\": 0}"
model() { # JOB STEPS
    printf '{"path": "%s/%s/checkpoints/step-%010d"}' "$folder" "$1" "$2"
}
part() { # DATASET PART, made by the job of its name
    echo "{\"path\": \"$folder/$1/datasets/$1\", \"part\": \"$2\"}"
}
pairs() { # NAME RANKS INPUTS PARAMS
    job "$1" "$2" "\"kind\": \"data\", \"recipe\": \"pairs\", \"inputs\": {\"teacher\":
        $(model teacher 150)$3}, \"params\": {\"max_tokens\": 40, \"max_contexts\": $contexts,
        \"block\": 4, \"length_ratio_min\": 0, \"length_ratio_max\": 10, \"min_yield\": 0,
        \"holdout_share\": 0, $4}"
}
given=", \"contexts\": $(part world contexts)"

for critic in oracle lm_mi; do
    for ranks in "${counts[@]}"; do
        name=$critic-$ranks
        pairs "$name" "$ranks" "$given" "\"samples\": $samples, \"critic\": \"$critic\", \"tau\": -90"
        judged=$(value "$name.log" judged_contexts_per_s)
        printf '%s, %d rank(s): sampling %.1f contexts/s, %.0f tokens/s; judging %.1f contexts/s, %.0f pairs/s of the pool, %.0f scored/s; critic %.3f of the time\n' \
            "$critic" "$ranks" "$(value "$name.log" sampled_contexts_per_s)" \
            "$(value "$name.log" sampled_tokens_per_s)" "$judged" \
            "$(awk "BEGIN {print $judged * $samples * ($samples - 1)}")" \
            "$(value "$name.log" critic_pairs_per_s)" "$(value "$name.log" critic_time_share)"
    done
done

any='"critic": "oracle", "tau": -100, "rouge_max": 1, "diversity": false'
rate() { # COUNT SINCE: a second
    awk "BEGIN {print $1 / ($EPOCHREALTIME - $2)}"
}
for ranks in "${counts[@]}"; do
    pairs "written-$ranks" "$ranks" "" "\"samples\": 2, \"min_distinct\": 0, $any"
    pairs "built-$ranks" "$ranks" "$given" "\"samples\": $samples, $any"
    built=$(value "built-$ranks.log" dataset_pairs)
    began=$EPOCHREALTIME
    job "coded-$ranks" "$ranks" "\"kind\": \"data\", \"recipe\": \"codes\", \"inputs\": {\"pairs\":
        {\"path\": \"$folder/built-$ranks/datasets/built-$ranks\"}}"
    coded=$(rate "$built" "$began")
    began=$EPOCHREALTIME
    job "student-$ranks" "$ranks" "\"kind\": \"finetuning\", \"recipe\": \"sft\", \"inputs\":
        {\"init\": $(model teacher 150), \"data\": $(part "built-$ranks" train)}, \"params\":
        {\"steps\": 100, \"batch\": 32, \"eval_every\": 0}"
    trained=$(rate 3200 "$began")
    pairs "rewritten-$ranks" "$ranks" "$given, \"student\": $(model "student-$ranks" 100)" \
        "\"samples\": 10, $any"
    began=$EPOCHREALTIME
    job "judged-$ranks" "$ranks" "\"kind\": \"eval\", \"recipe\": \"rewrite\", \"inputs\":
        {\"model\": $(model "student-$ranks" 100), \"data\": $(part world test)}, \"params\":
        {\"critic\": \"oracle\", \"max_tokens\": 30, \"bootstrap\": 0}"
    evaluated=$(rate 400 "$began")
    rewriting=$(value "rewritten-$ranks.log" sampled_contexts_per_s)
    printf '%d rank(s): writing contexts, with two sentences after each, %.1f contexts/s; building the dataset %.0f pairs/s of %.0f; codes %.0f pairs/s; training %.0f pairs/s; rewriting %.1f contexts/s, %.0f rewrites/s; evaluating %.0f rewrites/s\n' \
        "$ranks" "$(value "written-$ranks.log" sampled_contexts_per_s)" \
        "$(value "built-$ranks.log" dataset_pairs_per_s)" "$built" "$coded" "$trained" \
        "$rewriting" "$(awk "BEGIN {print 10 * $rewriting}")" "$evaluated"
done
"$build/bench/pairs_bench"
