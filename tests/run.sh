#!/usr/bin/env bash
# Builds Athanor and runs its tests. Installs what they need first (root or sudo).
#
#   tests/run.sh quick     tidy, unit and golden tests                      (under 2 minutes)
#   tests/run.sh           all of these, store, train and system tests, and
#                          unit, golden, store and system under ASan+UBSan  (under 25 minutes)
#   tests/run.sh long      also acceptance over several seeds, 60 s of fuzzing per parser,
#                          large simulations, ThreadSanitizer, benchmarks   (about two hours)
#
# Options: --build DIR (default build), --keep (leave the scratch directory), NAME... as ctest -R.
set -euo pipefail
shopt -s nullglob
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

mode=default build=build keep=0 names=()
while [ $# -gt 0 ]; do
    case $1 in
        quick|long) mode=$1 ;;
        --build) build=$2; shift ;;
        --keep) keep=1 ;;
        -h|--help) sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '$d'; exit 0 ;;
        -*) echo "run.sh: unknown option '$1', see --help" >&2; exit 2 ;;
        *) names+=("$1") ;;
    esac
    shift
done

jobs=$(nproc)
# What takes longest begins first: what begins last should be short.
longest=(t1500-shepherd t2150-hosts t2600-chaos t2000-kill t2500-failover t2820-rounds t2900-distillation
    t2160-outage t2100-gangs t2800-being t1000-command-jobs t5000-sweep t4200-quotas t2810-copies
    t2820-secrets t2600-ledger)
passed=0 failed=0 skipped=0 failures=()
scratch=$(mktemp -d "${TMPDIR:-/tmp}/athanor-tests-XXXXXX")
chmod 755 "$scratch" # the private database runs as another account
export ATHANOR_SHARED_DATA=${ATHANOR_SHARED_DATA:-$(cd "$root/.." && pwd)/shared/data}
export ATHANOR_TEST_SCRATCH=$scratch ATHANOR_TEST_MODE=${mode/long/default} # tests/long sets its own
trap clean EXIT

clean() { # a file whose set-up failed may leave its cluster running
    local home
    for home in "$scratch"/cluster-*; do
        ATHANOR_HOME=$home "$root/$build/bin/athanor" down --force >/dev/null 2>&1 || true
    done
    [ "$keep" = 1 ] || rm -rf "$scratch"
}

say() { printf '\n== %s (%ds)\n' "$*" "$SECONDS"; }

# count RC NAME: one more result outside ctest and bats.
count() {
    case $1 in
        0) passed=$((passed + 1)) ;;
        77) skipped=$((skipped + 1)) ;;
        *) failed=$((failed + 1)); failures+=("$2") ;;
    esac
}

configure_and_build() { # DIR OPTION...
    local dir=$1; shift
    local launcher=()
    command -v ccache >/dev/null && launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache)
    cmake -S . -B "$dir" -G Ninja "${launcher[@]}" "$@" >"$scratch/cmake.log" 2>&1 ||
        { cat "$scratch/cmake.log"; return 1; }
    ninja -C "$dir" >"$scratch/ninja.log" 2>&1 || { tail -60 "$scratch/ninja.log"; return 1; }
}

