#!/usr/bin/env bash
# 300 specs of mixed kinds with trainings, through 60 faults, from three seeds. ATHANOR_CHAOS_SEED
# repeats one.
set -euo pipefail
for seed in ${ATHANOR_CHAOS_SEED:-$RANDOM$RANDOM $RANDOM$RANDOM $RANDOM$RANDOM}; do
    "$(dirname "${BASH_SOURCE[0]}")/../system/chaos.sh" --jobs 300 --faults 60 --pace 3000 --train --seed "$seed"
done
