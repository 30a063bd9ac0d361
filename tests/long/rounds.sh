#!/usr/bin/env bash
# Fifty rounds of starting and ending, at other moments each time. ATHANOR_ROUNDS_SEED repeats one.
exec "$(dirname "${BASH_SOURCE[0]}")/../system/rounds.sh" --rounds 50
