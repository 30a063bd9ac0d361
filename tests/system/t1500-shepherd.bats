#!/usr/bin/env bats
# The shepherd alone: a plan in a folder, real processes, and the stream it leaves behind.

setup() {
    shepherd=${ATHANOR_BUILD:-build}/bin/athanor-shepherd
    [ "${shepherd#/}" != "$shepherd" ] || shepherd=$PWD/$shepherd
    [ -x "$shepherd" ] || skip "athanor-shepherd is not built"
    home=$(mktemp -d /tmp/shepherd-test-XXXXXX)
    mkdir "$home/a" "$home/job" "$home/tmp"
    running=
    attempt=$((41000000000 + $$)) # nobody else's, in /dev/shm
}

teardown() {
    [ -z "$running" ] || kill -9 "$running" 2>/dev/null || true
    rm -rf "$home"
}

# plan RANKS COMMAND-JSON [MEMBERS]: writes start.json.
plan() {
    cat >"$home/a/start.json" <<X
{"format": 1, "attempt_id": $attempt, "attempt": 2, "job_id": 7, "job_name": "tested", "ranks": $1,
 "job_dir": "$home/job", "tmp": "$home/tmp"${3:+, $3},
 "spec": {"athanor": 1, "kind": "command", "command": $2, "env": {"GIVEN": "yes"}}}
X
}

run_plan() { plan "$@"; timeout 60 "$shepherd" "$home/a"; "$shepherd" --dump "$home/a" >"$home/stream"; }
start_plan() { plan "$@"; "$shepherd" "$home/a" 3>&- & running=$!; }
finish() { wait "$running" || true; running=; "$shepherd" --dump "$home/a" >"$home/stream"; }

# pick KIND PATH...: jq-less look into the stream; prints one value a line.
pick() {
    python3 - "$home/stream" "$@" <<'X'
import json, sys
for line in open(sys.argv[1]):
    entry = json.loads(line)
    if entry["kind"] == sys.argv[2]:
        for name in sys.argv[3:]:
            entry = entry.get(name, {}) if isinstance(entry, dict) else {}
        print(entry if not isinstance(entry, dict) else json.dumps(entry))
X
}

# until COMMAND...: waits for a condition, at most 30 s.
until_true() { for _ in $(seq 600); do "$@" && return 0; sleep 0.05; done; echo "never: $*"; return 1; }
appears() { [ -e "$1" ]; }
gone() { ! kill -0 "$1" 2>/dev/null; }

nothing_is_left() {
    [ -z "$(ls "$home/tmp")" ] || { ls "$home/tmp"; return 1; }
    [ ! -e "$home/a/run" ]
    [ ! -e "$home/a/control" ]
    [ -z "$(find /dev/shm -maxdepth 1 -name "athanor-$attempt-*" -user "$(id -un)")" ]
    ! grep -lsz "ATHANOR_RUN_DIR=$home/a/run" /proc/[0-9]*/environ
}

say() { # the three-line snippet: say JSON
    cat <<'X'
import json, os, socket
s = socket.socket(socket.AF_UNIX); s.connect(os.environ["ATHANOR_REPORT"]); f = s.makefile("rw")
def say(**line): f.write(json.dumps(line) + "\n"); f.flush()
def ask(**line): say(reply=True, **line); return json.loads(f.readline())
X
}

@test "a program that succeeds leaves started, its output and success, gapless from 1" {
    run_plan 1 '["sh", "-c", "echo one; echo two >&2"]'
    [ "$(pick finished cause)" = success ]
    [ "$(pick log text | grep . | sort)" = "$(printf 'one\ntwo')" ]
    python3 -c "import json,sys; s=[json.loads(l)['seq'] for l in open('$home/stream')]; sys.exit(s != list(range(1, len(s)+1)))"
    nothing_is_left
}

@test "the environment is the contract and nothing inherited" {
    export LEAKED=1 SLURM_JOBID=3 PMIX_RANK=9 OMPI_MCA_btl=none
    run_plan 1 '["env"]' '"gpus": [["GPU-1", "GPU-2"]]'
    pick log text >"$home/env"
    grep -qx GIVEN=yes "$home/env"
    grep -qx ATHANOR_ATTEMPT=2 "$home/env"
    grep -qx WORLD_SIZE=1 "$home/env"
    grep -qx CUDA_VISIBLE_DEVICES=GPU-1,GPU-2 "$home/env"
    ! grep -E '^(LEAKED|SLURM|PMIX|OMPI)' "$home/env"
}

