# hosts.bash - several hosts on this machine: each its own network, name, /dev/shm and TMPDIR.
#
# A host is a network namespace on a switch of ours, with one address and no other way out, and a
# UTS and a mount namespace that a sleeping process holds. Beside its link each has a bridge
# "docker0", with an address that is the same on all, as container engines leave it: what picks an
# interface by itself picks that one and hangs. Head runs the coordinator. PostgreSQL is reached
# by a unix socket. Needs root. Sourced after cluster.bash.

tag=ath$$ hosts_net=10.78.0
hosts=() # w1 ...
declare -A holder pid

hosts_possible() {
    [ "$(id -u)" = 0 ] || { echo "network namespaces need root"; return 1; }
    ip netns add "$tag-probe" 2>/dev/null || { echo "network namespaces cannot be made here"; return 1; }
    ip netns del "$tag-probe"
}

address() { # head | w1 ...
    case $1 in
        head) echo $hosts_net.10 ;;
        *) echo $hosts_net.1${1#w} ;;
    esac
}

# In place of the shell: $! of a background call in a subshell is the program itself.
on() { # HOST COMMAND...
    local host=$1; shift
    nsenter -t "${holder[$host]}" -n -u -m -- "$@"
}

host_make() { # NAME
    ip netns add "$tag-$1"
    ip -n "$tag-$1" link add name docker0 type bridge
    ip -n "$tag-$1" addr add 172.17.0.1/16 dev docker0
    ip -n "$tag-$1" link set docker0 up
    ip -n "$tag-switch" link add "v-$1" type veth peer name eth0 netns "$tag-$1"
    ip -n "$tag-switch" link set "v-$1" master br0 up
    ip -n "$tag-$1" addr add "$(address "$1")/24" dev eth0
    ip -n "$tag-$1" link set eth0 up
    ip -n "$tag-$1" link set lo up
    mkdir -p "$ATHANOR_HOME/hosts/$1/tmp"
    nsenter --net="/run/netns/$tag-$1" -- unshare --uts --mount -- sh -c \
        'hostname "$1" && mount -t tmpfs -o size=1g none /dev/shm && touch "$2" && exec sleep infinity' \
        sh "$1" "$ATHANOR_HOME/hosts/$1/up" >>"$ATHANOR_HOME/log/hosts" 2>&1 3>&- &
    holder[$1]=$! # with no output of ours: who reads it would wait for this one too
    disown $! # its end is not news
    until_true 10 test -e "$ATHANOR_HOME/hosts/$1/up"
}

hosts_make() { # COUNT
    local i
    ip netns add "$tag-switch"
    ip -n "$tag-switch" link add name br0 type bridge
    ip -n "$tag-switch" link set br0 up
    for ((i = 1; i <= $1; i++)); do hosts+=("w$i"); done
    for i in head "${hosts[@]}"; do host_make "$i"; done
}

link() { ip -n "$tag-switch" link set "v-$1" "$2"; } # HOST up|down

# What HOST sends to OTHER (or to all) is lost; what it is sent arrives.
mute() { # HOST [OTHER]
    local to=
    [ -z "${2:-}" ] || to="ip daddr $(address "$2")"
    nsenter --net="/run/netns/$tag-$1" -- nft -f - <<N
table inet mute { chain out { type filter hook output priority 0; oifname "eth0" $to drop; }; }
N
}

unmute() { nsenter --net="/run/netns/$tag-$1" -- nft delete table inet mute; } # HOST

# ---- the cluster ------------------------------------------------------------------------------

