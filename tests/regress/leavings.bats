#!/usr/bin/env bats
# What programs leave behind or report wrongly on purpose.

setup_file() {
    source "$BATS_TEST_DIRNAME/../system/cluster.bash"
    cluster_home
    cluster_up --workers 1 --cores 1
}

teardown_file() {
    source "$BATS_TEST_DIRNAME/../system/cluster.bash"
    cluster_down
}

setup() {
    source "$BATS_TEST_DIRNAME/../system/cluster.bash"
    cd "$BATS_TEST_TMPDIR"
}

# job SCRIPT: runs it and prints what it printed.
job() {
    printf '%s\n' "$1" >script
    printf 'athanor: 1\nname: job\nkind: command\ncommand: [%s, %s]\n' "$2" "$PWD/script" >job.yaml
    local id
    id=$(athanor submit job.yaml --ids)
    timeout 60 athanor wait "$id" >/dev/null
    athanor logs "$id"
}

@test "directories nested deeper than a path can say do not stay" {
    kept=$(job 'echo "$TMPDIR"; d=$(printf "%0200d" 0)
        for i in $(seq 60); do mkdir $d && cd $d || exit 1; done' sh | tail -1)
    [ -n "$kept" ]
    [ ! -e "$kept" ]
}

@test "a job that removes its attempt's folder leaves no directory in TMPDIR" {
    kept=$(job 'echo "$TMPDIR"; rm -rf "$(dirname "$ATHANOR_RUN_DIR")"' sh | tail -1)
    [ -n "$kept" ]
    [ ! -e "$kept" ]
}

@test "jobs that remove their attempt's folder at once, shepherd killed or not, come to an end" {
    printf 'athanor: 1\nkind: command\narray: 20\nresources: {memory: 16MiB}\n' >array.yaml
    for last in true 'kill -9 $PPID'; do
        # With the list gone and the shepherd killed nobody is left who knows of TMPDIR: the script does.
        printf 'rm -rf "$(dirname "$ATHANOR_REPORT")" "$TMPDIR" "$(dirname "$ATHANOR_RUN_DIR")"\n%s\n' \
            "$last" >script
        athanor submit array.yaml --set name=removes --set "command=[sh, $PWD/script]" -e "${last%% *}" \
            >/dev/null
        until_true 60 sql_is "SELECT count(*) FROM athanor.jobs WHERE experiment = '${last%% *}'
            AND state IN ('SUCCEEDED', 'FAILED')" 20
    done
}

reporter='
import json, os, socket
s = socket.socket(socket.AF_UNIX); s.connect(os.environ["ATHANOR_REPORT"]); answers = s.makefile()
jobs = os.environ["ATHANOR_JOB_DIR"]
def ask(line):
    s.sendall(line.encode() + b"\n"); print(answers.readline().strip())
'

@test "a number that JSON readers refuse is answered" {
    run job "$reporter"'
ask(json.dumps({"type": "metric", "step": 10 ** 30, "values": {"a": 1}, "reply": True}))' python3
    [[ $output == *'"ok": false'*'too big integer'* ]]
}

@test "a checkpoint whose file is a link to elsewhere is refused" {
    run job "$reporter"'
folder = jobs + "/checkpoint"; os.makedirs(folder); os.symlink("/etc/passwd", folder + "/w")
size = os.path.getsize("/etc/passwd")
files = [{"name": "w", "size_bytes": size, "blake2b": "0" * 64}]
json.dump({"format": 1, "step": 1, "files": files}, open(folder + "/manifest.json", "w"))
ask(json.dumps({"type": "checkpoint", "step": 1, "path": folder, "reply": True}))' python3
    [[ $output == *'is not below the checkpoint'* ]]
    run job "$reporter"'
ask(json.dumps({"type": "checkpoint", "step": 1, "path": jobs + "/none", "reply": True}))' python3
    [[ $output == *'No such file or directory'* ]]
}
