#!/usr/bin/env bats
# Being there while jobs run: their output live, a shell inside them, the cluster at a glance, and
# word of their end.

setup_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_home
    printf 'a shared secret' >"$BATS_FILE_TMPDIR/secret"
    export ATHANOR_NOTIFY_ALLOW=127.0.0.1,localhost ATHANOR_NOTIFY_SECRET_FILE=$BATS_FILE_TMPDIR/secret
    export ATHANOR_MAIL_COMMAND="tee -a $BATS_FILE_TMPDIR/mails"
    cluster_up --workers 1 --cores 2 --coordinators 2
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

@test "with a terminal of its own a program that holds back its output is seen at once" {
    # Without one, libc keeps these lines until 4 KiB are together or the program ends.
    printf '#include <stdio.h>\n#include <unistd.h>\nint main(void){printf("held back\\n");pause();return 0;}\n' >block.c
    cc -o block block.c
    seen=$(job seen "command: [$PWD/block]" "pty: true" "limits: {stop_grace: 1s}")
    until_true 20 sql_is "SELECT count(*) FROM athanor.logs WHERE job_id = $seen AND text = E'held back\n'" 1
    [ "$(athanor logs "$seen")" = "held back" ]
    athanor cancel "$seen"
    run athanor wait "$seen"
}

@test "logs follow a job through its retry and the end of its coordinator, and mark what was replaced" {
    cat >twice.sh <<'S'
echo "attempt $ATHANOR_ATTEMPT begins"
until [ -e "$1-$ATHANOR_ATTEMPT" ]; do sleep 0.05; done
echo "attempt $ATHANOR_ATTEMPT ends"; echo "to stderr" >&2
[ "$ATHANOR_ATTEMPT" = 2 ]
S
    id=$(job twice "command: [sh, $PWD/twice.sh, $PWD/go]" "retry: {attempts: 2, on: [exit], backoff: 0s}")
    athanor logs -f "$id" >followed 2>waited 3>&- &
    follower=$!
    until_true 20 grep -q "attempt 1 begins" followed
    old=$(leader); kill -9 "$(leader_pid)"
    until_true 20 leads_another_than "$old"
    touch go-1
    until_true 30 grep -q "attempt 2 begins" followed
    touch go-2
    wait "$follower"
    grep -v '^\[athanor\]' followed | grep -v stderr >lines
    printf 'attempt 1 begins\nattempt 1 ends\nattempt 2 begins\nattempt 2 ends\n' | diff - lines
    grep -q '^\[athanor\] attempt 2 on worker-1; attempt 1 is superseded: exit, rank 0 exited with code 1' followed
    athanor up --workers 1 --cores 2 --coordinators 2 >/dev/null

    [ "$(athanor logs "$id" --attempt 1 --stream out --tail 1)" = "attempt 1 ends" ]
    athanor logs "$id" --attempt 1 | head -1 | grep -q '^\[athanor\] attempt 1 on worker-1, superseded: exit'
    [ "$(athanor logs "$id" --all --grep 'begins$' | grep -vc athanor)" = 2 ]
    [ "$(athanor logs "$id" --stream err)" = "to stderr" ]
    [ -z "$(athanor logs "$id" --since 1ms)" ]
    [ "$(athanor logs "$id" --json --all | jq -c '[.[] | .superseded] | unique')" = "[false,true]" ]
    run athanor logs "$id" --grep '('
    [ "$status" -eq 2 ]
    run athanor logs "$id" --stream both
    [ "$status" -eq 2 ]
    run athanor logs "$id" --rank 9
    [[ $status = 2 && $output == *"job $id has rank 0 only, not 9" ]]
    run athanor logs "$id" --attempt 3
    [[ $status = 2 && $output == *"job $id has no attempt 3, expected 1 to 2" ]]
    wide=$(job wide 'command: ["true"]' "resources: {ranks: 2}" "hold: true")
    run athanor logs "$wide" --rank 2
    [[ $status = 2 && $output == *"job $wide has no rank 2, expected 0 to 1" ]]
    run athanor logs "$wide" --rank 1
    [[ $status = 0 && $output == "job $wide has not started yet: it is READY and held, 'athanor why $wide' says why" ]]
    athanor ls --name wide | grep -q HELD
    athanor top --once --filter held | grep -q "$wide.*HELD"
    run athanor exec "$wide" -- true
    [[ $status = 4 && $output == *"job $wide does not run yet: it is READY"* ]]
    athanor cancel "$wide"
    run athanor squeue
    [[ $status = 2 && $output == *"there is no verb 'squeue', did you mean 'ls'?" ]]
    run athanor logs "$wide"
    [[ $status = 0 && $output == "job $wide never started: it is CANCELLED" ]]
    [ "$(sql "SELECT string_agg(DISTINCT attempt || ' ' || superseded, ',') FROM athanor.logs WHERE job_id = $id")" = "1 true,2 false" ]
}

