# hosts.bash - three coordinators, four workers, PostgreSQL and clients, each on a host of its own:
# a network namespace behind one switch. Sourced by ../chaos.sh, which has processes, mounts,
# /dev/shm and namespaces to itself.

hosts="db client c1 c2 c3 w1 w2 w3 w4"
coordinators="c1 c2 c3" workers="w1 w2 w3 w4"
net=10.77.0
endpoints=tcp://$net.11:7117,tcp://$net.12:7117,tcp://$net.13:7117
bindir=$(echo /usr/lib/postgresql/*/bin | tr ' ' '\n' | tail -1)
declare -A pid
export PGCONNECT_TIMEOUT=5 # a server that is stopped takes connections and says nothing

address() { # HOST
    case $1 in
        db) echo $net.2 ;;
        client) echo $net.3 ;;
        c?) echo $net.1${1#c} ;;
        w?) echo $net.2${1#w} ;;
    esac
}

net_up() {
    local name
    ip netns add switch
    ip -n switch link add br0 type bridge
    ip -n switch link set br0 up
    for name in $hosts; do
        ip netns add "$name"
        ip -n switch link add "v-$name" type veth peer name eth0 netns "$name"
        ip -n switch link set "v-$name" master br0 up
        ip -n "$name" addr add "$(address "$name")/24" dev eth0
        ip -n "$name" link set eth0 up
        ip -n "$name" link set lo up
    done
}

net_down() {
    local name
    for name in $hosts switch; do ip netns del "$name"; done
}

link() { ip -n switch link set "v-$1" "$2"; } # HOST up|down

# ---- processes: started in the background here and not in functions of their own, so that $! is
# ---- the program itself

as_postgres() { setpriv --reuid=postgres --regid="$(id -g postgres)" --clear-groups "$@"; }

start() { # HOST
    case $1 in
        db)
            ip netns exec db setpriv --reuid=postgres --regid="$(id -g postgres)" --clear-groups \
                "$bindir/postgres" -D "$ATHANOR_HOME/db" >>"$ATHANOR_HOME/log/db" 2>&1 & ;;
        c?)
            ATHANOR_DB="host=$net.2 user=athanor dbname=athanor" ip netns exec "$1" \
                "$build/bin/athanor-coordinator" --key "$ATHANOR_HOME/keys/server.key" \
                --listen "tcp://$(address "$1"):7117" --principals "$ATHANOR_HOME/principals" \
                >>"$ATHANOR_HOME/log/$1" 2>&1 & ;;
        w?)
            ip netns exec "$1" "$build/bin/athanor-worker" --name "$1" --keys "$ATHANOR_HOME/keys/$1.key" \
                --server-key "$ATHANOR_HOME/keys/server.key.pub" --coordinator "$endpoints" \
                --state "$ATHANOR_HOME/workers/$1" --jobs-dir "$ATHANOR_HOME/jobs" \
                --tmp "$ATHANOR_HOME/tmp/$1" --cores 2 --memory 4GiB --gpus none --allow-root-jobs \
                >>"$ATHANOR_HOME/log/$1" 2>&1 & ;;
    esac
    pid[$1]=$!
}

is_alive() { kill -0 "${pid[$1]}" 2>/dev/null; } # HOST

is_dead() { ! is_alive "$1"; }

all_of() { ip netns pids "$1"; } # HOST: every process there

# The daemon, or all that runs there; waits until they are gone. The shell's word on it is not wanted.
kill_hard() { # HOST daemon|everything
    {
        if [ "$2" = daemon ]; then
            kill -KILL "${pid[$1]}" || true
        else
            while [ -n "$(all_of "$1")" ]; do all_of "$1" | xargs -r kill -KILL || true; done
        fi
        wait "${pid[$1]}" || true
    } 2>/dev/null
}

restart() { # HOST; backends of a killed postmaster end by themselves
    is_alive "$1" && return
    [ "$1" != db ] || until_true 60 is_empty db
    start "$1"
}

is_empty() { [ -z "$(all_of "$1")" ]; } # HOST

sql() { psql -h "$ATHANOR_HOME" -U athanor -d athanor -At -c "$1"; }

client() { # VERB ARGUMENT...
    ip netns exec client env ATHANOR_COORDINATOR="$endpoints" ATHANOR_KEY="$ATHANOR_HOME/keys/client.key" \
        ATHANOR_SERVER_KEY="$ATHANOR_HOME/keys/server.key.pub" "$build/bin/athanor" "$@" --timeout 180s
}

# ---- the cluster ------------------------------------------------------------------------------

key_of() { sed -n 's/^public-key = "\(.*\)"$/\1/p' "$ATHANOR_HOME/keys/$1.key.pub"; }

db_up() {
    install -d -o postgres "$ATHANOR_HOME/db"
    as_postgres "$bindir/initdb" -D "$ATHANOR_HOME/db" -U athanor -A trust -E UTF8 --locale=C --no-sync >/dev/null
    chown postgres "$ATHANOR_HOME" # for its socket
    cat >>"$ATHANOR_HOME/db/postgresql.conf" <<CONF
listen_addresses = '$net.2'
unix_socket_directories = '$ATHANOR_HOME'
max_connections = 80
shared_buffers = 64MB
CONF
    echo "host all all $net.0/24 trust" >>"$ATHANOR_HOME/db/pg_hba.conf"
    start db
    until_true 60 psql -h "$ATHANOR_HOME" -U athanor -d postgres -At -c 'SELECT 1'
    psql -q -h "$ATHANOR_HOME" -U athanor -d postgres -c 'CREATE DATABASE athanor'
}

cluster_start() {
    local name
    mkdir -p "$ATHANOR_HOME"/{log,keys,workers,jobs,specs,tmp/w1,tmp/w2,tmp/w3,tmp/w4}
    db_up
    for name in server client $workers; do
        "$build/bin/athanor" keys new "$name" --out "$ATHANOR_HOME/keys/$name.key" >/dev/null
    done
    echo "root admin $(key_of client)" >"$ATHANOR_HOME/principals"
    for name in $workers; do echo "$name worker $(key_of "$name")"; done >>"$ATHANOR_HOME/principals"
    for name in $coordinators $workers; do start "$name"; done
    until_true 120 is_healthy
}

is_healthy() {
    sql_is "SELECT count(*) FROM athanor.coordinators WHERE state IN ('leader', 'standby')" 3 &&
        sql_is "SELECT count(*) FROM athanor.workers WHERE state = 'OK'" 4
}

# On a worker's host the daemon is left, and the shepherd that waits to be forked.
no_job_is_left() {
    local name
    [ -z "$(find "$ATHANOR_HOME"/workers/w?/attempts "$ATHANOR_HOME"/tmp/w? -mindepth 1 -maxdepth 1)" ] || return 1
    for name in $workers; do
        [ "$(all_of "$name" | wc -l)" -le 2 ] || return 1
    done
}

# All daemons end when asked, and say that it went well.
cluster_stop() {
    local name status
    for name in $workers $coordinators db; do
        kill -TERM "${pid[$name]}"
        status=0
        wait "${pid[$name]}" || status=$?
        must "exit status of $name" 0 $status
    done
}
