#!/usr/bin/env bats
# Secrets of jobs: read from a descriptor, found nowhere else.

setup_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_home
    cluster_up --workers 2 --cores 1 --coordinators 2
    athanor keys new bob --out "$BATS_FILE_TMPDIR/bob.key" >/dev/null
    athanor keys enrol bob "$BATS_FILE_TMPDIR/bob.key.pub"
}

teardown_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_down
}

setup() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cd "$BATS_TEST_TMPDIR"
}

job() { # NAME YAML-LINES... -> id
    local name=$1; shift
    { printf 'athanor: 1\nname: %s\nkind: command\n' "$name"; printf '%s\n' "$@"; } >"$name.yaml"
    athanor submit "$name.yaml" --ids
}

value() { # FILE: a new value, never in an argument or an environment
    head -c 24 /dev/urandom | base64 -w0 >"$1"
}

sum_of() { sha256sum "$1" | cut -c1-64; }

# Everything that processes show of themselves to others of their account.
processes_show() { # FILE
    cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\0' '\n' | grep -qFf "$1"
}

memory_holds() { # PID FILE
    python3 - "$1" "$2" <<'PY'
import sys
value = open(sys.argv[2], "rb").read()
with open(f"/proc/{sys.argv[1]}/maps") as maps, open(f"/proc/{sys.argv[1]}/mem", "rb", 0) as memory:
    for line in maps:
        area, rights = line.split()[:2]
        if rights[:2] != "rw":
            continue
        begin, end = (int(x, 16) for x in area.split("-"))
        try:
            memory.seek(begin)
            if value in memory.read(end - begin):
                sys.exit(0)
        except OSError:
            pass
sys.exit(1)
PY
}

@test "a rank and whatever runs beside it read a secret that is in no file, row, log, argument, environment or daemon" {
    value token
athanor secret set hf <token
    athanor secret ls --column name | grep -qx hf
    cat >show.sh <<'S'
sha256sum <"/dev/fd/$ATHANOR_SECRET_HF_TOKEN_FD"
touch "$1/read"
until [ -e "$1/go" ]; do sleep 0.05; done
sha256sum <"/dev/fd/$ATHANOR_SECRET_HF_TOKEN_FD"
(echo x >"/dev/fd/$ATHANOR_SECRET_HF_TOKEN_FD") 2>/dev/null && echo "it could be changed"
exit 0
S
    id=$(job show "command: [sh, $PWD/show.sh, $PWD]" "secrets: {HF_TOKEN: hf}")
    until_true 20 test -e read
    [ "$(athanor exec "$id" -- sh -c 'sha256sum </dev/fd/$ATHANOR_SECRET_HF_TOKEN_FD' | cut -c1-64)" = "$(sum_of token)" ]
    athanor exec "$id" -- sh -c 'tr "\0" "\n" </proc/self/environ' | grep -q '^ATHANOR_SECRET_HF_TOKEN_FD=[0-9]*$'
    athanor show "$id" --json >told; athanor why "$id" --json >>told
    run processes_show token
    [ "$status" = 1 ]
    for daemon in "$(leader_pid)" "$(pid_of "$(sql "SELECT worker FROM athanor.attempts WHERE job_id = $id")")"; do
        run memory_holds "$daemon" token
        [ "$status" = 1 ]
    done
    python3 -c 'import sys, time; kept = sys.stdin.read(); print(flush=True); time.sleep(60)' <token >ready &
    holder=$!
    until_true 20 test -s ready
    memory_holds "$holder" token # the search finds what is there
    kill "$holder"
    touch go
    athanor wait "$id"
    athanor logs "$id" >lines
    [ "$(cut -c1-64 lines | sort -u)" = "$(sum_of token)" ]
    [ "$(wc -l <lines)" = 2 ]
    # Rows, write-ahead log, spools, plans, logs: all of the cluster is in its home.
sql "CHECKPOINT"
    run grep -raqFf token "$ATHANOR_HOME" told
    [ "$status" = 1 ]
    grep -raqFf token .
}

