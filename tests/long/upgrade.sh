#!/usr/bin/env bash
# A rolling upgrade from the oldest program that the newest migration serves, built from this
# repository's history. Skipped (77) where that is not there.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
newest=$(find migrations -name '[0-9]*.sql' | sort | tail -1)
oldest=$(sed -n 's/^-- programs from 0*//p' "$newest")
[ -n "$oldest" ] || { echo "skipped: $newest serves no older program"; exit 77; }
next=$(printf 'migrations/%04d_*.sql' $((oldest + 1)))
commit=$(git log --diff-filter=A --format=%H -- "$next" 2>/dev/null | tail -1)
[ -n "$commit" ] && git cat-file -e "$commit^" 2>/dev/null ||
    { echo "skipped: the history has no program that ends at migration $oldest"; exit 77; }
old=$(mktemp -d "${ATHANOR_TEST_SCRATCH:-${TMPDIR:-/tmp}}/older-XXXXXX")
chmod 755 "$old"
trap 'rm -rf "$old"' EXIT
git archive "$commit^" | tar -x -C "$old"
launcher=()
command -v ccache >/dev/null && launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache)
cmake -S "$old" -B "$old/build" -G Ninja "${launcher[@]}" -DATHANOR_CUDA=OFF >"$old/build.log" 2>&1 ||
    { tail -40 "$old/build.log"; exit 1; }
mapfile -t programs < <(ninja -C "$old/build" -t targets all | sed -n 's|^\(bin/[^:]*\):.*|\1|p')
ninja -C "$old/build" "${programs[@]}" >>"$old/build.log" 2>&1 || { tail -40 "$old/build.log"; exit 1; }
"$root/tests/system/upgrade.sh" "$old/build"
