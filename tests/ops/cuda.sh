#!/bin/sh
# Builds what a bare GPU machine needs (nvcc and gcc; no MPI, BLAS or other library), runs the
# op table on the GPU in f32 and bf16, and times kernels and training steps.
#
#   tests/ops/cuda.sh [BUILD_FOLDER] [check|bench|all]
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${1:-$(mktemp -d)}
what=${2:-all}
PATH=$PATH:/usr/local/cuda/bin
mkdir -p "$build/objects" "$build/bin"
cd "$root"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
nvcc --version | tail -2

flags="-std=c17 -D_GNU_SOURCE -DATHANOR_WITHOUT_BLAS -O2 -g -pthread -I$root"
CUDA_ARCHS=${CUDA_ARCHS:-90} NVCC=nvcc worker/engine/cuda/build.sh "$root" \
    "$build/bin/athanor-cuda.so" &
module=$!
for file in common/base/err.c common/base/mem.c common/base/rng.c common/base/parse.c \
    common/base/clock.c common/base/file.c common/base/buf.c worker/engine/tensor.c \
    worker/engine/device.c worker/engine/packed.c worker/engine/host.c worker/engine/threads.c worker/engine/tape.c \
    worker/engine/ops*.c worker/engine/loss.c worker/engine/model*.c worker/engine/encoder.c worker/engine/generate.c worker/engine/cache.c \
    worker/engine/optim.c worker/engine/exchange.c worker/engine/models/*.c \
    worker/engine/reference/*.c tests/ops/one_rank.c; do
    # shellcheck disable=SC2086 # flags is a list
    gcc $flags -c "$file" -o "$build/objects/$(echo "$file" | tr / _).o"
done
for program in tests/ops/ops_test.c tests/bench/train_step_bench.c; do
    # shellcheck disable=SC2086
    gcc $flags "$program" "$build"/objects/*.o -o "$build/bin/$(basename "$program" .c)" -lm -ldl
done
wait "$module"

rc=0
if [ "$what" != bench ]; then
    "$build/bin/ops_test" --backend cuda || rc=1
    "$build/bin/ops_test" --backend cuda --bf16 || rc=1
fi
if [ "$what" != check ]; then
    "$build/bin/ops_test" --backend cuda --bf16 --bench || rc=1
    for only in gpt2-124m gpt2-124m-gpu quickstart quickstart-llama; do
        "$build/bin/train_step_bench" --backend cuda --bf16 --only "$only" || rc=1
    done
    "$build/bin/train_step_bench" --backend cuda --only gpt2-124m || rc=1
fi
exit $rc
