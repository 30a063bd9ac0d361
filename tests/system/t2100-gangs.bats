#!/usr/bin/env bats
# Attempts on several nodes: MPI ranks that find each other through the links of their shepherds.

setup_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_home
    cluster_up --workers 3 --cores 2
    corpus=$BATS_FILE_TMPDIR/corpus.txt
    awk 'BEGIN { srand(7); split("cat dog bird fish fox hen", n); split("sees eats likes finds", v)
        for (i = 0; i < 4000; i++) printf "the %s %s the %s\n\n", n[1+int(rand()*6)], v[1+int(rand()*4)], n[1+int(rand()*6)] }' >"$corpus"
    sed "s|@corpus@|$corpus|" "$specs/kill-data.yaml" >"$BATS_FILE_TMPDIR/data.yaml"
    athanor wait "$(athanor submit "$BATS_FILE_TMPDIR/data.yaml" --ids)"
    id=$(athanor submit "$specs/kill-train.yaml" --set name=undisturbed --ids)
    athanor wait "$id"
    echo "$id" >"$BATS_FILE_TMPDIR/undisturbed"
}

teardown_file() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cluster_down
}

setup() {
    source "$BATS_TEST_DIRNAME/cluster.bash"
    cd "$BATS_TEST_TMPDIR"
    undisturbed=$(cat "$BATS_FILE_TMPDIR/undisturbed")
}

series() {
    sql "SELECT step || ' ' || value FROM athanor.series WHERE job_id = $1 AND name = 'loss' AND rank = 0 ORDER BY step"
}

same_as_undisturbed() {
    [ "$(job_state "$1")" = SUCCEEDED ]
    [ -n "$(series "$1")" ]
    [ "$(series "$1")" = "$(series "$undisturbed")" ]
}

of_job() { # PID JOB
    tr '\0' '\n' <"/proc/$1/environ" 2>/dev/null | grep -q "^ATHANOR_JOB_DIR=$ATHANOR_HOME/.*/$2\$"
}

no_process_of_job() {
    local folder
    for folder in /proc/[0-9]*; do
        ! of_job "${folder#/proc/}" "$1" || return 1
    done
}

node_pid() { # JOB NODE rank|shepherd: of the newest attempt
    local key=pid
    [ "$3" = rank ] || key=shepherd_pid
    sql "SELECT placement->>'$key' FROM athanor.run_nodes WHERE job_id = $1 AND node = $2 ORDER BY attempt_id DESC LIMIT 1"
}

start_training() { # NAME: submits on two nodes and waits until a checkpoint is there
    id=$(athanor submit "$specs/kill-train.yaml" --set "name=$1" --set resources.nodes=2 --ids)
    until_true 90 sql_is "SELECT count(*) > 0 FROM athanor.checkpoints WHERE job_id = $id" t
}

@test "ranks on three nodes see each other" {
    command -v mpicc >/dev/null || skip "mpicc is not installed"
    mpicc -o hello_mpi "$specs/hello_mpi.c"
    cat >job.yaml <<Y
athanor: 1
name: three
kind: command
command: [$PWD/hello_mpi]
resources: {ranks: 3, cores: 1, nodes: 3}
Y
    id=$(athanor submit job.yaml --ids)
    athanor wait "$id"
    [ "$(job_state "$id")" = SUCCEEDED ]
    for rank in 0 1 2; do
        athanor logs "$id" --rank $rank | grep -q "rank $rank of 3, sum 3"
    done
    [ "$(sql "SELECT count(DISTINCT worker) FROM athanor.run_nodes WHERE job_id = $id")" = 3 ]
}