@test "AMD's GPUs are named to ROCm, and counted from 0 for HIP" {
    run_plan 1 '["env"]' '"gpu_kind": "amd", "gpus": [["GPU-1", "GPU-2"]]'
    pick log text | grep _VISIBLE_DEVICES | sort >"$home/env"
    printf '%s\n' CUDA_VISIBLE_DEVICES=0,1 HIP_VISIBLE_DEVICES=0,1 ROCR_VISIBLE_DEVICES=GPU-1,GPU-2 | diff "$home/env" -
}

@test "all of AMD's GPUs are hidden from a rank that has none" {
    run_plan 1 '["env"]' '"gpu_kind": "amd"'
    pick log text | grep _VISIBLE_DEVICES | sort >"$home/env"
    printf '%s\n' CUDA_VISIBLE_DEVICES= HIP_VISIBLE_DEVICES=-1 ROCR_VISIBLE_DEVICES=-1 | diff "$home/env" -
}

@test "the exit code and the last line on stderr are the evidence" {
    run_plan 1 '["sh", "-c", "echo no such table >&2; exit 3"]'
    [ "$(pick finished cause)" = exit ]
    [ "$(pick finished code)" = 3 ]
    [[ "$(pick finished text)" == *'rank 0 exited with code 3'*'no such table'* ]]
}

@test "a missing program is launch_failed and says what was looked for" {
    run_plan 1 '["no-such-program"]'
    [ "$(pick finished cause)" = launch_failed ]
    [[ "$(pick finished text)" == *"'no-such-program': No such file or directory"* ]]
    nothing_is_left
}

@test "a rank that dies of a signal is told from one that exits" {
    run_plan 1 '["sh", "-c", "kill -SEGV $$"]'
    [ "$(pick finished cause)" = signal ]
    [ "$(pick finished code)" = 11 ]
    [[ "$(pick finished text)" == *SIGSEGV* ]]
}

@test "one killed rank ends the attempt on all ranks with cause signal" {
    start_plan 2 '["sh", "-c", "echo $$ > '"$home"'/rank-$RANK; exec sleep 600"]'
    until_true appears "$home/rank-0"; until_true appears "$home/rank-1"
    other=$(cat "$home/rank-0")
    kill -9 "$(cat "$home/rank-1")"
    finish
    gone "$other"
    [ "$(pick finished cause)" = signal ]
    [[ "$(pick finished text)" == *'rank 1 died of SIGKILL'* ]]
    nothing_is_left
}

@test "children in sessions of their own do not outlive the attempt" {
    run_plan 1 '["sh", "-c", "setsid sh -c \"sleep 600 & echo \\$! > '"$home"'/deep; sleep 600\" & while [ ! -s '"$home"'/deep ]; do sleep 0.05; done"]'
    gone "$(cat "$home/deep")"
    [ "$(pick finished cause)" = success ]
    nothing_is_left
}

@test "a child that ignores SIGTERM is killed" {
    run_plan 1 '["sh", "-c", "(trap \"\" TERM; echo $$ > '"$home"'/pid; while :; do sleep 0.1; done) & while [ ! -s '"$home"'/pid ]; do sleep 0.05; done"]'
    [ "$(pick finished cause)" = success ]
    nothing_is_left
}

@test "wall_time ends a run that does not listen by SIGTERM" {
    run_plan 1 '["sleep", "600"]' '"wall_time_ms": 300, "stop_grace_ms": 5000'
    [ "$(pick finished cause)" = time_limit ]
    [[ "$(pick finished text)" == *300ms* ]]
    [ "$(pick finished meta ranks)" != "" ]
}

@test "a program that listens is asked, saves, and ends in its own time" {
    say >"$home/p.py"
    cat >>"$home/p.py" <<'X'
say(type="progress", step=1, total=9)
print("ready", flush=True)
stop = json.loads(f.readline())
print("asked", stop["type"], stop["cause"], stop["grace_ms"], flush=True)
X
    run_plan 1 '["python3", "'"$home"'/p.py"]' '"wall_time_ms": 3000, "stop_grace_ms": 20000'
    [ "$(pick finished cause)" = time_limit ]
    grep -q 'asked stop time_limit 20000' "$home/stream"
    grep -q '"exit_code":0' "$home/stream"
}