pg_bin() { echo /usr/lib/postgresql/*/bin | tr ' ' '\n' | tail -1; }

# Words before a command; no function, so that $! of a background call is the program itself.
as_postgres=(setpriv --reuid=postgres --regid="$(id -g postgres)" --clear-groups)

coordinator_start() {
    ATHANOR_DB="host=$ATHANOR_HOME user=athanor dbname=athanor" \
        nsenter -t "${holder[head]}" -n -u -m -- "$build/bin/athanor-coordinator" --single \
        --key "$ATHANOR_HOME/keys/server.key" --listen "tcp://$(address head):7117" \
        --principals "$ATHANOR_HOME/principals" "${coordinator_options[@]}" \
        >>"$ATHANOR_HOME/log/head" 2>&1 3>&- &
    pid[head]=$!
}

worker_start() { # HOST [NAME of a second worker there]
    local name=${2:-$1}
    TMPDIR=$ATHANOR_HOME/hosts/$1/tmp nsenter -t "${holder[$1]}" -n -u -m -- "$build/bin/athanor-worker" \
        --name "$name" --keys "$ATHANOR_HOME/keys/$name.key" \
        --server-key "$ATHANOR_HOME/keys/server.key.pub" --coordinator "tcp://$(address head):7117" \
        --state "$ATHANOR_HOME/workers/$name" --jobs-dir "$ATHANOR_HOME/jobs" --cores 4 \
        --memory 4GiB --gpus none --allow-root-jobs >>"$ATHANOR_HOME/log/$name" 2>&1 3>&- &
    pid[$name]=$!
}

athanor() { "$build/bin/athanor" "$@"; }

# The client talks from the head, whose unix sockets and files are ours.
cli() {
    ATHANOR_COORDINATOR=tcp://$(address head):7117 ATHANOR_KEY=$ATHANOR_HOME/keys/client.key \
        ATHANOR_SERVER_KEY=$ATHANOR_HOME/keys/server.key.pub on head "$build/bin/athanor" "$@"
}

sql() { psql -h "$ATHANOR_HOME" -U athanor -d athanor -At -c "$1"; }

all_joined() { sql_is "SELECT count(*) FROM athanor.workers WHERE state = 'OK'" "${#hosts[@]}"; }

hosts_up() { # COUNT [coordinator options]
    local name
    coordinator_options=("${@:2}")
    mkdir -p "$ATHANOR_HOME"/{log,keys,workers,jobs,specs}
    hosts_make "$1"
    install -d -o postgres "$ATHANOR_HOME/db"
    chown postgres "$ATHANOR_HOME" # for the database's socket
    "${as_postgres[@]}" "$(pg_bin)/initdb" -D "$ATHANOR_HOME/db" -U athanor -A trust -E UTF8 --locale=C --no-sync >/dev/null
    "${as_postgres[@]}" "$(pg_bin)/postgres" -D "$ATHANOR_HOME/db" -c listen_addresses= -c fsync=off \
        -c unix_socket_directories="$ATHANOR_HOME" -c shared_buffers=64MB >>"$ATHANOR_HOME/log/db" 2>&1 3>&- &
    pid[db]=$!
    until_true 30 psql -h "$ATHANOR_HOME" -U athanor -d postgres -At -c 'SELECT 1'
    psql -q -h "$ATHANOR_HOME" -U athanor -d postgres -c 'CREATE DATABASE athanor'
    for name in server client "${hosts[@]}"; do
        "$build/bin/athanor" keys new "$name" --out "$ATHANOR_HOME/keys/$name.key" >/dev/null
    done
    for name in client "${hosts[@]}"; do
        echo "$name $([ "$name" = client ] && echo admin || echo worker)" \
            "$(sed -n 's/^public-key = "\(.*\)"$/\1/p' "$ATHANOR_HOME/keys/$name.key.pub")"
    done >"$ATHANOR_HOME/principals"
    coordinator_start
    for name in "${hosts[@]}"; do worker_start "$name"; done
    until_true 60 all_joined
}

process_ended() { # NAME: of ours, that was sent a signal
    wait "${pid[$1]}" 2>/dev/null || true
    unset "pid[$1]"
}

host_is_empty() { [ -z "$(ip netns pids "$tag-$1" 2>/dev/null)" ]; }

# Of ours, that was asked to: 1, with where it is, if it had to be killed.
ends() { # NAME
    local id=${pid[$1]}
    until_true 30 gone "$id" && return
    echo "$1 (process $id) does not end:"
    gdb -p "$id" -batch -ex 'thread apply all bt' 2>&1 | grep -E '^(#|Thread)'
    kill -KILL "$id"
    return 1
}

hosts_down() { # 1: somebody did not end by itself
    local name left rc=0
    for name in "${!pid[@]}"; do kill -CONT "${pid[$name]}"; kill -TERM "${pid[$name]}"; done 2>/dev/null
    for name in "${!holder[@]}"; do kill -KILL "${holder[$name]}" 2>/dev/null; done
    # What is left in our namespaces is ours: shepherds and jobs of a run that failed.
    for name in "${hosts[@]}" head; do
        for left in $(ip netns pids "$tag-$name" 2>/dev/null); do
            [ "$left" = "${pid[$name]:-}" ] || kill -KILL "$left" 2>/dev/null
        done
    done
    for name in "${!pid[@]}"; do ends "$name" || rc=1; done
    for name in "${hosts[@]}" head; do until_true 10 host_is_empty "$name"; done # they still write
    for name in "${hosts[@]}" head switch; do ip netns del "$tag-$name" 2>/dev/null; done
    rm -rf "$ATHANOR_HOME"
    return $rc
}

# ---- what is on a host ------------------------------------------------------------------------

# Processes, shared memory and temporary directories of an attempt, or of any; empty: none.
left_on() { # HOST [ATTEMPT]
    local left attempt=${2:-[0-9]*}
    for left in $(ip netns pids "$tag-$1"); do
        tr '\0' '\n' <"/proc/$left/environ" 2>/dev/null | grep -q "^ATHANOR_ATTEMPT_ID=$attempt\$" ||
            tr '\0' ' ' <"/proc/$left/cmdline" 2>/dev/null | grep -q "shepherd .*/attempts/$attempt \$" || continue
        echo "$1: process $left $(tr '\0' ' ' <"/proc/$left/cmdline" 2>/dev/null)"
    done
    find "/proc/${holder[$1]}/root/dev/shm" "$ATHANOR_HOME/hosts/$1/tmp" -mindepth 1 -maxdepth 1 \
        ${2:+-name "athanor-$2-*"} 2>/dev/null | sed "s/^/$1: /"
}

nothing_left() { # ATTEMPT or "" HOST...
    local host attempt=$1; shift
    for host in "$@"; do [ -z "$(left_on "$host" $attempt)" ] || return 1; done
}
