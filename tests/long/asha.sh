#!/usr/bin/env bash
# A search worth its name: 27 settings of a real training recipe, once as a full grid, which says
# what the best setting is, and once with asha, whose coordinator is killed in the middle. asha
# must find the grid's best with less than half of the grid's steps. Prints the figures.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/system/cluster.bash
cluster_home
trap cluster_down EXIT
cluster_up --workers 1 --cores 2

corpus=$(realpath "${ATHANOR_SHARED_DATA:-../shared/data}/corpora/tinyshakespeare.txt" 2>/dev/null || true)
[ -f "$corpus" ] || { corpus=/usr/share/common-licenses/GPL-3; echo "no shared data: the corpus is $corpus"; }

fail() { echo "FAILED: $*"; exit 1; }

cat >"$ATHANOR_HOME/data.yaml" <<YAML
athanor: 1
name: corpus
experiment: search
kind: data
recipe: text
params: {name: corpus, files: ["$corpus"], split_by: blank_line, vocab_size: 400}
YAML
athanor submit "$ATHANOR_HOME/data.yaml" --wait >/dev/null

spec() { # NAME METHOD-FIELDS: rungs at 9 and 27 of 81 steps
    cat <<YAML
athanor: 1
name: $1
experiment: search
kind: pretraining
recipe: clm
resources: {ranks: 1, cores: 1, memory: 512MiB}
limits: {stop_grace: 10s}
checkpoint: {every: never}
inputs: {data: dataset:corpus/train, valid: dataset:corpus/valid}
params: {steps: 81, eval_every: 9, heads: 2, context: 64, batch: 16, schedule: constant}
sweep:
  at_once: 2
  metric: val_loss
  over:
    params.learning_rate: [0.0001, 0.001, 0.01]
    params.d_model: [32, 64, 128]
    params.layers: [1, 2, 4]
  $2
YAML
}

spec grid 'method: grid' >"$ATHANOR_HOME/grid.yaml"
spec asha $'method: asha\n  seed: 3\n  min_resource: 9\n  max_resource: 81' >"$ATHANOR_HOME/asha.yaml"

athanor submit "$ATHANOR_HOME/grid.yaml" --wait >"$ATHANOR_HOME/grid.out" || { tail -5 "$ATHANOR_HOME/grid.out"; fail "a trial of the grid failed"; }

athanor submit "$ATHANOR_HOME/asha.yaml" --ids >"$ATHANOR_HOME/asha.ids"
[ "$(wc -l <"$ATHANOR_HOME/asha.ids")" = 27 ] || fail "asha has not 27 trials"
until_true 120 sql_is "SELECT count(*) >= 8 FROM athanor.rungs WHERE sweep = 'asha'" t
kill -9 "$(pid_of coordinator)"
athanor up >/dev/null
athanor sweep asha --wait >"$ATHANOR_HOME/asha.out" || { tail -40 "$ATHANOR_HOME/asha.out"; fail "a trial of asha failed"; }

sql "SELECT format('%s: best %s with %s; %s steps, %s trials ran to their end, %s were stopped',
                   method, round(best_value::numeric, 4), best_setting, resource_spent, succeeded, pruned)
       FROM athanor.sweeps ORDER BY sweep_id"
sql "SELECT format('asha spent %s %% of the grid', round(100.0 * a.resource_spent / g.resource_spent, 1))
       FROM athanor.sweeps a, athanor.sweeps g WHERE a.name = 'asha' AND g.name = 'grid'"

sql_is "SELECT count(*) FROM athanor.trials WHERE sweep = 'grid' AND state = 'SUCCEEDED'" 27 || fail "the grid is not complete"
sql_is "SELECT count(DISTINCT best_params) FROM athanor.sweeps" 1 || fail "asha found another best setting"
sql_is "SELECT (SELECT resource_spent FROM athanor.sweeps WHERE name = 'asha') * 2
             < (SELECT resource_spent FROM athanor.sweeps WHERE name = 'grid')" t || fail "asha spent more than half"
sql_is "SELECT count(*) FROM athanor.trials WHERE sweep = 'asha' AND state = 'CANCELLED' AND cause <> 'pruned'" 0 || fail "a trial was stopped for another reason"
sql_is "SELECT count(*) FROM athanor.sweeps WHERE ended_at IS NULL" 0 || fail "a sweep has not ended"
# Judged once at each rung, also across the kill.
sql_is "SELECT count(*) FROM athanor.rungs r JOIN athanor.trials t USING (sweep_id, trial)
         WHERE r.rung >= t.rung" 0 || fail "a trial was judged beyond its rung"
