#!/usr/bin/env bash
# A minute without a coordinator: 12,000 points and 1,200 lines a second of four workers.
exec "$(dirname "${BASH_SOURCE[0]}")/../system/outage.sh" --seconds 60 --rate 300