@test "each attempt has the value of its start, and one whose secret is gone says so" {
    value first; value second
    athanor secret set rotated <first
    cat >twice.sh <<'S'
sha256sum <"/dev/fd/$ATHANOR_SECRET_A_FD"
touch "$1/attempt-$ATHANOR_ATTEMPT"
[ "$ATHANOR_ATTEMPT" = 2 ] && exit 0
until [ -e "$1/go" ]; do sleep 0.05; done
exit 1
S
    id=$(job twice "command: [sh, $PWD/twice.sh, $PWD]" "secrets: {A: rotated}" \
        "retry: {attempts: 2, on: [exit], backoff: 0s}")
    until_true 20 test -e attempt-1
    athanor secret set rotated <second
    touch go
    athanor wait "$id"
    sql "SELECT left(text, 64) FROM athanor.logs WHERE job_id = $id ORDER BY attempt" >lines
    diff lines <(sum_of first; sum_of second)

    held=$(job held "command: ['true']" "secrets: {A: rotated}" "hold: true")
    athanor secret rm rotated
    athanor release "$held"
    run athanor wait "$held"
    [ "$status" = 1 ]
    sql "SELECT cause || ': ' || detail FROM athanor.jobs WHERE job_id = $held" >why
    grep -q "^launch_failed: .*has no secret 'rotated': store it with 'athanor secret set rotated'" why
    run athanor secret rm rotated
    [ "$status" = 4 ]
}

@test "a spec that names a missing secret, or another account's, is refused; so is an empty or too long value" {
    value token
    athanor secret set mine <token
    printf 'athanor: 1\nname: take\nkind: command\ncommand: ["true"]\nsecrets: {A: mine, B: nobodys}\n' >take.yaml
    run athanor submit take.yaml
    [ "$status" = 4 ]
    [[ $output == *"jobs.take.secrets.B: "*" has no secret 'nobodys': store it with 'athanor secret set nobodys'"* ]]
    [[ $output != *"secrets.A"* ]]
    export ATHANOR_KEY=$BATS_FILE_TMPDIR/bob.key
    run athanor submit take.yaml
    [ "$status" = 4 ]
    [[ $output == *"jobs.take.secrets.A: bob has no secret 'mine'"* ]]
    run athanor secret rm mine
    [ "$status" = 4 ]
    run athanor secret set empty </dev/null
    [[ $status = 2 && $output == *"the value is empty"* ]]
    head -c 16385 /dev/zero >long
    run athanor secret set long <long
    [[ $status = 2 && $output == *"the value is too long, expected 1 to 16384 bytes"* ]]
    head -c 16384 /dev/zero | athanor secret set long
    unset ATHANOR_KEY
    [ "$(sql "SELECT name FROM athanor.secrets WHERE account = 'bob'")" = long ]
}