# run_ctest DIR LABELS: LABELS is a regular expression.
run_ctest() {
    local dir=$1 labels=$2 log=$scratch/ctest.log filter=()
    [ ${#names[@]} -gt 0 ] && filter=(-R "$(IFS='|'; echo "${names[*]}")")
    (cd "$dir" && ctest --output-on-failure -j "$jobs" -L "$labels" "${filter[@]}") | tee "$log" |
        grep -E '\(Failed\)|\*\*\*|[Ss]kip|tests passed|^\[ +(FAILED|ERROR)|Error:' || true
    local ran bad
    ran=$(grep -cE '^ *[0-9]+/[0-9]+ Test +#' "$log" || true)
    bad=$(grep -cE '^ *[0-9]+/[0-9]+ Test +#.*(\*\*\*Failed|\*\*\*Timeout|\*\*\*Exception|Not Run)' "$log" || true)
    passed=$((passed + ran - bad)) failed=$((failed + bad))
    skipped=$((skipped + $(grep -cE '^SKIP' "$log" || true)))
    [ "$bad" -eq 0 ] || { failures+=("ctest $dir"); cp "$log" "$root/$build/ctest-failures.log"; }
}

# one_bats FILE LOG: a file of tests, with what it says about them in one piece. Most take less than
# two minutes: one that takes ten hangs, and who is still there tells in what.
one_bats() {
    local began=$SECONDS said stuck
    setsid bats --tap "$1" >"$2" 2>&1 &
    trap 'pkill -TERM -s $!; exit 130' INT TERM
    if ! timeout --foreground 600 tail --pid=$! -s 0.1 -f /dev/null; then
        { printf 'not ok 0 ended after ten minutes, when these were running:\n'
          ps -eo pid,ppid,etimes,stat,wchan:20,args --forest | grep -v '\]$'
          for stuck in $(pgrep -x athanor); do
              gdb -p "$stuck" -batch -ex 'thread apply all bt' 2>&1
          done
        } | cut -c 1-160 | sed '2,$s/^/# /' >>"$2"
        pkill -TERM -s $! || true
        timeout 20 tail --pid=$! -s 0.1 -f /dev/null || true
        pkill -KILL -s $! || true
    fi
    said=$(grep -E '^(not ok|#|ok .*# skip)' "$2" || true)
    printf '%4d s  %s%s\n' $((SECONDS - began)) "$(basename "$1")" "${said:+$'\n'}$said"
}
export -f one_bats

# Each file has clusters of its own and mostly waits for them: as many at once as there are cores.
run_bats() { # DIR FILE...
    local dir=$1 logs=$scratch/bats file name planned ok bad skip; shift
    local -A files=()
    [ $# -gt 0 ] || return 0
    rm -rf "$logs"; mkdir "$logs"
    for file in "$@"; do files[$(basename "$file" .bats)]=$file; done
    for name in "${longest[@]}" $(printf '%s\n' "${!files[@]}" | sort); do
        [ -n "${files[$name]:-}" ] || continue
        : >"$logs/$name"
        printf '%s\0%s\0' "${files[$name]}" "$logs/$name"
        unset "files[$name]"
    done | ATHANOR_BUILD=$root/$dir xargs -0 -n 2 -P "$jobs" bash -c 'one_bats "$@"' bash || true
    for file in "$@"; do
        name=$(basename "$file" .bats)
        ok=$(grep -cE '^ok ' "$logs/$name" || true) bad=$(grep -cE '^not ok ' "$logs/$name" || true)
        skip=$(grep -cE '^ok .*# skip' "$logs/$name" || true)
        planned=$(sed -n 's/^1\.\.//p' "$logs/$name" 2>/dev/null || true)
        passed=$((passed + ok - skip)) failed=$((failed + bad)) skipped=$((skipped + skip))
        [ "$bad" -eq 0 ] || failures+=("bats $dir $name")
        [ "$bad" -gt 0 ] || [ "$ok" -eq "${planned:-0}" ] && [ "${planned:-0}" -gt 0 ] ||
            { failed=$((failed + 1)); failures+=("bats $dir $name: ran $ok of ${planned:-no} tests"); }
    done
}

leftovers() { # what a test must not leave behind; compared before and after
    { ls /dev/shm 2>/dev/null | sed 's/^/shm /'
      find "${TMPDIR:-/tmp}" -maxdepth 1 \( -name 'athanor*' -o -name 'ompi.*' -o -name 'pmix*' \) \
          ! -path "$scratch" -printf 'tmp %f\n' 2>/dev/null
      ps -eo stat=,comm= | awk '$1 !~ /^Z/ && $2 ~ /^athanor/ { print "process", $2 }'; } | sort
}

say "packages"
deploy/packages.sh build run data test
leftovers >"$scratch/before"

say "tidy"
rc=0; tests/tidy/run.sh || rc=$?; count $rc tidy

say "build"
configure_and_build "$build" || { echo "0 passed, 1 failed"; exit 1; }

quick_labels='^(unit|golden|fuzz)'
if [ "$mode" = quick ]; then
    say "unit and golden tests"
    run_ctest "$build" "$quick_labels"
else
    say "unit, golden, simulation, ops, store and training tests"
    run_ctest "$build" '.'
    say "system tests"
    run_bats "$build" tests/system/*.bats tests/regress/*.bats
    say "build with ASan and UBSan"
    configure_and_build "$build/asan" -DATHANOR_ASAN=ON -DATHANOR_CUDA=OFF \
        -DATHANOR_SUITES='^(unit|golden|fuzz|store)'
    export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1
    export LSAN_OPTIONS=suppressions=$root/tests/lsan.supp:print_suppressions=0
    say "unit, golden and store tests under ASan and UBSan"
    run_ctest "$build/asan" '^(unit|golden|fuzz|store)'
    say "system tests under ASan and UBSan"
    run_bats "$build/asan" tests/system/*.bats
    unset ASAN_OPTIONS UBSAN_OPTIONS LSAN_OPTIONS
fi
if [ "$mode" = long ]; then
    say "long tests"
    for script in tests/long/*.sh; do
        say "$script"
        rc=0; ATHANOR_BUILD=$root/$build "$script" || rc=$?; count $rc "$script"
    done
fi

for _ in $(seq 50); do # sanitizers look for leaks after a daemon has said good-bye
    leftovers >"$scratch/after"
    new=$(comm -13 "$scratch/before" "$scratch/after")
    [ -n "$new" ] || break
    read -rt 0.2 <> <(:) || true
done
rc=0; [ -z "$new" ] || { rc=1; printf 'left behind by the tests:\n%s\n' "$new"; }
count $rc "nothing is left behind"

[ ${#failures[@]} -eq 0 ] || printf 'FAILED: %s\n' "${failures[@]}"
say "done"
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
