#!/usr/bin/env bash
# data/pairs by stage, for both critics that need no foreign model, on one rank and on two: contexts
# a second while sentences are sampled and while they are judged, pairs of sentences judged a
# second, and the share of the time that judging takes. A small teacher of the micro-world. Then
# pairs_bench: ROUGE-L against the plain table, and samples with and without a shared prefix.
#
#   tests/bench/impossible_bench.sh [CONTEXTS, default 32]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$(realpath "${ATHANOR_BUILD:-$root/build}")
engine=$build/bin/athanor-engine
contexts=${1:-32}
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
for critic in oracle lm_mi; do
    for ranks in 1 2; do
        name=$critic-$ranks
        job "$name" "$ranks" "\"kind\": \"data\", \"recipe\": \"pairs\", \"inputs\": {\"teacher\":
            {\"path\": \"$folder/teacher/checkpoints/step-0000000150\"}, \"contexts\": {\"path\":
            \"$folder/world/datasets/world\", \"part\": \"contexts\"}}, \"params\": {\"samples\":
            $samples, \"max_tokens\": 40, \"max_contexts\": $contexts, \"critic\": \"$critic\",
            \"tau\": -90, \"length_ratio_min\": 0, \"length_ratio_max\": 10, \"min_yield\": 0}"
        judged=$(value "$name.log" judged_contexts_per_s)
        printf '%s, %d rank(s): sampling %.1f contexts/s, %.0f tokens/s; judging %.1f contexts/s, %.0f pairs/s of the pool, %.0f scored/s; critic %.3f of the time\n' \
            "$critic" "$ranks" "$(value "$name.log" sampled_contexts_per_s)" \
            "$(value "$name.log" sampled_tokens_per_s)" "$judged" \
            "$(awk "BEGIN {print $judged * $samples * ($samples - 1)}")" \
            "$(value "$name.log" critic_pairs_per_s)" "$(value "$name.log" critic_time_share)"
    done
done
"$build/bench/pairs_bench"
