#!/usr/bin/env bash
# Fuzzes every parser of foreign bytes, FUZZ_SECONDS each (default 60), starting from its seeds.
# A crash leaves its input in build/fuzz-build/crashes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build=${ATHANOR_BUILD:-$PWD/build}/fuzz-build
seconds=${FUZZ_SECONDS:-60}
cmake -S . -B "$build" -G Ninja -DCMAKE_C_COMPILER=clang -DATHANOR_FUZZ=ON -DATHANOR_CUDA=OFF >/dev/null
mapfile -t targets < <(cd tests/fuzz && ls ./*_fuzz.c | sed 's|^\./||; s|\.c$||')
ninja -C "$build" "${targets[@]}" >"$build/ninja.log" || { tail -30 "$build/ninja.log"; exit 1; }
mkdir -p "$build/crashes"

fuzz() {
    local name=$1 corpus
    corpus=$(mktemp -d)
    if "$build/fuzz/$name" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 \
        -artifact_prefix="$build/crashes/$name-" "$corpus" "tests/fuzz/corpus/$name" >"$build/$name.log" 2>&1; then
        echo "ok $name: $(awk '/number_of_executed_units/ { print $2 }' "$build/$name.log") inputs"
    else
        echo "FAILED $name"; tail -25 "$build/$name.log"
        rm -rf "$corpus"
        return 1
    fi
    rm -rf "$corpus"
}
export -f fuzz
export build seconds
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -c 'fuzz {}'
