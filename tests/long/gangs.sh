#!/usr/bin/env bash
# Every fault of a gang over four hosts, twice, at other moments each time. ATHANOR_GANG_SEED repeats one.
set -e
here=$(dirname "${BASH_SOURCE[0]}")
for _ in 1 2; do "$here/../system/gang_hosts.sh"; done
