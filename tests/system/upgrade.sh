#!/usr/bin/env bash
# A cluster of an older build is upgraded to this one under jobs, coordinator by coordinator and
# worker by worker, by kill -9 and in the worst order: the new program migrates while an old one
# leads, an old one may lead again, and none does from the first job on that it would misread.
#
#   upgrade.sh OLD_BUILD      the build folder of the older version
#
# ATHANOR_BUILD names the newer one (default build/).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source tests/system/cluster.bash
[ -x "${1:-}/bin/athanor-coordinator" ] || { echo "usage: upgrade.sh OLD_BUILD" >&2; exit 2; }
old=$(cd "$1" && pwd) new=$build
path=$PATH
work=$(mktemp -d "${ATHANOR_TEST_SCRATCH:-${TMPDIR:-/tmp}}/upgrade-XXXXXX")
chmod 777 "$work"
cluster_home
trap leave EXIT

leave() { # says what it can of a failure, and cleans up whatever that says
    local rc=$?
    set +e
    [ $rc = 0 ] || { athanor ls --all; tail -n 8 "$ATHANOR_HOME"/log/coordinator*.log; }
    cluster_down
    rm -rf "$work"
}

say() { printf '%4d s  %s\n' "$SECONDS" "$*"; }
fail() { say "FAILED: $*"; exit 1; }
with() { PATH=$1/bin:$path; } # OLD | NEW
up() { athanor up >"$work/up.out" 2>&1 || { cat "$work/up.out"; return 1; }; }
program_of() { readlink "/proc/$(pid_of "$1")/exe"; } # a daemon's

end() { # SIGNAL DAEMON
    local pid; pid=$(pid_of "$2")
    kill "-$1" "$pid"
    until_true 30 test ! -d "/proc/$pid"
}

leading_daemon() {
    local name pid; pid=$(leader_pid)
    for name in coordinator coordinator-2 coordinator-3; do
        [ "$(pid_of "$name")" != "$pid" ] || echo "$name"
    done
}

leads() { [ -n "$(leading_daemon)" ]; }
leads_with() { leads && [ "$(program_of "$(leading_daemon)")" = "$1/bin/athanor-coordinator" ]; }

# Each job appends a line where its program ran to success.
stream() { # FROM TO
    local i
    for i in $(seq "$1" "$2"); do
        printf 'athanor: 1\nname: j-%d\nkind: command\ncommand: [sh, -c, "sleep 1; echo %d >>%s/ran"]\nresources: {memory: 16MiB}\n' \
            "$i" "$i" "$work" >"$work/j-$i.yaml"
        athanor submit "$work/j-$i.yaml" >>"$work/submit.log" 2>&1 || fail "j-$i: $(tail -1 "$work/submit.log")"
    done
}

ended() { sql_is "SELECT count(*) FROM athanor.jobs WHERE name LIKE 'j-%' AND state = 'SUCCEEDED'" "$1"; }

sweep_and_reader() {
    cat >"$work/trial.sh" <<'S'
mkdir "$ATHANOR_JOB_DIR/c"
echo "$LOSS" >"$ATHANOR_JOB_DIR/c/weights"
athanor report metric --step 1 loss="$LOSS"
athanor report checkpoint --step 1 "$ATHANOR_JOB_DIR/c" --metric loss="$LOSS"
until [ -e "$GATE" ]; do sleep 0.2; done
S
    cat >"$work/best.yaml" <<Y
athanor: 1
name: best
experiment: best
defaults: {env: {PATH: "$PATH", GATE: $work/gate}, resources: {memory: 32MiB}}
jobs:
  grid:
    kind: command
    command: [sh, $work/trial.sh]
    checkpoint: {every: 1 steps, keep: "last 1, best 1 by loss"}
    sweep: {method: grid, metric: loss, over: {env.LOSS: ["7", "5", "2", "3"]}}
  score:
    kind: command
    command: [sh, -c, 'grep -qx 2 "\$ATHANOR_INPUT_MODEL/weights"']
    inputs: {model: job:grid/checkpoint:best}
Y
    chmod -R go+rX "$work"
    athanor submit "$work/best.yaml" >>"$work/submit.log" 2>&1 || fail "$(tail -3 "$work/submit.log")"
}

tried_in_vain() { # an old standby has found the lease free and did not take it
    sql_is "SELECT l.expires_at < clock_timestamp() - interval '3 seconds' AND bool_or(c.seen_at > l.expires_at + interval '2 seconds')
              AND NOT bool_or(c.leads AND c.expires_at > clock_timestamp())
              FROM athanor.coordinator c, athanor.coordinator_lease l GROUP BY l.expires_at" t
}

with "$old"
cluster_up --workers 2 --cores 2 --coordinators 3
before=$(sql "SELECT count(*) FROM athanor.schema_migration")
after=$(find migrations -name '[0-9]*.sql' | wc -l)
say "the older version stands: $before migrations; this one has $after"
stream 1 6
first=$(leading_daemon)

with "$new"
for name in coordinator coordinator-2 coordinator-3; do
    [ "$name" != "$first" ] || continue
    end TERM "$name"
    up
    break
done
until_true 60 sql_is "SELECT count(*) FROM athanor.schema_migration" "$after"
leads_with "$old" || fail "the older leader did not go on under $after migrations"
say "the newer $name migrated under the older leader"
with "$old"
stream 7 10

for name in coordinator coordinator-2 coordinator-3; do
    { [ "$name" != "$first" ] && [ "$(program_of "$name")" = "$old/bin/athanor-coordinator" ]; } || continue
    end 9 "$name"
    up
    [ "$(program_of "$name")" = "$old/bin/athanor-coordinator" ] || fail "$name was not restarted"
done
say "an older coordinator starts on the newer schema"

# Whoever takes over: end leaders until a newer one leads. What is ended comes back as the older one.
for _ in $(seq 20); do
    ! leads_with "$new" || break
    end 9 "$(leading_daemon)"
    until_true 60 leads
    up
done
leads_with "$new" || fail "no newer coordinator took the lease in 20 takeovers"
say "a newer coordinator leads"
with "$new"
stream 11 14
sweep_and_reader
until_true 60 sql_is "SELECT count(*) FROM athanor.metrics WHERE name = 'loss'" 4

if [ "$before" -lt 31 ]; then # knows nothing of the best of a sweep
    mine=$(leading_daemon)
    end 9 "$mine"
    until_true 60 tried_in_vain
    say "older coordinators stand by where a job needs a newer one"
fi
up
until_true 60 leads_with "$new"
for name in worker-1 worker-2; do
    end TERM "$name"
    up
done
stream 15 18
for name in coordinator coordinator-2 coordinator-3; do
    [ "$(program_of "$name")" = "$new/bin/athanor-coordinator" ] && continue
    end TERM "$name"
    up
done
touch "$work/gate"
until_true 120 ended 18
until_true 60 sql_is "SELECT state FROM athanor.jobs WHERE name = 'score'" SUCCEEDED
[ "$(sort -n "$work/ran" | tr '\n' ' ')" = "$(seq 18 | tr '\n' ' ')" ] || fail "jobs ran: $(sort -n "$work/ran" | tr '\n' ' ')"
for name in coordinator coordinator-2 coordinator-3; do
    [ "$(program_of "$name")" = "$new/bin/athanor-coordinator" ] || fail "$name is still $(program_of "$name")"
done
say "upgraded: 18 jobs each ran once, and the best trial's reader read the best"
