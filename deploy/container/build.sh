#!/usr/bin/env bash
# Builds a source tree and installs it: build.sh SOURCE TREE. What the image takes, without tests,
# manual pages for programs that are not there, or CUDA (which is built where its compiler is).
set -euo pipefail
source=${1:?source}
tree=${2:?tree}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cmake -S "$source" -B "$folder" -G Ninja -DATHANOR_TESTS=OFF -DATHANOR_CUDA=OFF -DCMAKE_INSTALL_PREFIX=/usr
ninja -C "$folder" ${ATHANOR_JOBS:+-j "$ATHANOR_JOBS"}
DESTDIR=$tree cmake --install "$folder"
