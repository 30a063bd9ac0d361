#!/usr/bin/env bats
# The ledger of what cores were used for: on attempts that succeed, are killed, retried, stopped and
# lost with their node, the classes add up to the time held, to the microsecond.

setup_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_home
    cluster_up --workers 2 --cores 2
    cat >"$BATS_FILE_TMPDIR/train.sh" <<'END'
# Saves two checkpoints, then does what LAST says, unless a try did so before.
save() {
    mkdir -p "$ATHANOR_JOB_DIR/c$1"
    echo "$1" >"$ATHANOR_JOB_DIR/c$1/state"
    athanor report checkpoint --step "$1" "$ATHANOR_JOB_DIR/c$1" --took 10ms >/dev/null
}
try=$(cat "$ATHANOR_JOB_DIR/tries" 2>/dev/null || echo 0)
echo $((try + 1)) >"$ATHANOR_JOB_DIR/tries"
sleep 0.3 # work: the saves say that they took 20 ms, whatever they did
[ "$try" -gt 0 ] || save 1
save $((try + 2))
[ "$try" -gt 0 ] || eval "$LAST"
END
}

teardown_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_down
}

setup() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cd "$BATS_TEST_TMPDIR"
}

train() { # NAME LAST [more lines]: submits; prints the number
    printf 'athanor: 1\nname: %s\nkind: command\nresources: {cores: 2}\ncommand: [sh, "%s"]\nenv: {LAST: "%s", PATH: "%s"}\n%s\n' \
        "$1" "$BATS_FILE_TMPDIR/train.sh" "$2" "$PATH" "${3:-}" >"$1.yaml"
    athanor submit "$1.yaml" --ids
}

ledger() { # JOB COLUMNS: of its attempts in order
    sql "SELECT $2 FROM athanor.usage_ledger WHERE job_id = $1 AND attempt_id IS NOT NULL ORDER BY number"
}

saved_twice() { sql_is "SELECT count(*) FROM athanor.checkpoints WHERE job_id = $1" 2; }

@test "an attempt that succeeds is launching, useful and checkpointing" {
    id=$(train success true)
    athanor wait "$id"
    [ "$(ledger "$id" "launching_s > 0, useful_s > 0, checkpointing_s, recomputed_s = 0, abandoned_s = 0, idle_s = 0")" = "t|t|0.020000|t|t|t" ]
}

