# cluster.bash - a private cluster per test file: its own ATHANOR_HOME, PostgreSQL, keys, ports.
#
# Sourced by every *.bats here. ATHANOR_BUILD names the build folder (default build/).

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${ATHANOR_BUILD:-$root/build}
case $build in /*) ;; *) build=$root/$build ;; esac
PATH=$build/bin:$PATH
specs=$root/tests/system/specs

cluster_home() {
    ATHANOR_HOME=$(mktemp -d "${ATHANOR_TEST_SCRATCH:-${TMPDIR:-/tmp}}/cluster-XXXXXX")
    chmod 755 "$ATHANOR_HOME"
    export ATHANOR_HOME
}

cluster_up() { # [athanor up options]
    athanor up "${@:---workers=1}" >"$ATHANOR_HOME/up.out" 2>&1 || { cat "$ATHANOR_HOME/up.out"; return 1; }
}

cluster_down() {
    athanor down --force >"$ATHANOR_HOME/down.out" 2>&1 || cat "$ATHANOR_HOME/down.out"
    rm -rf "$ATHANOR_HOME"
}

sql() { athanor sql -- -At -c "$1"; }

# until_true SECONDS COMMAND...: waits for a condition, bounded; also where bash, after a trap that
# ran amid it, no longer takes `return`.
until_true() {
    local left=$(($1 * 10)); shift
    while [ $((left -= 1)) -ge 0 ]; do
        "$@" >/dev/null 2>&1 && return 0
        read -rt 0.1 <> <(:) || true
    done
    echo "not true in time: $*"
    return 1
}

sql_is() { [ "$(sql "$1")" = "$2" ]; }

job_state() { sql "SELECT state FROM athanor.jobs WHERE job_id = $1"; }

pid_of() { # coordinator | worker-1 | postgres
    cat "$ATHANOR_HOME/run/$1.pid" | head -1
}

# ---- several coordinators ---------------------------------------------------------------------

leader() { sql "SELECT name FROM athanor.coordinators WHERE state = 'leader'"; }

leader_pid() { leader | cut -d: -f2; }

leads_another_than() { # NAME
    local now; now=$(leader)
    [ -n "$now" ] && [ "$now" != "$1" ]
}

# Of a process that is stopped and continued: it has said so since.
stands_by_since() { # NAME TIME
    sql_is "SELECT state || ' ' || (seen_at > '$2') FROM athanor.coordinators WHERE name = '$1'" "standby true"
}

now_in_sql() { sql "SELECT clock_timestamp()"; }

engines_of() { # JOB: sets pids, of its ranks; by builtins, for those who are in a hurry
    local folder name environment
    pids=()
    for folder in /proc/[0-9]*; do
        { read -r name <"$folder/comm" && [ "$name" = athanor-engine ] && mapfile -d '' environment <"$folder/environ"; } 2>/dev/null || continue
        [[ " ${environment[*]} " != *" ATHANOR_JOB_DIR=$ATHANOR_HOME/"*([^ ])"/$1 "* ]] || pids+=("${folder#/proc/}")
    done
}

# ---- workers with other options ---------------------------------------------------------------

gone() { ! kill -0 "$1" 2>/dev/null; }

worker_with() { # NAME OPTIONS...: starts it again with these besides
    local pid arguments program before; pid=$(pid_of "$1")
    before=$(sql "SELECT incarnation FROM athanor.worker WHERE name = '$1'")
    mapfile -d '' arguments <"/proc/$pid/cmdline"
    program=$(readlink "/proc/$pid/exe")
    kill "$pid"
    until_true 20 gone "$pid"
    "$program" "${arguments[@]:1}" "${@:2}" 2>>"$ATHANOR_HOME/log/$1.log" 3>&- &
    echo $! >>"$ATHANOR_HOME/by-hand"
    until_true 20 sql_is "SELECT state = 'OK' AND incarnation <> $before FROM athanor.worker WHERE name = '$1'" t
}

by_hand_end() { # those that worker_with has started; before cluster_down
    local pid
    [ -f "$ATHANOR_HOME/by-hand" ] || return 0
    xargs -r kill <"$ATHANOR_HOME/by-hand" || true
    for pid in $(cat "$ATHANOR_HOME/by-hand"); do until_true 20 gone "$pid"; done
}
