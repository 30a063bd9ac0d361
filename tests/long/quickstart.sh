#!/usr/bin/env bash
# The quickstart from a fresh clone in a scratch directory, twice, with its times and tables.
set -euo pipefail
source_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scratch=$(mktemp -d "${ATHANOR_TEST_SCRATCH:-${TMPDIR:-/tmp}}/quickstart-XXXXXX")
chmod 755 "$scratch"
export ATHANOR_HOME=$scratch/home
clean() { "$scratch/clone/build/bin/athanor" down --force >/dev/null 2>&1 || true; rm -rf "$scratch"; }
trap clean EXIT
git clone -q "$source_root" "$scratch/clone"
for run in first second; do
    start=$SECONDS
    "$scratch/clone/deploy/quickstart.sh"
    echo "== $run run: $((SECONDS - start)) s"
done