@test "work behind the checkpoint that the next attempt resumed from is recomputed" {
    id=$(train again 'sleep 1; kill -9 $$' 'retry: {attempts: 2, on: [signal], backoff: 1s}')
    athanor wait "$id"
    [ "$(ledger "$id" "cause, queued_s > 0, useful_s > 0, checkpointing_s > 0, recomputed_s >= 0.9, abandoned_s = 0")" = "signal|t|t|t|t|t
success|t|t|t|f|t" ]
}

@test "work behind the last checkpoint of a job that fails for good is abandoned" {
    id=$(train fails 'sleep 1; exit 7' 'retry: {attempts: 1}')
    run athanor wait "$id"
    [ "$status" -eq 1 ]
    [ "$(ledger "$id" "cause, useful_s > 0, recomputed_s = 0, abandoned_s >= 0.9")" = "exit|t|t|t" ]
    [ "$(sql "SELECT round(core_hours_lost * 3600) >= 2 FROM athanor.lost_work WHERE job_id = $id")" = t ]
    # Opened again by a person, it is made again. The time in between is no waiting.
    athanor retry "$id"
    athanor wait "$id"
    [ "$(ledger "$id" "cause, recomputed_s >= 0.9, abandoned_s = 0, queued_s < 60")" = "exit|t|t|t
success|f|t|t" ]
}

@test "stopping is idle" {
    id=$(train stops "trap '' TERM; while true; do sleep 0.2; done" 'limits: {stop_grace: 2s}')
    until_true 60 saved_twice "$id"
    athanor cancel "$id"
    run athanor wait "$id"
    [ "$(ledger "$id" "cause, idle_s >= 1.9, useful_s > 0")" = "cancelled|t|t" ]
}

@test "what a lost node held since its last sign of life is idle" {
    id=$(train lost 'sleep 1000' 'retry: {attempts: 2, on: [worker_lost], backoff: 1s}')
    until_true 60 saved_twice "$id"
    worker=$(sql "SELECT worker FROM athanor.runs WHERE job_id = $id")
    shepherd=$(sql "SELECT placement ->> 'shepherd_pid' FROM athanor.runs WHERE job_id = $id")
    rank=$(sql "SELECT placement ->> 'pid' FROM athanor.runs WHERE job_id = $id")
    kill -9 "$(pid_of "$worker")" "$shepherd" "$rank"
    rm -rf "$ATHANOR_HOME/workers/$worker"/attempts/*
    athanor up >/dev/null
    athanor wait "$id"
    [ "$(ledger "$id" "cause, idle_s > 0, useful_s > 0")" = "worker_lost|t|t
success|f|t" ]
}

@test "each node of an attempt on several workers is held for its own time" {
    printf 'athanor: 1\nname: gang\nkind: command\nresources: {ranks: 2, nodes: 2}\ncommand: [sh, -c, "sleep $((1 + RANK))"]\n' >gang.yaml
    id=$(athanor submit gang.yaml --ids)
    athanor wait "$id"
    [ "$(sql "SELECT node, cores, useful_s > 0.5, held_s > 0, queued_s > 0 FROM athanor.usage_ledger WHERE job_id = $id ORDER BY node")" = "0|1|t|t|t
1|1|t|t|f" ]
    [ "$(sql "SELECT max(held_s) - min(held_s) > 0.5, count(DISTINCT worker) FROM athanor.usage_ledger WHERE job_id = $id")" = "t|2" ]
    [ "$(sql "SELECT runs FROM athanor.usage_of_jobs WHERE job_id = $id")" = 1 ]
}

@test "on all of them the classes add up to the time held, and the sums to the ledger" {
    [ "$(sql "SELECT count(*) >= 7, count(*) FILTER (WHERE held_s <> launching_s + useful_s + checkpointing_s
                + recomputed_s + abandoned_s + idle_s), min(least(queued_s, launching_s, useful_s, checkpointing_s,
                recomputed_s, abandoned_s, idle_s)) >= 0 FROM athanor.usage_ledger")" = "t|0|t" ]
    [ "$(sql "SELECT count(*) FROM athanor.usage_ledger l JOIN athanor.attempt a USING (attempt_id)
               WHERE a.ended_at IS NOT NULL AND l.name <> 'gang' AND l.held_s <> extract(epoch FROM a.ended_at - a.placed_at)")" = 0 ]
    for sums in jobs accounts workers causes; do
        [ "$(sql "SELECT round(sum(core_hours), 12) = (SELECT round(sum(held_s * cores) / 3600, 12) FROM athanor.usage_ledger),
                    count(*) FILTER (WHERE round(core_hours - core_hours_launching - core_hours_useful - core_hours_checkpointing
                        - core_hours_recomputed - core_hours_abandoned - core_hours_idle, 12) <> 0)
                    FROM athanor.usage_of_$sums")" = "t|0" ]
    done
}

@test "athanor usage tells the same, by job, user, worker and cause" {
    held=$(sql "SELECT round(sum(held_s * cores) / 3600, 3) FROM athanor.usage_ledger")
    for by in job user worker cause; do
        [ "$(athanor usage --by $by --json | python3 -c '
import json, sys
rows = json.load(sys.stdin)
classes = "launching useful checkpointing recomputed abandoned idle".split()
for r in rows:
    assert abs(r["core_hours"] - sum(r["core_hours_" + c] for c in classes)) < 1e-5, r
print("%.3f" % sum(r["core_hours"] for r in rows))')" = "$held" ]
    done
    [[ $(athanor usage --by cause) == *worker_lost* ]]
    [[ $(athanor usage again) == *"again (2)"* ]]
    run athanor usage --by colour
    [ "$status" -eq 2 ]
}
