# jobs.bash - what people submit while everything fails. Sourced by ../chaos.sh.
#
# Who did what is written down beside the database, in $ledger, and judged against it (judge.sql):
#   expects KIND NAME             before a job is submitted; the kind says how it must end
#   accepted NUMBER               a job that a client was told of
#   saw STATUS KIND NUMBER...     the exit status of `athanor wait`
#   ran NAME ATTEMPT              by a program at its very end
#   resumed NAME ATTEMPT STEP     by a program that saves, at its beginning

# The first fill the cluster until enough of them had to make room (gate); then all kinds by turns.
first_savers=8
kinds=(urgent plain gang array urgent fails saver plain chain again sweep urgent reports cancelled gang twice)

note() { echo "$*" >>"$ledger"; }

spec_head() { # LINE...
    printf '%s\n' 'athanor: 1' 'experiment: chaos' "$@"
}

fields='limits: {wall_time: 20m, stop_grace: 5s}
retry: {attempts: 50, on: [worker_lost, shepherd_lost, preempted], backoff: 200ms}'
ended_well='echo ran $ATHANOR_JOB_NAME $ATHANOR_ATTEMPT_ID >>'

command_spec() { # NAME SHELL [LINE...]
    local name=$1 shell=$2; shift 2
    spec_head "name: $name" 'kind: command' "command: [sh, -c, \"$shell\"]" "$fields" \
        'resources: {memory: 16MiB}' "$@"
}

saver_spec() { # NAME STEPS [GATE]
    spec_head "name: $1" 'kind: command' 'queue: low' "$fields" 'resources: {memory: 64MiB}' \
        'checkpoint: {keep: last 2}' "command: [python3, $parts/saver.py, \"$2\", $ledger${3:+, $3}]"
}

gang_spec() { # NAME NUMBER: two ranks on one node, two on two, three on three, three on two
    local shapes=('ranks: 2, nodes: 1' 'ranks: 2, nodes: 2' 'ranks: 3, nodes: 3' 'ranks: 3, nodes: 2')
    spec_head "name: $1" 'kind: command' "command: [$ATHANOR_HOME/meet, $ledger]" "$fields" \
        "resources: {${shapes[$2 / 7 % 4]}, memory: 128MiB}"
}

chain_spec() { # NAME
    local link before=
    spec_head "name: $1" "defaults: {resources: {memory: 16MiB}, retry: {attempts: 50, backoff: 200ms}}" 'jobs:'
    for link in a b c; do
        printf '  %s-%s: {kind: command, command: [sh, -c, "sleep 0.1; %s%s"]%s}\n' "$1" $link "$ended_well" "$ledger" \
            "${before:+, needs: [$1-$before]}"
        before=$link
    done
}

report="$build/bin/athanor report metric"
sweep_spec() { # NAME asha|grid
    command_spec "$1" "for i in 1 2 3 4 5 6; do $report loss=\$LOSS --step \$i || exit 9; sleep 0.1; done; $ended_well$ledger"
    printf 'sweep: {method: %s, at_once: 3, metric: loss, over: {env.LOSS: ["4", "2", "6", "1", "3", "5"]}%s}\n' "$2" \
        "$([ "$2" != asha ] || echo ', seed: 3, min_resource: 1, max_resource: 6, reduction: 2')"
}

expect_each() { # KIND NAME SUFFIX...
    local kind=$1 name=$2 suffix; shift 2
    for suffix; do note expects "$kind" "$name$suffix"; done
}

# What is known of a job before it is submitted, and its spec.
make_spec() { # KIND NAME NUMBER
    local name=$2 n=$3 method=asha
    case $1 in
        sweep)
            [ $(((n - first_savers) / ${#kinds[@]} % 2)) = 0 ] || method=grid
            expect_each $method "$name" -t0 -t1 -t2 -t3 -t4 -t5 ;;
        array) expect_each array "$name" -0 -1 -2 -3 ;;
        chain) expect_each chain "$name" -a -b -c ;;
        *) expect_each "$1" "$name" '' ;;
    esac
    case $1 in
        first) saver_spec "$name" 10 "$ATHANOR_HOME/gate" ;;
        saver) saver_spec "$name" $((10 + n % 30)) ;;
        urgent) command_spec "$name" "sleep 0.2; $ended_well$ledger" 'queue: high' |
            sed 's/^resources: {/&cores: 2, /' ;;
        plain | twice) command_spec "$name" "sleep 0.$((n % 9)); echo said \$ATHANOR_JOB_NAME; $ended_well$ledger" "priority: $((n % 5))" ;;
        fails) command_spec "$name" 'sleep 0.1; exit 3' ;;
        cancelled) command_spec "$name" 'exec sleep 3600' ;;
        again) command_spec "$name" "[ -e \$ATHANOR_JOB_DIR/seen ] || { touch \$ATHANOR_JOB_DIR/seen; exit 7; }; $ended_well$ledger" |
            sed 's/on: \[/on: [exit, /' ;;
        reports) command_spec "$name" "for i in 1 2 3 4 5 6 7 8 9 10; do $report loss=\$i --step \$i || exit 9; done; $ended_well$ledger" ;;
        array) command_spec "$name" "sleep 0.1; $ended_well$ledger" 'array: {count: 4, at_once: 2}' ;;
        gang) gang_spec "$name" "$n" ;;
        chain) chain_spec "$name" ;;
        sweep) sweep_spec "$name" $method ;;
    esac >"$ATHANOR_HOME/specs/$name.yaml"
}

