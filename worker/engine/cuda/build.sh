#!/bin/sh
# Builds the CUDA module: build.sh SOURCE_ROOT OUTPUT. Reads NVCC, CC and CUDA_ARCHS ("80 90").
set -eu
root=$1
output=$2
nvcc=${NVCC:-nvcc}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
targets=
for arch in ${CUDA_ARCHS:-80 90}; do
    targets="$targets -gencode arch=compute_$arch,code=sm_$arch"
done
newest=${CUDA_ARCHS:-90}
targets="$targets -gencode arch=compute_${newest##* },code=compute_${newest##* }"
# The C files it shares with the engine are linked in, hidden, so that it needs no symbol of
# the program that loads it.
for file in worker/engine/tensor.c common/base/err.c; do
    "${CC:-cc}" -std=c17 -D_GNU_SOURCE -O2 -fPIC -fvisibility=hidden -I"$root" \
        -c "$root/$file" -o "$scratch/$(basename "$file" .c).o"
done
# -Wno-dangling-pointer: gcc 12 reports nvcc's own launch stubs.
flags="-std=c++17 -O3 $targets -D_GNU_SOURCE -I$root -Werror all-warnings"
flags="$flags -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Werror,-Wno-dangling-pointer"
find "$root/worker/engine/cuda/" -name '*.cu' | sort | xargs -P "$(nproc)" -I '{}' sh -c \
    "$nvcc $flags -c '{}' -o $scratch/\$(basename '{}').o"
libraries=$(dirname "$(dirname "$(command -v "$nvcc")")")/lib64
"$nvcc" -shared -o "$output" "$scratch"/*.o -cudart static -lcublas -lcublasLt \
    -Xlinker --no-undefined,-rpath,"$libraries"
