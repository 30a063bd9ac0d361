#!/usr/bin/env bash
# Every benchmark, with its figures as ratios against a reference measured in the same run.
# Nothing is asserted about times; a benchmark that cannot run fails.
set -euo pipefail
cd "${ATHANOR_BUILD:-build}"
for bench in bench/*; do
    [ -f "$bench" ] && [ -x "$bench" ] || continue
    echo "== $bench"
    "$bench"
done