@test "what a job prints is kept up to its limit over all its attempts, with a note, and each end is there" {
    id=$(job chatter 'command: [sh, -c, "seq 20000; exit 1"]' "limits: {log: 64KiB}" \
        "retry: {attempts: 3, on: [exit], backoff: 0s}")
    run athanor wait "$id" # 3 x 106 KiB printed; kept: the limit and three ends of 16 KiB
    [ "$(sql "SELECT state || ' ' || attempt_count || ' ' || (log_bytes BETWEEN 80000 AND 65536 + 3 * 17000) FROM athanor.jobs WHERE job_id = $id")" = "FAILED 3 true" ]
    athanor logs "$id" --all >out
    [ "$(wc -c <out)" -lt $((65536 + 3 * 17500)) ]
    [ "$(grep -c '^\[athanor\] the log limit is reached' out)" = 3 ]
    [ "$(grep -c 'of stdout were cut here' out)" = 3 ]
    [ "$(grep -cx 20000 out)" = 3 ]
    grep -qx 1 out
}

@test "a job whose metric passes its bound is rewound to before it and goes on with other data" {
    # Batch 6 is poisoned: a program that reads batch step + skip meets it unless it is left out.
    cat >train.sh <<'S'
step=0; [ -z "$ATHANOR_RESUME" ] || step=$(cat "$ATHANOR_RESUME/step")
echo "from $step skip $ATHANOR_DATA_SKIP"
while [ "$step" -lt 9 ]; do
    step=$((step + 1)); loss=1; [ $((step - 1 + ATHANOR_DATA_SKIP)) -lt 6 ] || [ "$ATHANOR_DATA_SKIP" -gt 0 ] || loss=99
    athanor report metric --step $step loss=$loss
    mkdir -p "$ATHANOR_JOB_DIR/c$step"; echo $step >"$ATHANOR_JOB_DIR/c$step/step"
    [ $((step % 2)) = 1 ] || athanor report checkpoint --step $step "$ATHANOR_JOB_DIR/c$step"
done
S
    id=$(job poisoned "command: [sh, $PWD/train.sh]" "env: {PATH: \"$PATH\"}" "retry: {attempts: 2, backoff: 0s}" \
        "limits: {stop_grace: 1s}" "checkpoint: {keep: last 9}" \
        "diverge: {metric: loss, above: 20, for: 2, then: rewind, skip: 3}")
    athanor wait "$id"
    # Bad since step 7: back to 6, and batches 6 to 9 are left out.
    [ "$(athanor logs "$id" --all --stream out | grep "^from")" = "from 0 skip 0
from 6 skip 4" ]
    [ "$(sql "SELECT string_agg(concat_ws(' ', number, cause, diverged_step, resume_step, data_skip), ',' ORDER BY number) FROM athanor.runs WHERE job_id = $id")" \
        = "1 diverged 7 0,2 success 6 4" ]
    sql "SELECT evidence FROM athanor.runs WHERE job_id = $id AND number = 1" | grep -q '^loss is above its bound: 99 at step 8'
}

@test "pretraining whose learning rate explodes ends as diverged, each attempt from before and with other data" {
    awk 'BEGIN { srand(7); split("cat dog bird fish fox hen", n); split("sees eats likes finds", v)
        for (i = 0; i < 600; i++) printf "the %s %s the %s\n\n", n[1+int(rand()*6)], v[1+int(rand()*4)], n[1+int(rand()*6)] }' >corpus.txt
    sed "s|@corpus@|$PWD/corpus.txt|" "$specs/kill-data.yaml" >data.yaml
    athanor wait "$(athanor submit data.yaml --ids)"
    id=$(athanor submit "$specs/kill-train.yaml" --ids --set resources.ranks=1 --set retry.attempts=2 \
        --set params.learning_rate=1 --set params.warmup=60 --set params.steps=60 --set params.d_model=32 \
        --set "checkpoint={every: 1 steps, keep: last 60}" \
        --set "diverge={metric: loss, above: 6.5, then: rewind, skip: 10}")
    run athanor wait "$id"
    [ "$status" -eq 1 ]
    [ "$(sql "SELECT count(*) FROM athanor.runs WHERE job_id = $id AND cause = 'diverged' AND diverged_step > 1")" = 2 ]
    [ "$(sql "SELECT b.resume_step < a.diverged_step AND b.data_skip = a.diverged_step - b.resume_step + 10
                FROM athanor.runs a JOIN athanor.runs b USING (job_id)
               WHERE job_id = $id AND a.number = 1 AND b.number = 2")" = t ]
    [ "$(athanor show "$id" --json | jq -r '.[0].cause')" = diverged ]
}

