#!/usr/bin/env bash
# Three coordinators, four workers and PostgreSQL, each in a network namespace of its own, run jobs
# of mixed kinds while everything is killed, paused and cut off, by a schedule that follows from a
# seed. Then all is healed, and every job must have ended as its spec says, its program having run
# to success exactly once, and SQL must agree.
#
#   chaos.sh [--jobs N] [--faults N] [--seed N] [--train]      ATHANOR_BUILD names the build folder
#
# Needs root (namespaces); exits 77 where they cannot be made. Prints the seed and each fault; the
# same seed and number of faults give the same schedule.
set -euo pipefail
jobs=40 faults=8 seed=${ATHANOR_CHAOS_SEED:-$RANDOM$RANDOM} train=0
while [ $# -gt 0 ]; do
    case $1 in
        --jobs) jobs=$2; shift ;;
        --faults) faults=$2; shift ;;
        --seed) seed=$2; shift ;;
        --train) train=1 ;;
        *) echo "chaos.sh: unknown option '$1'" >&2; exit 2 ;;
    esac
    shift
done
source "$(dirname "${BASH_SOURCE[0]}")/cluster.bash"
athanor=$build/bin/athanor
bindir=$(echo /usr/lib/postgresql/*/bin | tr ' ' '\n' | tail -1)
tag=ath$$ net=10.77
declare -A pid

skip() { echo "SKIP: $*"; exit 77; }
[ "$(id -u)" = 0 ] || skip "network namespaces need root"
[ -x "$bindir/postgres" ] || skip "PostgreSQL's server programs are not installed"
ip netns add "$tag-probe" 2>/dev/null || skip "network namespaces cannot be made here"
ip netns del "$tag-probe"

# ---- namespaces: one switch, one address each -------------------------------------------------

address() { # NAME
    case $1 in
        db) echo $net.0.2 ;;
        c?) echo $net.0.1${1#c} ;;
        w?) echo $net.0.2${1#w} ;;
        client) echo $net.0.3 ;;
    esac
}

net_up() {
    local name
    ip netns add $tag-switch
    ip -n $tag-switch link add br0 type bridge
    ip -n $tag-switch link set br0 up
    for name in db client c1 c2 c3 w1 w2 w3 w4; do
        ip netns add $tag-$name
        ip -n $tag-switch link add v-$name type veth peer name eth0 netns $tag-$name
        ip -n $tag-switch link set v-$name master br0 up
        ip -n $tag-$name addr add "$(address $name)/16" dev eth0
        ip -n $tag-$name link set eth0 up
        ip -n $tag-$name link set lo up
    done
}

net_down() {
    local name
    for name in db client c1 c2 c3 w1 w2 w3 w4 switch; do
        ip netns del $tag-$name 2>/dev/null || true
    done
}

link() { ip -n $tag-switch link set "v-$1" "$2"; } # NAME up|down

inside() { local name=$1; shift; ip netns exec $tag-$name "$@"; }

# In the background without a function around it: $! is to be the program itself.
# ---- processes --------------------------------------------------------------------------------

endpoints=tcp://$net.0.11:7117,tcp://$net.0.12:7117,tcp://$net.0.13:7117

start_db() {
    ip netns exec $tag-db setpriv --reuid=postgres --regid="$(id -g postgres)" --clear-groups \
        "$bindir/postgres" -D "$ATHANOR_HOME/db" >>"$ATHANOR_HOME/log/db" 2>&1 &
    pid[db]=$!
}

start_coordinator() { # c1 ...
    ATHANOR_DB="host=$net.0.2 user=athanor dbname=athanor" ip netns exec "$tag-$1" "$build/bin/athanor-coordinator" \
        --key "$ATHANOR_HOME/keys/server.key" --listen "tcp://$(address "$1"):7117" \
        --principals "$ATHANOR_HOME/principals" >>"$ATHANOR_HOME/log/$1" 2>&1 &
    pid[$1]=$!
}

start_worker() { # w1 ...
    ip netns exec "$tag-$1" "$build/bin/athanor-worker" --name "$1" --keys "$ATHANOR_HOME/keys/$1.key" \
        --server-key "$ATHANOR_HOME/keys/server.key.pub" --coordinator $endpoints \
        --state "$ATHANOR_HOME/workers/$1" --jobs-dir "$ATHANOR_HOME/jobs" --cores 2 --memory 4GiB \
        --gpus none --allow-root-jobs >>"$ATHANOR_HOME/log/$1" 2>&1 &
    pid[$1]=$!
}

start() {
    case $1 in
        db) start_db ;;
        c?) start_coordinator "$1" ;;
        w?) start_worker "$1" ;;
    esac
}

await_end() { # NAME: of a process that was sent a signal
    wait "${pid[$1]}" 2>/dev/null || true
}

sql() { psql -h "$ATHANOR_HOME" -U athanor -d athanor -At -c "$1"; }

key_of() { sed -n 's/^public-key = "\(.*\)"$/\1/p' "$ATHANOR_HOME/keys/$1.key.pub"; }

cluster_start() {
    local name
    mkdir -p "$ATHANOR_HOME"/{log,keys,workers,jobs,specs}
    install -d -o postgres "$ATHANOR_HOME/db"
    setpriv --reuid=postgres --regid="$(id -g postgres)" --clear-groups \
        "$bindir/initdb" -D "$ATHANOR_HOME/db" -U athanor -A trust -E UTF8 --locale=C --no-sync >/dev/null
    chown postgres "$ATHANOR_HOME" # for its socket
    cat >>"$ATHANOR_HOME/db/postgresql.conf" <<CONF
listen_addresses = '$net.0.2'
unix_socket_directories = '$ATHANOR_HOME'
max_connections = 60
shared_buffers = 64MB
CONF
    echo "host all all $net.0.0/16 trust" >>"$ATHANOR_HOME/db/pg_hba.conf"
    start_db
    until_true 30 psql -h "$ATHANOR_HOME" -U athanor -d postgres -At -c 'SELECT 1'
    psql -q -h "$ATHANOR_HOME" -U athanor -d postgres -c 'CREATE DATABASE athanor'
    for name in server client w1 w2 w3 w4; do
        "$athanor" keys new "$name" --out "$ATHANOR_HOME/keys/$name.key" >/dev/null
    done
    {
        echo "root admin $(key_of client)"
        for name in w1 w2 w3 w4; do echo "$name worker $(key_of $name)"; done
    } >"$ATHANOR_HOME/principals"
    for name in c1 c2 c3 w1 w2 w3 w4; do start $name; done
    until_true 60 sql_is "SELECT count(*) FROM athanor.workers WHERE state = 'OK'" 4
}

ended() {
    local status=$? name
    set +e # each step, whatever the one before found
    [ $status = 0 ] || [ -z "${ATHANOR_CHAOS_KEEP:-}" ] || cp -r "$ATHANOR_HOME/log" "$ATHANOR_CHAOS_KEEP"
    for name in w1 w2 w3 w4 c1 c2 c3 db; do
        [ -n "${pid[$name]:-}" ] && kill -CONT "${pid[$name]}" 2>/dev/null && kill -TERM "${pid[$name]}" 2>/dev/null
    done
    # What is left in our namespaces is ours: shepherds and jobs of a run that failed.
    for name in db client c1 c2 c3 w1 w2 w3 w4; do
        ip netns pids $tag-$name 2>/dev/null | while read -r left; do
            [ "$left" = "${pid[$name]:-}" ] || kill -KILL "$left" 2>/dev/null
        done
    done
    wait 2>/dev/null
    net_down
    rm -rf "$ATHANOR_HOME"
}

# ---- jobs -------------------------------------------------------------------------------------

ran=
command_spec() { # NAME SHELL [LINE...]
    local name=$1 shell=$2; shift 2
    printf 'athanor: 1\nname: %s\nexperiment: chaos\nkind: command\ncommand: [sh, -c, "%s"]\nresources: {memory: 16MiB}\n' \
        "$name" "$shell"
    printf '%s\n' "$@"
}

# What a job of each kind does, and how it must end, is known from its name (check_jobs).
submit_kind() { # KIND NUMBER
    local spec=$ATHANOR_HOME/specs/$1-$2.yaml name=$1-$2 report=$build/bin/athanor
    case $1 in
        plain) command_spec "$name" "sleep 0.$(($2 % 9)); echo $name >>$ran" "priority: $(($2 % 5))" ;;
        fails) command_spec "$name" 'sleep 0.1; exit 3' ;;
        again) command_spec "$name" "[ -e \$ATHANOR_JOB_DIR/seen ] || { touch \$ATHANOR_JOB_DIR/seen; exit 7; }; echo $name >>$ran" \
            'retry: {attempts: 3, on: [exit], backoff: 200ms}' ;;
        reports) command_spec "$name" "for i in 1 2 3 4 5 6 7 8 9 10; do $report report metric loss=\$i --step \$i || exit 9; done; echo $name >>$ran" ;;
        array) command_spec "$name" "sleep 0.1; echo $name-\$ATHANOR_ARRAY_INDEX >>$ran" 'array: {count: 4, at_once: 2}' ;;
        chain)
            printf 'athanor: 1\nexperiment: chaos\njobs:\n'
            local link before=
            for link in a b c; do
                printf '  %s-%s: {kind: command, command: [sh, -c, "sleep 0.1; echo %s-%s >>%s"], resources: {memory: 16MiB}%s}\n' \
                    "$name" $link "$name" $link "$ran" "${before:+, needs: [$name-$before]}"
                before=$link
            done ;;
    esac >"$spec"
    inside client env ATHANOR_COORDINATOR=$endpoints ATHANOR_KEY="$ATHANOR_HOME/keys/client.key" \
        ATHANOR_SERVER_KEY="$ATHANOR_HOME/keys/server.key.pub" \
        "$athanor" submit "$spec" --timeout 120s --ids >>"$ATHANOR_HOME/ids" 2>>"$ATHANOR_HOME/submit.log"
}

kinds=(plain plain plain fails again reports array chain)
count_of() { # KIND: how many specs of it are submitted
    local i n=0
    for ((i = 0; i < jobs; i++)); do [ "${kinds[i % ${#kinds[@]}]}" != "$1" ] || n=$((n + 1)); done
    echo $n
}

submit_all() {
    local i
    for ((i = 0; i < jobs; i++)); do
        submit_kind "${kinds[i % ${#kinds[@]}]}" $i || { echo "submit $i failed: $(tail -1 "$ATHANOR_HOME/submit.log")" >&2; return 1; }
    done
}

train_specs() { # a tiny model, kept from ending by nothing that happens here
    sed "s|@corpus@|$ATHANOR_HOME/corpus.txt|" "$specs/kill-data.yaml" >"$ATHANOR_HOME/specs/data.yaml"
    awk 'BEGIN { srand(7); split("cat dog bird fish fox hen", n); split("sees eats likes finds", v)
        for (i = 0; i < 4000; i++) printf "the %s %s the %s\n\n", n[1+int(rand()*6)], v[1+int(rand()*4)], n[1+int(rand()*6)] }' >"$ATHANOR_HOME/corpus.txt"
    local name
    for name in data "$specs/kill-train.yaml"; do
        [ "$name" != data ] || name=$ATHANOR_HOME/specs/data.yaml
        inside client env ATHANOR_COORDINATOR=$endpoints ATHANOR_KEY="$ATHANOR_HOME/keys/client.key" \
            ATHANOR_SERVER_KEY="$ATHANOR_HOME/keys/server.key.pub" \
            "$athanor" submit "$name" --timeout 120s --ids >>"$ATHANOR_HOME/ids"
    done
}

# ---- faults -----------------------------------------------------------------------------------

state=$((seed % 2147483647))
draw() { # BOUND: into $drawn
    state=$(((state * 1103515245 + 12345) % 2147483648))
    drawn=$(((state >> 8) % $1))
}

nap() { read -rt "$(($1 / 1000)).$(printf %03d $(($1 % 1000)))" <> <(:) || true; } # MS: as long as the schedule says

fault() { # NUMBER
    local kinds=(kill-c kill-c stop-c stop-c cut-c cut-c kill-w stop-w cut-w kill-db cut-db) kind target ms
    draw ${#kinds[@]}; kind=${kinds[drawn]}
    case $kind in
        *-c) draw 3; target=c$((drawn + 1)) ;;
        *-w) draw 4; target=w$((drawn + 1)) ;;
        *) target=db ;;
    esac
    draw 40; ms=$((500 + 100 * drawn)) # half a second to 4.4 s: around the lease of 2 s
    echo "fault $1: $kind $target for $ms ms"
    case $kind in
        kill-*) kill -KILL "${pid[$target]}"; await_end $target; nap $((ms / 2))
            [ $target != db ] || until_true 30 db_is_gone
            start $target ;;
        stop-*) kill -STOP "${pid[$target]}"; nap $ms; kill -CONT "${pid[$target]}" ;;
        cut-*) link $target down; nap $ms; link $target up ;;
    esac
    draw 10; nap $((100 * drawn))
}

db_is_gone() { # backends of a killed postmaster end by themselves
    [ -z "$(ip netns pids $tag-db)" ]
}

# ---- what must hold ---------------------------------------------------------------------------

wrong=0
must() { # TEXT WANTED GOT
    [ "$2" = "$3" ] && return
    echo "WRONG: $1: expected '$2', got '$3'"
    wrong=1
}

all_have_ended() { sql_is "SELECT count(*) FROM athanor.jobs WHERE ended_at IS NULL" 0; }

in_state() { sql "SELECT count(*) FROM athanor.jobs WHERE name LIKE '$1-%' AND state = '$2'"; } # KIND STATE

check_jobs() {
    local plain fails again reports array chain
    plain=$(count_of plain) fails=$(count_of fails) again=$(count_of again)
    reports=$(count_of reports) array=$(count_of array) chain=$(count_of chain)
    must "jobs" $((plain + fails + again + reports + 4 * array + 3 * chain + 2 * train)) "$(sql 'SELECT count(*) FROM athanor.jobs')"
    must "plain jobs that succeeded" "$plain" "$(in_state plain SUCCEEDED)"
    must "failing jobs that failed" "$fails" "$(in_state fails FAILED)"
    must "retrying jobs that succeeded" "$again" "$(in_state again SUCCEEDED)"
    must "reporting jobs that succeeded" "$reports" "$(in_state reports SUCCEEDED)"
    must "elements of arrays that succeeded" $((4 * array)) "$(in_state array SUCCEEDED)"
    must "links of chains that succeeded" $((3 * chain)) "$(in_state chain SUCCEEDED)"
    [ $train = 0 ] || must "training" "SUCCEEDED SUCCEEDED" "$(sql "SELECT string_agg(state, ' ') FROM athanor.jobs WHERE experiment = 'kill'")"
    must "programs that ran to success" $((plain + again + reports + 4 * array + 3 * chain)) "$(wc -l <"$ran")"
    must "of them more than once" "" "$(sort "$ran" | uniq -d | tr '\n' ' ')"
    must "attempts of jobs that need one" "0" "$(sql "SELECT count(*) FROM (SELECT job_id FROM athanor.runs r JOIN athanor.jobs j USING (job_id) WHERE j.name !~ '^(again|train)' GROUP BY job_id HAVING count(*) <> 1) x")"
    must "causes of failing jobs" "$fails" "$(sql "SELECT count(*) FROM athanor.runs r JOIN athanor.jobs j USING (job_id) WHERE j.name LIKE 'fails-%' AND r.cause = 'exit' AND r.code = 3")"
    must "attempts of retrying jobs" "$again" "$(sql "SELECT count(*) FROM (SELECT job_id FROM athanor.runs r JOIN athanor.jobs j USING (job_id) WHERE j.name LIKE 'again-%' GROUP BY job_id HAVING string_agg(r.cause, ' ' ORDER BY r.number) = 'exit success') x")"
    must "points, each once" "$((10 * reports)) $((10 * reports))" "$(sql "SELECT count(*) || ' ' || count(DISTINCT (job_id, step)) FROM athanor.metrics WHERE name = 'loss' AND job_id IN (SELECT job_id FROM athanor.jobs WHERE name LIKE 'reports-%')")"
    must "links of chains out of order" 0 "$(sql "SELECT count(*) FROM athanor.job_dependency d JOIN athanor.jobs p ON p.job_id = d.parent_id JOIN athanor.jobs c ON c.job_id = d.job_id WHERE c.name LIKE 'chain-%' AND c.started_at < p.ended_at")"
    must "coordinators" "leader standby standby" "$(sql "SELECT string_agg(state, ' ' ORDER BY state) FROM athanor.coordinators WHERE state <> 'silent'")"
}

no_job_is_left() { [ -z "$(find "$ATHANOR_HOME"/workers/w?/attempts -mindepth 1 -maxdepth 1)" ]; }

healthy() {
    sql_is "SELECT count(*) FROM athanor.coordinators WHERE state IN ('leader', 'standby')" 3 &&
        sql_is "SELECT count(*) FROM athanor.workers WHERE state = 'OK'" 4
}

echo "seed $seed, $jobs specs, $faults faults"
cluster_home
ran=$ATHANOR_HOME/ran
trap ended EXIT
net_up
cluster_start
[ $train = 0 ] || train_specs
submit_all &
submits=$!
for ((i = 1; i <= faults; i++)); do fault $i; done
wait "$submits"
until_true 120 healthy || wrong=1
until_true 300 all_have_ended || { sql "SELECT job_id, name, state, cause FROM athanor.jobs WHERE ended_at IS NULL LIMIT 20"; wrong=1; }
until_true 60 no_job_is_left || wrong=1
check_jobs
sql "SELECT 'jobs ' || count(*) || ', attempts ' || (SELECT count(*) FROM athanor.runs) FROM athanor.jobs"
grep -h 'leading epoch' "$ATHANOR_HOME"/log/c? | wc -l | sed 's/^/terms of leadership: /'
if [ $wrong != 0 ]; then
    echo "seed $seed: not as it must be"
    sql "SELECT * FROM athanor.runs ORDER BY attempt_id" >"$ATHANOR_HOME/log/runs"
    exit 1
fi
trap - EXIT
ended
if ip netns list | grep -q "^$tag-" || [ -e "$ATHANOR_HOME" ]; then
    echo "seed $seed: namespaces or files are left"
    exit 1
fi
echo "seed $seed: every job ended as it must, and nothing is left"
