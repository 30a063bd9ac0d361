#!/bin/sh
# One command on a bare machine with a GPU (its driver, nvcc and gcc; no MPI, BLAS or test library):
# builds what is needed, then
#   check  the op table on the GPU, in f32 and bf16; our model files, with the GPU's logits, in
#          transformers
#   bench  kernels; training steps of GPT-2 124M and of a Llama of 1.1 B weights with tokens a second
#          and MFU, and the same steps in PyTorch with torch.compile
#
#   tests/ops/cuda.sh [BUILD_FOLDER] [check|bench|all]
#
# What a machine lacks is skipped with its reason: jansson's header (the writer of model files),
# PyTorch, transformers. PYTHON names the interpreter; ATHANOR_GPU_TFLOPS the card's dense bf16 peak,
# where the list below does not know it; CUDA_ARCHS what is built for (90).
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${1:-$(mktemp -d)}
what=${2:-all}
python=${PYTHON:-python3}
PATH=$PATH:/usr/local/cuda/bin
mkdir -p "$build/objects" "$build/files" "$build/bin"
cd "$root"
rc=0

card=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1) || true
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader ||
    echo "no driver answers: everything on the GPU will fail"
nvcc --version | tail -2
# Dense bf16 TFLOP/s, from the makers' data sheets.
case $card in
*H100*PCIe*) tflops=756 ;;
*H100*NVL*) tflops=835 ;;
*H100* | *H200*) tflops=989 ;;
*A100* | *A800*) tflops=312 ;;
*L40S*) tflops=362 ;;
*) tflops=0 ;;
esac
tflops=${ATHANOR_GPU_TFLOPS:-$tflops}
[ "$tflops" != 0 ] || echo "skipped: MFU: the peak of '$card' is unknown (ATHANOR_GPU_TFLOPS)"

# ---- build ------------------------------------------------------------------------------------

flags="-std=c17 -D_GNU_SOURCE -DATHANOR_WITHOUT_BLAS -O2 -g -pthread -I$root"

compile() { # FOLDER SOURCE...
    folder=$1
    shift
    for file in "$@"; do
        # shellcheck disable=SC2086 # flags is a list
        gcc $flags -c "$file" -o "$build/$folder/$(echo "$file" | tr / _).o"
    done
}

link() { # SOURCE OTHER...
    program=$1
    shift
    # shellcheck disable=SC2086
    gcc $flags "$program" "$@" -o "$build/bin/$(basename "$program" .c)" -lm -ldl $libraries
}

CUDA_ARCHS=${CUDA_ARCHS:-90} NVCC=nvcc worker/engine/cuda/build.sh "$root" \
    "$build/bin/athanor-cuda.so" &
module=$!
libraries=
compile objects common/base/err.c common/base/mem.c common/base/rng.c common/base/parse.c \
    common/base/clock.c common/base/file.c common/base/buf.c worker/engine/tensor.c \
    worker/engine/device.c worker/engine/packed.c worker/engine/host.c worker/engine/threads.c \
    worker/engine/tape.c worker/engine/ops*.c worker/engine/loss.c worker/engine/model*.c \
    worker/engine/encoder.c worker/engine/generate.c worker/engine/cache.c worker/engine/optim.c \
    worker/engine/exchange.c worker/engine/mlp.c worker/engine/rope.c worker/engine/models/*.c \
    worker/engine/reference/*.c tests/ops/one_rank.c
link tests/ops/ops_test.c "$build"/objects/*.o
link tests/bench/train_step_bench.c "$build"/objects/*.o
writes=
if echo '#include <jansson.h>' | gcc -E - >/dev/null 2>&1; then
    compile files common/base/json_text.c worker/engine/io/model_files.c \
        worker/engine/io/model_config.c worker/engine/io/config_*.c worker/engine/io/safetensors.c
    libraries=-ljansson
    link tests/models/write_models.c "$build"/files/*.o "$build"/objects/*.o
    writes=yes
fi
wait "$module"

# ---- run --------------------------------------------------------------------------------------

run() {
    "$@" || rc=1
}

# 77: the script has said what it lacks.
run_python() {
    command -v "$python" >/dev/null || { echo "skipped: $1: no $python"; return; }
    status=0
    "$python" "$@" || status=$?
    [ "$status" = 0 ] || [ "$status" = 77 ] || rc=1
}

if [ "$what" != bench ]; then
    run "$build/bin/ops_test" --backend cuda
    run "$build/bin/ops_test" --backend cuda --bf16
    if [ -n "$writes" ]; then
        models=$build/models
        rm -rf "$models"
        mkdir "$models"
        run "$build/bin/write_models" cuda "$models"
        run_python tests/models/transformers_check.py "$models"
    else
        echo "skipped: our models in transformers: no jansson.h to build their writer with"
    fi
fi
if [ "$what" != check ]; then
    run "$build/bin/ops_test" --backend cuda --bf16 --bench
    for only in gpt2-124m gpt2-124m-gpu llama-1b-gpu quickstart quickstart-llama; do
        run "$build/bin/train_step_bench" --backend cuda --bf16 --card "$tflops" --only "$only"
    done
    run "$build/bin/train_step_bench" --backend cuda --only gpt2-124m
    run_python tests/bench/torch_gpu.py gpt2-124m-gpu 16 1024 12 "$tflops"
    run_python tests/bench/torch_gpu.py llama-1b-gpu 4 2048 8 "$tflops"
fi
exit $rc
