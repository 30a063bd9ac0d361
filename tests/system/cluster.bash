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

# until_true SECONDS COMMAND...: waits for a condition, bounded.
until_true() {
    local left=$(($1 * 10)); shift
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        [ $left -gt 0 ] || { echo "not true in time: $*"; return 1; }
        read -rt 0.1 <> <(:) || true
    done
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
