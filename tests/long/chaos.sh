#!/usr/bin/env bash
# 300 specs of mixed kinds with two small trainings, through 60 faults. ATHANOR_CHAOS_SEED repeats one.
exec "$(dirname "${BASH_SOURCE[0]}")/../system/chaos.sh" --jobs 300 --faults 60 --train
