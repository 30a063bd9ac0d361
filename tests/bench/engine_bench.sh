#!/usr/bin/env bash
# Every target of the engine on a processor with its reference, measured in this one run, as one table.
#
#   engine_bench.sh [--quick] [--threads N]     ATHANOR_BUILD names the build folder (default build/)
#
# References: sgemm of the same BLAS on the same threads, PyTorch (python3-torch, ATHANOR_TEST_PYTHON;
# skipped where absent) with the same model, shapes and threads, the loops of llm.c's CPU trainer
# (llmc_bench, skipped where the compiler has no OpenMP), the rate at which a core reads memory, one
# rank with two threads, and arithmetic. Each ratio is told on the wall and by processor time, which
# others on the machine disturb less. --quick: one thread, GPT-2 124M at T=256 only (at T=64 against
# llm.c's loops), fewer steps and batches. Nothing fails for being slow.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=${ATHANOR_BUILD:-$here/../../build}
python=${ATHANOR_TEST_PYTHON:-/usr/bin/python3}
quick= threads=$(nproc) steps=5 long_steps=3 tokens=48 length=1024 megabytes=32
batches="1 8 32" rank_steps=5 rank_layers=6 loop_steps=2
while [ $# -gt 0 ]; do
    case $1 in
        --quick) quick=1 threads=1 steps=3 tokens=12 length=256 megabytes=4
            batches="1 8" rank_steps=3 rank_layers=2 loop_steps=1 ;;
        --threads) threads=$2; shift ;;
        *) echo "usage: engine_bench.sh [--quick] [--threads N]" >&2; exit 2 ;;
    esac
    shift
done
export OMP_NUM_THREADS=$threads OPENBLAS_NUM_THREADS=$threads
work=$(mktemp -d /tmp/athanor-bench-XXXXXX)
trap 'rm -rf "$work"' EXIT

