#!/usr/bin/env bash
# The whole tree compiles with clang too, warnings being errors.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build=${ATHANOR_BUILD:-$PWD/build}/clang
cmake -S . -B "$build" -G Ninja -DCMAKE_C_COMPILER=clang -DATHANOR_CUDA=OFF >/dev/null
ninja -C "$build" >"$build/ninja.log" 2>&1 || { grep -E 'error|warning' "$build/ninja.log" | head -40; exit 1; }