@test "a program that neither listens nor minds SIGTERM is killed after its grace" {
    say >"$home/p.py"
    cat >>"$home/p.py" <<'X'
import time
say(type="hello", rank=0)
while True: time.sleep(600)
X
    # From its beginning: on a busy machine its limit may come before python has looked around.
    run_plan 1 '["sh", "-c", "trap \"\" TERM; exec python3 '"$home"'/p.py"]' '"wall_time_ms": 800, "stop_grace_ms": 400'
    [ "$(pick finished cause)" = time_limit ]
    grep -q '"signal":9' "$home/stream"
    nothing_is_left
}

@test "metrics, progress and events come through, not finite ones too" {
    say >"$home/p.py"
    cat >>"$home/p.py" <<'X'
say(type="hello", rank=0)
say(type="metric", step=7, values={"loss": 2.5, "lr": float("nan")})
say(type="progress", step=7, total=10, phase="train")
say(type="event", name="note", text="half way", fields={"a": 1})
assert ask(type="metric", step=8, values={"loss": 2})["ok"] is True
X
    run_plan 1 '["python3", "'"$home"'/p.py"]'
    [ "$(pick finished cause)" = success ]
    [ "$(pick metric name)" = "$(printf 'loss\nlr\nloss')" ]
    [ "$(pick metric value)" = "$(printf '2.5\nnot finite\n2.0')" ]
    [ "$(pick progress total)" = 10 ]
    [ "$(pick event text)" = "half way" ]
}

@test "a wrong line is refused with a reason, and the next is accepted" {
    say >"$home/p.py"
    cat >>"$home/p.py" <<'X'
def refused(answer, word):
    assert answer["ok"] is False and word in answer["error"], answer
refused(ask(type="metrics", step=1, values={"a": 1}), "expected hello, metric")
refused(ask(type="metric", step=-1, values={"a": 1}), "step")
refused(ask(type="metric", step=1, values={}), "values")
refused(ask(type="metric", step=1, values={"a": "x"}), "values.a")
refused(ask(type="metric", rank=5, step=1, values={"a": 1}), "ranks 0 to 0")
refused(ask(type="checkpoint", step=1, path="relative"), "absolute")
assert ask(type="metric", step=1, values={"a": 1})["ok"]
X
    run_plan 1 '["python3", "'"$home"'/p.py"]'
    [ "$(pick finished cause)" = success ]
    [ "$(pick metric name)" = a ]
    [ "$(pick event name | sort -u)" = report_refused ]
}

older_than() { [ "$(ps -o etimes= -p "$1")" -ge "$2" ] 2>/dev/null; } # PID SECONDS

@test "a report waits for a shepherd that waits for its disk, and no longer than it is told to" {
    local seconds=1 # a reader of other verbs gives up after 10
    [ "$ATHANOR_TEST_MODE" != long ] || seconds=11
    cat >"$home/p.sh" <<X
set -e
cd "$home"
touch ready
until [ -e stopped ]; do sleep 0.05; done
"${shepherd%/*}/athanor" report metric --timeout 200ms --step 1 brief=1 2>brief || echo "\$?" >code
"${shepherd%/*}/athanor" report metric --step 2 patient=2 &
echo \$! >pid
wait \$!
X
    start_plan 1 '["sh", "'"$home"'/p.sh"]'
    until_true appears "$home/ready"
    kill -STOP "$running"
    touch "$home/stopped"
    until_true test -s "$home/pid"
    until_true older_than "$(cat "$home/pid")" "$seconds"
    kill -CONT "$running"
    finish
    [ "$(cat "$home/code")" = 3 ]
    grep -q "not answered within --timeout" "$home/brief"
    [ "$(pick finished cause)" = success ]
    pick metric name | grep -qx patient
}

@test "junk on the report socket ends that connection and nothing else" {
    say >"$home/p.py"
    cat >>"$home/p.py" <<'X'
junk = socket.socket(socket.AF_UNIX); junk.connect(os.environ["ATHANOR_REPORT"])
try:
    junk.sendall(os.urandom(1 << 20))
    while junk.recv(4096): pass
except OSError: pass
long = socket.socket(socket.AF_UNIX); long.connect(os.environ["ATHANOR_REPORT"])
try:
    long.sendall(b"{" + b" " * (1 << 20))
    while long.recv(4096): pass
except OSError: pass
assert ask(type="metric", step=1, values={"a": 1})["ok"]
X
    run_plan 1 '["python3", "'"$home"'/p.py"]'
    [ "$(pick finished cause)" = success ]
    [ "$(pick metric name)" = a ]
}