row() { printf '%-40s %22s  %-34s %9s %9s  %-12s %s\n' "$@"; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { if (a + 0 > 0 && b + 0 > 0) printf "%.2f", a / b; else printf "-" }'; }
met() { awk -v a="$1" -v b="$2" 'BEGIN { print (a == "-" ? "-" : a + 0 >= b ? "yes" : "no") }'; }
before() { # FILE WORD: the figure before the first such word
    awk -v word="$2" '{ for (i = 2; i <= NF; i++) if ($i == word) { print $(i - 1); exit } }' "$work/$1"
}
after() { # FILE WORD INDEX: the figure at that place of the line that begins so
    awk -v word="$2" -v at="$3" 'index($0, word) == 1 { print $at; exit }' "$work/$1"
}
measure() { # NAME COMMAND...: its output into $work/NAME, or the end
    local name=$1; shift
    echo "measuring: $name" >&2
    "$@" >"$work/$name" 2>"$work/$name.err" || { cat "$work/$name" "$work/$name.err" >&2; echo "engine_bench: $name failed" >&2; exit 1; }
}
in_torch() { # NAME ARGUMENT...: torch_bench.py; its absence is not a failure
    local name=$1; shift
    : >"$work/$name"
    "$python" -c 'import torch' 2>/dev/null || return 0
    measure "$name" "$python" "$here/torch_bench.py" "$threads" "$@"
}

models="gpt2-14m:8:256:$steps gpt2-124m:4:256:$steps"
[ -n "$quick" ] || models="$models gpt2-124m-long:4:1024:$long_steps"
for entry in $models; do
    IFS=: read -r name B T count <<<"$entry"
    measure "step-$name" "$build/bench/train_step_bench" --threads "$threads" --only "$name" --steps "$count"
    in_torch "torch-step-$name" step "$name" "$B" "$T" "$count"
done
# NAME B T of llmc_bench, and the step of train_step_bench with that shape.
loops="gpt2-124m:4:64:gpt2-124m-short"
[ -n "$quick" ] || loops="$loops gpt2-124m:4:256:gpt2-124m"
measure step-gpt2-124m-short "$build/bench/train_step_bench" --threads "$threads" --only gpt2-124m-short --steps "$steps"
if [ -x "$build/bench/llmc_bench" ]; then
    measure loops-product "$build/bench/llmc_bench" --threads "$threads" product
    for entry in $loops; do
        IFS=: read -r name B T ours <<<"$entry"
        measure "loops-$ours" "$build/bench/llmc_bench" --threads "$threads" step "$name" "$B" "$T" "$loop_steps"
    done
fi
for batch in $batches; do
    measure "decode-$batch" "$build/bench/engine_bench" --threads "$threads" decode gpt2-124m "$batch" "$tokens"
    in_torch "torch-decode-$batch" decode gpt2-124m "$batch" "$tokens"
done
# Ranks have one thread each, which plans with two threads set themselves.
OMP_NUM_THREADS=1 measure ranks "$build/bench/parallel_bench" --steps "$rank_steps" --layers "$rank_layers"
measure memory "$build/bench/engine_bench" memory
measure attention "$build/bench/engine_bench" --threads "$threads" attention "$length"
shared=${ATHANOR_SHARED_DATA:-$here/../../../shared/data}
others=()
for file in models/model2vec-test/tokenizer.json tokenizers/gpt2-style/tokenizer.json tokenizers/sentencepiece/test_model.model; do
    [ -f "$shared/$file" ] || continue
    cp "$shared/$file" "$work/$(basename "$(dirname "$file")")-$(basename "$file")"
    others+=("$work/$(basename "$(dirname "$file")")-$(basename "$file")")
done
measure text "$build/bench/data_bench" --mb "$megabytes" "${others[@]}"

echo "$threads of $(nproc --all) cores, load $(cut -d' ' -f1-3 /proc/loadavg), $(date -u +%F)"
[ -s "$work/torch-decode-1" ] || echo "PyTorch is not here: deploy/packages.sh test"
echo "products (rows columns inner) in GFLOP/s, on the wall and a core's processor time:"
grep -h '^product' "$work/step-gpt2-124m" | sed 's/^/    /'
echo "memory of a core, in GB/s: $(sed 's/^memory //; s: GB/s::g' "$work/memory") (a sum, memcpy, STREAM's triad)"
row WHAT MEASURED REFERENCE WALL PROCESSOR WANTED MET
peak=$(after step-gpt2-124m peak 2) core=$(after step-gpt2-124m peak 4)
row "sgemm peak, $threads threads" "$peak GFLOP/s" "$core GFLOP/s a core's time" \
    "$(awk -v a="$peak" -v b="$core" -v n="$threads" 'BEGIN { printf "%.2f", a / b / n }')" "-" "-" "-"
for entry in $models; do
    IFS=: read -r name B T count <<<"$entry"
    ours=step-$name torch=torch-step-$name
    cpu=$(before "$ours" by-cpu)
    row "step $name, $B x $T, of the peak" "$(before "$ours" GFLOP/s) GFLOP/s" "$(after "$ours" peak 2) GFLOP/s sgemm" \
        "$(awk '/^step/ { for (i = 1; i < NF; i++) if ($i == "of" && $(i + 1) == "peak") print $(i - 1) }' "$work/$ours")" \
        "$cpu" ">= 0.6" "$(met "$cpu" 0.6)"
    [ -s "$work/$torch" ] || continue
    cpu=$(ratio "$(before "$torch" ms-cpu)" "$(before "$ours" ms-cpu)")
    row "  against PyTorch's" "$(before "$ours" ms) ms" "$(before "$torch" ms) ms" \
        "$(ratio "$(before "$torch" ms)" "$(before "$ours" ms)")" "$cpu" "> 1" "$(met "$cpu" 1)"
    row "  its memory, of PyTorch's" "$(before "$ours" resident) MiB resident" \
        "$(before "$torch" MiB) MiB resident" "-" \
        "$(ratio "$(before "$ours" resident)" "$(before "$torch" MiB)")" "-" "-"
done
if [ -s "$work/loops-product" ]; then
    for entry in $loops; do
        IFS=: read -r name B T ours <<<"$entry"
        cpu=$(ratio "$(before "loops-$ours" ms-cpu)" "$(before "step-$ours" ms-cpu)")
        row "step $name, $B x $T" "$(before "step-$ours" ms) ms" \
            "$(before "loops-$ours" ms) ms, llm.c's loops" \
            "$(ratio "$(before "loops-$ours" ms)" "$(before "step-$ours" ms)")" "$cpu" "> 1" "$(met "$cpu" 1)"
    done
    for way in forward backward; do
        cpu=$(ratio "$(after loops-product $way 4)" "$(after loops-product $way 10)")
        row "matmul 1024 x 768 x 768, $way" "$(after loops-product $way 2) GFLOP/s" \
            "$(after loops-product $way 8) GFLOP/s, llm.c's loops" \
            "$(ratio "$(after loops-product $way 2)" "$(after loops-product $way 8)")" "$cpu" ">= 3" "$(met "$cpu" 3)"
    done
fi
for entry in $models; do
    IFS=: read -r name B T count <<<"$entry"
    row "memory $name, $B x $T, of the least" "$(before "step-$name" MiB) MiB" "$(before "step-$name" least) MiB" \
        "-" "$(ratio "$(before "step-$name" MiB)" "$(before "step-$name" least)")" "-" "-"
done
for batch in $batches; do
    ours=decode-$batch torch=torch-decode-$batch
    row "decoding gpt2-124m, batch $batch" "$(before "$ours" tok/s) tok/s" "weights read once a token" "-" \
        "$(before "$ours" of-reading-weights)" "-" "-"
    row "  with $(before "$ours" MiB-copies) MiB of packed weights" "$(before "$ours" tok/s) tok/s" \
        "$(before "$ours" tok/s-plain) tok/s without" \
        "$(ratio "$(before "$ours" tok/s)" "$(before "$ours" tok/s-plain)")" \
        "$(ratio "$(before "$ours" tok/s-cpu)" "$(before "$ours" tok/s-plain-cpu)")" "-" "-"
    [ -s "$work/$torch" ] || continue
    row "  against PyTorch's" "$(before "$ours" tok/s) tok/s" "$(before "$torch" tok/s) tok/s" \
        "$(ratio "$(before "$ours" tok/s)" "$(before "$torch" tok/s)")" \
        "$(ratio "$(before "$ours" tok/s-cpu)" "$(before "$torch" tok/s-cpu)")" "> 1" \
        "$(met "$(ratio "$(before "$ours" tok/s-cpu)" "$(before "$torch" tok/s-cpu)")" 1)"
done
of_plan() { # PLAN WORD: of that line of parallel_bench, the figure before the word
    awk -v plan="$1" -v word="$2" 'index($0, plan "  ") == 1 {
        for (i = 2; i <= NF; i++) if ($i == word) { print $(i - 1); exit } }' "$work/ranks"
}
against() { # WHAT PLAN REFERENCE-PLAN
    row "$1" "$(of_plan "$2" ms) ms" "$(of_plan "$3" ms) ms, $3" \
        "$(ratio "$(of_plan "$3" ms)" "$(of_plan "$2" ms)")" \
        "$(ratio "$(of_plan "$3" ms-cpu)" "$(of_plan "$2" ms-cpu)")" "-" "-"
}
against "2 ranks, overlapped: faster by" "2 ranks, overlapped" "1 rank"
against "  and than 2 threads by" "2 ranks, overlapped" "1 rank, 2 threads"
against "  with shared moments" "2 ranks, overlapped, zero" "1 rank, 2 threads"
against "  2 threads: faster by" "1 rank, 2 threads" "1 rank"
open=$(of_plan "2 ranks, overlapped" ms-open) whole=$(of_plan "2 ranks" ms-open)
row "  reduction under backward" "$open ms left open" "$whole ms in all" \
    "$(awk -v a="$open" -v b="$whole" 'BEGIN { printf "%.2f", (b > 0 ? 1 - a / b : 0) }')" "-" "-" "-"
