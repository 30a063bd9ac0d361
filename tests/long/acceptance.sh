#!/usr/bin/env bash
# The method cards' acceptance checks over several seeds, and the large simulations: the same
# programs as in the default run, with ATHANOR_TEST_MODE=long.
set -euo pipefail
cd "${ATHANOR_BUILD:-build}"
export ATHANOR_TEST_MODE=long
exec ctest --output-on-failure -L '^(train|sim)' --timeout 3600
