#!/usr/bin/env bash
# What a machine can see in the text: who includes whom, function lengths, banned calls,
# SQL and libpq outside the store, header sizes. Prints file:line and exits 1 on a finding.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec awk -f tests/tidy/tidy.awk -v rules=tests/tidy/includes.txt -v ratchet=tests/tidy/long-functions.txt \
    $(git ls-files '*.c' '*.h' '*.cu')