read=$(awk '{ printf "%.0f", 1000 * $3 }' "$work/memory")
row "tokenizer training: pieces counted" "$(after text "tokenizer: counting" 4) MB/s a core" "$read MB/s read" "-" \
    "$(awk -v a="$(after text "tokenizer: counting" 4)" -v b="$read" 'BEGIN { printf "%.4f", a / b }')" "-" "-"
row "tokenizer encoding, byte-level BPE" "$(after text "tokenizer: encoding" 3) MB/s a core" "$read MB/s read" "-" \
    "$(awk -v a="$(after text "tokenizer: encoding" 3)" -v b="$read" 'BEGIN { printf "%.4f", a / b }')" "-" "-"
for file in "${others[@]}"; do
    name=$(basename "$file")
    rate=$(after text "tokenizer: $name" 3)
    row "encoding, $name" "$rate MB/s a core" "$read MB/s read" "-" \
        "$(awk -v a="$rate" -v b="$read" 'BEGIN { printf "%.4f", a / b }')" "-" "-"
done
echo
echo "attention of one layer, forward and backward, 4 heads of 64; processor time, ratio to half the length"
printf '%8s %14s %6s %14s %14s %14s %6s %12s %14s\n' tokens softmax ratio MiB "scores' MiB" lightning ratio MiB quadratic
awk '{ s = $4; l = $12; printf "%8d %11.2f ms %6s %14.1f %14.1f %11.2f ms %6s %12.1f %11.2f ms\n", $2, s,
       ps ? sprintf("%.1f", s / ps) : "-", $6, $9, l, pl ? sprintf("%.1f", l / pl) : "-", $14, $17; ps = s; pl = l }' "$work/attention"