@test "exec runs a program within a job: its environment, folder and end, both ways in bounded steps" {
    id=$(job inside 'command: [sh, -c, "echo $$ >pid; exec sleep 600"]' "env: {MARK: here}" "limits: {stop_grace: 1s}")
    until_true 20 sql_is "SELECT state FROM athanor.jobs WHERE job_id = $id" RUNNING
    run athanor exec inside -- sh -c 'echo $MARK $RANK $ATHANOR_JOB_ID; cat pid >/dev/null && exit 7'
    [ "$status" -eq 7 ]
    [ "$output" = "here 0 $id" ]
    head -c 3000000 /dev/urandom >blob
    athanor exec inside -- cat <blob | cmp - blob
    run athanor exec inside -- sh -c 'kill -TERM $$'
    [ "$status" -eq 143 ]
    run sh -c 'athanor exec inside -- no-such-program; echo "code $?"'
    [[ $output == *"code 127" && $output == *"run the program 'no-such-program': No such file or directory"* ]]
    run athanor exec inside -- /etc/passwd
    [[ $status = 126 && $output == *"run the program '/etc/passwd': Permission denied"* ]]
    run athanor exec inside --rank 1 -- true
    [ "$status" -eq 4 ]
    run athanor exec 999 -- true
    [ "$status" -eq 4 ]
    sql_is "SELECT count(*) FROM athanor.events WHERE job_id = $id AND name = 'exec' AND account IS NOT NULL AND detail LIKE 'rank 0: cat%'" 1

    # A reader that takes nothing: the program is held back by the windows, the worker lives on.
    mkfifo pipe
    athanor exec inside -- sh -c 'i=0; while :; do printf "%01024d" 0; i=$((i + 1)); echo $i >"$ATHANOR_JOB_DIR/written"; done' >pipe 3>&- &
    writer=$!
    exec 8<pipe
    written=$ATHANOR_HOME/jobs/$id/written
    stalled() { # a number that has stayed the same for a second
        held_at=$(cat "$written"); read -rt 1 <> <(:) || true
        [ -n "$held_at" ] && [ "$held_at" = "$(cat "$written")" ]
    }
    until_true 30 stalled
    [ "$held_at" -lt 600 ] # KiB: two pipes, a window, a client's buffer
    sql_is "SELECT state FROM athanor.workers" OK
    kill -9 "$writer" # without a word: found out by its silence, or at the job's end
    exec 8<&-
    athanor exec inside -- sleep 597531 3>&- &
    sleeper=$!
    until_true 20 pgrep -f 'sleep 597531'
    athanor cancel "$id"
    run wait "$sleeper"
    [ "$status" -ne 0 ]
    run athanor wait "$id"
    run pgrep -f '^sleep 597531|ATHANOR_JOB_DIR/written'
    [ -z "$output" ]
}

