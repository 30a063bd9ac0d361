#!/usr/bin/env bats
# A worker whose disk is full says so in the evidence.

setup_file() {
    source "$BATS_TEST_DIRNAME/../system/cluster.bash"
    [ "$(id -u)" = 0 ] || skip "needs root, to mount a small disk in a namespace of its own"
    cluster_home
    mkdir -p "$ATHANOR_HOME/workers/worker-1"
    unshare -m sh -c "mount -t tmpfs -o size=2m,mode=755 none '$ATHANOR_HOME/workers/worker-1' &&
        exec athanor up --workers 1" >"$ATHANOR_HOME/up.out" 2>&1 || { cat "$ATHANOR_HOME/up.out"; return 1; }
}

teardown_file() {
    source "$BATS_TEST_DIRNAME/../system/cluster.bash"
    [ -z "$ATHANOR_HOME" ] || cluster_down
}

setup() {
    source "$BATS_TEST_DIRNAME/../system/cluster.bash"
    cd "$BATS_TEST_TMPDIR"
    athanor undrain worker-1 >/dev/null # a disk that is full again and again brings quarantine
}

on_disk() { nsenter -t "$(pid_of worker-1)" -m "$@"; }

@test "an attempt that a full disk ends names the full disk" {
    on_disk dd if=/dev/zero of="$ATHANOR_HOME/workers/worker-1/fill" bs=4k 2>/dev/null || true
    printf 'athanor: 1\nname: full\nkind: command\nretry: {attempts: 1}\ncommand: ["true"]\n' >job.yaml
    id=$(athanor submit job.yaml --ids)
    # Its end is told once there is room for the report.
    until_true 30 grep -q "No space left on device" "$ATHANOR_HOME/log/worker-1.log"
    on_disk rm "$ATHANOR_HOME/workers/worker-1/fill"
    run athanor wait "$id"
    [ "$status" -eq 1 ]
    [[ $(sql "SELECT cause || ': ' || evidence FROM athanor.runs WHERE job_id = $id") == "launch_failed: "*"No space left on device"* ]]
    # The job is not to blame, the node is; once is no reason for quarantine.
    [[ $(sql "SELECT kind || ' ' || evidence FROM athanor.worker_incidents WHERE job_id = $id") == "launch_failed "*"No space left on device"* ]]
    [[ $(athanor workers --incidents) == *launch_failed*"No space left"* ]]
    [ "$(sql "SELECT count(*) FROM athanor.workers WHERE quarantine_reason IS NULL")" = 1 ]
}

@test "a shepherd that dies on a full disk leaves evidence of the full disk" {
    printf 'athanor: 1\nname: full\nkind: command\nretry: {attempts: 1}\ncommand: [sleep, "1000"]\n' >job.yaml
    id=$(athanor submit job.yaml --ids)
    until_true 30 sql_is "SELECT state FROM athanor.jobs WHERE job_id = $id" RUNNING
    on_disk dd if=/dev/zero of="$ATHANOR_HOME/workers/worker-1/fill" bs=4k 2>/dev/null || true
    shepherd=$(sql "SELECT placement ->> 'shepherd_pid' FROM athanor.runs WHERE job_id = $id")
    kill -9 "$shepherd"
    until_true 30 grep -q "the disk of .* has 0 bytes" "$ATHANOR_HOME/log/worker-1.log"
    on_disk rm "$ATHANOR_HOME/workers/worker-1/fill"
    run athanor wait "$id"
    [ "$status" -eq 1 ]
    [[ $(sql "SELECT cause || ': ' || evidence FROM athanor.runs WHERE job_id = $id") == "shepherd_lost: "*"No space left on device"* ]]
}

older_than() { [ "$(ps -o etimes= -p "$1")" -ge "$2" ] 2>/dev/null; } # PID SECONDS

@test "a program hears that its report is kept when the disk has room for it, not before" {
    work=$ATHANOR_HOME/work
    mkdir -p "$work/c" && chmod -R 777 "$work"
    cat >"$work/p.sh" <<'S'
cd "$1"
touch ready
until [ -e full ]; do sleep 0.05; done
athanor report event long "$(printf '%20000s' x)" &
cp -r c "$ATHANOR_JOB_DIR/"
athanor report checkpoint --step 1 "$ATHANOR_JOB_DIR/c" && touch told &
echo $! >pid
wait
S
    echo w >"$work/c/weights"
    printf 'athanor: 1\nname: patient\nkind: command\nenv: {PATH: "%s"}\ncommand: [sh, %s/p.sh, %s]\n' "$PATH" "$work" "$work" >job.yaml
    id=$(athanor submit job.yaml --ids)
    until_true 30 test -e "$work/ready"
    on_disk dd if=/dev/zero of="$ATHANOR_HOME/workers/worker-1/fill" bs=4k 2>/dev/null || true
    touch "$work/full"
    until_true 30 test -s "$work/pid"
    until_true 30 older_than "$(cat "$work/pid")" 2 # it waits: an answer comes in milliseconds
    [ ! -e "$work/told" ]
    on_disk rm "$ATHANOR_HOME/workers/worker-1/fill"
    athanor wait "$id"
    [ -e "$work/told" ]
    [ "$(sql "SELECT count(*) FROM athanor.checkpoints WHERE job_id = $id")" = 1 ]
}

kept_away_by() { athanor workers --json | jq '.[0].kept_away' | grep -F "$1"; }

# The last one: it ends the cluster.
@test "a disk that stays full is told by name while somebody waits for it, and does not hold up down --force" {
    work=$ATHANOR_HOME/work
    mkdir -p "$work" && chmod 777 "$work"
    printf 'cd %s\necho "$TMPDIR" >tmp\nuntil [ -e filled ]; do sleep 0.05; done\nseq 100000\n' "$work" >"$work/q.sh" # more than the sweep makes room for
    printf 'athanor: 1\nname: waits\nkind: command\ncommand: [sh, %s/q.sh]\n' "$work" >job.yaml
    id=$(athanor submit job.yaml --ids)
    until_true 30 test -s "$work/tmp"
    kept_away_by null
    on_disk dd if=/dev/zero of="$ATHANOR_HOME/workers/worker-1/fill" bs=4k 2>/dev/null || true
    touch "$work/filled"
    full="disk full: '$ATHANOR_HOME/workers/worker-1/attempts' has 0 bytes"
    until_true 30 kept_away_by "$full"
    athanor top --json | grep -qF "$full"
    grep -qF "$full" "$ATHANOR_HOME/log/worker-1.log"
    # Room again, and full again: the node is well in between.
    on_disk rm "$ATHANOR_HOME/workers/worker-1/fill"
    athanor wait "$id"
    until_true 30 kept_away_by null

    rm "$work"/{tmp,filled}
    id=$(athanor submit job.yaml --ids)
    until_true 30 test -s "$work/tmp"
    on_disk dd if=/dev/zero of="$ATHANOR_HOME/workers/worker-1/fill" bs=4k 2>/dev/null || true
    touch "$work/filled"
    shepherd=$(sql "SELECT placement ->> 'shepherd_pid' FROM athanor.runs WHERE job_id = $id")
    until_true 30 test ! -e "$(cat "$work/tmp")" # it has swept, and waits
    until_true 30 kept_away_by "$full"
    kill -0 "$shepherd"
    run athanor down --force --timeout 2s
    echo "$output"
    [ "$status" -eq 0 ]
    [[ $output != *killed* ]]
    until_true 10 test ! -d "/proc/$shepherd" # reaped a moment later
    [ -z "$(pgrep -f "$ATHANOR_HOME/")" ]
}
