#!/usr/bin/env bats
# Code as it was at the submit: packed, sent once, cached by workers, unpacked read-only.

setup_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_home
    cluster_up --workers 1 --cores 2
}

teardown_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_down
}

setup() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cd "$BATS_TEST_TMPDIR"
}

project() { # a folder of code that prints $1
    mkdir -p src/lib src/.git src/data
    echo "echo $1 from \$(pwd)" >src/lib/say.sh
    printf '#!/bin/sh\n. lib/say.sh\ncat "$ATHANOR_CODE/lib/say.sh" >/dev/null\n' >src/run.sh
    chmod 755 src/run.sh
    echo data/ >src/.gitignore
    head -c 100000 /dev/zero >src/data/large.bin
    echo secret >src/.git/config
}

spec() { # NAME [lines...]
    printf 'athanor: 1\nname: %s\nkind: command\ncommand: [./run.sh]\ncode: {snapshot: src}\n' "$1"
    shift
    printf '%s\n' "$@"
}

@test "a job queued before its source changes runs the old code" {
    project old
    spec old 'hold: true' 'env: {GREETING: hi, MY_TOKEN: x}' >job.yaml
    id=$(athanor submit job.yaml --ids)
    project new
    spec new >job.yaml
    new=$(athanor submit job.yaml --ids)
    athanor wait "$new"
    rm -rf src
    athanor release "$id"
    athanor wait "$id"
    athanor logs "$id" | grep -q '^old from .*/code$'
    athanor logs "$new" | grep -q '^new from .*/code$'
    [ "$(sql "SELECT placement -> 'environment' ->> 'GREETING', placement -> 'environment' ->> 'MY_TOKEN' FROM athanor.runs WHERE job_id = $id")" = "hi|(withheld)" ]
    # What ran can be seen, and had back: nothing of .git, nothing that was ignored.
    athanor code show "$id" --json | jq -r '.[].path' >files
    diff files - <<<$'.gitignore\nlib/say.sh\nrun.sh'
    athanor code get "$id" back
    grep -q 'echo old' back/lib/say.sh
    [ -x back/run.sh ]
    athanor show "$id" --code | grep -q "hash $(sql "SELECT spec -> 'code' ->> 'hash' FROM athanor.jobs WHERE job_id = $id")"
    [ "$(sql "SELECT count(*) FROM athanor.snapshots WHERE complete")" = 2 ]
}

@test "a job cannot change the code of another, whatever its rights" {
    project good
    printf '#!/bin/sh\nchmod -R u+w "$ATHANOR_CODE"\necho "echo bad" >"$ATHANOR_CODE/lib/say.sh" && rm -f "$ATHANOR_CODE/.gitignore"\ntouch "$ATHANOR_CODE"/new; cat "$ATHANOR_CODE/lib/say.sh"\n' >src/spoil.sh
    chmod 755 src/spoil.sh
    spec spoiler | sed 's/run.sh/spoil.sh/' >job.yaml
    id=$(athanor submit job.yaml --ids)
    athanor wait "$id"
    spec victim >job.yaml
    id=$(athanor submit job.yaml --ids)
    athanor wait "$id"
    athanor logs "$id" | grep -q '^good from'
}

@test "an archive that went bad on a worker's disk is fetched again" {
    project sound
    spec first >job.yaml
    athanor wait "$(athanor submit job.yaml --ids)"
    hash=$(athanor code list src | sed -n 's/.*hash //p')
    cached=$ATHANOR_HOME/workers/worker-1/code/$hash
    [ -f "$cached" ]
    printf X | dd of="$cached" bs=1 seek=700 conv=notrunc 2>/dev/null
    spec second >job.yaml
    id=$(athanor submit job.yaml --ids)
    athanor wait "$id"
    athanor logs "$id" | grep -q '^sound from'
    [ "$(sql "SELECT count(*) FROM athanor.runs WHERE job_id = $id")" = 1 ]
}

@test "a large folder is sent in chunks, once, and a small change as a whole" {
    project large
    echo >src/.gitignore
    head -c 3000000 /dev/urandom >src/data/large.bin
    spec large 'code: {snapshot: src, cwd: lib}' | grep -v 'code: {snapshot: src}$' | sed 's,./run.sh,sh,; s,\[sh\],[sh\, say.sh],' >job.yaml
    id=$(athanor submit job.yaml --ids)
    athanor wait "$id"
    athanor logs "$id" | grep -q '^large from .*/code/lib$'
    before=$(sql "SELECT created_at FROM athanor.snapshots WHERE size_bytes > 3000000")
    athanor wait "$(athanor submit job.yaml --ids)"
    [ "$(sql "SELECT created_at FROM athanor.snapshots WHERE size_bytes > 3000000")" = "$before" ]
}

@test "code that nothing needs is collected, what a waiting job needs is not" {
    project kept
    spec kept 'hold: true' >job.yaml
    id=$(athanor submit job.yaml --ids)
    before=$(athanor gc --older-than 0s --dry-run --json | jq length)
    [ "$before" -gt 0 ]
    [ "$(athanor gc --dry-run --json | jq length)" = 0 ]
    [ "$(athanor gc --older-than 0s --json | jq .removed)" = "$before" ]
    [ "$(athanor gc --older-than 0s --dry-run --json | jq length)" = 0 ]
    athanor release "$id"
    athanor wait "$id"
    athanor logs "$id" | grep -q '^kept from'
    athanor gc --older-than 0s | grep -q '^removed: code 1, checkpoints 0,'
    run athanor code show "$id"
    [ "$status" -eq 4 ]
    [[ $output == *"retention may have removed it"* ]]
}

@test "folders that cannot be packed are refused by name" {
    mkdir -p src && ln -s /etc/passwd src/leak && echo x >src/a
    spec refused >job.yaml
    run athanor submit job.yaml
    [ "$status" -eq 2 ]
    [[ $output == *"src/leak"*"absolute"* ]]
    spec missing | sed 's/src/nowhere/' >job.yaml
    run athanor submit job.yaml
    [ "$status" -eq 2 ]
    [[ $output == *"nowhere"* ]]
    run athanor code show "$(athanor submit <(printf 'athanor: 1\nname: plain\nkind: command\ncommand: ["true"]\n') --ids)"
    [ "$status" -eq 4 ]
    [[ $output == *"without code"* ]]
}