@test "attach gives an interactive terminal that follows our size and is given back as it was" {
    id=$(job terminal 'command: [sleep, "600"]' "env: {MARK: here, PS1: 'in> '}" "limits: {stop_grace: 1s}")
    until_true 20 sql_is "SELECT state FROM athanor.jobs WHERE job_id = $id" RUNNING
    cat >drive.py <<'P'
import fcntl, os, pty, select, signal, struct, sys, termios, time
def size(fd, rows, columns): fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
master, slave = pty.openpty()
size(slave, 40, 100)
before = termios.tcgetattr(slave)
pid = os.fork()
if pid == 0:
    os.setsid(); fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2): os.dup2(slave, fd)
    os.execvp("athanor", ["athanor", "attach", "terminal", "--", "sh"])
seen = b""
def until(text):
    global seen
    end = time.monotonic() + 30
    while text not in seen:
        if not select.select([master], [], [], max(0, end - time.monotonic()))[0]: sys.exit("never came: %r in %r" % (text, seen))
        seen += os.read(master, 65536)
    seen = seen[seen.index(text) + len(text):]
def say(text): os.write(master, text + b"\r")
until(b"beside rank 0; Ctrl-] leaves")
say(b"echo [$MARK-$(tty | cut -c1-8)]"); until(b"[here-/dev/pts]")
say(b"echo =$(stty size)="); until(b"=40 100=")
size(slave, 31, 77); os.kill(pid, signal.SIGWINCH)
say(b"sleep 1; echo =$(stty size)="); until(b"=31 77=")
say(b"sleep 1000"); time.sleep(0.5); os.write(master, b"\x03"); say(b"echo back$((1+1))"); until(b"back2")
if sys.argv[1] == "detach": os.write(master, b"\x1d")
elif sys.argv[1] == "term": os.kill(pid, signal.SIGTERM)
else: say(b"exit 5")
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
assert termios.tcgetattr(slave) == before, "the terminal was not restored"
print(code)
P
    [ "$(python3 drive.py exit)" = 5 ]
    [ "$(python3 drive.py detach)" = 0 ]
    [ "$(python3 drive.py term)" = 143 ]
    [ "$(job_state "$id")" = RUNNING ]
    run athanor attach terminal </dev/null
    [ "$status" -eq 2 ]
    athanor cancel "$id"
    run athanor wait "$id"
}

@test "top shows nodes and jobs with what they use, on a terminal and as text and JSON" {
    id=$(job busy 'command: [sh, -c, "athanor report progress 30 120; athanor report metric --step 30 train/loss=2.5; exec sleep 600"]' "env: {PATH: \"$PATH\"}" "limits: {stop_grace: 1s}")
    until_true 20 eval '[ "$(athanor top --json | jq ".jobs[0].loss")" = 2.5 ]'
    athanor top --json | jq -e ".jobs[0] | .job_id == $id and .progress == 25 and .left_ms > 0 and .state == \"RUNNING\"" >/dev/null
    athanor top --json | jq -e '.nodes[0].name == "worker-1" and .cluster.running >= 1' >/dev/null
    athanor top --once --filter busy | grep -q '^ *[0-9]*  busy  *RUNNING  worker-1  25    30'
    [ -z "$(athanor top --once --filter nobody | grep busy)" ]
    run athanor top --sort nothing
    [ "$status" -eq 2 ]
    python3 - <<'P'
import fcntl, os, pty, select, struct, sys, termios
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 10, 60, 0, 0))
before = termios.tcgetattr(slave)
pid = os.fork()
if pid == 0:
    os.setsid(); fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for fd in (0, 1, 2): os.dup2(slave, fd)
    os.execvp("athanor", ["athanor", "top"])