@test "a checkpoint counts only when its manifest and files are there" {
    say >"$home/p.py"
    cat >>"$home/p.py" <<'X'
job = os.environ["ATHANOR_JOB_DIR"]
def make(name, step, size=3, said=3, file="w"):
    path = os.path.join(job, name); os.makedirs(path)
    open(os.path.join(path, "w"), "wb").write(b"x" * size)
    json.dump({"format": 1, "step": step, "files": [{"name": file, "size_bytes": said, "blake2b": ""}]},
              open(os.path.join(path, "manifest.json"), "w"))
    return path
def check(ok, path, step=5):
    answer = ask(type="checkpoint", step=step, path=path, metrics={"val_loss": 3.1})
    assert answer["ok"] is ok, (path, answer)
check(True, make("good", 5))
check(False, make("short", 5, size=2))
check(False, make("other-step", 6))
check(False, make("missing", 5, file="nothing"))
check(False, make("outside", 5, file="../good/w"))
check(False, os.path.join(job, "absent"))
os.makedirs(os.path.join(job, "torn")); check(False, os.path.join(job, "torn"))
check(False, "/etc")
X
    run_plan 1 '["python3", "'"$home"'/p.py"]'
    [ "$(pick finished cause)" = success ]
    [ "$(pick checkpoint path)" = "$home/job/good" ]
    [ "$(pick checkpoint total)" = 3 ]
    [ "$(pick checkpoint meta val_loss)" = 3.1 ]
}

@test "divergence reported before a failing exit is the cause" {
    say >"$home/p.py"
    echo 'say(type="event", name="diverged", text="loss is not finite at step 77"); raise SystemExit(1)' >>"$home/p.py"
    run_plan 1 '["python3", "'"$home"'/p.py"]'
    [ "$(pick finished cause)" = diverged ]
    [[ "$(pick finished text)" == *'not finite at step 77'* ]]
}

@test "a silent program is stalled, and the rank that is furthest behind is named" {
    say >"$home/p.py"
    cat >>"$home/p.py" <<'X'
import time
rank = int(os.environ["RANK"])
for step in (1, 2, 3 + (rank == 0)):
    say(type="progress", rank=rank, step=step, total=9)
time.sleep(600)
X
    run_plan 2 '["python3", "'"$home"'/p.py"]' '"stall_ms": 3000, "stop_grace_ms": 100'
    [ "$(pick finished cause)" = stalled ]
    [[ "$(pick finished text)" == *'rank 1 is silent since step 3'* ]]
    [ "$(pick event name | sort -u)" = stack ]
    [ "$(pick event rank | tr '\n' ' ')" = "1 0 " ]
    [[ "$(pick event text)" == *State:*sleeping* ]]
    nothing_is_left
}

@test "more memory than given is oom with the figures" {
    run_plan 1 '["python3", "-c", "import time; x = bytearray(200 << 20); time.sleep(600)"]' '"memory_bytes": 67108864'
    [ "$(pick finished cause)" = oom ]
    [[ "$(pick finished text)" == *MiB*MiB* ]]
    nothing_is_left
}

@test "two MPI ranks see each other, bound and unbound" {
    command -v mpicc >/dev/null || skip "mpicc is not installed"
    cat >"$home/hello.c" <<'X'
#include <mpi.h>
#include <stdio.h>
int main(int count, char **words)
{
    int rank, size, sum;
    MPI_Init(&count, &words);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Allreduce(&rank, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    printf("rank %d of %d, sum %d\n", rank, size, sum);
    MPI_Finalize();
    return 0;
}
X
    mpicc "$home/hello.c" -o "$home/hello"
    run_plan 2 '["'"$home"'/hello"]'
    [ "$(pick finished cause)" = success ]
    [ "$(pick log text | grep . | sort)" = "$(printf 'rank 0 of 2, sum 1\nrank 1 of 2, sum 1')" ]
    nothing_is_left
    rm -f "$home"/a/spool*
    run_plan 2 '["'"$home"'/hello"]' '"cpus": [[0], [0]]'
    [ "$(pick finished cause)" = success ]
    nothing_is_left
}

@test "MPI_Abort of one rank ends all with its code" {
    command -v mpicc >/dev/null || skip "mpicc is not installed"
    cat >"$home/abort.c" <<'X'
#include <mpi.h>
int main(int count, char **words)
{
    int rank;
    MPI_Init(&count, &words);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank == 1)
        MPI_Abort(MPI_COMM_WORLD, 5);
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Finalize();
    return 0;
}
X
    mpicc "$home/abort.c" -o "$home/abort"
    run_plan 2 '["'"$home"'/abort"]'
    [ "$(pick finished cause)" = exit ]
    [ "$(pick finished code)" = 5 ]
    [[ "$(pick finished text)" == *'rank 1 called MPI_Abort(5)'* ]]
    nothing_is_left
}

