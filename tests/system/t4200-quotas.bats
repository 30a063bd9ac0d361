#!/usr/bin/env bats
# Who may use how much: queues, projects, quotas, reservations and drains, as operators and users
# meet them.

setup_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_home
    cluster_up --workers 2 --cores 2
    cd "$ATHANOR_HOME"
    for user in ada bob; do
        athanor keys new $user --out "$ATHANOR_HOME/$user.key"
        athanor keys enrol $user "$ATHANOR_HOME/$user.key.pub"
    done
}

teardown_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_down
}

setup() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cd "$BATS_TEST_TMPDIR"
}

teardown() {
    for name in $(sql "SELECT name FROM athanor.reservations"); do athanor reserve rm "$name" >/dev/null; done
    for job in $(sql "SELECT job_id FROM athanor.jobs WHERE ended_at IS NULL"); do
        athanor cancel "$job" >/dev/null
    done
    until_true 30 sql_is "SELECT count(*) FROM athanor.jobs WHERE ended_at IS NULL" 0
}

as() { local who=$1; shift; ATHANOR_KEY="$ATHANOR_HOME/$who.key" athanor "$@"; }

# spec NAME [LINE...]: a job of one core that lasts until somebody ends it.
spec() {
    local name=$1; shift
    printf '%s\n' "athanor: 1" "name: $name" "kind: command" 'command: ["sleep", "3600"]' "$@" >"$name.yaml"
}

is_running() { [ "$(job_state "$1")" = RUNNING ]; }
waits_for() { athanor why "$1" | grep -q "$2"; }

@test "jobs name a queue and a project that exist, and show them" {
    athanor queue set night --priority 5 --max-time 2h
    athanor project set birds --open false --member ada --weight 3
    spec q "queue: night" "project: birds"
    job=$(as ada submit q.yaml --ids)
    [[ $(athanor show "$job" --json) == *'"queue":"night"'*'"project":"birds"'* ]]
    [ "$(athanor ls --queue night --column job_id)" = "$job" ]
    [ "$(sql "SELECT spec -> 'limits' ->> 'wall_time_ms' FROM athanor.jobs WHERE job_id = $job")" = 7200000 ]
    run as bob submit q.yaml
    [ "$status" -eq 4 ]
    [[ $output == *"'bob' is no member of project 'birds'"* ]]
    spec wrong "queue: nigth"
    run as ada submit wrong.yaml
    [ "$status" -eq 4 ]
    [[ $output == *"did you mean 'night'"* ]]
    spec long "queue: night" "limits: {wall_time: 3h}"
    run as ada submit long.yaml
    [[ $output == *"queue 'night' takes jobs of at most 2h"* ]]
}

@test "only operators configure, and nonsense is refused with what would be accepted" {
    run as ada queue set night --priority 100
    [ "$status" -eq 4 ]
    [[ $output == *"only operators"* ]]
    run athanor quota set --user ada --jobs -3
    [ "$status" -eq 4 ]
    [[ $output == *"expected a whole number from 0"* ]]
    run athanor quota set --user adda --jobs 3
    [[ $output == *"did you mean 'ada'"* ]]
    run athanor quota set --jobs 3
    [[ $output == *"needs a user, a project or a queue"* ]]
    run athanor quota set --user ada --gpu-hours 5/fortnight
    [ "$status" -eq 2 ]
    run athanor quota weights half_life_ms=1
    [ "$status" -eq 4 ]
    [ "$(sql "SELECT count(*) FROM athanor.quotas")" = 0 ]
    [ "$(athanor queue --json | grep -c '"priority":100')" = 0 ]
}

@test "a job beyond a quota waits and says why, until the quota is raised or taken away" {
    athanor quota set --user '*' --jobs 1
    spec one
    first=$(as ada submit one.yaml --ids)
    second=$(as ada submit one.yaml --ids)
    other=$(as bob submit one.yaml --ids)
    until_true 30 is_running "$first"
    until_true 30 is_running "$other"
    until_true 30 waits_for "$second" "quota 'user=\*' (user=ada): 1 of 1 jobs"
    [[ $(athanor quota --json) == *'"instance":"user=ada"'* ]]
    athanor quota set --user ada --jobs 2
    until_true 30 is_running "$second"
    athanor quota rm --user ada
    athanor quota rm --user '*'
    sql_is "SELECT count(*) FROM athanor.quotas" 0
}

@test "a flood of submits is refused at the limit of waiting jobs, and nothing of it is kept" {
    athanor quota set --user bob --queued 3 --jobs 0
    spec wave "array: 3"
    as bob submit wave.yaml
    run as bob submit wave.yaml
    [ "$status" -eq 4 ]
    [[ $output == *"lets 3 wait"* ]]
    [ "$(sql "SELECT count(*) FROM athanor.jobs WHERE account = 'bob' AND ended_at IS NULL")" = 3 ]
    [ "$(sql "SELECT queued_used FROM athanor.quota_uses WHERE scope = 'user=bob'")" = 3 ]
    athanor quota rm --user bob
}