@test "an MPI program that knows nothing of Athanor runs over three nodes" {
    command -v hpcc >/dev/null || skip "hpcc is not installed"
    sed -e 's/^1000 /60 /; s/^2            Ps/1            Ps/; s/^2            Qs/3            Qs/' \
        -e 's/^1200 10000 30000/60/' /usr/share/doc/hpcc/examples/_hpccinf.txt >hpccinf.txt
    cat >job.yaml <<Y
athanor: 1
name: hpcc
kind: command
command: [sh, -c, "cp $PWD/hpccinf.txt . && hpcc && { [ \$RANK != 0 ] || cat hpccoutf.txt; }"]
resources: {ranks: 3, cores: 1, nodes: 3}
env: {PATH: "$PATH"}
Y
    id=$(athanor submit job.yaml --ids)
    athanor wait "$id"
    athanor logs "$id" --rank 0 >out
    grep -q '^CommWorldProcs=3' out
    grep -q '^Success=1' out
}

@test "programs without MPI find node 0 through the variables that torch reads" {
    cat >job.yaml <<Y
athanor: 1
name: torch-style
kind: command
launcher: fork
command: [python3, $specs/torch_style.py]
resources: {ranks: 3, cores: 1, nodes: 3}
env: {PATH: "$PATH"}
Y
    id=$(athanor submit job.yaml --ids)
    athanor wait "$id"
    athanor logs "$id" --rank 0 | grep -qF "['1@1', '2@2']"
}

@test "ranks ask ranks of other nodes for what no fence has carried" {
    pkg-config --exists pmix || skip "libpmix-dev is not installed"
    cc -o modex "$specs/modex_pmix.c" $(pkg-config --cflags --libs pmix)
    cat >job.yaml <<Y
athanor: 1
name: modex
kind: command
command: [$PWD/modex]
resources: {ranks: 6, cores: 1, nodes: 3}
Y
    id=$(athanor submit job.yaml --ids)
    athanor wait "$id"
    [ "$(athanor logs "$id" | grep -c 'has 6 words of 6')" = 6 ]
}

@test "a PyTorch program trains over two workers through Gloo" {
    /usr/bin/python3 -c 'import torch' 2>/dev/null || skip "python3-torch is not installed"
    [ -z "${ASAN_OPTIONS:-}" ] || skip "PyTorch is not ours to look at"
    cat >job.yaml <<Y
athanor: 1
name: gloo
kind: command
command: [/usr/bin/python3, $specs/torch_gloo.py]
resources: {ranks: 2, cores: 1, nodes: 2, memory: 2GiB}
Y
    id=$(athanor submit job.yaml --ids)
    athanor wait "$id"
    [ "$(athanor logs "$id" | grep -c 'of 2 .*: sum 3, weights as of one process')" = 2 ]
}

@test "two nodes train to the same bits as one node with two ranks" {
    id=$(athanor submit "$specs/kill-train.yaml" --set name=spread --set resources.nodes=2 --ids)
    athanor wait "$id"
    same_as_undisturbed "$id"
    [ "$(sql "SELECT count(*) FROM athanor.run_nodes WHERE job_id = $id")" = 2 ]
}

@test "kill -9 of a rank on node 1: cause signal everywhere, retry resumes, same result" {
    start_training rank-killed
    kill -9 "$(node_pid "$id" 1 rank)"
    athanor wait "$id"
    [ "$(sql "SELECT cause FROM athanor.runs WHERE job_id = $id ORDER BY number LIMIT 1")" = signal ]
    [ "$(sql "SELECT resume_step > 0 FROM athanor.runs WHERE job_id = $id AND number = 2")" = t ]
    same_as_undisturbed "$id"
    no_process_of_job "$id"
}

@test "kill -9 of a shepherd: the attempt ends everywhere, the retry has the same result" {
    start_training shepherd-killed
    kill -9 "$(node_pid "$id" 1 shepherd)"
    athanor wait "$id"
    [ "$(sql "SELECT cause FROM athanor.runs WHERE job_id = $id ORDER BY number LIMIT 1")" = shepherd_lost ]
    same_as_undisturbed "$id"
    no_process_of_job "$id"
}

@test "kill -9 of two daemons does not disturb an attempt on their nodes" {
    start_training daemons-killed
    kill -9 "$(pid_of worker-1)" "$(pid_of worker-2)"
    athanor up >/dev/null
    athanor wait "$id"
    same_as_undisturbed "$id"
    [ "$(sql "SELECT count(*) FROM athanor.runs WHERE job_id = $id")" = 1 ]
}