@test "each rank is bound to its own cores, and takes memory from its node" {
    [ "$(nproc)" -ge 2 ] || skip "two ranks on cores of their own need two cores"
    run_plan 2 '["sh", "-c", "grep Cpus_allowed_list /proc/self/status; grep -q prefer.*:0 /proc/self/numa_maps && echo near"]' \
        '"launcher": "fork", "cpus": [[0], [1]], "numa": [[0], [0]]'
    [ "$(pick finished cause)" = success ]
    pick log text | sort >"$home/seen"
    [ "$(grep -c "Cpus_allowed_list:.0$" "$home/seen")" = 1 ]
    [ "$(grep -c "Cpus_allowed_list:.1$" "$home/seen")" = 1 ]
    [ "$(grep -c "^near$" "$home/seen")" = 2 ]
}

@test "ranks run on the cores of the plan only" {
    run_plan 1 '["python3", "-c", "import os; print(sorted(os.sched_getaffinity(0)))"]' '"cpus": [[0]]'
    [ "$(pick log text)" = "[0]" ]
    [ "$(pick started meta cores)" = "[0]" ]
}

@test "a core that does not exist is launch_failed, not a run elsewhere" {
    run_plan 1 '["true"]' '"cpus": [[4095]]'
    [ "$(pick finished cause)" = launch_failed ]
    [[ "$(pick finished text)" == *'bind to the assigned cores'* ]]
}

@test "ranks die with the shepherd" {
    start_plan 2 '["sh", "-c", "echo $$ > '"$home"'/rank-$RANK; exec sleep 600"]'
    until_true appears "$home/rank-0"; until_true appears "$home/rank-1"
    kill -9 "$running"; wait "$running" 2>/dev/null || true; running=
    until_true gone "$(cat "$home/rank-0")"
    until_true gone "$(cat "$home/rank-1")"
    grep '^/' "$home/a/notes" | xargs rm -rf # the daemon's part, which is not here
}

@test "a second shepherd on the same folder is refused" {
    start_plan 1 '["sh", "-c", "touch '"$home"'/up; exec sleep 600"]'
    until_true appears "$home/up"
    run "$shepherd" "$home/a"
    [ "$status" = 1 ]
    [[ "$output" == *"a shepherd holds"* ]]
    kill "$running"
    finish
    [ "$(pick finished cause)" = worker_lost ]
    nothing_is_left
}

@test "beyond the limit the end of the output is kept, with a note of what was cut" {
    run_plan 1 '["sh", "-c", "seq 100000; echo end >&2; exit 0"]' '"log_bytes_max": 100000'
    [ "$(pick finished cause)" = success ]
    grep -q 'the log limit is reached' "$home/stream"
    grep -q 'of stdout were cut here' "$home/stream"
    grep -q '99999.n100000' "$home/stream"
    [ "$(wc -c <"$home/stream")" -lt 300000 ]
}

@test "what a program leaves in its TMPDIR and in /dev/shm under its number is swept" {
    run_plan 1 '["sh", "-c", "touch $TMPDIR/x; mkdir -p $TMPDIR/d/e; echo > /dev/shm/torch_$$_1_0; echo $$ > '"$home"'/pid"]'
    [ "$(pick finished cause)" = success ]
    [ ! -e "/dev/shm/torch_$(cat "$home/pid")_1_0" ]
    nothing_is_left
}

@test "a plan that cannot be used is refused by name of the field" {
    plan 1 '["true"]' '"wall_time_ms": "1h"'
    run "$shepherd" "$home/a"
    [ "$status" = 1 ]
    [[ "$output" == *wall_time_ms* ]]
    [ ! -e "$home/a/spool-00000000000000000001" ]
}
