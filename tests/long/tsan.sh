#!/usr/bin/env bash
# Unit and golden tests under ThreadSanitizer: the engine's thread pool and the loops.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build=${ATHANOR_BUILD:-$PWD/build}/tsan
cmake -S . -B "$build" -G Ninja -DATHANOR_TSAN=ON -DATHANOR_CUDA=OFF >/dev/null
ninja -C "$build" >"$build/ninja.log" || { tail -30 "$build/ninja.log"; exit 1; }
cd "$build"
# Libraries that are not built with TSan would be reported for their own locks.
export TSAN_OPTIONS="ignore_noninstrumented_modules=1 halt_on_error=1"
exec ctest --output-on-failure -L '^(unit|golden)'