@test "a maintenance keeps jobs away that would not be over, and lets short ones pass" {
    athanor reserve add repair --from +10m --until +20m --reason disks
    run athanor reserve add repair --from +10m --until +30m
    [ "$status" -eq 4 ]
    [[ $output == *"there is another reservation 'repair'"* ]]
    spec endless
    spec brief "limits: {wall_time: 5m}"
    endless=$(as ada submit endless.yaml --ids)
    brief=$(as ada submit brief.yaml --ids)
    until_true 30 is_running "$brief"
    until_true 30 waits_for "$endless" "reservation 'repair' begins in"
    [[ $(athanor reserve --json) == *'"state":"coming"'* ]]
    athanor reserve rm repair
    until_true 30 is_running "$endless"
}

@test "a window that stops, and is for one project, moves the jobs of others away" {
    athanor project set fish
    athanor queue set quick
    spec guest "limits: {stop_grace: 1s}" "resources: {cores: 2}"
    spec owner "project: fish" "resources: {cores: 2}"
    guest=$(as ada submit guest.yaml --ids)
    until_true 30 is_running "$guest"
    worker=$(sql "SELECT worker FROM athanor.runs WHERE job_id = $guest")
    athanor reserve add demo --from now --until +1h --workers "$worker" --for project:fish --stop true
    until_true 60 sql_is "SELECT count(*) FROM athanor.runs WHERE job_id = $guest AND cause = 'preempted'" 1
    until_true 30 is_running "$guest"
    sql_is "SELECT count(*) FROM athanor.runs WHERE job_id = $guest AND worker = '$worker' AND ended_at IS NULL" 0
    owner=$(as ada submit owner.yaml --ids)
    until_true 30 is_running "$owner"
    sql_is "SELECT worker FROM athanor.runs WHERE job_id = $owner" "$worker"
    athanor reserve rm demo
}

@test "a drain with a deadline moves what still runs, and does not count it as a try" {
    spec mover "limits: {stop_grace: 1s}" "retry: {attempts: 1}"
    job=$(as ada submit mover.yaml --ids)
    until_true 30 is_running "$job"
    worker=$(sql "SELECT worker FROM athanor.runs WHERE job_id = $job")
    athanor drain "$worker" --by 1s --reason "new fan"
    until_true 60 sql_is "SELECT string_agg(coalesce(cause, 'runs'), ' ' ORDER BY number) FROM athanor.runs
                           WHERE job_id = $job" "drained runs"
    until_true 30 is_running "$job"
    sql_is "SELECT attempts_spent FROM athanor.job WHERE job_id = $job" 1
    [ "$(sql "SELECT worker FROM athanor.runs WHERE job_id = $job AND ended_at IS NULL")" != "$worker" ]
    athanor undrain "$worker"
    sql_is "SELECT count(*) FROM athanor.workers WHERE drained OR drain_by_at IS NOT NULL" 0
}

@test "configuration and use outlive the coordinator" {
    athanor queue set kept --preemption 2 --evicts true
    athanor quota set --user ada --queue kept --cores 1 --gpu-hours 1.5/week --weight 1 2>/dev/null ||
        athanor quota set --user ada --queue kept --cores 1 --gpu-hours 1.5/week
    athanor quota set --user ada --weight 4
    athanor quota weights age_per_hour=7
    spec kept "queue: kept"
    job=$(as ada submit kept.yaml --ids)
    until_true 30 is_running "$job"
    kill -9 "$(pid_of coordinator)"
    athanor up
    next=$(as ada submit kept.yaml --ids)
    until_true 30 waits_for "$next" "quota 'user=ada queue=kept' (user=ada queue=kept): 1 of 1 cores"
    [ "$(sql "SELECT value FROM athanor.settings WHERE name = 'age_per_hour'")" = 7 ]
    [ "$(sql "SELECT weight FROM athanor.shares WHERE kind = 'account' AND name = 'ada'")" = 4 ]
    [ "$(sql "SELECT factor < 1 FROM athanor.shares WHERE kind = 'account' AND name = 'ada'")" = t ]
    [[ $(athanor queue kept 2>&1) == *"expected ls, set or rm"* ]]
    [[ $(athanor queue ls kept --json) == *'"evicts":true'* ]]
    run athanor queue rm kept
    [[ $output == *"have not ended use it"* ]]
}

@test "an exclusive job is charged for the whole of its worker, everywhere" {
    athanor quota set --user ada --cores 3
    spec alone 'resources: {exclusive: true}' 'array: 2'
    as ada submit alone.yaml
    first=$(sql "SELECT job_id FROM athanor.jobs WHERE name = 'alone-0'")
    until_true 30 is_running "$first"
    [ "$(sql "SELECT cores_used FROM athanor.quota_uses WHERE scope = 'user=ada'")" = 2 ]
    [ "$(sql "SELECT cores_now FROM athanor.shares WHERE name = 'ada'")" = 2 ]
    [ "$(sql "SELECT cores, gpus FROM athanor.usage_ledger WHERE job_id = $first AND attempt_id IS NOT NULL")" = "2|0" ]
    waits_for $((first + 1)) "quota 'user=ada' (user=ada): 2 of 3 cores are in use, and the job needs 2"
    athanor check --json alone.yaml | grep -q '"cores": *2'
    athanor quota rm --user ada
    until_true 30 is_running $((first + 1))
}
