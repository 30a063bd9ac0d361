#!/usr/bin/env bash
# The same model, weights, batches and settings trained here and in PyTorch (python3-torch).
#
#   pytorch.sh                 24 steps of a small GPT-2: losses agree to 1e-3, step by step
#   pytorch.sh --minutes N     a model of 10M weights on WordNet's glosses, N minutes of training as a
#                              job of a private cluster, then the same steps in PyTorch (which takes
#                              longer): bits per byte of held-out glosses within 1 %
#
# Prints the figures; fails where they differ. Skipped (77) without PyTorch. ATHANOR_TEST_PYTHON names
# the interpreter, OMP_NUM_THREADS the threads of both (default: one, or all cores for minutes).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/system/cluster.bash
python=${ATHANOR_TEST_PYTHON:-/usr/bin/python3}
minutes=0
case ${1:-} in
    '') ;;
    --minutes) minutes=$2 ;;
    *) echo "usage: pytorch.sh [--minutes N]" >&2; exit 2 ;;
esac
"$python" -c 'import torch' 2>/dev/null || { echo "skipped: no PyTorch (deploy/packages.sh test)"; exit 77; }
few=1
[ "$minutes" = 0 ] || few=$(nproc)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$few}

compare() { # SPEC DATASET INIT LOSSES [TOLERANCE]
    "$python" tests/models/torch_train.py "$@"
}

# ---- a few steps, one process -----------------------------------------------------------------

short_spec() { # NAME STEPS RATE WARMUP
    cat >"$work/$1.json" <<JSON
{"kind": "pretraining", "recipe": "clm",
 "inputs": {"data": {"path": "$work/datasets/glosses", "ref": "dataset:glosses/train", "part": "train"},
            "valid": {"path": "$work/datasets/glosses", "ref": "dataset:glosses/valid", "part": "valid"}},
 "params": {"steps": $2, "eval_every": 0, "layers": 3, "d_model": 96, "heads": 3, "context": 64,
            "batch": 8, "warmup": $4, "learning_rate": $3, "seed": 5}}
JSON
}

short() {
    work=$(mktemp -d /tmp/athanor-pytorch-XXXXXX)
    trap 'rm -rf "$work"' EXIT
    echo '{"kind": "data", "recipe": "wordnet", "params": {"name": "glosses", "vocab_size": 1024}}' >"$work/data.json"
    athanor-engine run --spec "$work/data.json" --out "$work" >"$work/data.out"
    # A rate of 0 leaves the weights as they begin: they depend on the seed and their names alone.
    short_spec init 1 0 0
    short_spec main 24 3e-3 4
    athanor-engine run --spec "$work/init.json" --out "$work/init" >"$work/init.out"
    athanor-engine run --spec "$work/main.json" --out "$work/main" >"$work/main.out"
    awk '/^step / {
        split($2, at, "/"); loss = val = ""
        for (i = 3; i <= NF; i++) {
            if (sub(/^loss=/, "", $i)) loss = $i
            if (sub(/^val_loss=/, "", $i)) val = $i
        }
        print at[1], loss, val
    }' "$work/main.out" >"$work/losses"
    compare "$work/main.json" "$work/datasets/glosses" "$work"/init/checkpoints/* "$work/losses" 1e-3
}

# ---- minutes, through the scheduler -----------------------------------------------------------

long_spec() { # NAME STEPS RATE: 12 x 7 x 320^2 + (4096 + 128) x 320 weights and norms, about 10M
    cat >"$ATHANOR_HOME/$1.yaml" <<YAML
athanor: 1
name: $1
experiment: pytorch
kind: pretraining
recipe: clm
resources: {ranks: 1, cores: $OMP_NUM_THREADS, memory: 2GiB}
inputs: {data: dataset:glosses/train, valid: dataset:glosses/valid}
params: {steps: $2, eval_every: 0, layers: 7, d_model: 320, heads: 5, context: 128, batch: 16,
         warmup: $(($2 / 20)), learning_rate: $3, seed: 5}
YAML
    athanor submit "$ATHANOR_HOME/$1.yaml" --wait >"$ATHANOR_HOME/$1.out" || { tail "$ATHANOR_HOME/$1.out"; exit 1; }
}

long() {
    cluster_home
    trap cluster_down EXIT
    cluster_up --workers 1 --cores "$OMP_NUM_THREADS"
    cat >"$ATHANOR_HOME/data.yaml" <<'YAML'
athanor: 1
name: glosses
experiment: pytorch
kind: data
recipe: wordnet
resources: {memory: 2GiB}
params: {name: glosses, lexfile: "", vocab_size: 4096}
YAML
    athanor submit "$ATHANOR_HOME/data.yaml" --wait >"$ATHANOR_HOME/data.out" || { tail "$ATHANOR_HOME/data.out"; exit 1; }
    dataset=$(sql "SELECT path FROM athanor.datasets WHERE name = 'glosses'")
    long_spec init 1 0
    long_spec speed 30 1e-3
    rate=$(sql "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY value) FROM athanor.metrics m
                  JOIN athanor.jobs j USING (job_id) WHERE j.name = 'speed' AND m.name = 'tokens_per_s'")
    steps=$(awk -v minutes="$minutes" -v rate="$rate" 'BEGIN { n = int(minutes * 60 * rate / (16 * 128)); print n < 20 ? 20 : n }')
    echo "$rate tokens a second: $steps steps in $minutes minutes"
    long_spec main "$steps" 1e-3
    athanor show main --spec >"$ATHANOR_HOME/main.json"
    sql "SELECT l.step || ' ' || l.value || coalesce(' ' || v.value, '') FROM athanor.series l
           JOIN athanor.jobs j USING (job_id)
           LEFT JOIN athanor.series v ON v.job_id = l.job_id AND v.step = l.step AND v.name = 'val_loss'
          WHERE j.name = 'main' AND l.name = 'loss' ORDER BY l.step" >"$ATHANOR_HOME/losses"
    init=$(sql "SELECT path FROM athanor.checkpoints WHERE name = 'init' ORDER BY step DESC LIMIT 1")
    compare "$ATHANOR_HOME/main.json" "$dataset" "$init" "$ATHANOR_HOME/losses"
}

if [ "$minutes" = 0 ]; then short; else long; fi
