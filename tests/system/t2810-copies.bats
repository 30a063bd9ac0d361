#!/usr/bin/env bats
# Workers without a shared file system: checkpoints go from one to the other, checked by hash.

setup_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    unshare --mount true 2>/dev/null || skip "no mount namespaces: workers cannot have homes of their own here"
    cluster_home
    cluster_up --workers 3 --cores 1
    for n in 1 2 3; do
        kill -TERM "$(pid_of worker-$n)"
        until_true 10 no_process "$(pid_of worker-$n)"
        worker_start $n
    done
    until_true 20 sql_is "SELECT count(*) FROM athanor.workers WHERE state = 'OK' AND labels ? 'zone'" 3
}

teardown_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    [ -n "$ATHANOR_HOME" ] || return 0
    for n in 1 2 3; do worker_end $n; done
    cluster_down
}

setup() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cd "$BATS_TEST_TMPDIR"
}

# Copies stay, nothing is half there, and no attempt is left that uses one.
copies_are_kept() { # COUNT
    [ -z "$(find "$ATHANOR_HOME"/own-*/copies -name '*.part')" ] &&
        [ -z "$(find "$ATHANOR_HOME"/own-*/attempts -path '*/copies/*')" ] &&
        [ "$(find "$ATHANOR_HOME"/own-*/copies -mindepth 1 -maxdepth 1 -type d | wc -l)" = "$1" ]
}

# JOB: what there is to see of it where it did not end as it should
told() { athanor show "$1"; athanor logs "$1"; tail -n 20 "$ATHANOR_HOME"/own-?.log; false; }

no_process() { ! kill -0 "$1" 2>/dev/null; }

worker_start() { # N: with a home of its own, which the other ones cannot see
    local others=() n
    for n in 1 2 3; do
        mkdir -p "$ATHANOR_HOME/nothing" "$ATHANOR_HOME/own-$n"
        [ "$n" = "$1" ] || others+=("$ATHANOR_HOME/own-$n")
    done
    unshare --mount sh -c 'mount --bind "$1" "$2" && mount --bind "$1" "$3" && shift 3 && exec "$@"' sh \
        "$ATHANOR_HOME/nothing" "${others[@]}" \
        athanor-worker --name "worker-$1" --keys "$ATHANOR_HOME/keys/worker-$1.key" \
        --server-key "$ATHANOR_HOME/keys/server.key.pub" \
        --coordinator "$(paste -sd, "$ATHANOR_HOME/endpoints")" --state "$ATHANOR_HOME/own-$1" \
        --cores 1 --memory 2GiB --gpus none --label "zone=z$1" --allow-root-jobs \
        >>"$ATHANOR_HOME/own-$1.log" 2>&1 3>&- &
    echo $! >"$ATHANOR_HOME/own-$1.pid"
    disown
}

worker_end() {
    kill -TERM "$(cat "$ATHANOR_HOME/own-$1.pid")" 2>/dev/null || true
    until_true 10 no_process "$(cat "$ATHANOR_HOME/own-$1.pid")"
}

saver() { # saves 3 MB in two files, one of them empty, and an odd one below
    cat >save.sh <<'S'
set -e
if [ -n "$ATHANOR_RESUME" ]; then
    echo "resumed $(cat "$ATHANOR_RESUME/deep/word") with $(wc -c <"$ATHANOR_RESUME/weights") bytes"
    exit 0
fi
folder=$ATHANOR_JOB_DIR/checkpoints/one
mkdir -p "$folder/deep"
head -c 3000000 /dev/urandom >"$folder/weights"
: >"$folder/empty"
echo "from $ATHANOR_JOB_NAME" >"$folder/deep/word"
athanor report checkpoint --step 3 "$folder"
[ -z "$STAY" ] || exec sleep 600
S
}