@test "a project's secret is for who may submit there, gives way to one's own, and nobody reads it back" {
    as_bob() { ATHANOR_KEY=$BATS_FILE_TMPDIR/bob.key "$@"; }
    value shared; value own
    athanor project set vision --open false --member bob
    athanor secret set --project vision hf <shared
    cat >use.yaml <<'Y'
athanor: 1
name: use
kind: command
project: vision
command: [sh, -c, 'sha256sum </dev/fd/$ATHANOR_SECRET_A_FD']
secrets: {A: hf}
Y
    printed() { athanor wait "$1" >&2 && athanor logs "$1" | cut -c1-64; }
    [ "$(printed "$(as_bob athanor submit use.yaml --ids)")" = "$(sum_of shared)" ]
    as_bob athanor secret set hf <own
    [ "$(printed "$(as_bob athanor submit use.yaml --ids)")" = "$(sum_of own)" ]
    athanor secret ls --project vision --json | jq -e '.[] | select(.owner == "project vision" and .name == "hf" and .account == null)'
    [ "$(athanor secret ls --account bob --column owner | sort -u)" = bob ]

    # Who is no member sets nothing, an open project's are the operators', and a typo is told.
    athanor keys new carol --out carol.key >/dev/null
    athanor keys enrol carol carol.key.pub
    run env ATHANOR_KEY=carol.key athanor secret set --project vision hf <own
    [[ $status = 4 && $output == *"secrets of project 'vision' are set by its members and by operators"* ]]
    run env ATHANOR_KEY=carol.key athanor secret rm --project default hf
    [[ $status = 4 && $output == *"secrets of project 'default' are set by operators: it is open to everybody"* ]]
    run athanor secret set --project visoin hf <own
    [[ $status = 4 && $output == *"there is no project 'visoin'; did you mean 'vision'?"* ]]
    run athanor secret set --project "" hf <own
    [ "$status" = 2 ]
    as_bob athanor secret set --project vision other <own
    sed -i 's/secrets:.*/secrets: {A: hf, B: others}/' use.yaml
    run as_bob athanor check use.yaml
    [[ $status = 4 && $output == *"use.yaml:6:"*"jobs.use.secrets.B: bob has no secret 'others'"*"for project 'vision', which has none either, with --project"* ]]

    # Who may not submit there any more gets none of them, for what waits either.
    sed -i -e 's/secrets:.*/secrets: {A: other}/' -e '$ahold: true' use.yaml
    id=$(as_bob athanor submit use.yaml --ids)
    athanor project set vision --drop bob
    as_bob athanor release "$id"
    run athanor wait "$id"
    [ "$status" = 1 ]
    athanor show "$id" | grep -q "bob has no secret 'other'.*those of the job's project are for who may submit there"
    run athanor project rm vision
    [[ $status = 4 && $output == *"it has 2 secrets"* ]]
    athanor secret rm --project vision hf
    athanor secret rm --project vision other
    athanor project rm vision
    [ -z "$(sql "SELECT name FROM athanor.project_secret WHERE length(sealed) > 0")" ]
    run grep -raqFf shared "$ATHANOR_HOME"
    [ "$status" = 1 ]
}

@test "a value that is typed is not shown, and an interrupt leaves the terminal as it was" {
    type_at_prompt() { # INPUT: prints what the terminal shows; the exit code of athanor
        python3 - "$1" <<'PY'
import os, pty, sys, termios
pid, fd = pty.fork()
if pid == 0:
    os.execvp("athanor", ["athanor", "secret", "set", "typed"])
shown = b""
while b"not shown" not in shown:
    shown += os.read(fd, 1000)
os.write(fd, sys.argv[1].encode())
try:
    while more := os.read(fd, 1000):
        shown += more
        echo = termios.tcgetattr(fd)[3] & termios.ECHO
except OSError:
    pass
print(shown.decode())
print("echo is", "on" if echo else "off")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
PY
    }
    run type_at_prompt $'a typed value\n'
    [ "$status" = 0 ]
    [[ $output == *"value of typed"* && $output != *"a typed"* ]]
    id=$(job typed "command: [sh, -c, 'cat /dev/fd/\$ATHANOR_SECRET_A_FD']" "secrets: {A: typed}")
    athanor wait "$id"
    [ "$(athanor logs "$id")" = "a typed value" ]
    run type_at_prompt $'another\003'
    [ "$status" != 0 ]
    [[ $output == *"interrupted, nothing was stored"* && $output == *"echo is on"* ]]
}

@test "ranks on several nodes read it under both launchers, from whichever coordinator leads" {
    value token
    athanor secret set gang <token
    old=$(leader); kill -9 "$(leader_pid)"
    until_true 20 leads_another_than "$old"
    until_true 20 sql_is "SELECT count(*) FROM athanor.workers WHERE state = 'OK'" 2
    for launcher in auto mpirun; do
        id=$(job "gang-$launcher" "command: [sh, -c, 'sha256sum </dev/fd/\$ATHANOR_SECRET_A_FD; env | grep -c ^ATHANOR_SECRET_']" \
            "launcher: $launcher" "secrets: {A: gang, B: gang}" "resources: {ranks: 2, nodes: 2, cores: 1}")
        athanor wait "$id" || { athanor show "$id"; athanor logs "$id"; false; }
        athanor logs "$id" | cut -d' ' -f2 | sort >lines
        diff lines <({ printf '2\n2\n'; sum_of token; sum_of token; } | sort)
    done
}