# Numbers into ids[]; retried by the client itself while nobody leads.
submit_spec() { # NAME [OPTION...]
    local name=$1 text; shift
    text=$(client submit "$ATHANOR_HOME/specs/$name.yaml" --ids "$@" 2>>"$ATHANOR_HOME/log/submit") ||
        { echo "WRONG: submit of $name failed: $(tail -1 "$ATHANOR_HOME/log/submit")"; return 1; }
    ids=($text)
    printf 'accepted %s\n' "${ids[@]}" >>"$ledger"
}

submit_kind() { # KIND NUMBER
    local kind=$1 name=$1-$2 key
    make_spec "$kind" "$name" "$2"
    case $kind in
        twice) # a client that is killed while it waits, and asks the same again
            key=$(printf %032x $((seed * 1000 + $2)))
            impatient="timeout -s KILL 0.$((1 + $2 % 5))" client submit "$ATHANOR_HOME/specs/$name.yaml" \
                --submit-key "$key" >/dev/null 2>&1 || true
            submit_spec "$name" --submit-key "$key" ;;
        cancelled)
            submit_spec "$name"
            client cancel "${ids[0]}" >/dev/null 2>>"$ATHANOR_HOME/log/submit" ||
                { echo "WRONG: cancel of $name failed: $(tail -1 "$ATHANOR_HOME/log/submit")"; return 1; } ;;
        *) submit_spec "$name" ;;
    esac
    case $kind in
        fails) bad+=("${ids[@]}") ;;
        plain | twice | urgent | reports | array | chain | gang) good+=("${ids[@]}") ;;
    esac
}

kind_of() { # NUMBER
    if [ "$1" -lt $first_savers ]; then echo first; else echo "${kinds[($1 - first_savers) % ${#kinds[@]}]}"; fi
}

# One of several people: every COUNT-th spec, and then they wait for what they submitted.
person() { # FIRST COUNT PAUSE-MS
    local i good=() bad=() ids status rc=0
    for ((i = $1; i < jobs; i += $2)); do
        submit_kind "$(kind_of $i)" $i || rc=1
        nap "$3"
    done
    for kind in good bad; do
        local -n numbers=$kind
        [ ${#numbers[@]} -gt 0 ] || continue
        status=0
        client wait "${numbers[@]}" >>"$ATHANOR_HOME/log/wait" 2>&1 || status=$?
        note saw $status $kind "${numbers[@]}"
    done
    return $rc
}

had_to_make_room() { sql_is "SELECT count(*) >= $1 FROM athanor.runs WHERE cause = 'preempted'" t; } # TIMES

configure() { # who may take whose place; a point of a job's own priority is 1000 of a queue's
    client queue set low --priority -100000 >/dev/null
    client queue set high --priority 100000 --preemption 10 --evicts true --evictable false >/dev/null
    client queue set default --evictable false >/dev/null
}

train_specs() { # a small model, on one node and on two, kept from ending by nothing that happens here
    awk 'BEGIN { srand(7); split("cat dog bird fish fox hen", n); split("sees eats likes finds", v)
        for (i = 0; i < 4000; i++) printf "the %s %s the %s\n\n", n[1+int(rand()*6)], v[1+int(rand()*4)], n[1+int(rand()*6)] }' >"$ATHANOR_HOME/corpus.txt"
    sed "s|@corpus@|$ATHANOR_HOME/corpus.txt|" "$specs/kill-data.yaml" >"$ATHANOR_HOME/specs/grammar.yaml"
    cp "$specs/kill-train.yaml" "$ATHANOR_HOME/specs/train.yaml"
    expect_each train '' grammar train-one train-two train-grid-t0 train-grid-t1 train-grid-t2
    local ids lasting=(--set retry.attempts=50 --set 'retry.on=[worker_lost, shepherd_lost, preempted]' --set retry.backoff=200ms)
    submit_spec grammar "${lasting[@]}"
    submit_spec train "${lasting[@]}" --set name=train-one --set queue=low --set limits.stop_grace=10s
    submit_spec train "${lasting[@]}" --set name=train-two --set queue=low --set limits.stop_grace=10s --set resources.nodes=2
    submit_spec train "${lasting[@]}" --set name=train-grid --set params.steps=40 --set resources.ranks=1 \
        --set 'sweep={method: grid, metric: loss, at_once: 2, over: {params.learning_rate: [1e-4, 1e-3, 1e-2]}}'
}