@test "a retry on a node without the checkpoint fetches it from the one that has it" {
    saver
    cat >job.yaml <<Y
athanor: 1
name: moved
kind: command
command: [sh, $PWD/save.sh]
env: {PATH: "$PATH", STAY: "1"}
retry: {backoff: 0s}
Y
    id=$(athanor submit job.yaml --ids)
    until_true 30 sql_is "SELECT count(*) FROM athanor.checkpoints WHERE job_id = $id" 1
    first=$(sql "SELECT worker FROM athanor.runs WHERE job_id = $id")
    athanor drain "$first"
    # The daemon, the shepherd and the ranks at once, as when the machine loses power; then it is back.
    kill -KILL "$(cat "$ATHANOR_HOME/own-${first#worker-}.pid")"
    kill -KILL $(sql "SELECT placement ->> 'shepherd_pid' FROM athanor.runs WHERE job_id = $id")
    worker_start "${first#worker-}"
    athanor wait "$id" --timeout 90s || { cat "$ATHANOR_HOME"/own-*.log; athanor show "$id"; false; }
    athanor logs "$id" | grep -q "^resumed from moved with 3000000 bytes"
    [ "$(sql "SELECT count(*) FROM athanor.runs WHERE job_id = $id AND worker <> '$first' AND cause = 'success'")" = 1 ]
    athanor undrain "$first"
    until_true 20 copies_are_kept 1
}

@test "an input of another worker is fetched, and a damaged one is refused" {
    saver
    printf 'athanor: 1\nname: maker\nkind: command\ncommand: [sh, %s]\nenv: {PATH: "%s"}\nconstraint: {zone: z1}\n' "$PWD/save.sh" "$PATH" >maker.yaml
    maker=$(athanor submit maker.yaml --ids)
    athanor wait "$maker"
    cat >reader.yaml <<Y
athanor: 1
name: reader
kind: command
command: [sh, -c, 'cat "\$ATHANOR_INPUT_MODEL/deep/word"; wc -c <"\$ATHANOR_INPUT_MODEL/weights"']
inputs: {model: job:$maker/checkpoint:last}
constraint: {zone: z2}
Y
    id=$(athanor submit reader.yaml --ids)
    athanor wait "$id" || told "$id"
    athanor logs "$id" | grep -q '^from maker$'
    athanor logs "$id" | grep -q '^3000000$'
    athanor show "$id" | grep -Eq 'model +2.86 MiB +worker-1 +worker-2 +worker-2 +worker-1 +2.86 MiB'
    held=$(sed '/constraint/d' reader.yaml | athanor submit - --ids --set hold=true)
    athanor why "$held" >why.out
    grep -Eq "inputs +input 'model' \(2.86 MiB\) was made on worker-1, copied to worker-2$" why.out
    athanor cancel "$held"
    # Without a constraint it goes to whom has the most of it, though worker-1 comes first.
    id=$(sed 's/z1/z3/; s/maker/maker3/' maker.yaml | athanor submit - --ids)
    athanor wait "$id" || told "$id"
    sed "s/job:$maker/job:maker3/; /constraint/d" reader.yaml | athanor submit - --wait --ids >near
    [ "$(sql "SELECT worker FROM athanor.runs WHERE job_id = $(head -1 near)")" = worker-3 ]
    damage "$ATHANOR_HOME/own-1/jobs/$maker/checkpoints/one/weights" 2500000
    athanor submit reader.yaml --wait >/dev/null # what was copied is still whole
    damage "$(grep -l "^from maker$" -r "$ATHANOR_HOME"/own-2/copies)" 3
    id=$(athanor submit reader.yaml --ids)
    run athanor wait "$id"
    [ "$status" -eq 1 ] || { echo "$output"; told "$id"; }
    sql "SELECT evidence FROM athanor.runs WHERE job_id = $id" | grep -q "from 'worker-1': its file 'weights' has another hash"
}

# FILE OFFSET: another byte than is there, whatever that is
damage() {
    local byte; byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    printf "\\$(printf %03o $(((byte + 1) % 256)))" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}

trained() { # ZONE: reads the dataset that was made on worker-1
    cat <<Y
athanor: 1
name: trained-$1
kind: pretraining
recipe: clm
constraint: {zone: $1}
resources: {memory: 512MiB}
inputs: {data: dataset:moved/train, valid: dataset:moved/valid}
params: {steps: 2, batch: 2, context: 16, layers: 1, d_model: 16, heads: 2, eval_every: 2}
Y
}

@test "a dataset of another worker is fetched, checked by hash and trained on; a damaged shard is named" {
    cat >data.yaml <<Y
athanor: 1
name: data
kind: data
recipe: text
constraint: {zone: z1}
resources: {memory: 512MiB}
params: {name: moved, files: [/usr/share/common-licenses/GPL-3, /usr/share/common-licenses/MPL-2.0], min_bytes: 20, vocab_size: 300}
Y
    data=$(athanor submit data.yaml --ids)
    athanor wait "$data" || { athanor logs "$data"; false; }
    [ "$(sql "SELECT worker FROM athanor.artifacts WHERE job_id = $data")" = worker-1 ]
    id=$(trained z2 | athanor submit - --ids)
    athanor wait "$id" || { cat "$ATHANOR_HOME"/own-*.log; athanor logs "$id"; athanor show "$id"; false; }
    [ "$(sql "SELECT count(*) FROM athanor.lineages l JOIN athanor.artifacts a USING (artifact_id) WHERE l.job_id = $id AND l.content_hash = a.content_hash")" = 2 ]
    until_true 20 copies_are_kept 2
    folder=$(sql "SELECT path FROM athanor.artifacts WHERE job_id = $data")
    cp "$folder/dataset.json" whole.json
    shard=$(jq -r '.parts.train.shards[0]' "$folder/dataset.json")
    damage "$folder/$shard" 500
    damage "$(ls -d "$ATHANOR_HOME"/own-2/copies/*/"$shard")" 500
    id=$(trained z2 | athanor submit - --ids)
    run athanor wait "$id"
    [ "$status" -eq 1 ]
    sql "SELECT evidence FROM athanor.runs WHERE job_id = $id" | grep -q "^dataset .* from 'worker-1': its file '$shard' has another hash"
}

@test "a dataset without hashes of its files is used where it lies, and refused elsewhere with the reason" {
    cat >bare.sh <<'S'
set -e
mkdir -p "$ATHANOR_JOB_DIR/bare"
echo '{"format": 1, "name": "bare"}' >"$ATHANOR_JOB_DIR/bare/dataset.json"
athanor report artifact --kind dataset bare "$ATHANOR_JOB_DIR/bare"
S
    printf 'athanor: 1\nname: bare\nkind: command\ncommand: [sh, %s]\nenv: {PATH: "%s"}\nconstraint: {zone: z1}\n' "$PWD/bare.sh" "$PATH" >bare.yaml
    athanor wait "$(athanor submit bare.yaml --ids)"
    for zone in z1 z2; do
        printf 'athanor: 1\nname: reads\nkind: command\ncommand: [sh, -c, "cat $ATHANOR_INPUT_DATA/dataset.json"]\nconstraint: {zone: %s}\ninputs: {data: dataset:bare}\n' $zone >reads.yaml
        athanor submit reads.yaml --ids >"$zone"
    done
    athanor wait "$(cat z1)"
    run athanor wait "$(cat z2)"
    [ "$status" -eq 1 ]
    sql "SELECT evidence FROM athanor.runs WHERE job_id = $(cat z2)" | grep -q "its dataset.json lists no files with their hashes"
}

runs_of() { # JOB: "worker cause" of each run
    sql "SELECT worker || ' ' || coalesce(cause, '') FROM athanor.runs WHERE job_id = $1 ORDER BY number"
}

@test "copies are sources: the maker and its disk go for good, and the retry resumes from a copy" {
    cat >chain.sh <<S
if [ -z "\$ATHANOR_RESUME" ]; then
    mkdir -p "\$ATHANOR_JOB_DIR/one"
    head -c 3000000 /dev/urandom >"\$ATHANOR_JOB_DIR/one/weights"
    athanor report checkpoint --step 3 "\$ATHANOR_JOB_DIR/one"
    exit 3
fi
echo "resumed with \$(wc -c <"\$ATHANOR_RESUME/weights") bytes"
[ ! -e $PWD/end ] || exit 0
until [ -e $PWD/go ]; do sleep 0.1; done
exit 3
S
    printf 'athanor: 1\nname: chain\nkind: command\ncommand: [sh, %s]\nenv: {PATH: "%s"}\nretry: {attempts: 5, on: [exit], backoff: 0s, elsewhere: true}\n' "$PWD/chain.sh" "$PATH" >chain.yaml
    id=$(athanor submit chain.yaml --ids)
    until_true 30 sql_is "SELECT count(*) FROM athanor.runs WHERE job_id = $id AND state = 'RUNNING' AND number = 2" 1 || { cat "$ATHANOR_HOME"/own-*.log; athanor show "$id"; false; }
    maker=$(sql "SELECT worker FROM athanor.runs WHERE job_id = $id AND number = 1")
    second=$(sql "SELECT worker FROM athanor.runs WHERE job_id = $id AND number = 2")
    [ "$(sql "SELECT fetched_from || ' ' || (fetched_bytes > 3000000) || ' ' || copies_on::text FROM athanor.reads WHERE job_id = $id AND input = 'resume'")" = "$maker true {$second}" ]
    kill -KILL "$(cat "$ATHANOR_HOME/own-${maker#worker-}.pid")"
    find "$ATHANOR_HOME/own-${maker#worker-}" -mindepth 1 -delete # the folder is a mount point of others
    athanor drain "$maker"
    : >end; : >go
    athanor wait "$id" --timeout 90s || { cat "$ATHANOR_HOME"/own-*.log; athanor show "$id"; false; }
    third=$(sql "SELECT worker FROM athanor.runs WHERE job_id = $id AND number = 3")
    [ "$third" != "$maker" ] && [ "$third" != "$second" ]
    athanor logs "$id" | grep -q '^resumed with 3000000 bytes$'
    [ "$(sql "SELECT fetched_from FROM athanor.reads WHERE job_id = $id AND worker = '$third'")" = "$second" ]
    [ "$(sql "SELECT count(*) FROM athanor.copies WHERE job_id = $id AND name = 'step 3' AND removed_at IS NULL")" = 2 ]

    # The maker comes back with nothing: it has what it made from a copy, though another one is bad.
    worker_start "${maker#worker-}"
    until_true 20 sql_is "SELECT state FROM athanor.workers WHERE name = '$maker'" OK
    athanor undrain "$maker"
    spoiled() { ls -d "$ATHANOR_HOME/own-${1#worker-}/copies"/*/weights; }
    for holder in "$second" "$third"; do
        for copy in $(spoiled "$holder"); do damage "$copy" 7; done
        printf 'athanor: 1\nname: back\nkind: command\ncommand: [sh, -c, "cat $ATHANOR_INPUT_MODEL/weights | wc -c"]\nconstraint: {zone: z%s}\ninputs: {model: "job:%s/checkpoint:last"}\n' "${maker#worker-}" "$id" >back.yaml
        back=$(athanor submit back.yaml --ids)
        run athanor wait "$back"
        [ "$holder" = "$third" ] || { [ "$status" -eq 0 ]; damage "$(spoiled "$maker")" 7; }
    done
    [ "$status" -eq 1 ] # every source is bad, and each is named
    evidence=$(sql "SELECT evidence FROM athanor.runs WHERE job_id = $back")
    for holder in "$second" "$third"; do
        grep -q "from '$holder': its file 'weights' has another hash" <<<"$evidence"
    done
    # Copies go with what they are copies of.
    athanor gc --all --json | jq -e --argjson job "$id" 'map(select(.kind == "copy" and .job_id == $job and .why == "what it is a copy of stays")) | length >= 2'
    athanor gc --kind checkpoint --older-than 0s | grep -Eq 'copies [1-9]'
    until_true 20 sql_is "SELECT count(*) FROM athanor.removals WHERE kind = 'copy' AND done_at IS NULL" 0
    [ -z "$(find "$ATHANOR_HOME"/own-*/copies -name weights)" ]
    [ "$(sql "SELECT count(*) FROM athanor.copies WHERE kind = 'checkpoint' AND removed_at IS NULL")" = 0 ]
}

@test "a resume point whose only source is bad ends as stale_checkpoint, and the one before is used" {
    cat >torn.sh <<'S'
[ -z "$ATHANOR_RESUME" ] || { echo "resumed $(cat "$ATHANOR_RESUME/word")"; exit 0; }
for step in 3 5; do
    mkdir -p "$ATHANOR_JOB_DIR/$step"
    echo "step $step" >"$ATHANOR_JOB_DIR/$step/word"
    athanor report checkpoint --step $step "$ATHANOR_JOB_DIR/$step"
done
echo "what 5?" >"$ATHANOR_JOB_DIR/5/word"
exit 3
S
    printf 'athanor: 1\nname: torn\nkind: command\ncommand: [sh, %s]\nenv: {PATH: "%s"}\nretry: {attempts: 2, on: [exit], backoff: 0s, elsewhere: true}\n' "$PWD/torn.sh" "$PATH" >torn.yaml
    id=$(athanor submit torn.yaml --ids)
    athanor wait "$id" --timeout 60s || { cat "$ATHANOR_HOME"/own-*.log; athanor show "$id"; false; }
    [ "$(runs_of "$id" | cut -d' ' -f2 | paste -sd' ')" = "exit stale_checkpoint success" ] || { runs_of "$id"; athanor show "$id"; false; }
    [ "$(athanor logs "$id" | grep resumed)" = "resumed step 3" ]
    sql "SELECT evidence FROM athanor.runs WHERE job_id = $id AND number = 2" | grep -q "^checkpoint .* is not on this worker, and from 'worker-.': its file 'word' has another size"
}

@test "what nothing needs is removed by its worker, whole, also when that is killed meanwhile" {
    cat >many.sh <<'S'
set -e
folder=$ATHANOR_JOB_DIR/checkpoints/many
mkdir -p "$folder"
(cd "$folder" && seq 2000 | xargs touch)
athanor report checkpoint --step 1 "$folder"
mkdir "$ATHANOR_JOB_DIR/set"
echo "{}" >"$ATHANOR_JOB_DIR/set/dataset.json"
athanor report artifact --kind dataset gone "$ATHANOR_JOB_DIR/set"
S
    printf 'athanor: 1\nname: many\nkind: command\ncommand: [sh, %s]\nenv: {PATH: "%s"}\nconstraint: {zone: z1}\nretention: {artifacts: 1s}\n' "$PWD/many.sh" "$PATH" >many.yaml
    many=$(athanor submit many.yaml --ids)
    athanor wait "$many"
    printf 'athanor: 1\nname: child\nkind: command\ncommand: ["true"]\nhold: true\ninputs: {model: "job:%s/checkpoint:last"}\n' "$many" >child.yaml
    child=$(athanor submit child.yaml --ids)
    # A job that waits keeps what it reads, and all of its maker's; the rest says why it stays.
    athanor gc --all --kind checkpoint --older-than 0s --json >stays.json
    jq -e --argjson job "$many" '.[] | select(.job_id == $job) | .goes == false and (.why | test("^job [0-9]+, or one that descends"))' stays.json
    athanor gc
    [ -e "$ATHANOR_HOME/own-1/jobs/$many/set" ]
    athanor cancel "$child"
    until_true 10 sql_is "SELECT count(*) FROM athanor.jobs WHERE job_id = $child AND state = 'CANCELLED'" 1
    gc_lists() { [ "$(athanor gc --dry-run --json | jq -r '.[].job_id')" = "$many" ]; }
    until_true 10 gc_lists # its second is over: the policy of its spec
    athanor gc | grep -q '^removed: code 0, checkpoints 0, artifacts 1,'
    until_true 10 test ! -e "$ATHANOR_HOME/own-1/jobs/$many/set"
    # The checkpoint: an operator says so. The daemon is killed as soon as it has begun.
    athanor gc --kind checkpoint --older-than 0s | grep -q '^removed: code 0, checkpoints '
    until_true 10 test ! -e "$ATHANOR_HOME/own-1/jobs/$many/checkpoints/many"
    kill -KILL "$(cat "$ATHANOR_HOME/own-1.pid")"
    worker_start 1
    until_true 30 sql_is "SELECT count(*) FROM athanor.removals WHERE done_at IS NULL AND worker = 'worker-1'" 0 || { sql 'SELECT * FROM athanor.removals'; tail -20 "$ATHANOR_HOME"/own-1.log; false; }
    [ -z "$(ls -A "$ATHANOR_HOME/own-1/jobs" | grep removing)" ]
    [ ! -e "$ATHANOR_HOME/own-1/jobs/$many" ] # nothing of it is left
    run athanor submit child.yaml
    [ "$status" -ne 0 ]
}