seen = b""
while b"busy" not in seen:
    if not select.select([master], [], [], 30)[0]: sys.exit("nothing came: %r" % seen)
    seen += os.read(master, 65536)
assert seen.count(b"\r\n") < 10, seen
os.write(master, b"hsn/bus\rq")
while True:
    if not select.select([master], [], [], 30)[0]: sys.exit("it does not end: %r" % seen)
    seen += os.read(master, 65536)
    if b"\x1b[?1049l" in seen: break
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert termios.tcgetattr(slave) == before, "the terminal was not restored"
P
    athanor cancel "$id"
    run athanor wait "$id"
}

@test "the end of a job is told at least once, signed, again after a failure and by the next leader" {
    cat >hook.py <<'P'
import hashlib, hmac, http.server, json, signal, sys
signal.alarm(300) # also when the test fails before it ends us
class Hook(http.server.BaseHTTPRequestHandler):
    tries = 0
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        right = "sha256=" + hmac.new(b"a shared secret", body, hashlib.sha256).hexdigest()
        Hook.tries += 1
        with open(sys.argv[1], "a") as out:
            print(Hook.tries, self.headers["Idempotency-Key"], self.headers["Athanor-Signature"] == right,
                  json.loads(body)["event"], json.loads(body)["name"], file=out, flush=True)
        self.send_response(500 if Hook.tries == 1 else 204); self.end_headers()
    def log_message(self, *a): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Hook)
open(sys.argv[1] + ".port", "w").write(str(server.server_port))
server.serve_forever()
P
    python3 hook.py told 3>&- & hook=$!
    until_true 20 test -s told.port
    id=$(job told_of 'command: ["false"]' "notify: {on: [failed, cancelled], webhook: \"http://127.0.0.1:$(cat told.port)/x\", mail: ann@example.org}")
    run athanor wait "$id"
    until_true 20 test -s told
    old=$(leader); kill -9 "$(leader_pid)" # the failed try waits for the next leader
    until_true 60 sql_is "SELECT count(*) FROM athanor.notifications WHERE job_id = $id AND state = 'sent'" 2
    kill "$hook"
    [ "$(leader)" != "$old" ]
    [ "$(cut -d' ' -f2 told | sort -u | wc -l)" = 1 ] # one key for all tries
    [ "$(tail -1 told | cut -d' ' -f3-)" = "True failed told_of" ]
    grep -q '^To: ann@example.org' "$BATS_FILE_TMPDIR/mails"
    grep -qx "Subject: told_of (job $id) failed: exit" "$BATS_FILE_TMPDIR/mails"
    grep -qx "detail       rank 0 exited with code 1" "$BATS_FILE_TMPDIR/mails"
    athanor up --workers 1 --cores 2 --coordinators 2 >/dev/null
    # Not asked for: nothing is told. Where nobody may be reached: it says why.
    athanor wait "$(job fine 'command: ["true"]' "notify: {webhook: \"http://127.0.0.1:1/\"}")"
    id=$(job far 'command: ["true"]' "notify: {on: done, webhook: \"http://example.invalid/secret\"}")
    athanor wait "$id"
    until_true 20 sql_is "SELECT target || ' ' || error FROM athanor.notifications WHERE job_id = $id" "http://example.invalid its host is not among those of --notify-allow"
    sql_is "SELECT count(*) FROM athanor.notifications" 3
    printf 'athanor: 1\nname: x\nkind: command\ncommand: ["true"]\nnotify: {on: [sometimes], webhook: "file:///etc/passwd", mail: "a@b, c@d"}\n' >bad.yaml
    run athanor submit bad.yaml
    [ "$status" -eq 4 ]
    [[ "$output" == *"expected done, failed or cancelled"* && "$output" == *"expected http://HOST"* && "$output" == *"expected one address"* ]]
}
